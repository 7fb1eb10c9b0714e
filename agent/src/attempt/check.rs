//! The check of a `guarded` step: a short program that says whether the step is done already. It runs under the agent itself
//! and is simply run again after a restart, so unlike a step it needs no shim.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use messages::Program;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::command::{command, spawn_reason};

/// For a check to go once it was killed. One that hangs in the kernel for longer is left to the thread that waits for it.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Exit code 0: the step is done already.
    Done,
    /// That other exit code: the step is not done.
    NotDone(i32),
}

/// Why a check found nothing. The step's outcome is as unknown as before.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It could not be started.
    #[error("the check could not be started: {reason}")]
    NotStarted {
        /// Why, in words.
        reason: String,
    },
    /// It took too long, and was ended with everything it started.
    #[error("the check did not end within {} ms and was killed", timeout.as_millis())]
    TimedOut {
        /// The time it had.
        timeout: Duration,
    },
    /// A signal ended it.
    #[error("the check was ended by signal {signal}")]
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// The operating system does not say how it ended. It was killed.
    #[error("the check cannot be waited for")]
    Wait(#[source] io::Error),
}

/// Runs a check and blocks until it has ended, at most `timeout` and a few seconds for its kill. Its output is thrown away; what it leaves behind in its
/// process group is killed.
///
/// # Errors
/// [`CheckError`]. Everything in the check's process group has been sent SIGKILL by then.
pub fn run_check(
    program: &Program,
    env: &BTreeMap<String, String>,
    dir: &Path,
    timeout: Duration,
) -> Result<CheckOutcome, CheckError> {
    let mut command = command(program, env, dir).map_err(|reason| CheckError::NotStarted { reason })?;
    let (ended, end) = mpsc::channel();
    let (give, take) = mpsc::channel::<Pid>();
    // Made first: should it fail, nothing has been started that could not be waited for.
    thread::Builder::new()
        .name("check".into())
        .spawn(move || {
            if let Ok(pid) = take.recv() {
                // Not reaped yet: until it is, its process group cannot be another's.
                let _ = ended.send(wait_without_reaping(pid));
            }
        })
        .map_err(|error| CheckError::NotStarted { reason: format!("no thread to wait for it: {error}") })?;
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| CheckError::NotStarted { reason: spawn_reason(program, &error) })?;
    let group = Pid::from_child(&child);
    let _ = give.send(group);
    let waited = end.recv_timeout(timeout);
    // The group is gone when nothing was left in it, which is the normal case.
    let _ = kill_process_group(group, Signal::KILL);
    match waited {
        Ok(Ok(())) => outcome(&mut child),
        Ok(Err(error)) => Err(CheckError::Wait(error)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            if end.recv_timeout(KILL_WAIT).is_ok() {
                child.wait().map_err(CheckError::Wait)?;
            }
            Err(CheckError::TimedOut { timeout })
        }
    }
}

fn wait_without_reaping(pid: Pid) -> io::Result<()> {
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn outcome(child: &mut Child) -> Result<CheckOutcome, CheckError> {
    let status = child.wait().map_err(CheckError::Wait)?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(CheckOutcome::Done),
        (Some(code), _) => Ok(CheckOutcome::NotDone(code)),
        (None, Some(signal)) => Err(CheckError::Signaled { signal }),
        (None, None) => Err(CheckError::Wait(io::Error::other("neither an exit code nor a signal"))),
    }
}
