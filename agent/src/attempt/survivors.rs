//! Processes of a step that outlived their shim. They are known by the lock on the attempt's record that they inherited and by the control group
//! that they are in, never by a process id that was once written down.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::layout::Record;
use super::procfs;
use super::records::Plan;
use super::state::Survivors;
use crate::groups::Group;
use crate::kernel;

/// Between two looks at processes that were killed and are about to go.
const PAUSE: Duration = Duration::from_millis(10);

/// How the kernel names the lock of a step among those of an open file (`proc_locks(5)`). In between are a process, or none, and the file.
const LOCK_KIND: [&str; 3] = ["OFDLCK", "ADVISORY", "READ"];

/// The control group of the attempt with that record, whose number in the file system is in the group's name: no copy of it has the same. Nothing
/// if its plan has none, or cannot be read.
pub(crate) fn group(record: &File, plan: &Record<Plan>) -> io::Result<Option<Group>> {
    match plan {
        Record::Readable(plan) => group_of(record, plan),
        Record::Absent | Record::Damaged(_) => Ok(None),
    }
}

/// The same, of that plan.
pub(crate) fn group_of(record: &File, plan: &Plan) -> io::Result<Option<Group>> {
    let Some(place) = plan.group.as_ref().map(|group| &group.place) else { return Ok(None) };
    let Some(name) = place.file_name() else { return Ok(None) };
    let mut name = name.to_owned();
    name.push(format!(".{}", record.metadata()?.ino()));
    Ok(Some(Group::at(place.with_file_name(name))))
}

/// Whether any process of the step holds on to the lock that it inherited, or is in its group.
pub(super) fn look(record: &File, group: Option<&Group>) -> io::Result<Survivors> {
    let seen = group.is_some_and(Group::is_populated) || kernel::is_held_elsewhere(record)?;
    Ok(if seen { Survivors::Seen } else { Survivors::NotSeen })
}

/// Kills them, again and again while new ones appear, until none is seen or the time is over.
pub(super) fn end(record: &File, group: Option<&Group>, timeout: Duration) -> io::Result<Survivors> {
    let deadline = Instant::now() + timeout;
    loop {
        if look(record, group)? == Survivors::NotSeen {
            group.inspect(|group| group.remove());
            return Ok(Survivors::NotSeen);
        }
        group.map_or(Ok(()), Group::kill)?;
        // Also those that left the group.
        kill_holders(record)?;
        if Instant::now() >= deadline {
            return look(record, group);
        }
        thread::sleep(PAUSE);
    }
}

fn kill_holders(record: &File) -> io::Result<()> {
    let wanted = record.metadata().map(|metadata| (metadata.dev(), metadata.ino()))?;
    let own = rustix::process::getpid();
    for process in procfs::processes()? {
        if process.pid != own && !process.dead && holds(process.pid, wanted) {
            // Asked again once the process is pinned: it may have ended, and its id be another's.
            procfs::signal(process.pid, process.start_ticks, Signal::KILL, || holds(process.pid, wanted))?;
        }
    }
    Ok(())
}

/// Whether a process has that file open and holds it as only a step's do. Who reads it, or locks it in another way, as a backup does, is none of
/// the step's. What cannot be read belongs to another user, so it is not of the step.
fn holds(pid: Pid, wanted: (u64, u64)) -> bool {
    let process = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|entry| {
        fs::metadata(entry.path()).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == wanted)
            && fs::read_to_string(process.join("fdinfo").join(entry.file_name())).is_ok_and(|text| shows_lock(&text))
    })
}

/// Whether what the kernel says of an open file shows the lock of a step.
fn shows_lock(text: &str) -> bool {
    let byte = kernel::HELD_BYTE.to_string();
    text.lines().filter_map(|line| line.strip_prefix("lock:")).any(|lock| {
        let words: Vec<&str> = lock.split_ascii_whitespace().collect();
        words.get(1..4) == Some(&LOCK_KIND[..]) && words.ends_with(&[&byte, &byte])
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_file_that_holds_the_record_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.1.record");
        let shim = File::create_new(&path).unwrap();
        shim.try_lock().unwrap();
        let wanted = shim.metadata().map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
        let own = rustix::process::getpid();
        assert!(!holds(own, wanted), "a shim's lock, or a reader, is none of the step's");
        for (for_writing, for_ever) in [(false, false), (false, true), (true, false), (true, true)] {
            let other = File::options().read(true).write(true).open(&path).unwrap();
            kernel::lock_content(&other, for_writing, for_ever).unwrap();
            assert!(!holds(own, wanted), "a lock of another kind is none of the step's: {for_writing} {for_ever}");
        }
        let step = File::open(&path).unwrap();
        assert!(kernel::hold_shared(&step).unwrap() && holds(own, wanted));
        drop(step);
        assert!(!holds(own, wanted));
    }
}
