//! The control group around the processes of a step. The shim moves itself in, starts the program and moves back: what is started is
//! in the group from its first instruction on. The shim itself is not, so that nothing that ends the group ends the shim.

use std::io::{self, Write as _};
use std::path::Path;

use messages::Usage;
use rustix::process::Pid;

use crate::attempt::survivors::group_of;
use crate::attempt::{GroupPlan, Plan};
use crate::groups::{Group, own_group};

/// The group of the step.
pub(super) struct Grouped {
    group: Group,
    /// Where the shim belongs.
    home: Group,
    memory_bytes: Option<u64>,
}

impl Grouped {
    /// Makes the group with its limits, if the plan has one, and starts the program in it. A group without limits that cannot be made is
    /// done without; a limit that was promised and cannot be set is a reason not to start.
    pub(super) fn start(
        dir: &Path,
        plan: &Plan,
        spawn: impl FnOnce() -> Result<Pid, String>,
    ) -> Result<(Pid, Option<Self>), String> {
        let (Some(wanted), Some(group)) = (&plan.group, group_of(dir, plan)) else { return Ok((spawn()?, None)) };
        match own_group().map_err(io::Error::other).and_then(|home| Self::enter(group, Group::at(home), wanted)) {
            Ok(grouped) => grouped.spawn(spawn),
            Err(error) if wanted.memory_bytes.is_some() || wanted.cpu_percent.is_some() => {
                Err(format!("its limits cannot be set: {error}"))
            }
            Err(error) => {
                complain(&format!("the step has no control group: {error}"));
                Ok((spawn()?, None))
            }
        }
    }

    // From here to the start of the program the group has a process in it, so nobody sweeps it away.
    fn enter(group: Group, home: Group, wanted: &GroupPlan) -> io::Result<Self> {
        group.make_and_enter()?;
        let limited = wanted.memory_bytes.map_or(Ok(()), |bytes| {
            // Tried, and taken back until the shim has left.
            group.limit_memory(bytes)?;
            group.unlimit_memory()
        });
        let limited = limited.and_then(|()| wanted.cpu_percent.map_or(Ok(()), |percent| group.limit_cpu(percent)));
        if let Err(error) = limited {
            home.enter()?;
            group.remove();
            return Err(error);
        }
        Ok(Self { group, home, memory_bytes: wanted.memory_bytes })
    }

    fn spawn(self, spawn: impl FnOnce() -> Result<Pid, String>) -> Result<(Pid, Option<Self>), String> {
        let started = spawn();
        // Failing, it stays in the group and is ended with it: then the step counts as interrupted, which is the truth.
        let left = self.home.enter();
        let leader = match started {
            Ok(leader) => leader,
            Err(reason) => {
                self.group.remove();
                return Err(reason);
            }
        };
        // Only now: in the group the shim would be the largest process, and the first to be ended.
        let limited = left.and_then(|()| self.memory_bytes.map_or(Ok(()), |bytes| self.group.limit_memory(bytes)));
        if let Err(error) = limited {
            complain(&format!("the step cannot be limited as it must be, so it is ended: {error}"));
            self.kill();
        }
        Ok((leader, Some(self)))
    }

    /// Ends everything in it.
    pub(super) fn kill(&self) {
        if let Err(error) = self.group.kill() {
            // What is below the shim is ended one by one in any case.
            complain(&format!("the control group of the step cannot be ended at one stroke: {error}"));
        }
    }

    /// What the step used, the rest taken from what the kernel adds up for children, and whether it wanted more memory than it may
    /// have. The group is removed if nothing was left in it.
    pub(super) fn finish(self, children: Option<Usage>) -> (Option<Usage>, bool) {
        let used = self.group.used();
        self.group.remove();
        let usage = children.map(|children| {
            let (user_ms, system_ms) = used.cpu_ms.unwrap_or((children.user_ms, children.system_ms));
            Usage { user_ms, system_ms, memory_bytes: used.memory_bytes.unwrap_or(children.memory_bytes) }
        });
        (usage, used.out_of_memory)
    }
}

// Kept beside the attempt, in the file for what the shim has to complain about.
fn complain(words: &str) {
    let _ = writeln!(io::stderr(), "longshore shim: {words}");
}
