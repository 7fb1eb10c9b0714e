//! The memory that processes took at most, as the kernel counts it (`VmHWM`). It is asked again and again, since a shim's is gone
//! with the shim.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::Serialize;

use crate::live::Fleet;

/// Bytes in the kernel's unit.
const KIB: u64 = 1024;

/// A kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// The agent's worker.
    Agent,
    /// The largest shim.
    Shim,
    /// The server.
    Server,
    /// The broker.
    Broker,
}

/// What one kind took, in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Peak {
    /// Of what.
    pub who: Who,
    /// At most, before anything was written. Of a shim: of one whose step writes nothing.
    pub idle: u64,
    /// At most.
    pub peak: u64,
}

impl Peak {
    /// What came to it.
    #[must_use]
    pub const fn growth(&self) -> u64 {
        self.peak.saturating_sub(self.idle)
    }
}

/// Looks at the processes of a fleet.
pub(super) struct Watch {
    idle: BTreeMap<Who, u64>,
    peak: BTreeMap<Who, u64>,
}

impl Watch {
    /// Of processes that have done a little, but nothing loud.
    pub(super) fn idle(fleet: &Fleet) -> io::Result<Self> {
        let mut watch = Self { idle: BTreeMap::new(), peak: BTreeMap::new() };
        watch.look(fleet);
        watch.idle = watch.peak.clone();
        match [Who::Agent, Who::Server, Who::Broker].iter().find(|who| !watch.idle.contains_key(who)) {
            Some(who) => Err(io::Error::new(io::ErrorKind::NotFound, format!("no memory is known of the {who:?}"))),
            None => Ok(watch),
        }
    }

    pub(super) fn look(&mut self, fleet: &Fleet) {
        let agents: Vec<u32> = fleet.agents.values().filter_map(crate::live::Process::pid).collect();
        let mut found: Vec<(Who, u32)> = agents.iter().map(|pid| (Who::Agent, *pid)).collect();
        found.extend(fleet.server.pid().map(|pid| (Who::Server, pid)));
        found.extend(fleet.node.pid().map(|pid| (Who::Broker, pid)));
        found.extend(agents.iter().flat_map(|pid| shims(*pid)).map(|pid| (Who::Shim, pid)));
        for (who, pid) in found {
            if let Some(bytes) = high_water(pid) {
                let peak = self.peak.entry(who).or_default();
                *peak = (*peak).max(bytes);
            }
        }
    }

    pub(super) fn peaks(mut self, fleet: &Fleet) -> Vec<Peak> {
        self.look(fleet);
        let idle = |who: &Who| self.idle.get(who).copied().unwrap_or(0);
        self.peak.iter().map(|(who, peak)| Peak { who: *who, idle: idle(who), peak: *peak }).collect()
    }
}

/// The shims of an agent that live.
fn shims(agent: u32) -> Vec<u32> {
    let is_shim = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"longshore\0agent\0shim\0"))
    };
    children(agent).into_iter().filter(is_shim).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let text = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect::<String>();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn high_water(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * KIB)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_takes_memory_and_gives_it_back_has_had_it() {
        let own = std::process::id();
        let before = high_water(own).unwrap();
        // Written, so that it is really taken.
        let taken = vec![1u8; 64 << 20];
        assert!(taken.iter().step_by(4_096).all(|byte| *byte == 1));
        drop(taken);
        assert!(high_water(own).unwrap() >= before.max(64 << 20));
    }
}
