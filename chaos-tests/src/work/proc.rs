//! Other processes, looked up in `/proc`: who is over a step, who is an agent's worker, whether one has ended. Signals them, and
//! starts none.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// A SHA-256.
const DIGEST_BYTES: usize = 32;

/// Sends a signal. A process that is gone already is no error.
pub(super) fn send(pid: i32, signal: Signal) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    match kill_process(pid, signal) {
        Err(Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The letter of a process's state and its parent.
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, brackets too.
    let mut fields = text.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// When it began, in ticks from the start of the system.
fn start_ticks(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The 22nd field, and the first behind the name is the third.
    text.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()
}

/// Whether nothing of it runs any more. Whoever has to look at its end may not have done so yet.
pub(super) fn has_ended(pid: i32) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// Whether every thread of it has stopped, so that nothing of it moves until it is told to go on.
pub(super) fn has_stopped(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let text = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}

/// Its parent.
pub(super) fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|(_, parent)| parent)
}

/// The worker of that monitor, once it is one: between fork and exec it is still a copy.
pub(super) fn worker(monitor: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).ok()?;
    let pid = text.split_whitespace().next()?.parse().ok()?;
    fs::read(format!("/proc/{pid}/cmdline")).ok()?.ends_with(b"--as-worker\0").then_some(pid)
}

/// The shim that began the attempt with that record, as its mark says. Nothing before the mark is whole.
pub(super) fn shim(record: &[u8]) -> Option<i32> {
    #[derive(Deserialize)]
    struct Started {
        pid: i32,
        start_ticks: u64,
    }
    let (length, rest) = record.split_first_chunk()?;
    let mark = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    // A digest of what follows comes first. Nobody but a shim writes here, and it is only to be stopped.
    let started: Started = messages::from_msgpack(mark.get(DIGEST_BYTES..)?).ok()?;
    // A number is given to another process some day.
    (start_ticks(started.pid) == Some(started.start_ticks)).then_some(started.pid)
}
