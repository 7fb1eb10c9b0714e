//! The server's jobs and runs in memory: its journal's rows, decoded, and what is looked up by them. They may be ahead of the disk by what is
//! just being written; [`Kept`](crate::kept::Kept) says when that is there.

use std::collections::{BTreeMap, BTreeSet};

use journal::{Journal, ReadError};
use messages::{AgentId, DecodeError, JobId, MessageId, RunId};

use crate::records::{AGENTS, AgentRow, JOBS, JobRow, RUNS, RunRow};
use crate::schedule::{self, Fleet};
use crate::tally::{Counts, Place, Stage, Tally};
use crate::views::{JobCounts, JobLink, JobState, JobView, RunState, RunView, StepView};

/// Jobs that have ended and are kept. The oldest beyond that are forgotten, with their logs.
pub(crate) const ENDED_JOBS_MAX: usize = 10_000;

/// Jobs of a chain of retries that are shown with each of them.
const CHAIN_MAX: usize = 100;

/// Why the rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The journal refused.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// A row is not what this build writes.
    #[error("a job's row cannot be read; was it written by a later version?")]
    Row(#[from] DecodeError),
}

/// Every job, run and agent.
#[derive(Debug, Default)]
pub(crate) struct Books {
    jobs: BTreeMap<JobId, Job>,
    runs: BTreeMap<RunId, RunRow>,
    agents: BTreeMap<AgentId, AgentRow>,
    messages: BTreeMap<MessageId, RunId>,
    /// Jobs by the time they were taken.
    order: BTreeSet<Place>,
    /// Jobs that do again what another one did not, by that one.
    retries: BTreeSet<(JobId, JobId)>,
    /// Jobs whose rows are being written. Reports about them are understood; nobody is shown them yet.
    expected: BTreeSet<JobId>,
    ended: usize,
    /// All jobs by state, expected ones included.
    states: JobCounts,
    tally: Tally,
}

#[derive(Debug)]
struct Job {
    row: JobRow,
    runs: Vec<RunId>,
    counts: Counts,
    /// Runs that ended because somebody wanted it.
    cancelled: usize,
}

impl Job {
    fn is_over(&self) -> bool {
        // A job that was cancelled before an agent was found has no runs.
        let known = !self.runs.is_empty() || self.row.cancelled.is_some();
        !self.row.unassigned && known && self.counts.is_over()
    }

    fn place(&self) -> Place {
        (self.row.created_ms, self.row.id)
    }

    fn state(&self) -> JobState {
        match self.counts {
            Counts { active: 1.., .. } => JobState::Running,
            Counts { undecided: 1.., .. } => JobState::NeedsDecision,
            Counts { waiting: 1.., .. } => JobState::Waiting,
            _ if self.row.unassigned => JobState::Waiting,
            counts if self.row.cancelled.is_some() && (self.cancelled > 0 || counts.runs() == 0) => JobState::Cancelled,
            Counts { badly: 1.., .. } => JobState::Failed,
            Counts { .. } => JobState::Succeeded,
        }
    }
}

impl Books {
    /// Reads all rows.
    ///
    /// # Errors
    /// [`LoadError`]
    pub(crate) fn load(journal: &Journal) -> Result<Self, LoadError> {
        let mut books = Self::default();
        let mut failure = None;
        journal.app_rows(JOBS, &mut |_, bytes| match JobRow::decode(bytes) {
            Ok(row) => books.put_job(row),
            Err(error) => failure = Some(error),
        })?;
        journal.app_rows(AGENTS, &mut |key, bytes| match (AgentRow::owner(key), AgentRow::decode(bytes)) {
            (Some(agent), Ok(row)) => drop(books.agents.insert(agent, row)),
            (None, Ok(_)) => {}
            (_, Err(error)) => failure = Some(error),
        })?;
        let mut runs = Vec::new();
        journal.app_rows(RUNS, &mut |_, bytes| match RunRow::decode(bytes) {
            Ok(row) => runs.push(row),
            Err(error) => failure = Some(error),
        })?;
        for run in runs {
            books.replace(run);
        }
        failure.map_or(Ok(books), |error| Err(error.into()))
    }

