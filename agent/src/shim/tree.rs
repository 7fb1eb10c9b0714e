//! The processes of a running step, all of them: the shim adopts every orphan, so whatever a step starts stays below the shim
//! in the tree, also when it leaves the step's process group or session.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{Pid, Signal, getpid, kill_process_group};

use crate::attempt::procfs::{self, Process};

/// Looks at the tree that often in a row while killing it, since a process may start another between look and signal.
const ROUNDS_MAX: u32 = 100;

/// Sends a signal to every process below this one. SIGKILL is repeated until a look finds none that was not signalled.
pub(super) fn signal(leader: Pid, signal: Signal) {
    let rounds = if signal == Signal::KILL { ROUNDS_MAX } else { 1 };
    let mut known: Vec<Process> = Vec::new();
    for _ in 0..rounds {
        // `/proc` was there when the step was started; should it be gone, the next call tries again.
        let Ok(found) = below(getpid()) else { return };
        let new: Vec<Process> = found.into_iter().filter(|p| !known.iter().any(|k| same(k, p))).collect();
        if new.is_empty() {
            return;
        }
        send(leader, signal, &new);
        known.extend(new);
    }
}

fn same(a: &Process, b: &Process) -> bool {
    a.pid == b.pid && a.start_ticks == b.start_ticks
}

fn send(leader: Pid, signal: Signal, processes: &[Process]) {
    let group = leader.as_raw_nonzero().get();
    let (inside, outside): (Vec<Process>, Vec<Process>) =
        processes.iter().copied().partition(|process: &Process| process.group == group);
    // The whole group at one stroke, so that none of it can start another meanwhile. A member was just seen alive, so the group
    // is still the step's.
    if !inside.is_empty() {
        let _ = kill_process_group(leader, signal);
    }
    for process in outside {
        // One that ended meanwhile needs no signal; one that became another user's cannot be sent any.
        let _ = procfs::signal(process.pid, process.start_ticks, signal, || true);
    }
}

// The living processes below `root`. A child is never older than its parent: one that seems so has lost its parent during the
// look, and the parent's id is another's already.
fn below(root: Pid) -> io::Result<Vec<Process>> {
    let all = procfs::processes()?;
    let by_id: BTreeMap<i32, Process> = all.iter().map(|p| (p.pid.as_raw_nonzero().get(), *p)).collect();
    let root = root.as_raw_nonzero().get();
    let is_below = |process: &Process| {
        let mut child = *process;
        // As many steps as there are processes: ids that changed hands during the look could otherwise make a circle.
        for _ in 0..by_id.len() {
            let Some(parent) = by_id.get(&child.parent).filter(|parent| parent.start_ticks <= child.start_ticks) else {
                return false;
            };
            if child.parent == root {
                return true;
            }
            child = *parent;
        }
        false
    };
    Ok(all.into_iter().filter(|process| !process.dead && is_below(process)).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_grandchild_in_a_session_of_its_own_is_below_its_grandparent() {
        // The grandchild says its id and lives until its input ends.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "setsid sh -c 'echo $$; read end'; true"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        let mut output = child.stdout.take().unwrap();
        while said.last() != Some(&b'\n') {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        let grandchild: i32 = String::from_utf8(said).unwrap().trim().parse().unwrap();
        let found = below(getpid()).unwrap();
        assert!(found.iter().any(|p| p.pid.as_raw_nonzero().get() == grandchild && p.group == grandchild));
        assert!(!below(Pid::from_child(&child)).unwrap().iter().any(|p| p.pid == Pid::from_child(&child)));
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child.wait().unwrap();
    }
}
