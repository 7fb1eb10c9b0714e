//! The server's jobs and runs in memory: its journal's rows, decoded, and what is looked up by them. What they show is on
//! stable storage: as rows, or as messages received whose rows are being written.

use std::collections::{BTreeMap, BTreeSet};

use journal::{Journal, ReadError};
use messages::{AgentId, DecodeError, JobId, MessageId, RunId};

use crate::records::{JOBS, JobRow, RUNS, RunRow};
use crate::views::{JobState, JobView, RunState, RunView, StepView};

/// Jobs that have ended and are kept. The oldest beyond that are forgotten, with their logs.
pub(crate) const ENDED_JOBS_MAX: usize = 10_000;

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

/// Every job.
#[derive(Debug, Default)]
pub(crate) struct Books {
    jobs: BTreeMap<JobId, Job>,
    runs: BTreeMap<RunId, RunRow>,
    messages: BTreeMap<MessageId, RunId>,
    /// Jobs by the time they were taken.
    order: BTreeSet<(u64, JobId)>,
    /// Jobs whose rows are being written. Reports about them are understood; nobody is shown them yet.
    expected: BTreeSet<JobId>,
    ended: usize,
}

#[derive(Debug)]
struct Job {
    row: JobRow,
    runs: Vec<RunId>,
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
            Ok(row) => books.add_job(row),
            Err(error) => failure = Some(error),
        })?;
        let mut runs = Vec::new();
        journal.app_rows(RUNS, &mut |_, bytes| match RunRow::decode(bytes) {
            Ok(row) => runs.push(row),
            Err(error) => failure = Some(error),
        })?;
        for run in runs {
            books.add_run(run);
        }
        books.ended = books.jobs.keys().filter(|id| books.is_over(**id)).count();
        failure.map_or(Ok(books), |error| Err(error.into()))
    }

    fn add_job(&mut self, row: JobRow) {
        self.order.insert((row.created_ms, row.id));
        self.jobs.insert(row.id, Job { row, runs: Vec::new() });
    }

    fn add_run(&mut self, run: RunRow) {
        self.messages.insert(run.message, run.id);
        if let Some(job) = self.jobs.get_mut(&run.job) {
            job.runs.push(run.id);
        }
        self.runs.insert(run.id, run);
    }

    /// Takes in a job whose rows are about to be written: its agents may report as soon as they are.
    pub(crate) fn expect(&mut self, job: JobRow, runs: Vec<RunRow>) {
        self.expected.insert(job.id);
        self.add_job(job);
        runs.into_iter().for_each(|run| self.add_run(run));
    }

    /// The rows of an expected job are on stable storage.
    pub(crate) fn confirm(&mut self, id: JobId) {
        self.expected.remove(&id);
    }

    /// The rows of an expected job were refused: it never was.
    pub(crate) fn withdraw(&mut self, id: JobId) {
        if self.expected.remove(&id) {
            self.remove(id);
        }
    }

    /// Takes in a job that an agent told of.
    pub(crate) fn recall(&mut self, job: JobRow) {
        self.add_job(job);
    }

    /// Replaces a run by what it has become; takes in one that an agent told of.
    pub(crate) fn replace(&mut self, run: RunRow) {
        if !self.runs.contains_key(&run.id) {
            let job = run.job;
            let has_runs = self.jobs.get(&job).is_some_and(|job| !job.runs.is_empty());
            let was = has_runs && self.is_over(job);
            self.add_run(run);
            let is = self.is_over(job);
            self.ended = (self.ended + usize::from(is && !was)).saturating_sub(usize::from(was && !is));
            return;
        }
        let (job, was) = (run.job, self.is_over(run.job));
        self.runs.insert(run.id, run);
        if !was && self.is_over(job) {
            self.ended += 1;
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

    /// Forgets a job that was over and whose rows are gone.
    pub(crate) fn forget(&mut self, id: JobId) {
        if self.remove(id) {
            self.ended = self.ended.saturating_sub(1);
        }
    }

    fn remove(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.remove(&id) else { return false };
        self.order.remove(&(job.row.created_ms, id));
        for run in job.runs {
            if let Some(run) = self.runs.remove(&run) {
                self.messages.remove(&run.message);
            }
        }
        true
    }

    fn is_over(&self, id: JobId) -> bool {
        self.jobs
            .get(&id)
            .is_some_and(|job| job.runs.iter().filter_map(|run| self.runs.get(run)).all(|run| run.state.is_over()))
    }

    /// A job's row.
    #[must_use]
    pub(crate) fn job(&self, id: JobId) -> Option<&JobRow> {
        self.jobs.get(&id).map(|job| &job.row)
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
    pub(crate) fn ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied().filter(|id| !self.expected.contains(id))
    }

    /// Runs of an agent that have not ended.
    #[must_use]
    pub(crate) fn active_runs(&self, agent: &AgentId) -> u64 {
        self.runs.values().filter(|run| run.agent == *agent && !run.state.is_settled()).count() as u64
    }

    /// How a job stands. `received` tells whether an agent has everything that was sent to it.
    #[must_use]
    pub(crate) fn view(&self, id: JobId, received: &BTreeMap<AgentId, bool>) -> Option<JobView> {
        let job = self.jobs.get(&id)?;
        let runs: Vec<RunView> =
            job.runs.iter().filter_map(|run| self.runs.get(run)).map(|run| run_view(run, received)).collect();
        let ended = job.runs.iter().filter_map(|run| self.runs.get(run)).map(|run| run.ended_ms);
        let ended_ms = ended.collect::<Option<Vec<u64>>>().and_then(|ends| ends.into_iter().max());
        let row = &job.row;
        let state = job_state(runs.iter().map(|run| run.state));
        Some(JobView { id, name: row.name.clone(), state, created_ms: row.created_ms, ended_ms, runs })
    }

    /// How a job stands, in a word.
    #[must_use]
    pub(crate) fn state(&self, id: JobId) -> Option<JobState> {
        let job = self.jobs.get(&id)?;
        Some(job_state(job.runs.iter().filter_map(|run| self.runs.get(run)).map(|run| run.state)))
    }
}

fn run_view(run: &RunRow, received: &BTreeMap<AgentId, bool>) -> RunView {
    let state = match run.state {
        RunState::Sent if received.get(&run.agent).copied().unwrap_or(false) => RunState::Accepted,
        RunState::Waiting
        | RunState::Sent
        | RunState::Accepted
        | RunState::Running
        | RunState::Succeeded
        | RunState::Failed
        | RunState::NeedsDecision
        | RunState::Cancelled
        | RunState::TimedOut
        | RunState::Refused => run.state,
    };
    let steps = run.steps.iter().map(|step| StepView {
        id: step.id.clone(),
        effect: step.effect.clone(),
        state: step.state,
        attempt: step.attempt,
        detail: step.detail.clone(),
        started_ms: step.started_ms,
        ended_ms: step.ended_ms,
    });
    RunView { id: run.id, agent: run.agent.clone(), state, reason: run.reason.clone(), steps: steps.collect() }
}

fn job_state(runs: impl Iterator<Item = RunState>) -> JobState {
    let (mut failed, mut undecided, mut cancelled) = (false, false, false);
    for run in runs {
        match run {
            RunState::Waiting | RunState::Sent | RunState::Accepted | RunState::Running => return JobState::Running,
            RunState::Succeeded => {}
            RunState::Failed | RunState::TimedOut | RunState::Refused => failed = true,
            RunState::Cancelled => cancelled = true,
            RunState::NeedsDecision => undecided = true,
        }
    }
    match (undecided, failed, cancelled) {
        (true, _, _) => JobState::NeedsDecision,
        (false, true, _) => JobState::Failed,
        (false, false, true) => JobState::Cancelled,
        (false, false, false) => JobState::Succeeded,
    }
}
