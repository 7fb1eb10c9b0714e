//! The children: this binary again, told by environment variables what to do.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use journal::Engine;

const TASK: &str = "JOURNAL_TEST_CHILD";
const ENGINE: &str = "JOURNAL_TEST_CHILD_ENGINE";
const DIR: &str = "JOURNAL_TEST_CHILD_DIR";
const SEED: &str = "JOURNAL_TEST_CHILD_SEED";
const STEPS: &str = "JOURNAL_TEST_CHILD_STEPS";

/// How long a child may say nothing. Whoever hangs longer hangs for good.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// What a child does.
pub(crate) enum Task {
    /// Commits steps of the history, and says which are acknowledged, until it is killed.
    Commit { dir: PathBuf, seed: u64 },
    /// Opens a journal that may be damaged and compares it with that many steps of the history.
    Open { dir: PathBuf, seed: u64, steps: u64 },
    /// Opens journals after a loss of power and says how many steps each holds, if it holds exactly these.
    Recover { dir: PathBuf, seed: u64, steps: u64 },
    /// Runs the script, and is killed at the point of that number.
    Points { dir: PathBuf, seed: u64, last: u64 },
    /// Lives the life of that number with a journal, while its calls are recorded.
    Live { dir: PathBuf, seed: u64, life: u64 },
    /// Looks at what recorded calls may have left on a disk, in as many steps as there ever were.
    Look { dir: PathBuf, seed: u64, most: u64 },
}

/// What this process is to do, if it is a child.
pub(crate) fn task() -> Option<(Engine, Task)> {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    let (dir, seed) = (PathBuf::from(std::env::var_os(DIR)?), number(SEED)?);
    let task = match std::env::var(TASK).ok()?.as_str() {
        "commit" => Task::Commit { dir, seed },
        "open" => Task::Open { dir, seed, steps: number(STEPS)? },
        "recover" => Task::Recover { dir, seed, steps: number(STEPS)? },
        "points" => Task::Points { dir, seed, last: number(STEPS)? },
        "live" => Task::Live { dir, seed, life: number(STEPS)? },
        "look" => Task::Look { dir, seed, most: number(STEPS)? },
        _ => return None,
    };
    Some((std::env::var(ENGINE).ok()?.parse().ok()?, task))
}

/// A child that runs, and the lines it says.
pub(crate) struct Running {
    process: Child,
    lines: Receiver<String>,
}

/// This program as a child with that task.
pub(crate) fn command(engine: Engine, task: &str, dir: &Path, seed: u64, steps: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(TASK, task).env(ENGINE, engine.to_string()).env(DIR, dir);
    command.env(SEED, seed.to_string()).env(STEPS, steps.to_string());
    command
}

pub(crate) fn start(engine: Engine, task: &str, dir: &Path, seed: u64, steps: u64) -> Running {
    let mut process = command(engine, task, dir, seed, steps)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // The engine's panics, which are looked for in what the child says instead.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = process.stdout.take().unwrap();
    let (said, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| said.send(line))
    });
    Running { process, lines }
}

impl Running {
    /// The next line; nothing once the child has ended. A child that hangs is killed, and said to hang.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(SILENCE_MAX) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                self.process.kill().unwrap();
                Some("hangs".to_owned())
            }
        }
    }

    /// SIGKILL. What it said before still comes out of [`Self::line`].
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}
