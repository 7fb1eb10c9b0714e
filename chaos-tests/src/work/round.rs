//! One victim: steps of every effect are brought into every phase at once and held there, the victim is killed, everything goes on.
//! Nothing here waits for a time to pass: each phase is seen on disk, or in the kernel, before the kill.
//!
//! ```text
//! 16 slots: running, exiting, exited, reported      in the queue: started, then before-started
//! server stopped ─► reported end, started move up ─► their shims stopped at the mark ─► worker stopped ─► exited end ─► kill
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::Signal;

use super::cell::{BEGINNING, Cell};
use super::proc;
use super::table::{Effect, Phase, Table, Victim, expected};
use super::{AGENT, Judged, LIMIT, WorkError};
use crate::live::{Fleet, wait_for};

/// Runs that the agent does at once: the steps of the four phases that need one.
pub(super) const SLOTS: u16 = 16;

/// Everything of one victim. When it is dropped nothing is stopped and no step waits any more.
pub(super) struct Round<'a> {
    pub(super) fleet: &'a mut Fleet,
    pub(super) victim: Victim,
    pub(super) cells: Vec<Cell>,
    stopped: Vec<i32>,
    shims: Vec<i32>,
}

/// Carries out the round of one victim and judges its cells.
pub(super) fn run(fleet: &mut Fleet, victim: Victim, table: &Table) -> Result<Vec<Judged>, WorkError> {
    fleet.wait_reconciled()?;
    let mut round = Round { fleet, victim, cells: Vec::new(), stopped: Vec::new(), shims: Vec::new() };
    round.submit()?;
    if let Err(error) = round.hold().and_then(|()| round.verify()) {
        if matches!(error, WorkError::Missed(_)) {
            round.let_go();
            round.come_to_rest();
        }
        return Err(error);
    }
    let worker = round.worker()?;
    round.kill(worker)?;
    round.go_on()?;
    let mut judged = round.judge(table)?;
    judged.extend(round.decide(&judged)?);
    Ok(judged)
}