    /// Takes in what a job has become, or one that is not known yet.
    pub(crate) fn put_job(&mut self, row: JobRow) {
        let id = row.id;
        self.change(id, |books| match books.jobs.get_mut(&id) {
            Some(job) => job.row = row,
            None => {
                books.order.insert((row.created_ms, id));
                books.retries.extend(row.retry.as_ref().map(|retry| (retry.job, id)));
                books.jobs.insert(id, Job { row, runs: Vec::new(), counts: Counts::default(), cancelled: 0 });
            }
        });
    }

    /// Takes in what a run has become, or one that is not known yet. Its job is known.
    pub(crate) fn replace(&mut self, run: RunRow) {
        self.change(run.job, |books| {
            let before = books.take_run(run.id);
            let Some(job) = books.jobs.get_mut(&run.job) else { return };
            if before.is_none() {
                job.runs.push(run.id);
            }
            job.counts.add(Stage::of(run.state));
            job.cancelled += usize::from(run.state == RunState::Cancelled);
            books.tally.add_run(&job.row.name, job.place(), &run);
            let given = Stage::of(run.state) != Stage::Waiting;
            if let Some(kin) = job.row.policy.as_ref().and_then(|policy| policy.kin(&job.row.name)).filter(|_| given) {
                books.tally.note_last(kin, job.place(), &run.agent);
            }
            books.messages.insert(run.message, run.id);
            books.runs.insert(run.id, run);
        });
    }

    /// Removes a run that nobody has any more; another one is to be made for its job.
    pub(crate) fn remove_run(&mut self, id: RunId) {
        let Some(job) = self.runs.get(&id).map(|run| run.job) else { return };
        self.change(job, |books| {
            books.take_run(id);
            if let Some(job) = books.jobs.get_mut(&job) {
                job.runs.retain(|run| *run != id);
            }
        });
    }

    /// Takes a run out of everything but its job's list.
    fn take_run(&mut self, id: RunId) -> Option<RunRow> {
        let run = self.runs.remove(&id)?;
        self.messages.remove(&run.message);
        if let Some(job) = self.jobs.get_mut(&run.job) {
            job.counts.remove(Stage::of(run.state));
            job.cancelled = job.cancelled.saturating_sub(usize::from(run.state == RunState::Cancelled));
            self.tally.remove_run(&job.row.name, job.place(), &run);
        }
        Some(run)
    }

    /// Does something to a job, and keeps what is derived from it in step.
    fn change(&mut self, id: JobId, what: impl FnOnce(&mut Self)) {
        let (was_over, was) = (self.is_over(id), self.state(id));
        what(self);
        let Some(job) = self.jobs.get(&id) else { return };
        if let Some(was) = was {
            *self.states.of(was) -= 1;
        }
        *self.states.of(job.state()) += 1;
        let (place, over) = (job.place(), job.is_over());
        self.ended = (self.ended + usize::from(over && !was_over)).saturating_sub(usize::from(was_over && !over));
        self.tally.set_unassigned(&job.row.name, place, job.row.unassigned);
        let Some(policy) = &job.row.policy else { return };
        self.tally.set_timed(id, !over);
        if let Some(concurrency) = &policy.concurrency {
            if over {
                self.tally.leave(&concurrency.group, place);
            } else {
                self.tally.join(&concurrency.group, place);
            }
        }
    }

    /// Takes in a job whose rows are about to be written: its agents may report as soon as they are.
    pub(crate) fn expect(&mut self, job: JobRow, runs: Vec<RunRow>) {
        self.expected.insert(job.id);
        self.put_job(job);
        runs.into_iter().for_each(|run| self.replace(run));
    }

    /// The rows of an expected job are on stable storage.
    pub(crate) fn confirm(&mut self, id: JobId) {
        self.expected.remove(&id);
    }

