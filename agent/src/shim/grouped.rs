//! The control group around the processes of a step. The program is started in it: as a child that is made there, or, where the kernel
//! cannot do that, by a shim that moves itself in and back out. Either way it is in the group from its first instruction on, and the shim
//! is not, so that nothing that ends the group ends the shim.

use std::fs::File;
use std::io::{self, Write as _};
use std::process::Command;

use messages::Usage;
use rustix::fs::Mode;
use rustix::process::Pid;

use super::program;
use crate::attempt::command::spawn_reason;
use crate::attempt::survivors::group_of;
use crate::attempt::{GroupPlan, Plan};
use crate::groups::{Group, own_group};

/// The group of the step.
pub(super) struct Grouped {
    group: Group,
}

/// A shim that has moved itself into the group of its step.
struct Moved {
    group: Group,
    /// Where the shim belongs.
    home: Group,
    memory_bytes: Option<u64>,
}

impl Grouped {
    /// Starts the program, in the group that the plan has, with its limits. A group without limits that cannot be made is done without; a
    /// limit that was promised and cannot be set is a reason not to start.
    pub(super) fn start(
        record: &File,
        plan: &Plan,
        command: &mut Command,
        umask: Mode,
    ) -> Result<(Pid, Option<Self>), String> {
        let reason = |error: &io::Error| spawn_reason(&plan.program, error);
        let (Some(wanted), Some(group)) = (&plan.group, group(record, plan)?) else {
            return program::start(command, umask).map(|leader| (leader, None)).map_err(|error| reason(&error));
        };
        match Self::born(&group, wanted, command, umask)? {
            Some(Ok(leader)) => return Ok((leader, Some(Self { group }))),
            Some(Err(error)) => {
                group.remove();
                return Err(reason(&error));
            }
            None => group.remove(),
        }
        let mut spawn = || program::start(command, umask).map_err(|error| reason(&error));
        match own_group().map_err(io::Error::other).and_then(|home| Moved::enter(group, Group::at(home), wanted)) {
            Ok(moved) => moved.spawn(spawn),
            Err(error) if is_limited(wanted) => Err(format!("its limits cannot be set: {error}")),
            Err(error) => {
                complain(&format!("the step has no control group: {error}"));
                Ok((spawn()?, None))
            }
        }
    }

    /// The program as a child that is made in its group, or why it cannot be executed. Nothing if that cannot be done this way.
    fn born(
        group: &Group,
        wanted: &GroupPlan,
        command: &mut Command,
        umask: Mode,
    ) -> Result<Option<io::Result<Pid>>, String> {
        for last in [false, false, true] {
            match group.make().and_then(|()| limit(group, wanted)) {
                Ok(()) => {}
                // An empty group may be swept away at any time, which happens once at most.
                Err(error) if !last && is_gone(&error) => continue,
                Err(error) if is_limited(wanted) => {
                    group.remove();
                    return Err(format!("its limits cannot be set: {error}"));
                }
                Err(_) => return Ok(None),
            }
            match program::start_in(group, command, umask) {
                Ok(started) => return Ok(Some(started)),
                Err(error) if !last && is_gone(&error) => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Ends everything in it.
    pub(super) fn kill(&self) {
        if let Err(error) = self.group.kill() {
            // What is below the shim is ended one by one in any case.
            complain(&format!("the control group of the step cannot be ended at one stroke: {error}"));
        }
    }

    /// What the step used, the rest taken from what its processes did, and whether it wanted more memory than it may have. The group
    /// is removed if nothing was left in it.
    pub(super) fn finish(self, processes: Usage) -> (Usage, bool) {
        let used = self.group.used();
        self.group.remove();
        let (user_ms, system_ms) = used.cpu_ms.unwrap_or((processes.user_ms, processes.system_ms));
        let memory_bytes = used.memory_bytes.unwrap_or(processes.memory_bytes);
        (Usage { user_ms, system_ms, memory_bytes }, used.out_of_memory)
    }
}

impl Moved {
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

    fn spawn(self, spawn: impl FnOnce() -> Result<Pid, String>) -> Result<(Pid, Option<Grouped>), String> {
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
        let grouped = Grouped { group: self.group };
        // Only now: in the group the shim would be the largest process, and the first to be ended.
        let limited = left.and_then(|()| self.memory_bytes.map_or(Ok(()), |bytes| grouped.group.limit_memory(bytes)));
        if let Err(error) = limited {
            complain(&format!("the step cannot be limited as it must be, so it is ended: {error}"));
            grouped.kill();
        }
        Ok((leader, Some(grouped)))
    }
}

fn limit(group: &Group, wanted: &GroupPlan) -> io::Result<()> {
    wanted.memory_bytes.map_or(Ok(()), |bytes| group.limit_memory(bytes))?;
    wanted.cpu_percent.map_or(Ok(()), |percent| group.limit_cpu(percent))
}

const fn is_limited(wanted: &GroupPlan) -> bool {
    wanted.memory_bytes.is_some() || wanted.cpu_percent.is_some()
}

/// The group that the plan has. One that cannot even be named would be one whose limits nobody keeps.
fn group(record: &File, plan: &Plan) -> Result<Option<Group>, String> {
    group_of(record, plan).map_err(|error| format!("its control group cannot be named: {error}"))
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [libc::ENOENT, libc::ENODEV];
    error.raw_os_error().is_some_and(|number| gone.contains(&number))
}

// Kept beside the attempt, in the file for what the shim has to complain about.
fn complain(words: &str) {
    let _ = writeln!(io::stderr(), "longshore shim: {words}");
}
