//! What is asked of the kernel in ways that no safe interface has, and so the only unsafe code of the project.
//!
//! - *Forking into a control group.* The kernel has one way to have a process in a group from its first moment on; the other one, moving
//!   it there, waits until every processor has been idle or switched, which takes 8 ms on a quiet machine and 40 on a busy one for each step.
//! - *Waiting for a process with what it used.* What the kernel adds up for all children of a shim holds those of its earlier steps, too.
//! - *Locks that belong to an open file*, as those of `flock` do, and do not meet them: so one file can be held by two kinds of
//!   processes, each of which can be asked for alone.
//! - The priority at the disk.
#![allow(
    unsafe_code,
    reason = "clone3 with a control group, wait4, locks of open files and ioprio_get have no safe interface"
)]

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use rustix::process::Pid;

use crate::attempt::procfs::stat_field;
use crate::shim::usage::Used;

/// `CLONE_INTO_CGROUP` of the kernel, since 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which of two processes this is, after one became two.
pub(crate) enum Side {
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
pub(crate) fn into_group(group: BorrowedFd<'_>) -> io::Result<Side> {
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

/// The field that says how many threads there are.
const THREADS: usize = 20;

/// Whether this process has one thread only.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] with more than one; otherwise the kernel's.
pub(crate) fn alone() -> io::Result<()> {
    let mut stat = [0; STAT_BYTES_MAX];
    let count = File::open("/proc/self/stat")?.read(&mut stat)?;
    match stat_field(&String::from_utf8_lossy(&stat[..count]), THREADS) {
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
pub(crate) enum Waited {
    /// This one has, and is reaped: its status, as the kernel numbers it, and what it and those used that it had waited for.
    Ended(Pid, i32, Used),
    /// None has.
    NotYet,
    /// There is none.
    Nobody,
}

/// Reaps one child that has ended, whichever. Does not wait.
///
/// # Errors
/// The kernel's: it was interrupted.
pub(crate) fn wait_any() -> io::Result<Waited> {
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
    Ok(Pid::from_raw(answer).map_or(Waited::NotYet, |child| Waited::Ended(child, status, told(&used))))
}

/// The byte by which a file is held: far behind the last of any file that is held so. Who locks what is in the file is neither in the way
/// nor taken for one who holds it.
pub(crate) const HELD_BYTE: libc::off_t = 0x4c6f_6e67;

/// Holds a file by a lock of this open file, together with any number of others. The lock goes with the open file to whoever inherits
/// that, and is there until the last of them has closed it or ended. Those of `flock` neither see it nor are seen by it. False if a
/// process keeps all others away from the file and whatever will ever be in it.
///
/// # Errors
/// The kernel's: the file is not open for reading, or its file system has no such locks.
pub(crate) fn hold_shared(file: &File) -> io::Result<bool> {
    let mut lock = held_byte(libc::F_RDLCK)?;
    match lock_call(file, libc::F_OFD_SETLK, &mut lock) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether another open file holds it so, or a process has locked the file and whatever will ever be in it. Nothing is held meanwhile, so nobody is ever kept out by asking.
///
/// # Errors
/// The kernel's: its file system has no such locks.
pub(crate) fn is_held_elsewhere(file: &File) -> io::Result<bool> {
    let mut lock = held_byte(libc::F_WRLCK)?;
    lock_call(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(lock.l_type != kind(libc::F_UNLCK)?)
}

/// A lock of that kind.
fn held_byte(of: libc::c_int) -> io::Result<libc::flock> {
    // The kernel wants no process in it.
    Ok(libc::flock { l_type: kind(of)?, l_whence: kind(libc::SEEK_SET)?, l_start: HELD_BYTE, l_len: 1, l_pid: 0 })
}

fn kind(number: libc::c_int) -> io::Result<libc::c_short> {
    number.try_into().map_err(io::Error::other)
}

fn lock_call(file: &File, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: The descriptor is open for as long as the file is borrowed, and the pointer is to a whole `flock` that nobody else has and that
    // lives through the call, which reads it and writes to it.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Locks by that open file alone all that is in it, or that and all that will ever be: as some other program does.
#[cfg(test)]
pub(crate) fn lock_content(file: &File, for_writing: bool, for_ever: bool) -> io::Result<()> {
    let of = kind(if for_writing { libc::F_WRLCK } else { libc::F_RDLCK })?;
    let bytes = if for_ever { 0 } else { file.metadata()?.len().max(1).try_into().map_err(io::Error::other)? };
    let mut lock = libc::flock { l_type: of, l_whence: kind(libc::SEEK_SET)?, l_start: 0, l_len: bytes, l_pid: 0 };
    lock_call(file, libc::F_OFD_SETLK, &mut lock)
}

/// `IOPRIO_WHO_PROCESS` of the kernel.
const WHO_PROCESS: libc::c_int = 1;

/// The priority of this process at the disk, as the kernel numbers it.
///
/// # Errors
/// The kernel's: it has no such thing.
pub(crate) fn io_priority() -> io::Result<i64> {
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
#[allow(clippy::unwrap_used)]
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

    #[test]
    fn a_lock_of_an_open_file_stays_with_a_copy_of_it_and_does_not_meet_those_of_flock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let first = File::create_new(&path).unwrap();
        first.try_lock().unwrap();
        let [inherited, other] = [(); 2].map(|()| File::open(&path).unwrap());
        assert!(!is_held_elsewhere(&other).unwrap(), "a lock of `flock` is none of these");
        assert!(hold_shared(&inherited).unwrap());
        assert!(is_held_elsewhere(&other).unwrap() && is_held_elsewhere(&first).unwrap());
        assert!(!is_held_elsewhere(&inherited).unwrap());
        let copy = inherited.try_clone().unwrap();
        drop((inherited, File::open(&path).unwrap()));
        assert!(is_held_elsewhere(&other).unwrap(), "somebody still has it open");
        drop(copy);
        assert!(!is_held_elsewhere(&other).unwrap());
        let alone = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::fcntl_lock(&first, alone).unwrap();
        assert!(!hold_shared(&other).unwrap() && is_held_elsewhere(&other).unwrap());
    }

    #[test]
    fn whoever_locks_what_is_in_a_file_is_not_in_the_way_of_those_who_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        std::fs::write(&path, "record").unwrap();
        let [reader, writer, step, other] =
            [(); 4].map(|()| File::options().read(true).write(true).open(&path).unwrap());
        lock_content(&reader, false, false).unwrap();
        assert!(!is_held_elsewhere(&other).unwrap());
        drop(reader);
        lock_content(&writer, true, false).unwrap();
        assert!(!is_held_elsewhere(&other).unwrap() && hold_shared(&step).unwrap());
        assert!(is_held_elsewhere(&other).unwrap());
    }
}
