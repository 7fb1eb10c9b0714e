//! Forking into a control group, and waiting for a process with what it used. The kernel has one way to have a process in a group from its
//! first moment on; the other one, moving it there, waits until every processor has been idle or switched, which takes 8 ms on a quiet
//! machine and 40 on a busy one for each step. And only by waiting so is told what a single process used: what the kernel adds up for
//! all children of a shim holds those of its earlier steps, too. No safe interface has these, nor the priority at the disk, so this small
//! file holds the only unsafe code of the project.
#![allow(unsafe_code, reason = "clone3 with a control group, wait4 and ioprio_get have no safe interface")]

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use rustix::process::Pid;

use super::supervise::ProcessEnd;
use super::usage::Used;

/// `CLONE_INTO_CGROUP` of the kernel, since 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which of two processes this is, after one became two.
pub(super) enum Side {
    /// The one that was before, and the other one's id.
    Parent(Pid),
    /// The new one: a copy, with all that was open.
    Child,
}

/// Forks. The child is in the control group whose folder that is. It may use the whole language, because this is refused to a process with more
/// than one thread: no lock is held by a thread that the child does not have. But it should do little: what the C library remembers of
/// its thread is the parent's.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] with more than one thread. Otherwise the kernel's: it is too old, a filter forbids the call, the group
/// is gone, or may not be entered.
pub(super) fn into_group(group: BorrowedFd<'_>) -> io::Result<Side> {
    alone()?;
    let descriptor = u64::try_from(group.as_raw_fd()).map_err(io::Error::other)?;
    let signal = u64::try_from(libc::SIGCHLD).map_err(io::Error::other)?;
    let arguments = libc::clone_args {
        flags: CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: signal,
        // The child goes on with a copy of this very stack.
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: descriptor,
    };
    // SAFETY: The arguments are of the size that is given and live through the call, which only reads them. No flag shares memory,
    // files or a stack, and no pointer is passed on, so the call does what `fork` does: it returns in a copy of this process, too. That
    // copy has the one thread that this process has, as was just seen, and only that thread could start another.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    side(i32::try_from(answer).map_err(io::Error::other)?)
}

/// Bytes read of a `stat` file: a name of 16 bytes and some 50 numbers.
const STAT_BYTES_MAX: usize = 4 * 1024;

/// The number of threads, by its place behind the name (`proc_pid_stat(5)`, field 20, of which the name is the second).
const THREADS: usize = 17;

/// Whether this process has one thread only.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] with more than one; otherwise the kernel's.
pub(super) fn alone() -> io::Result<()> {
    let mut stat = [0; STAT_BYTES_MAX];
    let count = File::open("/proc/self/stat")?.read(&mut stat)?;
    // The name, in brackets, may hold anything.
    let text = String::from_utf8_lossy(&stat[..count]);
    let mut fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    match fields.nth(THREADS) {
        Some("1") => Ok(()),
        Some(_) | None => Err(io::ErrorKind::Unsupported.into()),
    }
}

// The system calls that fork say it in one number. Nothing may have come between them and this.
fn side(answer: i32) -> io::Result<Side> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(answer).map_or(Side::Child, Side::Parent))
}

/// What came of looking for a child that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// This one has, and is reaped: how, and what it and those used that it had waited for.
    Ended(Pid, ProcessEnd, Used),
    /// None has.
    NotYet,
    /// There is none.
    Nobody,
}

/// Reaps one child that has ended, whichever. Does not wait.
///
/// # Errors
/// The kernel's: it was interrupted.
pub(super) fn wait_any() -> io::Result<Waited> {
    let mut status = 0;
    let mut used = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: Both pointers are to places of the right size that live through the call, which only writes to them.
    let answer = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, used.as_mut_ptr()) };
    // SAFETY: It is all numbers, which were zeros before the call.
    let used = unsafe { used.assume_init() };
    if answer < 0 {
        return match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(Waited::Nobody),
            error => Err(error),
        };
    }
    Ok(Pid::from_raw(answer).map_or(Waited::NotYet, |child| Waited::Ended(child, ProcessEnd::of(status), told(&used))))
}

/// `IOPRIO_WHO_PROCESS` of the kernel.
const WHO_PROCESS: libc::c_int = 1;

/// The priority of this process at the disk, as the kernel numbers it.
///
/// # Errors
/// The kernel's: it has no such thing.
pub(super) fn io_priority() -> io::Result<i64> {
    // SAFETY: It takes two numbers and gives back one.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Bytes in the kernel's unit of memory here.
const KIB: u64 = 1024;

fn told(used: &libc::rusage) -> Used {
    // None of them is ever negative.
    let time = |time: &libc::timeval| {
        let micros = u64::try_from(time.tv_usec).unwrap_or_default();
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default()) + Duration::from_micros(micros)
    };
    Used {
        user: time(&used.ru_utime),
        system: time(&used.ru_stime),
        memory_bytes: u64::try_from(used.ru_maxrss).unwrap_or_default().saturating_mul(KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each test has a thread of its own, beside the one that waits for it.
    #[test]
    fn a_process_with_a_second_thread_is_not_alone() {
        let (held, holds) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || holds.recv().is_err());
        assert_eq!(alone().map_err(|error| error.kind()), Err(io::ErrorKind::Unsupported));
        drop(held);
        assert!(other.join().is_ok_and(|ended| ended));
    }
}