impl Round<'_> {
    /// Gives the agent what it does at once, then what waits for it, and makes the folders in which that will stop.
    fn submit(&mut self) -> Result<(), WorkError> {
        for phase in [Phase::Running, Phase::Exiting, Phase::Exited, Phase::Reported] {
            self.submit_all(phase)?;
        }
        for cell in &self.cells {
            let begun = wait_for("a step to begin", LIMIT, || (cell.executions() == 1).then_some(()));
            begun.map_err(|source| WorkError::NotBegun { why: cell.reason(self.fleet), source })?;
        }
        self.submit_all(Phase::Started)?;
        self.submit_all(Phase::BeforeStarted)?;
        let fleet = &*self.fleet;
        for cell in &mut self.cells {
            wait_for("the agent to have every run", LIMIT, || cell.is_accepted(fleet).then_some(()))?;
        }
        Ok(self.fleet.wait_reconciled()?)
    }

    fn submit_all(&mut self, phase: Phase) -> Result<(), WorkError> {
        for effect in Effect::ALL {
            self.cells.push(Cell::submit(self.fleet, self.victim, phase, *effect)?);
        }
        Ok(())
    }

    /// Brings every step into its phase and holds it there.
    fn hold(&mut self) -> Result<(), WorkError> {
        // A report is not acknowledged by who is stopped.
        self.fleet.server.signal(Signal::STOP)?;
        let server = self.fleet.server.pid().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        wait_for("the server to stop", LIMIT, || proc::has_stopped(server).then_some(()))?;
        for at in self.of(Phase::Exiting) {
            let leader = self.leader(at)?;
            let shim = proc::parent(leader).ok_or(WorkError::Missed(Phase::Exiting))?;
            self.stop_shim(shim)?;
            self.cells[at].open()?;
            wait_for("a step to end", LIMIT, || proc::has_ended(leader).then_some(()))?;
        }
        for at in self.of(Phase::Running) {
            let shim = proc::parent(self.leader(at)?).ok_or(WorkError::Missed(Phase::Running))?;
            self.shims.push(shim);
        }
        let held = self.hold_records()?;
        // A slot is free when the end of its run is in the journal, and not before.
        self.open(Phase::Reported)?;
        self.stop_at_the_mark(&held)?;
        drop(held);
        let worker = self.worker()?;
        self.stop(worker)?;
        self.open(Phase::Exited)?;
        let fleet = &*self.fleet;
        for cell in self.cells.iter().filter(|cell| cell.phase == Phase::Exited) {
            wait_for("the end of a step to be recorded", LIMIT, || cell.has_ended(fleet).then_some(()))?;
        }
        Ok(())
    }

    /// Makes the record of each attempt that is to stop between its mark and its program, and keeps from it the lock that a shim hands to its
    /// step. A shim tries for half a second to have that. This process has to read those through what it holds here: with any other
    /// opening of the file that is closed, the kernel takes its lock away.
    fn hold_records(&self) -> Result<Vec<File>, WorkError> {
        let mut held = Vec::new();
        for cell in self.cells.iter().filter(|cell| cell.phase == Phase::Started) {
            let path = cell.first(self.fleet);
            let run_dir = path.parent().unwrap_or(&path);
            DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
            let record = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            fcntl_lock(&record, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)?;
            held.push(record);
        }
        Ok(held)
    }

    fn stop_at_the_mark(&mut self, records: &[File]) -> Result<(), WorkError> {
        let mut left: Vec<&File> = records.iter().collect();
        while !left.is_empty() {
            let (at, shim) = wait_for("a step to be marked as started", LIMIT, || {
                left.iter().enumerate().find_map(|(at, record)| Some((at, proc::shim(&beginning(record))?)))
            })?;
            left.remove(at);
            self.stop_shim(shim)?;
        }
        Ok(())
    }

    /// Looks whether every step is where it should be. Everything that could move it is stopped.
    fn verify(&self) -> Result<(), WorkError> {
        for cell in &self.cells {
            let fleet = &*self.fleet;
            let (started, ended) = (cell.has_begun(fleet), cell.has_ended(fleet));
            let alive = cell.leader().is_some_and(|leader| !proc::has_ended(leader));
            let seen = (started, cell.executions(), alive, ended);
            let wanted = match cell.phase {
                Phase::BeforeStarted => (false, 0, false, false),
                Phase::Started => (true, 0, false, false),
                Phase::Running => (true, 1, true, false),
                Phase::Exiting => (true, 1, false, false),
                Phase::Exited | Phase::Reported => (true, 1, false, true),
            };
            if seen != wanted {
                return Err(WorkError::Missed(cell.phase));
            }
        }
        Ok(())
    }

    /// The kill, and the start of what was killed. Only then goes on what was stopped and lives.
    fn kill(&mut self, worker: i32) -> Result<(), WorkError> {
        match self.victim {
            Victim::Worker => proc::send(worker, Signal::KILL)?,
            Victim::Monitor => self.kill_monitor(worker)?,
            Victim::Both => {
                self.agent()?.signal(Signal::STOP)?;
                proc::send(worker, Signal::KILL)?;
                self.kill_monitor(worker)?;
            }
            Victim::Server => {
                self.fleet.server.kill()?;
                self.fleet.server.start()?;
            }
            Victim::Broker => self.fleet.node.kill()?,
            Victim::Shim => self.kill_shims()?,
            Victim::Machine => {
                self.agent()?.signal(Signal::STOP)?;
                proc::send(worker, Signal::KILL)?;
                self.kill_shims()?;
                for at in self.of(Phase::Running) {
                    let leader = self.leader(at)?;
                    proc::send(leader, Signal::KILL)?;
                    wait_for("a step to be gone", LIMIT, || proc::has_ended(leader).then_some(()))?;
                }
                self.kill_monitor(worker)?;
            }
        }
        for pid in self.stopped.drain(..) {
            proc::send(pid, Signal::CONT)?;
        }
        self.fleet.server.signal(Signal::CONT)?;
        if self.victim == Victim::Broker {
            self.fleet.node.start()?;
        }
        Ok(())
    }

    /// Kills the monitor, waits until the kernel has taken the worker too, and starts the agent again.
    fn kill_monitor(&mut self, worker: i32) -> Result<(), WorkError> {
        self.agent()?.kill()?;
        wait_for("the worker to be gone", LIMIT, || proc::has_ended(worker).then_some(()))?;
        Ok(self.agent()?.start()?)
    }

    fn kill_shims(&mut self) -> Result<(), WorkError> {
        for shim in self.shims.drain(..) {
            proc::send(shim, Signal::KILL)?;
            wait_for("a shim to be gone", LIMIT, || proc::has_ended(shim).then_some(()))?;
            self.stopped.retain(|pid| *pid != shim);
        }
        Ok(())
    }

    /// Lets every step end, and waits until nothing moves any more.
    fn go_on(&mut self) -> Result<(), WorkError> {
        self.fleet.wait_online()?;
        if self.victim == Victim::Shim {
            // Its step lives on without it, and must be ended before it is run again. Let go before, it would do its work twice.
            for at in self.of(Phase::Running).into_iter().filter(|at| self.cells[*at].effect != Effect::Once) {
                let leader = self.leader(at)?;
                wait_for("what is left of a step to be ended", LIMIT, || {
                    (proc::has_ended(leader) || self.cells[at].executions() > 1).then_some(())
                })?;
            }
        }
        self.open(Phase::BeforeStarted)?;
        self.open(Phase::Started)?;
        // What waits for a person while its step lives on is not let go on meanwhile.
        let alone = self.victim == Victim::Shim;
        let running = self.cells.iter_mut().filter(|cell| cell.phase == Phase::Running);
        running.filter(|cell| !(alone && cell.effect == Effect::Once)).try_for_each(Cell::open)?;
        self.come_to_rest();
        Ok(())
    }

    /// Waits until nothing of any job goes on by itself. One that does not come to rest is judged as it stands.
    fn come_to_rest(&self) {
        let fleet = &*self.fleet;
        let at_rest = |cell: &Cell| wait_for("a job to come to rest", LIMIT, || cell.is_settled(fleet).then_some(()));
        let _ = self.cells.iter().try_for_each(at_rest);
    }

    /// Lets every step end and everything that was stopped go on. What is gone already needs nothing.
    fn let_go(&mut self) {
        for cell in &mut self.cells {
            let _ = cell.open();
        }
        for pid in self.stopped.drain(..) {
            let _ = proc::send(pid, Signal::CONT);
        }
        let _ = self.fleet.server.signal(Signal::CONT);
    }

    fn judge(&self, table: &Table) -> Result<Vec<Judged>, WorkError> {
        let mut judged = Vec::new();
        for cell in self.cells.iter().filter(|cell| self.victim.is_there(cell.phase)) {
            let (victim, phase, effect) = (self.victim, cell.phase, cell.effect);
            let fate = table.fate(effect, phase, victim)?;
            let (expected, found) = (expected(phase, fate), cell.outcome(self.fleet)?);
            let job = cell.job.clone();
            judged.push(Judged {
                phase,
                victim,
                effect,
                fate,
                decision: None,
                ok: expected == found,
                expected,
                found,
                job,
            });
        }
        judged.sort_by_key(|cell| (cell.phase, cell.effect));
        Ok(judged)
    }

    fn of(&self, phase: Phase) -> Vec<usize> {
        (0..self.cells.len()).filter(|at| self.cells[*at].phase == phase).collect()
    }

    fn open(&mut self, phase: Phase) -> Result<(), WorkError> {
        Ok(self.cells.iter_mut().filter(|cell| cell.phase == phase).try_for_each(Cell::open)?)
    }

    fn leader(&self, at: usize) -> Result<i32, WorkError> {
        let cell = &self.cells[at];
        cell.leader().ok_or(WorkError::Missed(cell.phase))
    }

    fn agent(&mut self) -> Result<&mut crate::live::Process, WorkError> {
        self.fleet.process(AGENT).ok_or(WorkError::NoAgent)
    }

    fn worker(&self) -> Result<i32, WorkError> {
        let monitor = self.fleet.agents.get(AGENT).and_then(|agent| agent.pid()).ok_or(WorkError::NoAgent)?;
        let monitor = i32::try_from(monitor).map_err(|_| WorkError::NoAgent)?;
        Ok(wait_for("the monitor to have a worker", LIMIT, || proc::worker(monitor))?)
    }

    fn stop(&mut self, pid: i32) -> Result<(), WorkError> {
        self.stopped.push(pid);
        proc::send(pid, Signal::STOP)?;
        Ok(wait_for("a process to stop", LIMIT, || proc::has_stopped(pid).then_some(()))?)
    }

    fn stop_shim(&mut self, shim: i32) -> Result<(), WorkError> {
        self.shims.push(shim);
        self.stop(shim)
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        // A round that ended early must leave nothing that waits for ever.
        self.let_go();
    }
}

/// What is in the place of the mark in a record. Less if there is less.
fn beginning(record: &File) -> Vec<u8> {
    let mut bytes = vec![0; BEGINNING.len()];
    let count = record.read_at(&mut bytes, 0).unwrap_or_default();
    bytes.truncate(count);
    bytes
}
