//! What `/proc` says about processes, and signals that cannot hit the wrong one. Nothing here trusts a bare process id: a
//! process is its id together with the moment of its start.

use std::io::Read as _;
use std::{fs, io};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// Bytes read of one `stat` file at most: a name of 16 bytes and some 50 numbers.
const STAT_BYTES_MAX: u64 = 4 * 1024;

/// One process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: Pid,
    /// Its parent's id, 0 for none.
    pub(crate) parent: i32,
    /// Its process group.
    pub(crate) group: i32,
    /// Clock ticks from the boot to its start. With the id and the boot, this names a process for good.
    pub(crate) start_ticks: u64,
    /// Whether it has ended and only waits to be reaped.
    pub(crate) dead: bool,
}

/// The process with that id, or nothing when there is none.
pub(crate) fn process(pid: Pid) -> io::Result<Option<Process>> {
    let mut text = Vec::new();
    let read = fs::File::open(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .and_then(|file| file.take(STAT_BYTES_MAX).read_to_end(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    }
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "unexpected text in a stat file of /proc");
    parse_stat(pid, &String::from_utf8_lossy(&text)).map(Some).ok_or_else(damaged)
}

/// Every process that can be seen. One that ends meanwhile is left out.
pub(crate) fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        // A process that hides its state cannot be one of the step's: those run as the same user.
        if let Ok(Some(process)) = process(pid) {
            found.push(process);
        }
    }
    Ok(found)
}

/// A field of a `stat` file by its number (`proc_pid_stat(5)`); nothing for the first two, the process's id and its name. That may hold anything,
/// brackets and spaces included, so fields are counted from the last bracket on.
pub(crate) fn stat_field(text: &str, number: usize) -> Option<&str> {
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

fn parse_stat(pid: Pid, text: &str) -> Option<Process> {
    Some(Process {
        pid,
        dead: matches!(stat_field(text, 3)?, "Z" | "X" | "x"),
        parent: stat_field(text, 4)?.parse().ok()?,
        group: stat_field(text, 5)?.parse().ok()?,
        start_ticks: stat_field(text, 22)?.parse().ok()?,
    })
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signaled {
    /// It was sent to exactly that process.
    Sent,
    /// The process is no more.
    Gone,
}

/// Sends a signal to that very process. `still` is asked once the process is pinned, so what it sees is true of the process
/// that gets the signal and not of a later one with the same id.
pub(crate) fn signal(
    target: Pid,
    start_ticks: u64,
    signal: Signal,
    still: impl FnOnce() -> bool,
) -> io::Result<Signaled> {
    let pinned = match pidfd_open(target, PidfdFlags::empty()) {
        Ok(pinned) => Some(pinned),
        Err(Errno::SRCH) => return Ok(Signaled::Gone),
        // Linux before 5.3: the check right before the signal has to do.
        Err(Errno::NOSYS) => None,
        Err(error) => return Err(error.into()),
    };
    match process(target)? {
        Some(found) if found.start_ticks == start_ticks && !found.dead && still() => {}
        Some(_) | None => return Ok(Signaled::Gone),
    }
    let sent = match &pinned {
        Some(pinned) => pidfd_send_signal(pinned, signal),
        None => kill_process(target, signal),
    };
    match sent {
        Ok(()) => Ok(Signaled::Sent),
        Err(Errno::SRCH) => Ok(Signaled::Gone),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = "7 (a) b (c) S 3 5 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1";
        let found = parse_stat(Pid::from_raw(7).unwrap(), text).unwrap();
        assert_eq!((found.parent, found.group, found.start_ticks, found.dead), (3, 5, 987_654, false));
        assert_eq!(
            [0, 1, 2, 3, 24, 25].map(|number| stat_field(text, number)),
            [None, None, None, Some("S"), Some("1"), None]
        );
    }

    #[test]
    fn short_and_foreign_text_is_refused() {
        let pid = Pid::from_raw(7).unwrap();
        for text in ["", "7 (a", "7 (a) S", "7 (a) S x y z", ")"] {
            assert_eq!(parse_stat(pid, text), None, "{text}");
        }
    }

    #[test]
    fn this_process_is_found_and_is_its_childrens_parent() {
        let own = process(rustix::process::getpid()).unwrap().unwrap();
        assert!(!own.dead);
        assert!(processes().unwrap().iter().any(|p| p.pid == own.pid && p.start_ticks == own.start_ticks));
    }

    #[test]
    fn a_signal_for_an_earlier_process_with_the_same_id_is_not_sent() {
        let own = process(rustix::process::getpid()).unwrap().unwrap();
        // Were it sent, it would end this test.
        assert_eq!(signal(own.pid, own.start_ticks + 1, Signal::KILL, || true).unwrap(), Signaled::Gone);
        assert_eq!(signal(own.pid, own.start_ticks, Signal::KILL, || false).unwrap(), Signaled::Gone);
    }
}
