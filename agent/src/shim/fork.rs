//! Forking into a control group. The kernel has one way to have a process in a group from its first moment on; the other one, moving it
//! there, waits until every processor has been idle or switched, which takes 8 ms on a quiet machine and 40 on a busy one for each step.
//! No safe interface has that way, so this small file holds the only unsafe code of the project.
#![allow(unsafe_code, reason = "clone3 with a control group has no safe interface")]

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

/// Forks. The child is in the control group whose folder that is. Whoever calls this may use the whole language in the child, because
/// it is refused to a process with more than one thread: no lock is held by a thread that the child does not have.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] with more than one thread. Otherwise the kernel's: it is too old, a filter forbids the call, the group
/// is gone, or may not be entered.
pub(super) fn into_group(group: BorrowedFd<'_>) -> io::Result<Side> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::Unsupported.into());
    }
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
    match i32::try_from(answer).map(Pid::from_raw) {
        Ok(_) if answer < 0 => Err(io::Error::last_os_error()),
        Ok(Some(child)) => Ok(Side::Parent(child)),
        Ok(None) => Ok(Side::Child),
        Err(error) => Err(io::Error::other(error)),
    }
}
