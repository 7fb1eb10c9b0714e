//! The worker as its monitor has it: a child process and a line to it. Decides nothing.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::core::{Input, Order, Program, WorkerEnd};
use super::lifeline::{BEAT, READY};
use super::{MonitorConfig, NOTIFY_VARIABLES};

/// The file that this process runs, whatever lies at its path meanwhile.
const OWN: &str = "/proc/self/exe";

/// One heap for all threads of the worker, and large pieces of it given back as soon as they are free. An agent that does nothing is
/// to be small; with a heap for each thread, every one of them stays as large as it ever was. Other allocators take no notice.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536")];

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    line: Option<UnixStream>,
}

impl Worker {
    /// Starts one. When the program on disk cannot be started, the monitor's own is.
    pub(super) fn start(config: &MonitorConfig, program: Program, draining: bool) -> io::Result<Self> {
        match program {
            Program::OnDisk => spawn(config, &config.program, draining).or_else(|error| {
                super::report(&format!("`{}`: {error}; going on with the program as it was", config.program.display()));
                spawn(config, Path::new(OWN), draining)
            }),
            Program::Own => spawn(config, Path::new(OWN), draining),
        }
    }

    /// What is to be waited for beside signals.
    pub(super) const fn line(&self) -> Option<&UnixStream> {
        self.line.as_ref()
    }

    /// What it said since it was last asked.
    pub(super) fn heard(&mut self) -> Vec<Input> {
        let mut bytes = [0; 64];
        let Some(mut line) = self.line.as_ref() else { return Vec::new() };
        match line.read(&mut bytes) {
            // It closed its end, so it is about to be gone: its end is told by a signal.
            Ok(0) => self.line = None,
            Ok(count) => return bytes[..count].iter().filter_map(|byte| said(*byte)).collect(),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.line = None,
        }
        Vec::new()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> io::Result<Option<WorkerEnd>> {
        let status = self.child.try_wait()?;
        Ok(status.map(|status| match (status.code().and_then(|code| u8::try_from(code).ok()), status.signal()) {
            (Some(code), _) => WorkerEnd::Exited(code),
            (None, signal) => WorkerEnd::Signaled(signal.unwrap_or_default()),
        }))
    }

    /// Tells it what to do.
    pub(super) fn tell(&self, order: Order) {
        let signal = match order {
            Order::Drain => Signal::TERM,
            Order::Stop => Signal::HUP,
            Order::Kill => Signal::KILL,
        };
        // Not reaped yet, so its id is its own. It may have ended, which is what is wanted.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

const fn said(byte: u8) -> Option<Input> {
    match byte {
        READY => Some(Input::Ready),
        BEAT => Some(Input::Beat),
        // A later version may have more to say.
        _ => None,
    }
}

fn spawn(config: &MonitorConfig, program: &Path, draining: bool) -> io::Result<Worker> {
    let (line, workers) = UnixStream::pair()?;
    line.set_nonblocking(true)?;
    let mut command = Command::new(program);
    command.arg0("longshore").args(&config.arguments);
    if draining {
        command.arg(&config.draining);
    }
    for variable in NOTIFY_VARIABLES {
        command.env_remove(variable);
    }
    for (name, value) in ALLOCATOR.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()) {
        command.env(name, value);
    }
    command.stdin(Stdio::from(OwnedFd::from(workers))).stdout(Stdio::from(null()?));
    // In a group of its own: a Ctrl-C at the terminal is the monitor's to pass on, once.
    let child = command.process_group(0).spawn()?;
    Ok(Worker { child, line: Some(line) })
}

fn null() -> io::Result<File> {
    File::options().write(true).open("/dev/null")
}
