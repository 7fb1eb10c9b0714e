//! What the scheduler looks things up by: which runs wait for whom, how busy everybody is, which job holds a group. Kept in step
//! with the books by [`Books`](crate::books::Books) alone; holds nothing that is not in them.

use std::collections::{BTreeMap, BTreeSet};

use messages::{AgentId, JobId, RunId};

use crate::records::RunRow;
use crate::views::RunState;

/// Where a run stands, as far as giving out work is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody has it.
    Waiting,
    /// Its agent has it or is about to.
    Active,
    /// It waits for a person. It takes no slot.
    Undecided,
    /// It ended.
    Over {
        /// Whether well.
        well: bool,
    },
}

impl Stage {
    /// The stage of a run in that state.
    #[must_use]
    pub(crate) const fn of(state: RunState) -> Self {
        match state {
            RunState::Waiting => Self::Waiting,
            RunState::Sent | RunState::Accepted | RunState::Running => Self::Active,
            RunState::NeedsDecision => Self::Undecided,
            RunState::Succeeded => Self::Over { well: true },
            RunState::Failed | RunState::Cancelled | RunState::TimedOut | RunState::Refused | RunState::Expired => {
                Self::Over { well: false }
            }
        }
    }
}

/// How many runs of a job are at which stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) waiting: usize,
    pub(crate) active: usize,
    pub(crate) undecided: usize,
    pub(crate) well: usize,
    pub(crate) badly: usize,
}

impl Counts {
    fn of(&mut self, stage: Stage) -> &mut usize {
        match stage {
            Stage::Waiting => &mut self.waiting,
            Stage::Active => &mut self.active,
            Stage::Undecided => &mut self.undecided,
            Stage::Over { well: true } => &mut self.well,
            Stage::Over { well: false } => &mut self.badly,
        }
    }

    pub(crate) fn add(&mut self, stage: Stage) {
        *self.of(stage) += 1;
    }

    pub(crate) fn remove(&mut self, stage: Stage) {
        let count = self.of(stage);
        *count = count.saturating_sub(1);
    }

    /// All of them.
    #[must_use]
    pub(crate) const fn runs(self) -> usize {
        self.waiting + self.active + self.undecided + self.well + self.badly
    }

    /// Those that have begun or may have, and have not ended.
    #[must_use]
    pub(crate) const fn under_way(self) -> usize {
        self.active + self.undecided
    }

    /// Whether every run has ended.
    #[must_use]
    pub(crate) const fn is_over(self) -> bool {
        self.waiting == 0 && self.active == 0 && self.undecided == 0
    }
}

/// A place in the order in which jobs were taken.
pub(crate) type Place = (u64, JobId);
/// Runs that wait for one agent, by the name of their job.
pub(crate) type Queue = BTreeMap<String, BTreeSet<(Place, RunId)>>;

/// What the scheduler looks things up by.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    waiting: BTreeMap<AgentId, Queue>,
    unassigned: BTreeMap<String, BTreeSet<Place>>,
    load: BTreeMap<AgentId, usize>,
    busy: BTreeMap<String, usize>,
    served: BTreeMap<String, u64>,
    turns: u64,
    groups: BTreeMap<String, BTreeSet<Place>>,
    last: BTreeMap<String, (Place, AgentId)>,
    timed: BTreeSet<JobId>,
}

impl Tally {
    pub(crate) fn add_run(&mut self, name: &str, place: Place, run: &RunRow) {
        match Stage::of(run.state) {
            Stage::Waiting => {
                let queue = self.waiting.entry(run.agent.clone()).or_default();
                queue.entry(name.to_owned()).or_default().insert((place, run.id));
            }
            Stage::Active => {
                *self.load.entry(run.agent.clone()).or_default() += 1;
                *self.busy.entry(name.to_owned()).or_default() += 1;
            }
            Stage::Undecided | Stage::Over { .. } => {}
        }
    }

    pub(crate) fn remove_run(&mut self, name: &str, place: Place, run: &RunRow) {
        match Stage::of(run.state) {
            Stage::Waiting => {
                if let Some(queue) = self.waiting.get_mut(&run.agent) {
                    take(queue, name, &(place, run.id));
                    if queue.is_empty() {
                        self.waiting.remove(&run.agent);
                    }
                }
            }
            Stage::Active => {
                less(&mut self.load, &run.agent);
                less(&mut self.busy, name);
            }
            Stage::Undecided | Stage::Over { .. } => {}
        }
    }

