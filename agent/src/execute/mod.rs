//! Executing one run, step by step. Each change is committed together with its report before it is acted on, and what has
//! begun is never begun again unless its declared effect, its declared retry or a person allows it.
//!
//! ```text
//! next step ──commit "started"──► attempt ──ended──► commit the end ──► next step, or the end of the run
//!                  ▲                 │  └──known failure with tries left──► commit, wait ──again──┐
//!                  ├──again──── interrupted: the effect decides ──► unknown: a person decides     │
//!                  └──────────────────────────────────────────────────────────◄──────────────────┘
//! ```

mod attend;
mod decide;
mod doubt;
mod earlier;
mod outputs;
mod plan;
mod report;
mod retry;
mod stop;

use std::time::Duration;

use link::session::{Outbound, TransactError};
use link::{Begun, SubmitError};
use messages::{Effect, Program, StepEnd, StepSpec, Usage, When};
use tokio::sync::watch;

use crate::attempt::{Attempt, AttemptState, BootId, Claim, Settled, StateError, blocking};
use crate::control::Control;
use crate::records::RunRecord;
use crate::slots::{Slot, Ticket};
use crate::worker::Worker;

/// Attempts at one step that are begun by themselves after unknown outcomes, the first included. More is no accident any more.
const ATTEMPTS_MAX: u32 = 10;
/// Launches of one attempt whose shim ended without beginning the step.
const LAUNCHES_MAX: u32 = 5;
/// How long a check may take when its step has no time limit of its own.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long survivors of an interrupted attempt get to go.
const SURVIVORS_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a folder that cannot be read is looked at again, and how often at most.
const LOOK_AGAIN: (Duration, u32) = (Duration::from_secs(1), 30);
/// How long a step may take that is run after its run was cancelled or timed out and has no limit of its own.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(600);

/// Why the agent stopped working on a run. The run goes on when the agent runs again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecuteError {
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error("a report cannot be made")]
    Report(#[from] TransactError),
}

/// What came of looking after an attempt.
enum Outcome {
    Ended(StepEnd),
    /// Its run is ended, and nobody knows whether it took effect.
    GivenUp(StepEnd),
    /// Nobody knows whether it took effect, and its effect forbids to run it again: a person decides.
    Undecided(String),
    /// Its outcome is unknown, and its effect allows to run it again.
    Again,
}

/// What is to be done about a step that a lost journal may have begun.
enum Doubt {
    /// Begin it, or look after what its files show of it.
    Begin,
    Done,
    Undecided(String),
}

/// A commit that was handed over.
enum Commit {
    /// Of this run alone.
    Own(Begun),
    /// Of all that came with this run: true when it is done.
    Batch(watch::Receiver<bool>),
}

/// One run being executed.
struct Execution {
    worker: Worker,
    record: RunRecord,
    control: Control,
    /// Its place in the row of those that wait for a slot.
    ticket: Option<Ticket>,
    /// Held while something of it runs or is about to.
    slot: Option<Slot>,
    /// The commit with which the attempt under way began, until it is known to be on stable storage. While there is one, nothing of
    /// the attempt is on the disk but what this process has put there.
    begun: Option<Commit>,
    /// The commit of the end of the step before, which the next beginning or end goes with.
    before: Option<Begun>,
    /// The attempt under way, held for its shim, once this process has prepared it.
    claim: Option<Claim>,
    /// What the attempt that ended last used.
    used: Option<Usage>,
    /// When it ended, in milliseconds since 1970, as its record says.
    ended_ms: Option<u64>,
    /// Nothing came on its outputs.
    silent: bool,
    /// Nobody knows whether the step that is given up took effect.
    unknown: bool,
    /// Folders of this run that a loss of power leaves.
    settled: Settled,
    /// Why no step of it can be begun: the folder that it was to go on in is gone.
    homeless: Option<String>,
}

/// A place for a run, and what it began with.
pub(crate) enum Place {
    /// Its place in the row of those that wait for a slot; nothing if it asks for one later.
    Waits(Option<Ticket>),
    /// It was begun when it was taken. The receiver says when that is on stable storage.
    Begun(Slot, watch::Receiver<bool>),
}

/// Executes what is left of a run until it has ended. While it waits for a person or for another try it has no slot.
pub(crate) async fn execute(
    worker: &Worker,
    record: RunRecord,
    control: Control,
    place: Place,
) -> Result<RunRecord, ExecuteError> {
    let mut run = Execution::new(worker, record, control);
    match place {
        Place::Waits(ticket) => run.ticket = ticket,
        Place::Begun(slot, done) => (run.slot, run.begun) = (Some(slot), Some(Commit::Batch(done))),
    }
    run.take_over().await?;
    run.go().await?;
    Ok(run.record)
}

