//! What a process can change of another one of the same user: a step may have done so to its shim, and the next step would live under it.
//! A shim whose conditions have changed has no other step. It changes nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::attempt::procfs::stat_field;
use crate::kernel;

/// Files of the kernel that say it: limits of resources, the control group, how soon the process is ended for want of memory, what of it
/// is written down when it breaks, and how exactly it is woken. What a kernel does not have cannot be changed.
const FILES: [&str; 6] = [
    "/proc/self/limits",
    "/proc/self/cgroup",
    "/proc/self/oom_score_adj",
    "/proc/self/coredump_filter",
    "/proc/self/timerslack_ns",
    "/proc/self/autogroup",
];

/// Where a process stands among others, by the numbers of the fields in its `stat` file: priority, nice, real-time
/// priority, policy.
const STANDING: [usize; 4] = [18, 19, 40, 41];

/// Bytes of such a file at most, with room: the limits are the longest, with 1.4 KiB.
const FILE_BYTES_MAX: usize = 8 * 1024;

/// The conditions under which this process ran when it was asked first, and where to look whether they are the same. Its files stay open: they
/// speak of the process that opened them, and so need no way through `/proc` at each look.
#[derive(Debug)]
pub(super) struct Conditions {
    files: [Option<File>; FILES.len()],
    stat: File,
    first: Seen,
}

/// Conditions at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    files: [Option<Vec<u8>>; FILES.len()],
    standing: Vec<String>,
    disk: i64,
    processors: CpuSet,
}

impl Conditions {
    /// As they are now.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(super) fn now() -> io::Result<Self> {
        let files = FILES.map(|path| File::open(path).ok());
        let stat = File::open("/proc/self/stat")?;
        let first = seen(&files, &stat)?;
        Ok(Self { files, stat, first })
    }

    /// Whether they are what they were.
    pub(super) fn are_the_same(&self) -> bool {
        seen(&self.files, &self.stat).is_ok_and(|now| now == self.first)
    }
}

fn seen(files: &[Option<File>; FILES.len()], stat: &File) -> io::Result<Seen> {
    let stat = String::from_utf8_lossy(&content(stat)?).into_owned();
    Ok(Seen {
        files: files.each_ref().map(|file| content(file.as_ref()?).ok()),
        standing: STANDING.iter().filter_map(|field| stat_field(&stat, *field)).map(str::to_owned).collect(),
        disk: kernel::io_priority()?,
        processors: sched_getaffinity(None)?,
    })
}

/// What such a file says now. The kernel makes all of it anew for who reads from its beginning.
fn content(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let count = file.read_at(&mut bytes, 0)?;
    if count == bytes.len() {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn a_limit_that_was_changed_is_seen_by_the_files_that_stayed_open() {
        let conditions = Conditions::now().unwrap();
        assert!(conditions.are_the_same());
        let core = getrlimit(Resource::Core);
        let other = if core.current == Some(4096) { 8192 } else { 4096 };
        setrlimit(Resource::Core, Rlimit { current: Some(other), ..core }).unwrap();
        assert!(!conditions.are_the_same());
        setrlimit(Resource::Core, core).unwrap();
        assert!(conditions.are_the_same());
    }
}
