//! What a process can change of another one of the same user: a step may have done so to its shim, and the next step would live under it.
//! A shim whose conditions have changed has no other step. It changes nothing.

use std::{fs, io};

use rustix::thread::{CpuSet, sched_getaffinity};

use super::fork;

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

/// Where a process stands among others, by the numbers of its fields behind its name in its `stat` file: priority, nice, real-time
/// priority, policy (`proc_pid_stat(5)`, fields 18, 19, 40 and 41, of which the name is the second).
const STANDING: [usize; 4] = [15, 16, 37, 38];

/// The conditions under which this process runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conditions {
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
        let stat = fs::read_to_string("/proc/self/stat")?;
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        Ok(Self {
            files: FILES.map(|path| fs::read(path).ok()),
            standing: STANDING.iter().filter_map(|field| fields.get(*field)).map(|text| (*text).to_owned()).collect(),
            disk: fork::io_priority()?,
            processors: sched_getaffinity(None)?,
        })
    }
}
