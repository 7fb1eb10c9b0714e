//! What a process can change of another one of the same user: a step may have done so to its shim, and the next step would live under it.
//! A shim whose conditions have changed has no other step. It changes nothing.

use std::{fs, io};

use rustix::process::getpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity};

/// Files of the kernel that say it: limits of resources, the control group, and how soon the process is ended for want of memory.
const FILES: [&str; 3] = ["/proc/self/limits", "/proc/self/cgroup", "/proc/self/oom_score_adj"];

/// The conditions under which this process runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conditions {
    files: [Vec<u8>; FILES.len()],
    nice: i32,
    processors: CpuSet,
}

impl Conditions {
    /// As they are now.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(super) fn now() -> io::Result<Self> {
        let [limits, group, score] = FILES.map(fs::read);
        Ok(Self {
            files: [limits?, group?, score?],
            nice: getpriority_process(None)?,
            processors: sched_getaffinity(None)?,
        })
    }
}