/// Begins a run that is just being taken: its first step, in a slot that is free, and the report of that, for the transaction in which
/// the run is taken. Nothing if the run is to wait for anything, or if something is to be found out first.
pub(crate) fn begin_at_once(worker: &Worker, record: &mut RunRecord, control: &Control) -> Option<(Slot, Outbound)> {
    if record.progress.doubtful || record.start.earlier.is_some() {
        return None;
    }
    let slot = worker.slots().at_once()?;
    let mut run = Execution::new(worker, record.clone(), control.clone());
    run.skip_unwanted();
    let spec = run.record.spec()?.clone();
    // What cannot be reported is found again, and said, when the run is executed.
    let report = run.beginning(&spec).ok()?;
    *record = run.record;
    Some((slot, report))
}

impl Execution {
    fn new(worker: &Worker, record: RunRecord, control: Control) -> Self {
        Self {
            worker: worker.clone(),
            record,
            control,
            ticket: None,
            slot: None,
            begun: None,
            before: None,
            claim: None,
            used: None,
            ended_ms: None,
            silent: false,
            unknown: false,
            settled: Settled::folder(&worker.runs_dir()),
            homeless: None,
        }
    }

    async fn go(&mut self) -> Result<(), ExecuteError> {
        // Of a step that an earlier process began, a doubtful run knows only what its files say.
        let mut recorded = self.record.attempt() > 0;
        while self.record.progress.end.is_none() {
            if let Some(evidence) = self.record.progress.undecided.clone() {
                self.await_decision(evidence).await?;
                continue;
            }
            if let Some(delay_ms) = self.record.progress.at.retry_in_ms {
                self.await_retry(delay_ms).await?;
                continue;
            }
            let from = self.record.progress.step;
            if self.record.attempt() == 0 {
                self.note_stop();
                self.skip().await;
            }
            let Some(spec) = self.record.spec().cloned() else {
                self.finish(Vec::new(), from).await?;
                continue;
            };
            if !self.take_slot().await && self.record.attempt() == 0 {
                continue;
            }
            let doubted = self.record.progress.doubtful || self.unknown_earlier(&spec).is_some();
            if doubted && (recorded || self.record.attempt() == 0) {
                recorded = false;
                if self.resolve_doubt(&spec).await? {
                    continue;
                }
            }
            if self.record.attempt() == 0 {
                self.begin(&spec).await?;
            }
            match self.attend(&spec).await? {
                Outcome::Again => {
                    self.record.progress.at.resumes += 1;
                    self.begin(&spec).await?;
                }
                Outcome::Ended(end) => self.ended(&spec, end).await?,
                Outcome::GivenUp(end) => {
                    self.unknown = true;
                    self.ended(&spec, end).await?;
                }
                Outcome::Undecided(evidence) => self.undecided(&spec, evidence).await?,
            }
        }
        Ok(())
    }

    /// Whether the step is run as the run stands now.
    fn wanted(&self, spec: &StepSpec) -> bool {
        if self.earlier().is_some_and(|earlier| earlier.done.contains(&spec.id)) {
            return false;
        }
        let progress = &self.record.progress;
        let stopped = progress.cancelled.is_some() || progress.timed_out;
        if stopped && !progress.doubtful && progress.attempts.iter().all(|attempts| *attempts == 0) {
            // Nothing was begun, so there is nothing to clean up after.
            return false;
        }
        match spec.when {
            When::Always => true,
            When::Failure => stopped || progress.failed.is_some(),
            When::Success => !stopped && progress.failed.is_none(),
        }
    }

    /// Goes to the next step that is to be run, of a run that is not in doubt.
    fn skip_unwanted(&mut self) {
        while self.record.spec().is_some_and(|spec| !self.wanted(spec)) {
            self.record.progress.step += 1;
        }
    }

    /// Goes to the next step that is to be run. Those between are not reported: the server knows them by the run's end.
    async fn skip(&mut self) {
        while let Some(spec) = self.record.spec() {
            // What a lost journal began is looked after, whatever the run has come to since.
            if self.wanted(spec) || (self.record.progress.doubtful && self.evident(spec).await) {
                return;
            }
            self.record.progress.step += 1;
        }
    }

    /// Takes a slot, in its turn. False if the run is to be ended before it has one.
    async fn take_slot(&mut self) -> bool {
        if self.slot.is_some() {
            return true;
        }
        let mut ticket = self.ticket.take().unwrap_or_else(|| self.worker.slots().ticket());
        let slot = tokio::select! {
            slot = ticket.wait() => slot,
            () = self.stop_wanted() => None,
        };
        self.slot = slot;
        self.slot.is_some()
    }
}

async fn look(attempt: &Attempt, boot: BootId) -> Result<AttemptState, StateError> {
    let attempt = attempt.clone();
    blocking(move || attempt.state(boot)).await
}

/// The check of a step, if it has one.
const fn check_of(effect: &Effect) -> Option<&Program> {
    match effect {
        Effect::Guarded(check) => Some(check),
        Effect::ReadOnly | Effect::Idempotent | Effect::Once => None,
    }
}