    /// The rows of an expected job were refused: it never was.
    pub(crate) fn withdraw(&mut self, id: JobId) {
        if self.expected.remove(&id) {
            self.forget(id);
        }
    }

    /// The jobs to forget now, oldest first, each with its runs.
    #[must_use]
    pub(crate) fn to_forget(&self) -> Vec<(JobId, Vec<RunId>)> {
        let excess = self.ended.saturating_sub(ENDED_JOBS_MAX);
        if excess == 0 {
            return Vec::new();
        }
        let over = self.order.iter().filter(|(_, id)| self.is_over(*id)).take(excess);
        over.filter_map(|(_, id)| Some((*id, self.jobs.get(id)?.runs.clone()))).collect()
    }

    /// Forgets a job whose rows are gone or never were.
    pub(crate) fn forget(&mut self, id: JobId) {
        let (over, state) = (self.is_over(id), self.state(id));
        let runs = self.jobs.get(&id).map(|job| job.runs.clone()).unwrap_or_default();
        for run in runs {
            self.take_run(run);
        }
        let Some(job) = self.jobs.remove(&id) else { return };
        self.ended = self.ended.saturating_sub(usize::from(over));
        if let Some(state) = state {
            *self.states.of(state) -= 1;
        }
        self.order.remove(&job.place());
        if let Some(retry) = &job.row.retry {
            self.retries.remove(&(retry.job, id));
        }
        self.tally.set_unassigned(&job.row.name, job.place(), false);
        self.tally.set_timed(id, false);
        if let Some(concurrency) = job.row.policy.as_ref().and_then(|policy| policy.concurrency.as_ref()) {
            self.tally.leave(&concurrency.group, job.place());
        }
    }

    /// Whether nothing of a job changes any more.
    #[must_use]
    pub(crate) fn is_over(&self, id: JobId) -> bool {
        self.jobs.get(&id).is_some_and(Job::is_over)
    }

    /// A job's row.
    #[must_use]
    pub(crate) fn job(&self, id: JobId) -> Option<&JobRow> {
        self.jobs.get(&id).map(|job| &job.row)
    }

    /// How many runs of a job are at which stage.
    #[must_use]
    pub(crate) fn counts(&self, id: JobId) -> Counts {
        self.jobs.get(&id).map(|job| job.counts).unwrap_or_default()
    }

    /// A job's runs.
    pub(crate) fn runs_of(&self, id: JobId) -> impl Iterator<Item = &RunRow> {
        self.jobs.get(&id).into_iter().flat_map(|job| &job.runs).filter_map(|run| self.runs.get(run))
    }

    /// Notes that a job of that name had its turn.
    pub(crate) fn serve(&mut self, job: JobId) {
        if let Some(job) = self.jobs.get(&job) {
            self.tally.serve(&job.row.name);
        }
    }

    /// What the scheduler looks things up by.
    #[must_use]
    pub(crate) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What is kept of an agent.
    #[must_use]
    pub(crate) fn agent(&self, agent: &AgentId) -> Option<&AgentRow> {
        self.agents.get(agent)
    }

    /// Takes in what an agent's row has become.
    pub(crate) fn put_agent(&mut self, agent: AgentId, row: AgentRow) {
        self.agents.insert(agent, row);
    }

    /// A run.
    #[must_use]
    pub(crate) fn run(&self, id: RunId) -> Option<&RunRow> {
        self.runs.get(&id)
    }

    /// The run that a message started.
    #[must_use]
    pub(crate) fn run_of_message(&self, message: MessageId) -> Option<&RunRow> {
        self.messages.get(&message).and_then(|run| self.runs.get(run))
    }