    /// Whether a run of the job has still to be made.
    pub(crate) fn set_unassigned(&mut self, name: &str, place: Place, unassigned: bool) {
        if unassigned {
            self.unassigned.entry(name.to_owned()).or_default().insert(place);
        } else {
            take(&mut self.unassigned, name, &place);
        }
    }

    pub(crate) fn join(&mut self, group: &str, place: Place) {
        self.groups.entry(group.to_owned()).or_default().insert(place);
    }

    pub(crate) fn leave(&mut self, group: &str, place: Place) {
        take(&mut self.groups, group, &place);
    }

    pub(crate) fn set_timed(&mut self, job: JobId, timed: bool) {
        if timed {
            self.timed.insert(job);
        } else {
            self.timed.remove(&job);
        }
    }

    /// Jobs that are not over and have a time limit.
    pub(crate) fn timed(&self) -> impl Iterator<Item = JobId> + '_ {
        self.timed.iter().copied()
    }

    /// Notes that a job of that name had its turn.
    pub(crate) fn serve(&mut self, name: &str) {
        self.turns += 1;
        self.served.insert(name.to_owned(), self.turns);
        if self.served.len() > SERVED_MAX {
            let oldest = self.served.iter().min_by_key(|(_, turn)| **turn).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.served.remove(&name));
        }
    }

    /// Notes who was given a job that is to stay with its agent. `kin` are the jobs that stay together.
    pub(crate) fn note_last(&mut self, kin: &str, place: Place, agent: &AgentId) {
        if self.last.get(kin).is_some_and(|(later, _)| *later > place) {
            return;
        }
        self.last.insert(kin.to_owned(), (place, agent.clone()));
        if self.last.len() > LAST_MAX {
            let oldest = self.last.iter().min_by_key(|(_, (place, _))| *place).map(|(kin, _)| kin.clone());
            oldest.and_then(|kin| self.last.remove(&kin));
        }
    }

    /// Who was given the latest of the jobs that stay together.
    #[must_use]
    pub(crate) fn last(&self, kin: &str) -> Option<&AgentId> {
        self.last.get(kin).map(|(_, agent)| agent)
    }

    /// Runs that an agent has or is about to have.
    #[must_use]
    pub(crate) fn load(&self, agent: &AgentId) -> usize {
        self.load.get(agent).copied().unwrap_or(0)
    }

    /// Runs that wait for an agent.
    #[must_use]
    pub(crate) fn queue(&self, agent: &AgentId) -> Option<&Queue> {
        self.waiting.get(agent)
    }

    /// Jobs whose run has still to be made, by name.
    #[must_use]
    pub(crate) const fn unassigned(&self) -> &BTreeMap<String, BTreeSet<Place>> {
        &self.unassigned
    }

    /// Whose turn it is among jobs of different names: less is sooner. First whoever has the least under way, then whoever has waited
    /// longest for a turn.
    #[must_use]
    pub(crate) fn turn(&self, name: &str) -> (usize, u64) {
        (self.busy.get(name).copied().unwrap_or(0), self.served.get(name).copied().unwrap_or(0))
    }

    /// The job that holds a group: the first taken of those that are not over.
    #[must_use]
    pub(crate) fn holder(&self, group: &str) -> Option<JobId> {
        self.groups.get(group)?.first().map(|(_, job)| *job)
    }

    /// The jobs of a group that are not over.
    pub(crate) fn members(&self, group: &str) -> impl Iterator<Item = JobId> + '_ {
        self.groups.get(group).into_iter().flatten().map(|(_, job)| *job)
    }
}

/// Names whose last turn is remembered. One that is forgotten comes sooner than it would.
const SERVED_MAX: usize = 10_000;
/// Names and groups whose last agent is remembered. The next job of one that is forgotten goes to the least busy.
const LAST_MAX: usize = 10_000;

fn take<T: Ord>(sets: &mut BTreeMap<String, BTreeSet<T>>, name: &str, entry: &T) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(entry);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}

fn less<K: Ord + std::borrow::Borrow<Q>, Q: Ord + ?Sized>(counts: &mut BTreeMap<K, usize>, key: &Q) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}
