//! Processes of a step that outlived their shim. They are known by the open lock file they inherited and by the control group that
//! they are in, never by a process id that was once written down.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::layout::{Record, TREE, open_lock};
use super::procfs;
use super::records::Plan;
use super::state::Survivors;
use crate::groups::Group;

/// Between two looks at processes that were killed and are about to go.
const PAUSE: Duration = Duration::from_millis(10);

/// The control group of the attempt in that folder, which is named after a file that no copy of the folder has; nothing if its plan
/// has none, or cannot be read.
pub(crate) fn group(dir: &Path, plan: &Record<Plan>) -> Option<Group> {
    match plan {
        Record::Readable(plan) => group_of(dir, plan),
        Record::Absent | Record::Damaged(_) => None,
    }
}

/// The same, of that plan.
pub(crate) fn group_of(dir: &Path, plan: &Plan) -> Option<Group> {
    let place = &plan.group.as_ref()?.place;
    let inode = fs::metadata(dir.join(TREE)).ok()?.ino();
    let mut name = place.file_name()?.to_owned();
    name.push(format!(".{inode}"));
    Some(Group::at(place.with_file_name(name)))
}

/// Whether any process of the step holds on to the lock that it inherited, or is in its group.
pub(super) fn look(dir: &Path, group: Option<&Group>) -> io::Result<Survivors> {
    if group.is_some_and(Group::is_populated) {
        return Ok(Survivors::Seen);
    }
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
pub(super) fn end(dir: &Path, group: Option<&Group>, timeout: Duration) -> io::Result<Survivors> {
    let deadline = Instant::now() + timeout;
    loop {
        if look(dir, group)? == Survivors::NotSeen {
            group.inspect(|group| group.remove());
            return Ok(Survivors::NotSeen);
        }
        group.map_or(Ok(()), Group::kill)?;
        // Also those that left the group.
        kill_holders(&open_lock(dir, TREE)?)?;
        if Instant::now() >= deadline {
            return look(dir, group);
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
