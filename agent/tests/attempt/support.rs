//! What the tests share: a place, a plan, named pipes to meet a step at, and this program in its other roles. No expectations.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use agent::attempt::{Attempt, AttemptEnd, AttemptState, Exit, Plan, PrepareError, Settled, ShimCommand, boot_id};
use messages::limits::LOG_BYTES_DEFAULT;
use messages::{LogStream, Program};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

/// A folder for one test, with the files of one attempt in it.
pub(crate) struct Place {
    pub(crate) root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What the names of the attempt's files begin with.
    pub(crate) fn stem(&self) -> PathBuf {
        self.path("attempt")
    }

    /// The attempt's file of that name.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path(&format!("attempt.{name}"))
    }

    /// A named pipe, as a place to meet.
    pub(crate) fn pipe(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        path
    }

    pub(crate) fn shell(&self, script: &str) -> Plan {
        self.plan(Program::Shell(script.to_owned()))
    }

    /// That program in this place, which it knows as `$PLACE`.
    pub(crate) fn plan(&self, program: Program) -> Plan {
        let place = self.root.path().to_str().unwrap().to_owned();
        Plan {
            program,
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("PLACE".into(), place)]),
            dir: self.root.path().to_owned(),
            timeout_ms: None,
            output_bytes_max: LOG_BYTES_DEFAULT,
            run_as: None,
            memory_bytes_max: None,
            group: None,
            hands_on: false,
        }
    }

    pub(crate) fn prepare(&self, plan: &Plan) -> Attempt {
        prepare(&self.stem(), plan).unwrap()
    }

    pub(crate) fn launch(&self, plan: &Plan) -> Attempt {
        let attempt = self.prepare(plan);
        attempt.launch(&shim()).unwrap();
        attempt
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, plan: &Plan) -> (Attempt, Exit) {
        let attempt = self.launch(plan);
        let exit = ended(&attempt);
        (attempt, exit)
    }
}

/// Prepares an attempt in a folder that is there for good.
pub(crate) fn prepare(stem: &Path, plan: &Plan) -> Result<Attempt, PrepareError> {
    Attempt::prepare(stem, plan, &mut Settled::folder(stem.parent().unwrap()))
}

pub(crate) fn shim() -> ShimCommand {
    ShimCommand::new("/proc/self/exe", [crate::SHIM])
}

/// Waits until the shim is gone and expects a record of the end.
pub(crate) fn ended(attempt: &Attempt) -> Exit {
    match attempt.wait_blocking(boot_id().unwrap()).unwrap() {
        AttemptState::Ended(exit) => *exit,
        other => panic!("expected an end, found {other:?}; {}", shim_errors(attempt)),
    }
}

/// Where the mark of the beginning and the record of the end are in the record of an attempt, and its plan, with its length in front.
pub(crate) const STARTED_AT: u64 = 0;
pub(crate) const EXIT_AT: u64 = 4096;
pub(crate) const PLAN_AT: u64 = 12_288;

/// What is behind the plan and the zeros in place of its program, or in its place.
pub(crate) fn shim_errors(attempt: &Attempt) -> String {
    let record = fs::read(attempt.file("record")).unwrap_or_default();
    let last = record.get(PLAN_AT as usize..).unwrap_or_default();
    let behind_plan = last
        .split_first_chunk()
        .and_then(|(length, rest)| rest.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..));
    String::from_utf8_lossy(behind_plan.unwrap_or(last)).trim_start_matches('\0').to_owned()
}

pub(crate) fn state(attempt: &Attempt) -> AttemptState {
    attempt.state(boot_id().unwrap()).unwrap()
}

pub(crate) fn output(attempt: &Attempt, stream: LogStream) -> String {
    match fs::read(attempt.output(stream)) {
        // Nothing came.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        bytes => String::from_utf8(bytes.unwrap()).unwrap(),
    }
}

/// Meets the step at a pipe that it writes to, and says what it wrote.
pub(crate) fn hear(pipe: &Path) -> String {
    fs::read_to_string(pipe).unwrap().trim().to_owned()
}

/// Meets the step at a pipe that it reads from, and lets it go on.
pub(crate) fn let_go(pipe: &Path) {
    OpenOptions::new().write(true).open(pipe).unwrap().write_all(b"go\n").unwrap();
}

/// After this a test fails that would otherwise wait for ever. Nothing here takes a hundredth of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// A named pipe that a step's processes hold open for as long as they live: how a test knows whether they are gone.
pub(crate) struct Held {
    path: PathBuf,
    // Open for both, so that no opening of the pipe waits for the other end.
    guard: File,
}

impl Held {
    pub(crate) fn new(place: &Place, name: &str) -> Self {
        let path = place.pipe(name);
        let guard = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Self { path, guard }
    }

    /// What was written, once nobody holds it. A killed process lets go only when the kernel gets to it, so this waits for
    /// that, up to [`PATIENCE`].
    pub(crate) fn after_all_are_gone(self) -> String {
        let mut reader = File::open(self.path).unwrap();
        drop(self.guard);
        let (sender, gone) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            sender.send(reader.read_to_string(&mut text).map(|_| text))
        });
        gone.recv_timeout(PATIENCE).expect("no process of the step is left to hold the pipe").unwrap()
    }
}

pub(crate) fn not_started_reason(exit: &Exit) -> &str {
    match &exit.end {
        AttemptEnd::NotStarted(reason) => reason,
        other => panic!("expected a step that was not started, found {other:?}"),
    }
}

/// This program in another role, its output piped.
pub(crate) fn role(role: &str, stem: &Path) -> Child {
    let own = std::env::current_exe().unwrap();
    Command::new(own)
        .arg(role)
        .arg(stem)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The role of an agent that is going to be killed.
pub(crate) fn launch_and_stay(stem: &Path) -> ExitCode {
    Attempt::open(stem).unwrap().launch(&shim()).unwrap();
    println!("launched");
    loop {
        thread::park();
    }
}

/// The role of the agent that comes after it.
pub(crate) fn wait_and_print(stem: &Path) -> ExitCode {
    let attempt = Attempt::open(stem).unwrap();
    let exit = ended(&attempt);
    println!("{:?} {}", exit.end, output(&attempt, LogStream::Stdout).trim());
    ExitCode::SUCCESS
}
