//! Losses of power around attempts, from recorded calls. A small agent with real shims works under strace; at each sync, before it
//! takes effect, the disk is left as a loss of power may leave it, in many ways. In each, a step that had begun must look begun, one
//! whose end was seen must have ended so, with its outputs, and one that had not begun must run when it is prepared again.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use agent::attempt::{Attempt, AttemptEnd, AttemptState, BootId, Plan, Settled, ShimCommand, boot_id};
use messages::limits::LOG_BYTES_DEFAULT;
use messages::{Digest, Program};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::power_loss::disk::{Disk, Tree, read, write};
use crate::power_loss::losses::losses;
use crate::power_loss::recording::{Moment, replay};
use crate::power_loss::strace;
use crate::support::{Place, ended, shim};

pub(crate) const TESTS: [(&str, fn()); 2] = [
    ("no_loss_of_power_makes_a_step_look_as_if_it_had_not_begun_or_loses_its_end", trials),
    ("a_failed_sync_of_what_a_step_hands_on_is_in_the_record_of_its_end", unsynced),
];

/// Where the agent's folder is on the recorded disk: in folders that it must make.
const AGENT: &str = "var/lib/agent";
/// The attempts that the agent goes through: run, step, number. Names are new at both levels, or at the last alone.
const ATTEMPTS: [(&str, &str, &str); 4] =
    [("r1", "one", "1"), ("r1", "one", "2"), ("r1", "two", "1"), ("r2", "one", "1")];
/// What a step hands on.
const HANDED_ON: &str = "value=1\n";
/// Beside nothing and everything, so many losses are tried at each moment.
const OTHERS: usize = 40;
/// Agents, or shims, that are killed at their sync of that number; another agent goes on. The first attempt alone has as many as this.
const KILLED: u64 = 6;
/// A folder in memory, where a sync costs nothing: whether these files survive is not what is tried here.
const IN_MEMORY: &str = "/dev/shm";

fn runs(root: &Path) -> PathBuf {
    root.join(AGENT).join("runs")
}

fn attempt_stem(root: &Path, (run, step, number): (&str, &str, &str)) -> PathBuf {
    runs(root).join(run).join(format!("{step}.{number}"))
}

fn folder() -> TempDir {
    tempfile::tempdir_in(IN_MEMORY).or_else(|_| tempfile::tempdir()).unwrap()
}

/// As the agent prepares an attempt: the folders above first, without a sync.
fn prepare(root: &Path, name: (&str, &str, &str), settled: &mut Settled) -> Attempt {
    let (stem, work) = (attempt_stem(root, name), runs(root).join(name.0).join("work"));
    fs::create_dir_all(&work).unwrap();
    let script = r#"echo "began $NAME"; echo value=1 > "$LONGSHORE_OUTPUT"; exit 7"#;
    let env = [
        ("PATH", "/usr/bin:/bin".to_owned()),
        ("NAME", format!("{} {} {}", name.0, name.1, name.2)),
        ("LONGSHORE_OUTPUT", Attempt::open(&stem).unwrap().file("output").to_str().unwrap().to_owned()),
    ];
    let plan = Plan {
        program: Program::Shell(script.to_owned()),
        env: env.map(|(name, value)| (name.to_owned(), value)).into(),
        dir: work,
        timeout_ms: None,
        output_bytes_max: LOG_BYTES_DEFAULT,
        run_as: None,
        memory_bytes_max: None,
        group: None,
        hands_on: true,
    };
    Attempt::prepare(&stem, &plan, settled).unwrap()
}

/// The recorded agent: goes through all attempts, whatever an earlier process left of them, and says what it saw. What the steps say of
/// themselves is recorded like that.
pub(crate) fn live(root: &Path) -> ExitCode {
    journal::make_folder(&runs(root)).unwrap();
    let mut settled = Settled::folder(&runs(root));
    for name in ATTEMPTS {
        let attempt = Attempt::open(&attempt_stem(root, name)).unwrap();
        let boot = boot_id().unwrap();
        if matches!(attempt.state(boot).unwrap(), AttemptState::NotPrepared | AttemptState::NotStarted) {
            prepare(root, name, &mut settled).launch(&shim()).unwrap();
        }
        let word = match attempt.wait_blocking(boot).unwrap() {
            AttemptState::Ended(_) => "ended",
            AttemptState::Interrupted(_) => "interrupted",
            other => panic!("{name:?}: {other:?}"),
        };
        let mut out = std::io::stdout();
        writeln!(out, "{word} {} {} {}", name.0, name.1, name.2).and_then(|()| out.flush()).unwrap();
    }
    ExitCode::SUCCESS
}

