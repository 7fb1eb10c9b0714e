//! Nobody knows what became of an attempt: its declared effect decides, and nothing is run again before what is left of it has
//! been ended.

use std::time::Duration;

use messages::limits::TEXT_BYTES_MAX;
use messages::{Effect, Program, StepEnd, StepSpec};

use super::plan::folder;
use super::{ATTEMPTS_MAX, CHECK_TIMEOUT, Execution, Outcome, SURVIVORS_TIMEOUT, blocking, check_of};
use crate::attempt::layout::chain;
use crate::attempt::records::cut;
use crate::attempt::{Attempt, CheckOutcome, Survivors, run_check};

impl Execution {
    pub(super) async fn decide(
        &self,
        spec: &StepSpec,
        attempt: &Attempt,
        evidence: &str,
        survivors: Survivors,
    ) -> Outcome {
        let unknown = Outcome::Undecided;
        if self.stopping() {
            return Outcome::GivenUp(self.given_up(spec, evidence).await);
        }
        if matches!(spec.effect, Effect::Once) {
            return unknown(evidence.to_owned());
        }
        if survivors == Survivors::Seen
            && let Err(reason) = end_survivors(attempt).await
        {
            return unknown(format!("{evidence}; {reason}"));
        }
        if let Some(check) = check_of(&spec.effect) {
            match self.ask(spec, check).await {
                Ok(CheckOutcome::Done) => return Outcome::Ended(StepEnd::AlreadyDone),
                // What a shell says when it cannot run the check at all: that is no answer.
                Ok(CheckOutcome::NotDone(code @ (126 | 127))) => {
                    return unknown(format!("{evidence}; its check could not be run (exit code {code})"));
                }
                Ok(CheckOutcome::NotDone(_)) => {}
                Err(reason) => return unknown(format!("{evidence}; {reason}")),
            }
        }
        if self.record.progress.at.resumes + 1 >= ATTEMPTS_MAX {
            return unknown(format!("{evidence}; it was begun {ATTEMPTS_MAX} times, and is not again by itself"));
        }
        tracing::info!(run = %self.record.start.run, step = %spec.id, %evidence, "An interrupted step is run again, as its effect allows.");
        Outcome::Again
    }

    /// How the step ended when its run is ended while nobody knows its outcome. What is left of it is ended first.
    pub(super) async fn given_up(&self, spec: &StepSpec, evidence: &str) -> StepEnd {
        let left = match self.end_leftovers(spec).await {
            Ok(()) => String::new(),
            Err(reason) => format!("; {reason}"),
        };
        StepEnd::Failed(cut(
            &format!("its run was ended while nobody knew its outcome: {evidence}{left}"),
            TEXT_BYTES_MAX,
        ))
    }

    /// Ends what is left of the last attempt.
    pub(super) async fn end_leftovers(&self, spec: &StepSpec) -> Result<(), String> {
        let stem = self.worker.attempt_stem(self.record.start.run, &spec.id, self.record.attempt());
        end_survivors(&Attempt::open(&stem).map_err(|error| error.to_string())?).await
    }

    pub(super) async fn ask(&self, spec: &StepSpec, check: &Program) -> Result<CheckOutcome, String> {
        let env = self.environment(spec);
        let dir = folder(&self.worker.work_dir(self.record.start.run), spec);
        let timeout = spec.timeout_ms.map_or(CHECK_TIMEOUT, Duration::from_millis);
        let check = check.clone();
        blocking(move || run_check(&check, &env, &dir, timeout)).await.map_err(|error| chain(&error))
    }
}

async fn end_survivors(attempt: &Attempt) -> Result<(), String> {
    let dying = attempt.clone();
    match blocking(move || dying.end_survivors(SURVIVORS_TIMEOUT)).await {
        Ok(Survivors::NotSeen) => Ok(()),
        Ok(Survivors::Seen) => Err("processes of it cannot be ended".to_owned()),
        Err(error) => Err(chain(&error)),
    }
}
