//! Runs the trials: each in processes of its own, because an engine that aborts or hangs would take the others with it. Waits for
//! what a process says, and never longer than it may be silent.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use journal::Engine;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;

use super::files::{copy, damage, files};
use super::plan::{Ending, Phase, Place, Trial};
use super::random::Random;
use super::verdict::{Judgement, Verdict};

/// How long a process may say nothing. Whoever is silent for longer hangs for good; a machine whose disk is busy may take a minute
/// over a few hundred syncs.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The engine under the journals.
    pub engine: Engine,
    /// Where everything comes from.
    pub seed: u64,
    /// How many trials.
    pub trials: u64,
    /// Just this one.
    pub only: Option<u64>,
    /// The program that does a phase: this one.
    pub program: PathBuf,
    /// The folder in which each trial gets one of its own.
    pub dir: PathBuf,
}

/// What came of one trial.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was done.
    #[serde(flatten)]
    pub trial: Trial,
    /// To what exactly.
    pub injected: String,
    /// What came of it.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// Panics of the engine, most of which the journal turned into errors.
    pub panics: u64,
}

/// Why trials cannot be run. It says nothing about a journal.
#[derive(Debug, thiserror::Error)]
#[error("trial {number} cannot be carried out: {operation} failed")]
pub struct RunError {
    /// The trial.
    number: u64,
    /// What was attempted.
    operation: &'static str,
    /// The system's answer.
    source: io::Error,
}

/// Runs the trials in order and shows each as it ends.
///
/// # Errors
/// [`RunError`]
pub fn run(options: &Options, each: &mut dyn FnMut(&Outcome)) -> Result<Vec<Outcome>, RunError> {
    let numbers = options.only.map_or(0..options.trials, |only| only..only + 1);
    let mut outcomes = Vec::new();
    for number in numbers {
        let trial = Trial::of(options.seed, number);
        let outcome = Running { options, trial, injected: String::new(), panics: 0 }.run()?;
        each(&outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// What a process said until it ended.
#[derive(Default)]
struct Said {
    acknowledged: Option<u64>,
    refused: Vec<String>,
    skipped: Option<String>,
    verdict: Option<Judgement>,
    ended: bool,
    hung: bool,
    /// The last line.
    last: String,
    killed: bool,
    status: String,
}

struct Running<'a> {
    options: &'a Options,
    trial: Trial,
    injected: String,
    panics: u64,
}

impl Running<'_> {
    fn error(&self, operation: &'static str) -> impl FnOnce(io::Error) -> RunError {
        let number = self.trial.number;
        move |source| RunError { number, operation, source }
    }

    fn run(mut self) -> Result<Outcome, RunError> {
        let dir = self.options.dir.join(format!("trial-{}", self.trial.number));
        fs::create_dir(&dir).map_err(self.error("making its folder"))?;
        let judgement = match self.trial.fault.place() {
            Place::AtRest => self.at_rest(&dir)?,
            Place::Mount => {
                let said = self.phase(Phase::Mounted, &dir, &unshare())?;
                conclude(&said)
            }
            Place::Seam => {
                let said = self.phase(Phase::Seam, &dir, &[])?;
                conclude(&said)
            }
            Place::Kernel => self.kernel(&dir)?,
        };
        if !judgement.verdict.is_failure() {
            fs::remove_dir_all(&dir).map_err(self.error("removing its folder"))?;
        }
        Ok(Outcome { trial: self.trial, injected: self.injected, judgement, panics: self.panics })
    }

    /// Writes a journal and gives the steps that were acknowledged, or what went wrong already.
    fn build(&mut self, dir: &Path) -> Result<Result<u64, Judgement>, RunError> {
        let said = self.phase(Phase::Build, dir, &[])?;
        let in_order = match self.trial.ending {
            Ending::Closed => said.ended,
            Ending::Killed => said.killed,
        };
        match said.acknowledged {
            Some(acknowledged) if in_order => Ok(Ok(acknowledged)),
            _ => Ok(Err(conclude(&said))),
        }
    }

    fn at_rest(&mut self, dir: &Path) -> Result<Judgement, RunError> {
        let acknowledged = match self.build(dir)? {
            Ok(acknowledged) => acknowledged,
            Err(judgement) => return Ok(judgement),
        };
        let how = damage(&dir.join("journal"), self.trial.fault, &mut self.trial.random());
        self.injected = how.map_err(self.error("damaging a file"))?;
        // For whoever wants to see how a failure came about: opening may change what is found.
        copy(&dir.join("journal"), &dir.join("damaged")).map_err(self.error("copying the journal"))?;
        let first = conclude(&self.phase(Phase::Judge { acknowledged }, dir, &[])?);
        if first.verdict != Verdict::Detected {
            return Ok(first);
        }
        // Whoever was refused tries again, and the engine may have changed its files meanwhile.
        let second = conclude(&self.phase(Phase::Judge { acknowledged }, dir, &[])?);
        if second.verdict.is_failure() {
            let detail = format!("at the second attempt: {}; at the first: {}", second.detail, first.detail);
            return Ok(Judgement::new(second.verdict, detail));
        }
        Ok(first)
    }

    fn kernel(&mut self, dir: &Path) -> Result<Judgement, RunError> {
        let acknowledged = match self.build(dir)? {
            Ok(acknowledged) => acknowledged,
            Err(judgement) => return Ok(judgement),
        };
        let tracer = self.tracer(&dir.join("journal")).map_err(self.error("listing the journal's files"))?;
        let under_fault = match self.phase(Phase::UntilRefused, dir, &tracer) {
            Ok(said) => said,
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                return Ok(Judgement::new(Verdict::Skipped, "strace is not installed"));
            }
            Err(error) => return Err(error),
        };
        if under_fault.hung || under_fault.verdict.is_some() {
            return Ok(conclude(&under_fault));
        }
        if !under_fault.ended
            && under_fault.acknowledged.is_none()
            && under_fault.refused.is_empty()
            && self.panics == 0
        {
            return Ok(Judgement::new(Verdict::Skipped, format!("strace gave up: {}", under_fault.status)));
        }
        let acknowledged = under_fault.acknowledged.unwrap_or(acknowledged);
        let judged = conclude(&self.phase(Phase::Judge { acknowledged }, dir, &[])?)
            .after(&under_fault.refused, self.injected.starts_with("pread"));
        if under_fault.ended || judged.verdict.is_failure() {
            return Ok(judged);
        }
        Ok(Judgement::new(Verdict::Panicked, format!("the process ended on its own, {}", under_fault.status)))
    }

    /// The command under which the kernel fails one kind of call on the journal's files.
    fn tracer(&mut self, journal: &Path) -> io::Result<Vec<OsString>> {
        const CALLS: [&str; 8] =
            ["pwrite64", "pwrite64", "write", "fdatasync", "fdatasync", "sync_file_range", "pread64", "fsync"];
        let mut random: Random = self.trial.random();
        let call = CALLS[random.index(CALLS.len())];
        let for_ever = if self.trial.fault == super::Fault::KernelEioForEver { "+" } else { "" };
        let first = 1 + random.below(12);
        self.injected = format!("{call} number {first}{for_ever} of each thread");
        let mut command: Vec<OsString> = ["strace", "-f", "-qqq", "-o", "/dev/null"].map(OsString::from).to_vec();
        for argument in [format!("trace={call}"), format!("inject={call}:error=EIO:when={first}{for_ever}")] {
            command.extend([OsString::from("-e"), argument.into()]);
        }
        let mut paths = files(journal)?;
        paths.extend([journal.to_owned(), journal.join("store"), journal.join("high-water.new")]);
        for path in paths {
            command.extend([OsString::from("-P"), path.into()]);
        }
        Ok(command)
    }

    /// Runs one phase in a process of its own, under another program if need be, and listens to it.
    fn phase(&mut self, phase: Phase, dir: &Path, under: &[OsString]) -> Result<Said, RunError> {
        let words: Vec<OsString> = under.iter().cloned().chain([self.options.program.clone().into()]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["damage", "--dir"]).arg(dir);
        command.arg("--engine").arg(self.options.engine.to_string()).arg("--seed").arg(self.options.seed.to_string());
        command.arg("--only").arg(self.trial.number.to_string()).arg("--phase").arg(phase.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(self.error("starting a process"))?;
        let mut said = Said::default();
        let lines = lines(&mut child);
        loop {
            match lines.recv_timeout(SILENCE_MAX) {
                Ok(line) => self.hear(&mut said, &line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    said.hung = true;
                    break;
                }
            }
        }
        if said.hung
            && let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            // All of it: what strace or unshare has started, too. It may have ended just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = child.wait().map_err(self.error("waiting for a process"))?;
        said.killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::KILL.as_raw());
        said.status = status.to_string();
        Ok(said)
    }

    fn hear(&mut self, said: &mut Said, line: &str) {
        let (what, detail) = line.split_once(' ').unwrap_or((line, ""));
        line.clone_into(&mut said.last);
        match what {
            "acknowledged" => said.acknowledged = detail.parse().ok().or(said.acknowledged),
            "refused" => said.refused.push(detail.to_owned()),
            "injected" => self.injected = detail.to_owned(),
            "skipped" => said.skipped = Some(detail.to_owned()),
            "panic" => self.panics += 1,
            "ended" => said.ended = true,
            "verdict" => {
                let (verdict, detail) = detail.split_once(' ').unwrap_or((detail, ""));
                // The first one counts: it is the worse one when there are two.
                let judgement = verdict.parse().ok().map(|verdict| Judgement::new(verdict, detail));
                said.verdict = said.verdict.take().or(judgement);
            }
            _ => {}
        }
    }
}

