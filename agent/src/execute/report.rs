//! What is committed and reported of a run: a step's beginning, its end, that it is tried again or waits for a person, and the
//! run's end. Row and report are always one transaction.

use std::collections::BTreeMap;

use link::session::{Outbound, Transaction};
use link::{Begun, SubmitError, outbound, wall_ms};
use messages::limits::TEXT_BYTES_MAX;
use messages::{Body, RunEnd, RunFinished, StepChanged, StepEnd, StepEvent, StepSpec};

use super::{Commit, ExecuteError, Execution};
use crate::attempt::records::cut;
use crate::clock::{RunClock, steady_ms};
use crate::control::Closing;
use crate::records::AtStep;

/// What is known to come after a report, and how long that may wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    /// Nothing: it is committed and published at once.
    Nothing,
    /// Another report, soon in most cases: it is committed at once, and published with that one.
    Report,
    /// The beginning of another attempt, at once: it is committed and published with that one.
    Beginning,
}

impl Execution {
    /// Hands over that another attempt begins, to be committed. Only when it is, the attempt may: see [`Self::begun`].
    pub(super) async fn begin(&mut self, spec: &StepSpec) -> Result<(), ExecuteError> {
        let report = self.beginning(spec)?;
        let begun = self.hand_over(vec![report], Follows::Report).await?;
        self.begun = Some(Commit::Own(begun));
        Ok(())
    }

    /// Waits until the beginning of the attempt under way is on stable storage, and all before it.
    pub(super) async fn begun(&mut self) -> Result<(), ExecuteError> {
        if let Some(before) = self.before.take() {
            before.done().await?;
        }
        match self.begun.take() {
            Some(Commit::Own(begun)) => begun.done().await?,
            Some(Commit::Batch(mut done)) => {
                // Its sender goes away without a word when the journal has failed.
                done.wait_for(|done| *done).await.map_err(|_| SubmitError::Stopped)?;
            }
            None => {}
        }
        Ok(())
    }

    /// Notes that another attempt begins, and makes the report of it. Both are to be one transaction.
    pub(super) fn beginning(&mut self, spec: &StepSpec) -> Result<Outbound, ExecuteError> {
        self.record.begin();
        let boot = self.worker.boot();
        let limited = self.record.start.timeout_ms.is_some();
        let progress = &mut self.record.progress;
        (progress.at.retry_in_ms, progress.undecided) = (None, None);
        if limited {
            progress.clock.get_or_insert_with(|| RunClock::start(boot, steady_ms()));
        }
        let note = self.unenforced(spec);
        (self.used, self.ended_ms, self.silent) = (None, None, false);
        self.step_changed(spec, StepEvent::Started, note, BTreeMap::new())
    }

    /// Commits how a step ended, and with it the end of the run if nothing is left to be run.
    pub(super) async fn ended(&mut self, spec: &StepSpec, end: StepEnd) -> Result<(), ExecuteError> {
        if self.silent {
            self.worker.ship().silent(self.record.start.run, &spec.id, self.record.attempt());
        }
        // What is done already is not done again because nobody knows what it handed on.
        let again = end != StepEnd::AlreadyDone;
        let (end, outputs) = self.hand_on(spec, end).await;
        if let Some(delay_ms) = self.retry_delay(spec, &end).filter(|_| again) {
            self.record.progress.at.retries += 1;
            self.record.progress.at.retry_in_ms = Some(delay_ms);
            let report = self.step_changed(spec, StepEvent::Retrying(end, delay_ms), None, BTreeMap::new())?;
            return self.commit(vec![report]).await;
        }
        let failed = !end.is_success() && end != StepEnd::Cancelled;
        let report = self.step_changed(spec, StepEvent::Ended(end), None, outputs.clone())?;
        self.unknown = false;
        self.note_stop();
        let progress = &mut self.record.progress;
        if failed {
            progress.failed.get_or_insert_with(|| spec.id.clone());
        }
        if !outputs.is_empty() {
            progress.outputs.insert(spec.id.clone(), outputs);
        }
        (progress.undecided, progress.at) = (None, AtStep::default());
        progress.step += 1;
        let from = progress.step;
        self.skip().await;
        if self.record.spec().is_none() {
            return self.finish(vec![report], from).await;
        }
        if self.slot.is_none() {
            return self.commit(vec![report]).await;
        }
        // The next step begins in this slot. Should it not, or the process end before, the files of this one tell how it ended.
        self.before = Some(self.hand_over(vec![report], Follows::Beginning).await?);
        Ok(())
    }