fn unsynced() {
    let end = |script: &str, fail: bool| {
        let place = Place::new();
        let attempt = place.prepare(&Plan { hands_on: true, ..place.shell(script) });
        let file = attempt.file("output").canonicalize().unwrap().to_str().unwrap().to_owned();
        let own = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let inject: &[&str] = if fail { &["-e", "trace=fsync", "-e", "inject=fsync:error=EIO"] } else { &[] };
        let words = [&["-f", "-qq", "-o", "/dev/null", "-P", &file], inject, &[&own, crate::SHIM]].concat();
        attempt.launch(&ShimCommand::new("strace", words)).unwrap();
        let exit = ended(&attempt);
        assert_eq!(exit.end, AttemptEnd::Exited(0));
        exit.output_error
    };
    assert_eq!(end("true", false), None);
    // As it was made, there is nothing of it to be lost; also empty again, there may be.
    assert_eq!(end("true", true), None);
    let handed = r#"echo a=1 >> "${PLACE}/attempt.output""#;
    for script in [handed.to_owned(), format!("{handed}; : > \"${{PLACE}}/attempt.output\"")] {
        assert_eq!(end(&script, false), None);
        assert!(end(&script, true).is_some_and(|error| error.contains("Input/output error")), "{script}");
    }
    let output = |then: &str| format!("rm \"${{PLACE}}/attempt.output\"; {then} \"${{PLACE}}/attempt.output\"");
    // To remove it is to hand on nothing.
    assert_eq!(end(&output(":"), false), None);
    assert!(end(&output("mkdir"), false).is_some_and(|error| error.contains("not a plain file")));
}

/// How far an attempt is known to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Came {
    Began,
    /// Nobody knows its end, or it has none.
    Interrupted,
    Ended,
}

/// By run, step and number in one line.
type Known = BTreeMap<String, Came>;

fn hear(known: &mut Known, line: &str) {
    let (word, name) = line.split_once(' ').expect("a word and an attempt");
    let came = match word {
        "began" => Came::Began,
        "interrupted" => Came::Interrupted,
        "ended" => Came::Ended,
        other => panic!("somebody said {other}"),
    };
    let before = known.insert(name.to_owned(), came);
    assert!(before.is_none() || word != "began", "{name} was begun twice");
}

struct Trials {
    seen: HashSet<u64>,
    chance: u64,
    looked_at: [usize; 3],
    failures: Vec<String>,
}

fn trials() {
    let mut trials = Trials { seen: HashSet::new(), chance: 7, looked_at: [0; 3], failures: Vec::new() };
    trials.life("a whole life", None);
    for number in 1..=KILLED {
        trials.life(&format!("killed at sync {number}"), Some(number));
    }
    let [fresh, began, ended] = trials.looked_at;
    println!("attempts after losses of power: {fresh} not begun, {began} begun, {ended} ended");
    let failed = trials.failures.len();
    trials.failures.truncate(20);
    assert!(failed == 0, "{failed} losses came out wrong, the first:\n{}", trials.failures.join("\n"));
    assert!(fresh > 100 && began > 100 && ended > 100, "these are no losses of power");
}