    /// Jobs, the latest first.
    pub(crate) fn latest(&self) -> impl Iterator<Item = JobId> + '_ {
        self.order.iter().rev().map(|(_, id)| *id).filter(|id| !self.expected.contains(id))
    }

    /// Every id.
    #[cfg(test)]
    pub(crate) fn ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied().filter(|id| !self.expected.contains(id))
    }

    /// Every id from that one on, in order.
    pub(crate) fn ids_from(&self, least: JobId) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.range(least..).map(|(id, _)| *id).filter(|id| !self.expected.contains(id))
    }

    /// Runs that an agent has or is about to have, without those that wait for a person.
    #[must_use]
    pub(crate) fn active_runs(&self, agent: &AgentId) -> u64 {
        self.tally.load(agent) as u64
    }

    /// How a job stands. `received` tells whether an agent has everything that was sent to it.
    #[must_use]
    pub(crate) fn view(&self, id: JobId, received: &BTreeMap<AgentId, bool>, fleet: &Fleet) -> Option<JobView> {
        let job = self.jobs.get(&id)?;
        let runs: Vec<RunView> = self.runs_of(id).map(|run| self.run_view(run, received, fleet)).collect();
        let row = &job.row;
        let ended = self.runs_of(id).map(|run| run.work_ended_ms(row.created_ms));
        let ended_ms = ended.collect::<Option<Vec<u64>>>().and_then(|ends| ends.into_iter().max());
        let waiting = row.unassigned.then(|| schedule::unassigned_hold(self, fleet, id)).flatten();
        Some(JobView {
            id,
            name: row.name.clone(),
            state: job.state(),
            created_ms: row.created_ms,
            ended_ms: ended_ms.filter(|_| self.is_over(id)),
            waiting: waiting.map(|hold| hold.to_string()),
            cancelled: row.cancelled.clone(),
            retry_of: row.retry.as_ref().map(|retry| retry.job),
            chain: self.chain(id),
            runs,
        })
    }

    /// The jobs that do again what a job did not.
    pub(crate) fn retries(&self, job: JobId) -> impl Iterator<Item = JobId> + '_ {
        let all = (job, JobId::from_u128(0))..=(job, JobId::from_u128(u128::MAX));
        self.retries.range(all).map(|(_, retry)| *retry).filter(|retry| !self.expected.contains(retry))
    }

    /// A job with those that it does again and those that do it again; nothing if there are none.
    fn chain(&self, job: JobId) -> Vec<JobLink> {
        let mut first = job;
        for _ in 0..CHAIN_MAX {
            let before = self.jobs.get(&first).and_then(|job| job.row.retry.as_ref()).map(|retry| retry.job);
            match before.filter(|before| self.jobs.contains_key(before)) {
                Some(before) => first = before,
                None => break,
            }
        }
        let (mut found, mut next) = (vec![first], 0);
        while next < found.len() && found.len() < CHAIN_MAX {
            found.extend(self.retries(found[next]));
            next += 1;
        }
        if found.len() == 1 {
            return Vec::new();
        }
        let link =
            |id: JobId| Some(JobLink { id, state: self.state(id)?, created_ms: self.jobs.get(&id)?.row.created_ms });
        let mut links: Vec<JobLink> = found.into_iter().take(CHAIN_MAX).filter_map(link).collect();
        links.sort_by_key(|link| (link.created_ms, link.id));
        links
    }

    /// How a job stands, in a word.
    #[must_use]
    pub(crate) fn state(&self, id: JobId) -> Option<JobState> {
        self.jobs.get(&id).map(Job::state)
    }

    /// How many jobs stand how, as they are kept: no job is looked at.
    #[must_use]
    pub(crate) fn states(&self) -> JobCounts {
        let mut states = self.states;
        for state in self.expected.iter().filter_map(|id| self.state(*id)) {
            *states.of(state) -= 1;
        }
        states
    }

    fn run_view(&self, run: &RunRow, received: &BTreeMap<AgentId, bool>, fleet: &Fleet) -> RunView {
        let state = match run.state {
            RunState::Sent if received.get(&run.agent).copied().unwrap_or(false) => RunState::Accepted,
            other => other,
        };
        let steps = run.steps.iter().map(|step| StepView {
            id: step.id.clone(),
            effect: step.effect.clone(),
            state: step.state,
            attempt: step.attempt,
            detail: step.detail.clone(),
            started_ms: step.started_ms,
            ended_ms: step.ended_ms,
            usage: step.usage,
            outputs: step.outputs.clone(),
            note: step.note.clone(),
            earlier: step.earlier,
        });
        let (steps, reason) = (steps.collect(), self.reason(run, fleet));
        RunView { id: run.id, agent: run.agent.clone(), state, reason, retried: run.retried, steps }
    }

    /// Why a run stands where it does, when its state alone does not say it.
    fn reason(&self, run: &RunRow, fleet: &Fleet) -> Option<String> {
        if run.state == RunState::Waiting {
            let hold = schedule::job_hold(self, run.job);
            let name = self.job(run.job).map_or("", |job| job.name.as_str());
            let hold = hold.or_else(|| schedule::bound_hold(self, fleet, &run.agent, name));
            return hold.map(|hold| hold.to_string()).or_else(|| run.reason.clone());
        }
        let away = fleet.get(&run.agent).is_some_and(|agent| !agent.online);
        let there = if away { "; the agent cannot be reached now" } else { "" };
        if !run.state.is_over()
            && let Some(reason) = &run.cancelling
        {
            return Some(format!("its agent was told to end it{there}: {reason}"));
        }
        if let Some(decided) = run.decided.as_ref().filter(|_| run.state == RunState::NeedsDecision) {
            let (step, note) = (&decided.step, &decided.note);
            return Some(format!("a person decided about step {step}, and its agent was told{there}: {note}"));
        }
        match (&run.reason, &run.late) {
            (Some(reason), Some(late)) => Some(format!("{reason}; {late}")),
            (reason, late) => reason.clone().or_else(|| late.clone()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use messages::{Keep, Program, RunStart, StepSpec};

    use super::*;

    fn job(number: u128) -> (JobRow, RunRow) {
        let steps = vec![StepSpec::new("one".parse().unwrap(), Program::Shell("true".into()))];
        let (run, job, name, keep) = (RunId::from_u128(number), JobId::from_u128(number), "n".into(), Keep::default());
        let row = JobRow::recalled(&RunStart { run, job, name, steps, timeout_ms: None, keep, earlier: None }, 1);
        let run = RunRow::waiting(run, job, "a1".parse().unwrap(), MessageId::from_u128(number), Vec::new());
        (row, run)
    }

    #[test]
    fn the_numbers_of_jobs_by_state_are_what_counting_them_gives() {
        let mut books = Books::default();
        let states = [
            RunState::Waiting,
            RunState::Running,
            RunState::NeedsDecision,
            RunState::Succeeded,
            RunState::Failed,
            RunState::Cancelled,
        ];
        let same = |books: &Books| {
            let mut counted = JobCounts::default();
            books.ids().filter_map(|id| books.state(id)).for_each(|state| *counted.of(state) += 1);
            assert_eq!(books.states(), counted);
            counted
        };
        for (number, state) in (1..).zip(states) {
            let (mut row, run) = job(number);
            row.cancelled = (state == RunState::Cancelled).then(|| "enough".to_owned());
            books.expect(row.clone(), vec![run.clone()]);
            same(&books);
            books.confirm(row.id);
            books.replace(RunRow { state, ..run });
            same(&books);
        }
        let one = JobCounts { waiting: 1, running: 1, succeeded: 1, failed: 1, cancelled: 1, needs_decision: 1 };
        assert_eq!(same(&books), one);
        let (row, run) = job(7);
        books.expect(row, vec![run]);
        assert_eq!(same(&books), one, "one that is not written yet is not counted");
        books.withdraw(JobId::from_u128(7));
        let (_, run) = job(6);
        books.replace(RunRow { state: RunState::Failed, ..run.clone() });
        assert_eq!(same(&books).failed, 2, "a run that was cancelled has failed after all");
        books.replace(RunRow { state: RunState::Cancelled, ..run });
        books.remove_run(RunId::from_u128(1));
        same(&books);
        (1..=6).for_each(|number| books.forget(JobId::from_u128(number)));
        assert_eq!(same(&books), JobCounts::default());
    }
}
