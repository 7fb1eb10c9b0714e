//! What a run waits for between two attempts at a step: the delay after a known failure, or a person's word on an unknown outcome.
//! Neither wait holds a slot, and a cancel ends both. Trying a failure again is declared by the step's author and counted apart
//! from resuming after an unknown outcome.

use std::time::Duration;

use messages::{Decision, Retry, StepEnd, StepSpec};

use super::{ExecuteError, Execution};

impl Execution {
    /// Milliseconds to wait before the step is tried again after that end; nothing if it is not.
    pub(super) fn retry_delay(&self, spec: &StepSpec, end: &StepEnd) -> Option<u64> {
        let retry = spec.retry.as_ref()?;
        if self.stopping() {
            return None;
        }
        delay(retry, self.record.progress.at.retries, end)
    }

    /// Waits before the next attempt. After a restart of the agent the wait begins anew: no clock says how much of it has passed.
    pub(super) async fn await_retry(&mut self, delay_ms: u64) -> Result<(), ExecuteError> {
        let Some(spec) = self.record.spec().cloned() else {
            self.record.progress.at.retry_in_ms = None;
            return Ok(());
        };
        self.slot = None;
        let over = tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(delay_ms)) => true,
            () = self.stop_wanted() => false,
        };
        if over && self.take_slot().await {
            return self.begin(&spec).await;
        }
        self.ended(&spec, StepEnd::Cancelled).await
    }

    /// Waits for a person's word on the attempt, and does what it says.
    pub(super) async fn await_decision(&mut self, evidence: String) -> Result<(), ExecuteError> {
        let Some(spec) = self.record.spec().cloned() else {
            self.record.progress.undecided = None;
            return Ok(());
        };
        self.slot = None;
        let decided = tokio::select! {
            decided = self.control.decided(&spec.id, self.record.attempt()) => Some(decided),
            () = self.stop_wanted() => None,
        };
        match decided {
            Some((Decision::Done, note)) => self.declared(&spec, StepEnd::DeclaredDone(note)).await,
            Some((Decision::Fail, note)) => self.declared(&spec, StepEnd::DeclaredFailed(note)).await,
            Some((Decision::Retry, note)) => {
                tracing::info!(run = %self.record.start.run, step = %spec.id, %note, "A step is run again, as a person decided.");
                self.decided_again(&spec, evidence).await
            }
            None => {
                self.control.waits_no_more();
                let end = self.given_up(&spec, &evidence).await;
                self.unknown = true;
                self.ended(&spec, end).await
            }
        }
    }

    /// A person says how the step ended: what is left of it does not go on behind the back of a run that does.
    async fn declared(&mut self, spec: &StepSpec, end: StepEnd) -> Result<(), ExecuteError> {
        if let Err(reason) = self.end_leftovers(spec).await {
            tracing::warn!(run = %self.record.start.run, step = %spec.id, %reason, "What is left of a step that a person declared over goes on.");
        }
        self.control.waits_no_more();
        self.ended(spec, end).await
    }

    /// A person wants the step run again: not beside what is left of the last attempt.
    async fn decided_again(&mut self, spec: &StepSpec, evidence: String) -> Result<(), ExecuteError> {
        if !self.take_slot().await {
            // The run is to be ended, which is seen next.
            return Ok(());
        }
        match self.end_leftovers(spec).await {
            Ok(()) => {
                self.control.waits_no_more();
                self.begin(spec).await
            }
            Err(reason) => self.undecided(spec, format!("{evidence}; it was not run again: {reason}")).await,
        }
    }
}

/// Milliseconds to wait after that end when the step was tried again so often; nothing when that was the last try, or no failure
/// that is tried again.
fn delay(retry: &Retry, retries: u32, end: &StepEnd) -> Option<u64> {
    let failure = match end {
        StepEnd::Exited(0) => false,
        StepEnd::Exited(code) => retry.on_exit.is_empty() || retry.on_exit.contains(code),
        StepEnd::Signaled(_) | StepEnd::TimedOut | StepEnd::NotStarted(_) | StepEnd::Failed(_) => {
            retry.on_exit.is_empty()
        }
        StepEnd::AlreadyDone | StepEnd::Cancelled | StepEnd::Skipped => false,
        StepEnd::DeclaredDone(_) | StepEnd::DeclaredFailed(_) => false,
    };
    let doubled = retry.first_ms.saturating_mul(2u64.saturating_pow(retries));
    (failure && retries < retry.limit).then(|| doubled.min(retry.max_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_the_tries_end() {
        let retry = Retry { limit: 5, on_exit: vec![], first_ms: 100, max_ms: 1_000 };
        let delays: Vec<_> = (0..6).map(|retries| delay(&retry, retries, &StepEnd::Exited(1))).collect();
        assert_eq!(delays, [Some(100), Some(200), Some(400), Some(800), Some(1_000), None]);
        let endless = Retry { limit: 100, on_exit: vec![], first_ms: u64::MAX, max_ms: 7 };
        assert_eq!(delay(&endless, 99, &StepEnd::TimedOut), Some(7));
    }

    #[test]
    fn with_exit_codes_named_only_these_are_tried_again() {
        let retry = Retry { limit: 1, on_exit: vec![75], first_ms: 1, max_ms: 1 };
        assert_eq!(delay(&retry, 0, &StepEnd::Exited(75)), Some(1));
        for other in [StepEnd::Exited(1), StepEnd::Signaled(9), StepEnd::TimedOut, StepEnd::NotStarted("x".into())] {
            assert_eq!(delay(&retry, 0, &other), None, "{other:?}");
        }
        let any = Retry { on_exit: vec![], ..retry };
        for never in [StepEnd::Exited(0), StepEnd::Cancelled, StepEnd::AlreadyDone, StepEnd::DeclaredFailed("x".into())]
        {
            assert_eq!(delay(&any, 0, &never), None, "{never:?}");
        }
    }
}
