//! What goes wrong: one fault of a class that the scenario enables, wherever it can happen now. It changes the world and tells
//! nobody; what follows is up to the sessions, and judged by the checkers.

use std::sync::Arc;

use super::broker::{Item, Queue};
use super::disk::{DiskFault, SimDisk};
use super::node::{Machine, Node};
use super::scenario::FaultClass;
use super::world::{AskedState, Step, World};

/// Milliseconds of a year.
const YEAR_MS: u64 = 365 * 86_400_000;

impl World {
    /// Lets something go wrong, if what was drawn can happen now.
    pub(crate) fn inject(&mut self) -> Step {
        let total = self.scenario.faults.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.below(total);
        let chosen = self.scenario.faults.iter().find(|(_, weight)| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        let Some((class, _)) = chosen.copied() else { return Ok(()) };
        let happened = self.happen(class)?;
        if happened {
            *self.counts.faults.entry(class).or_default() += 1;
        }
        self.flush_fates()
    }

    fn happen(&mut self, class: FaultClass) -> Result<bool, super::checkers::Violation> {
        match class {
            FaultClass::Loss
            | FaultClass::Duplicate
            | FaultClass::Reorder
            | FaultClass::Delay
            | FaultClass::Purge
            | FaultClass::Garbage => Ok(self.harm_a_queue(class)),
            // These are drawn with each publish.
            FaultClass::LossAfterConfirm | FaultClass::Nack | FaultClass::Return => Ok(false),
            FaultClass::Block | FaultClass::Wipe | FaultClass::OldBroker | FaultClass::BrokerDown => {
                Ok(self.harm_the_broker(class))
            }
            FaultClass::Disconnect
            | FaultClass::Crash
            | FaultClass::Pause
            | FaultClass::PowerLoss
            | FaultClass::DiskFull
            | FaultClass::SyncFails
            | FaultClass::DeadDisk
            | FaultClass::ClockJump
            | FaultClass::Window => self.harm_a_machine(class),
            FaultClass::Damage => self.damage(),
            FaultClass::Rollback => self.roll_back(),
            FaultClass::Reinstall => self.reinstall(),
            FaultClass::Clone => self.clone_machine(),
        }
    }

    fn harm_a_queue(&mut self, class: FaultClass) -> bool {
        let waits = |queue: &Queue| !queue.ready.is_empty() || class == FaultClass::Garbage;
        let queues = self.broker.queues.iter().enumerate();
        let full: Vec<usize> = queues.filter(|(_, queue)| waits(queue)).map(|(seat, _)| seat).collect();
        let Some(seat) = full.get(self.rng.index(full.len())).copied() else { return false };
        let length = self.broker.queues[seat].ready.len();
        let at = self.rng.index(length);
        self.note(usize::MAX, || format!("{class:?} at place {at} of {length} in the queue of seat {seat}"));
        match class {
            FaultClass::Loss => self.broker.lose(seat, at),
            FaultClass::Duplicate => {
                let later = self.rng.index(4);
                self.broker.duplicate(seat, at, later);
            }
            FaultClass::Reorder => {
                let to = self.rng.index(at + 1);
                self.broker.overtake(seat, at, to);
            }
            FaultClass::Delay => {
                let until = self.at + self.rng.pick(&[500, 5_000, 120_000, 3 * 3_600_000]);
                self.broker.hold(seat, at, until);
            }
            FaultClass::Purge => self.broker.purge(seat),
            _ => {
                let bytes = (0..self.rng.below(40)).map(|_| self.rng.next().to_le_bytes()[0]).collect();
                self.broker.enqueue(seat, Item { bytes: Arc::new(bytes), copy: None, wall_ms: 0 });
            }
        }
        true
    }

    fn harm_the_broker(&mut self, class: FaultClass) -> bool {
        match class {
            FaultClass::Block => self.broker.blocked = true,
            FaultClass::Wipe => self.broker.wipe(),
            FaultClass::BrokerDown => {
                self.broker.up = false;
                self.broker.drop_connections();
            }
            _ => {
                if self.rng.percent(50) || !self.broker.restore_snapshot() {
                    self.broker.take_snapshot();
                    self.note(usize::MAX, || "the broker is copied".to_owned());
                    return false;
                }
            }
        }
        self.note(usize::MAX, || format!("{class:?}"));
        true
    }

    fn running(&mut self) -> Option<usize> {
        let running = self.nodes.iter().enumerate().filter(|(_, node)| node.process.is_some());
        let running: Vec<usize> = running.map(|(n, _)| n).collect();
        running.get(self.rng.index(running.len())).copied()
    }

    fn harm_a_machine(&mut self, class: FaultClass) -> Result<bool, super::checkers::Violation> {
        let Some(n) = self.running() else { return Ok(false) };
        self.note(n, || format!("{class:?}"));
        let disk = &self.nodes[n].machine.disk;
        match class {
            FaultClass::Disconnect => {
                let (seat, connection) = (self.nodes[n].seat, self.process(n).connection);
                let Some(connection) = connection else { return Ok(false) };
                self.broker.disconnect(seat, connection);
            }
            FaultClass::Pause => self.process(n).paused = true,
            FaultClass::PowerLoss => disk.break_with(DiskFault::PowerLost),
            FaultClass::DiskFull => disk.break_with(DiskFault::Full),
            FaultClass::SyncFails => disk.break_with(DiskFault::SyncFails),
            FaultClass::DeadDisk => disk.break_with(DiskFault::Dead),
            FaultClass::ClockJump => {
                let (far, back) = (self.rng.within(1, YEAR_MS), self.rng.percent(50));
                if self.jumps {
                    let far = i64::try_from(far).unwrap_or(i64::MAX);
                    self.clocks[n] += if back { -far } else { far };
                }
            }
            FaultClass::Window => {
                self.nodes[n].config.window = u32::try_from(self.rng.within(4, 64)).unwrap_or(64);
                self.crash(n, "to be started with another window")?;
            }
            _ => self.crash(n, "at once")?,
        }
        Ok(true)
    }

    /// Changes the rows of a journal that is closed, expects that it is refused, and puts them back.
    fn damage(&mut self) -> Result<bool, super::checkers::Violation> {
        let Some(n) = self.running() else { return Ok(false) };
        if self.nodes[n].machine.disk.fault().is_some() {
            return Ok(false);
        }
        let mark = self.process(n).writer.mark();
        self.crash(n, "and its disk is harmed")?;
        let whole = self.nodes[n].machine.disk.copy();
        let mut rows = whole.clone();
        let at = self.rng.index(rows.len());
        let Some((key, value)) = rows.iter().nth(at).map(|(key, value)| (key.clone(), value.clone())) else {
            return Ok(false);
        };
        let how = match (self.rng.below(4), self.nodes[n].saved.clone()) {
            (0, _) => {
                rows.remove(&key);
                "a row is missing"
            }
            (1, Some((older, _))) if older.get(&key).is_some_and(|old| *old != value) => {
                rows.extend(older.get(&key).map(|old| (key, old.clone())));
                "a row is back in an older form"
            }
            (2, Some((older, _))) if older != whole => {
                rows = older;
                self.nodes[n].machine.mark = mark;
                "its end is missing"
            }
            _ => {
                let (place, bit) = (self.rng.index(value.len()), self.rng.below(8));
                let mut value = value;
                if let Some(byte) = value.get_mut(place) {
                    *byte ^= 1 << bit;
                }
                rows.insert(key, value);
                "a bit is flipped"
            }
        };
        if rows != whole {
            self.nodes[n].machine.disk.replace(rows);
            self.start(n, Some(how))?;
            self.note(n, || "its disk is put back as it was".to_owned());
            self.nodes[n].machine.disk.replace(whole.clone());
        }
        self.nodes[n].saved = Some((whole, None));
        Ok(true)
    }

    /// Puts a journal back to an older copy, mark and all, as a machine restored from a snapshot would be. What began outside of
    /// the journal is still known.
    fn roll_back(&mut self) -> Result<bool, super::checkers::Violation> {
        let Some(n) = self.running() else { return Ok(false) };
        let node = &mut self.nodes[n];
        let Some((rows, mark)) = node.saved.take() else {
            node.saved = Some((node.machine.disk.copy(), node.machine.mark.clone()));
            self.note(n, || "its journal is copied".to_owned());
            return Ok(false);
        };
        self.crash(n, "and its journal is put back to an older copy")?;
        let seat = self.nodes[n].seat;
        self.nodes[n].machine.disk = Arc::new(SimDisk::of(rows));
        self.nodes[n].machine.mark = mark;
        self.identity_changed(seat, FaultClass::Rollback);
        self.start(n, None)?;
        if seat == 0 {
            // What was acknowledged after the copy was made is gone with the journal that held it: no peer needs to know of it.
            let known: Vec<u64> =
                self.nodes[0].process.iter().flat_map(|server| server.app.jobs.keys().copied()).collect();
            for (job, asked) in &mut self.client {
                if asked.state == AskedState::Acknowledged && !known.contains(job) {
                    asked.state = AskedState::Void;
                }
            }
        }
        Ok(true)
    }

    /// Installs a machine anew under its old name. Only agents: a server that lost its journal has lost the jobs with it.
    fn reinstall(&mut self) -> Result<bool, super::checkers::Violation> {
        let Some(n) = self.running().filter(|n| *n != 0) else { return Ok(false) };
        self.crash(n, "and its machine is installed anew")?;
        let seat = self.nodes[n].seat;
        self.nodes[n].machine =
            Machine { disk: Arc::new(SimDisk::default()), mark: None, attempts: Default::default(), shims: None };
        self.nodes[n].last = None;
        self.identity_changed(seat, FaultClass::Reinstall);
        Ok(true)
    }

    /// Copies a machine while it runs. From then on there are two of it.
    fn clone_machine(&mut self) -> Result<bool, super::checkers::Violation> {
        let Some(n) = self.running().filter(|n| *n != 0 && self.nodes.len() < 8) else { return Ok(false) };
        self.note(n, || "its machine is copied, and both run".to_owned());
        let node = &self.nodes[n];
        let seat = node.seat;
        let copy = Node {
            id: node.id.clone(),
            seat,
            peers: node.peers.clone(),
            machine: Machine {
                disk: Arc::new(SimDisk::of(node.machine.disk.copy())),
                mark: node.machine.mark.clone(),
                attempts: node.machine.attempts.clone(),
                shims: node.machine.shims.clone(),
            },
            config: node.config.clone(),
            process: None,
            lives: 0,
            last: None,
            saved: None,
        };
        self.nodes.push(copy);
        self.clocks.push(self.clocks[n]);
        self.identity_changed(seat, FaultClass::Clone);
        self.cloned.push(seat);
        Ok(true)
    }
}
