//! Forking, and forking into a control group. A shim that is a copy of a process that is ready takes a third of the time of one that is
//! executed. And the kernel has one way to have a process in a group from its first moment on; the other one, moving it
//! there, waits until every processor has been idle or switched, which takes 8 ms on a quiet machine and 40 on a busy one for each step.
//! No safe interface has either, so this small file holds the only unsafe code of the project.
#![allow(unsafe_code, reason = "fork, and clone3 with a control group, have no safe interface")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::process::Pid;

/// `CLONE_INTO_CGROUP` of the kernel, since 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which of two processes this is, after one became two.
pub(super) enum Side {
    /// The one that was before, and the other one's id.
    Parent(Pid),
    /// The new one: a copy, with all that was open.
    Child,
}

/// Forks. Whoever calls this may use the whole language in the child, because it is refused to a process with more than one thread: no
/// lock is held by a thread that the child does not have.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] with more than one thread. Otherwise the kernel's: there are too many processes, or too little memory.
pub(super) fn copy() -> io::Result<Side> {
    alone()?;
    // SAFETY: It takes nothing and shares nothing. What it asks of its caller is that the child does not need what other threads had
    // under way, and there are none, as was just seen; only this one could start another.
    side(unsafe { libc::fork() })
}

/// Forks. The child is in the control group whose folder that is. As [`copy`] otherwise, but for a child that does little: what the C
/// library remembers of its thread is the parent's.
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

fn alone() -> io::Result<()> {
    match fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

// The system calls that fork say it in one number. Nothing may have come between them and this.
fn side(answer: i32) -> io::Result<Side> {
    match Pid::from_raw(answer) {
        _ if answer < 0 => Err(io::Error::last_os_error()),
        Some(child) => Ok(Side::Parent(child)),
        None => Ok(Side::Child),
    }
}