/// The lines that a process says. Read beside it, so that waiting for one can have a limit.
fn lines(child: &mut Child) -> Receiver<String> {
    let (say, heard) = channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| say.send(line))
        });
    }
    heard
}

/// What a process amounts to, from what it said and how it ended.
fn conclude(said: &Said) -> Judgement {
    if said.hung {
        let detail = format!("nothing was said for {} s, after: {:?}", SILENCE_MAX.as_secs(), said.last);
        return Judgement::new(Verdict::Hung, detail);
    }
    match (&said.verdict, &said.skipped) {
        (Some(judgement), _) if said.ended || judgement.verdict.is_failure() => judgement.clone(),
        (None, Some(why)) => Judgement::new(Verdict::Skipped, why.clone()),
        (Some(judgement), _) => {
            let detail = format!("the process ended on its own, {}, after: {}", said.status, judgement.detail);
            Judgement::new(Verdict::Panicked, detail)
        }
        (None, None) => Judgement::new(Verdict::Panicked, format!("the process ended on its own, {}", said.status)),
    }
}

/// A mount table of its own, which goes when its process goes; without root in a user namespace.
fn unshare() -> Vec<OsString> {
    let mut command = vec!["unshare"];
    if !rustix::process::geteuid().is_root() {
        command.extend(["--user", "--map-root-user"]);
    }
    command.extend(["--mount", "--propagation", "private", "--"]);
    command.into_iter().map(OsString::from).collect()
}