    /// Commits that the run waits for a person.
    pub(super) async fn undecided(&mut self, spec: &StepSpec, evidence: String) -> Result<(), ExecuteError> {
        let evidence = cut(&evidence, TEXT_BYTES_MAX);
        tracing::warn!(run = %self.record.start.run, job = %self.record.start.job, step = %spec.id, %evidence, "Nobody knows whether a step took effect, and it must not run twice: `longshore job resolve` says what became of it.");
        self.record.progress.undecided = Some(evidence.clone());
        // Before the server can know of it, and so before it can answer.
        self.control.wait_for(&spec.id, self.record.attempt());
        let report = self.step_changed(spec, StepEvent::Undecided(evidence), None, BTreeMap::new())?;
        self.commit(vec![report]).await
    }

    /// Commits the end of the run, unless a cancel came first: then it goes on from that step with what is for this case.
    pub(super) async fn finish(&mut self, mut send: Vec<Outbound>, from: usize) -> Result<(), ExecuteError> {
        if let Closing::Cancelled(reason) = self.control.close(self.record.progress.cancelled.is_some()).await {
            self.record.progress.cancelled = Some(reason);
            self.record.progress.step = from;
            return self.commit(send).await;
        }
        let progress = &mut self.record.progress;
        let end = match (&progress.cancelled, progress.timed_out, &progress.failed) {
            (Some(reason), _, _) => RunEnd::Cancelled(reason.clone()),
            (None, true, _) => RunEnd::TimedOut,
            (None, false, Some(step)) => RunEnd::Failed(step.clone()),
            (None, false, None) => RunEnd::Succeeded,
        };
        progress.end = Some(end.clone());
        let body = Body::RunFinished(RunFinished { run: self.record.start.run, end, at_ms: wall_ms() });
        let id = self.worker.message_id();
        let mut report = outbound(self.worker.server(), id, &body, Some(self.record.progress.message))?;
        report.answers = Some(self.record.progress.seq);
        send.push(report);
        if self.slot.is_none() || !self.worker.slots().wanted() {
            return self.commit(send).await;
        }
        // Nothing of this run is to be begun any more, so another may begin while this is committed.
        let committed = self.hand_over(send, Follows::Beginning).await?;
        self.slot = None;
        self.begun().await?;
        Ok(committed.done().await?)
    }

    fn step_changed(
        &self,
        spec: &StepSpec,
        event: StepEvent,
        note: Option<String>,
        outputs: BTreeMap<String, String>,
    ) -> Result<Outbound, ExecuteError> {
        let (usage, silent, ended_ms) = match event {
            // It may have ended long before this process could say so.
            StepEvent::Ended(_) | StepEvent::Retrying(..) => (self.used, self.silent, self.ended_ms),
            StepEvent::Started | StepEvent::Undecided(_) => (None, false, None),
        };
        let report = StepChanged {
            run: self.record.start.run,
            step: spec.id.clone(),
            attempt: self.record.attempt(),
            event,
            at_ms: ended_ms.unwrap_or_else(wall_ms),
            usage,
            outputs,
            note,
            unknown: self.unknown,
            silent,
        };
        let (id, cause) = (self.worker.message_id(), Some(self.record.progress.message));
        Ok(outbound(self.worker.server(), id, &Body::StepChanged(report), cause)?)
    }

    async fn commit(&mut self, send: Vec<Outbound>) -> Result<(), ExecuteError> {
        let committed = self.hand_over(send, Follows::Nothing).await?;
        self.begun().await?;
        Ok(committed.done().await?)
    }

    async fn hand_over(&mut self, send: Vec<Outbound>, follows: Follows) -> Result<Begun, ExecuteError> {
        let (boot, progress) = (self.worker.boot(), &mut self.record.progress);
        let counting = progress.undecided.is_none();
        if let Some(clock) = &mut progress.clock {
            clock.note(boot, steady_ms(), counting);
        }
        let rows = vec![self.record.progress_row()];
        let (may_wait, unhurried) = match follows {
            Follows::Nothing => (false, false),
            Follows::Report => (true, false),
            Follows::Beginning => (true, true),
        };
        let transaction = Transaction { rows, send, may_wait, unhurried, ..Transaction::default() };
        Ok(self.worker.endpoint().begin(transaction).await?)
    }
}
