//! Processes of a step that outlived their shim. They are known by the open lock file they inherited, never by a process id
//! that was once written down.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::layout::{TREE, open_lock};
use super::procfs;
use super::state::Survivors;

/// Between two looks at processes that were killed and are about to go.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether any process of the step holds on to the lock that it inherited.
pub(super) fn look(dir: &Path) -> io::Result<Survivors> {
    let lock = match open_lock(dir, TREE) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Survivors::NotSeen),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Survivors::NotSeen),
        Err(TryLockError::WouldBlock) => Ok(Survivors::Seen),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Kills them, again and again while new ones appear, until none is seen or the time is over.
pub(super) fn end(dir: &Path, timeout: Duration) -> io::Result<Survivors> {
    let deadline = Instant::now() + timeout;
    loop {
        if look(dir)? == Survivors::NotSeen {
            return Ok(Survivors::NotSeen);
        }
        kill_holders(&open_lock(dir, TREE)?)?;
        if Instant::now() >= deadline {
            return look(dir);
        }
        thread::sleep(PAUSE);
    }
}

fn kill_holders(lock: &File) -> io::Result<()> {
    let wanted = lock.metadata().map(|metadata| (metadata.dev(), metadata.ino()))?;
    let own = rustix::process::getpid();
    for process in procfs::processes()? {
        if process.pid != own && !process.dead && holds(process.pid, wanted) {
            // Asked again once the process is pinned: it may have ended, and its id be another's.
            procfs::signal(process.pid, process.start_ticks, Signal::KILL, || holds(process.pid, wanted))?;
        }
    }
    Ok(())
}

// What cannot be read belongs to another user, so it is not of the step.
fn holds(pid: Pid, wanted: (u64, u64)) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) else { return false };
    files
        .flatten()
        .any(|entry| fs::metadata(entry.path()).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == wanted))
}