impl Trials {
    /// Records a life, and if that was killed, the next one; loses power in the last.
    fn life(&mut self, what: &str, kill_at: Option<u64>) {
        let dir = folder();
        let root = dir.path().canonicalize().unwrap().join("disk");
        fs::create_dir(&root).unwrap();
        let (mut disk, mut known, mut lines) = (Disk::load(&root), Known::new(), 0);
        let lives: &[Option<u64>] = if kill_at.is_some() { &[kill_at, None] } else { &[None] };
        for (number, kill_at) in lives.iter().enumerate() {
            let trace = dir.path().join("trace");
            let mut own = Command::new(std::env::current_exe().unwrap());
            own.arg(crate::RECORDED).arg(&root);
            let run = strace::traced(&own, &trace, *kill_at).stdin(Stdio::null()).output().unwrap();
            let killed = run.status.signal() == Some(Signal::KILL.as_raw());
            let said = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success() || killed && kill_at.is_some(), "{what}: {}, {said}", run.status);
            let mut calls = strace::read(&trace);
            for call in &mut calls {
                call.begin += lines;
                call.end = call.end.map(|end| end + lines);
            }
            lines = calls.iter().filter_map(|call| call.end).max().unwrap_or(lines) + 1;
            let last = number + 1 == lives.len();
            let mut since = None;
            replay(&calls, &root, &mut disk, &mut |moment| match moment {
                Moment::Said(line) => hear(&mut known, line),
                Moment::Loss(disk) if last => since = self.lose(what, disk, since, &known),
                Moment::Loss(_) => {}
            });
            if disk.live() != read(&root) {
                // Killed in the middle of a call of which nobody knows whether it came about.
                assert!(!last, "{what}: what was recorded is not all that was done");
                return;
            }
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % limit
    }

    fn lose(&mut self, what: &str, disk: &Disk, since: Option<u64>, known: &Known) -> Option<u64> {
        let pending = disk.pending();
        for loss in losses(&pending, since, OTHERS, &mut |limit| self.below(limit)) {
            let tree = disk.after(&loss);
            let mut hasher = DefaultHasher::new();
            (&tree, known).hash(&mut hasher);
            if self.seen.insert(hasher.finish()) {
                let all: Vec<&str> = pending.iter().map(|pending| pending.what.as_str()).collect();
                let last = all[all.len().saturating_sub(6)..].join(", ");
                let how = format!("{what}: {}; {} may be lost, the last {last}", loss.how, all.len());
                self.look(&how, &tree, known);
            }
        }
        pending.last().map(|pending| pending.change).max(since)
    }

    /// Looks at every attempt of what a loss of power left, in another boot.
    fn look(&mut self, how: &str, tree: &Tree, known: &Known) {
        let dir = folder();
        let root = dir.path().canonicalize().unwrap().join("disk");
        write(tree, &root);
        let boot = BootId::new(uuid::Uuid::from_u128(1));
        for name in ATTEMPTS {
            let attempt = Attempt::open(&attempt_stem(&root, name)).unwrap();
            let came = known.get(&format!("{} {} {}", name.0, name.1, name.2)).copied();
            let found = attempt.state(boot).unwrap();
            let right = match (&found, came) {
                (AttemptState::NotPrepared | AttemptState::NotStarted, None) => self.goes_on(&root, name),
                // The mark was on the disk already, or the record of the end.
                (AttemptState::Interrupted(_), None | Some(Came::Began | Came::Interrupted)) => true,
                (AttemptState::Ended(exit), Some(_)) => {
                    let kept = |file: &str| fs::read(attempt.file(file)).unwrap_or_default();
                    exit.end == AttemptEnd::Exited(7)
                        && kept("output") == HANDED_ON.as_bytes()
                        && Digest::of(&kept("stdout")) == exit.stdout.sha256
                }
                (_, _) => false,
            };
            self.looked_at[came.map_or(0, |came| if came == Came::Ended { 2 } else { 1 })] += 1;
            if !right {
                self.failures.push(format!("{how}: {name:?} came to {came:?}, and is {found:?}"));
            }
        }
    }

    /// Whether a step that has not begun runs when another process prepares it. Not tried for every loss, since it starts processes.
    fn goes_on(&mut self, root: &Path, name: (&str, &str, &str)) -> bool {
        if self.below(4) > 0 {
            return true;
        }
        fs::create_dir_all(runs(root)).unwrap();
        let attempt = prepare(root, name, &mut Settled::folder(&runs(root)));
        attempt.launch(&shim()).unwrap();
        ended(&attempt).end == AttemptEnd::Exited(7)
    }
}
