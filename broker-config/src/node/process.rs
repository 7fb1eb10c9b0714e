//! The processes of one node, known by a random token in their environment.
//!
//! A pid alone proves nothing: it may have been given to another program since. A signal goes through a pidfd that was
//! opened before the token was checked, so it reaches the process that was checked or nobody.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::error::NodeError;

/// The environment variable that carries the token to everything a node starts.
pub(crate) const TOKEN_ENV: &str = "LONGSHORE_NODE";

/// How long the kernel may take to end killed processes, or to stop or continue one.
const KILL_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// Whether `pid` is alive (not a zombie) and carries `token`.
pub(crate) fn is_alive(pid: u32, token: &str) -> bool {
    // A zombie has an empty environment, so it never matches.
    let wanted = format!("{TOKEN_ENV}={token}");
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
}

/// Every live process that carries `token`.
pub(crate) fn members(token: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| is_alive(*pid, token))
        .collect()
}

/// The Erlang virtual machine among the processes that carry `token`.
pub(crate) fn beam(token: &str) -> Option<u32> {
    members(token)
        .into_iter()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "beam.smp"))
}

/// Sends `signal` if `pid` still carries `token`; `false` when it is gone.
pub(crate) fn signal(pid: u32, token: &str, signal: Signal) -> Result<bool, NodeError> {
    let Some(handle) = open_checked(pid, token).map_err(|source| NodeError::Signal { pid, source })? else {
        return Ok(false);
    };
    match pidfd_send_signal(&handle, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(errno) => Err(NodeError::Signal { pid, source: errno.into() }),
    }
}

fn open_checked(pid: u32, token: &str) -> io::Result<Option<OwnedFd>> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let handle = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    Ok(is_alive(pid, token).then_some(handle))
}

/// Kills every process that carries `token` and waits until each has closed its files and ports. Scans again each time:
/// a process may have started another one just before it died.
pub(crate) fn kill_all(token: &str) -> Result<(), NodeError> {
    let deadline = Instant::now() + KILL_LIMIT;
    let mut killed: Vec<Instance> = Vec::new();
    loop {
        for pid in members(token) {
            killed.extend(Instance::of(pid));
            signal(pid, token, Signal::KILL)?;
        }
        killed.retain(|process| !process.has_ended());
        if killed.is_empty() && members(token).is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(NodeError::Stuck { what: "end after SIGKILL", limit: KILL_LIMIT });
        }
        thread::sleep(POLL);
    }
}

/// One process for its whole life: a pid together with the time at which it started.
///
/// A dying process loses its environment before it closes its files, so [`is_alive`] says too early that its ports are
/// free. This says it when they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instance {
    pid: u32,
    /// In clock ticks since boot.
    started: u64,
}

impl Instance {
    /// `None` when there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let started = stat(pid)?.started;
        Some(Self { pid, started })
    }

    /// Whether it is gone, or a zombie, which holds nothing but its exit code.
    pub(crate) fn has_ended(&self) -> bool {
        stat(self.pid).is_none_or(|now| now.started != self.started || now.is_over())
    }
}

/// Waits until `pid` is stopped (`paused`) or running again.
pub(crate) fn wait_paused(pid: u32, paused: bool) -> Result<(), NodeError> {
    let deadline = Instant::now() + KILL_LIMIT;
    while (stat(pid).ok_or(NodeError::NotRunning)?.state == 'T') != paused {
        if Instant::now() >= deadline {
            let what = if paused { "stop" } else { "continue" };
            return Err(NodeError::Stuck { what, limit: KILL_LIMIT });
        }
        thread::sleep(POLL);
    }
    Ok(())
}

struct Stat {
    state: char,
    threads: u64,
    started: u64,
}

impl Stat {
    /// The first thread of a program may be a zombie while others still hold its files.
    fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

/// `None` when there is no such process.
fn stat(pid: u32) -> Option<Stat> {
    // "pid (name) state ...", where the name may itself hold blanks and parentheses.
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace();
    // Fields 3, 20 and 22 of the whole line.
    let state = fields.next()?.chars().next()?;
    let threads = fields.nth(16)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, threads, started })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper(token: &str) -> Child {
        // Not our output: a test that fails would leave it open, and whoever reads it waiting.
        let child = Command::new("sleep")
            .arg("60")
            .env(TOKEN_ENV, token)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The environment appears a moment after the new program has begun.
        let deadline = Instant::now() + KILL_LIMIT;
        while !is_alive(child.id(), token) {
            assert!(Instant::now() < deadline, "sleep did not start");
            thread::sleep(POLL);
        }
        child
    }

    #[test]
    fn only_processes_with_the_token_are_killed() {
        let mut ours = sleeper("token-of-this-test-1");
        let mut other = sleeper("token-of-this-test-10");
        kill_all("token-of-this-test-1").unwrap();
        assert!(!ours.wait().unwrap().success());
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_pid_that_was_given_to_another_program_is_not_signalled() {
        let mut other = sleeper("token-of-someone-else");
        assert!(!signal(other.id(), "token-of-this-test-2", Signal::KILL).unwrap());
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_zombie_counts_as_gone() {
        let token = "token-of-this-test-3";
        let mut child = sleeper(token);
        assert!(is_alive(child.id(), token));
        assert!(signal(child.id(), token, Signal::KILL).unwrap());
        let instance = Instance::of(child.id()).unwrap();
        kill_all(token).unwrap();
        assert!(!is_alive(child.id(), token));
        assert!(instance.has_ended());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_can_be_paused_and_continued() {
        let token = "token-of-this-test-4";
        let mut child = sleeper(token);
        let pid = child.id();
        assert!(signal(pid, token, Signal::STOP).unwrap());
        wait_paused(pid, true).unwrap();
        assert!(signal(pid, token, Signal::CONT).unwrap());
        wait_paused(pid, false).unwrap();
        kill_all(token).unwrap();
        child.wait().unwrap();
    }
}
