//! A run that was sent before this agent's journal was lost or restored, or that goes on from one of which not everything is known: a
//! step may have run although nothing here says so. Its declared effect decides, unless the files of the attempt show what became
//! of it.

use messages::{Effect, StepEnd, StepSpec};

use super::{Doubt, ExecuteError, Execution, look};
use crate::attempt::{Attempt, AttemptState, CheckOutcome};
use crate::worker::make_folder;

impl Execution {
    /// Whether the doubt settled the step: then it is neither begun nor looked after.
    pub(super) async fn resolve_doubt(&mut self, spec: &StepSpec) -> Result<bool, ExecuteError> {
        let doubt = self.doubt(spec).await;
        if matches!(doubt, Doubt::Begin) {
            return Ok(false);
        }
        if self.record.attempt() == 0 {
            self.begin(spec).await?;
        }
        match doubt {
            Doubt::Begin => {}
            Doubt::Done => {
                // Of this attempt nothing has run.
                self.silent = true;
                self.ended(spec, StepEnd::AlreadyDone).await?;
            }
            Doubt::Undecided(evidence) => self.undecided(spec, evidence).await?,
        }
        Ok(true)
    }

    /// Whether the files of the attempt show that it was begun.
    pub(super) async fn evident(&self, spec: &StepSpec) -> bool {
        let stem = self.worker.attempt_stem(self.record.start.run, &spec.id, self.record.attempt().max(1));
        let Ok(attempt) = Attempt::open(&stem) else { return false };
        match look(&attempt, self.worker.boot()).await {
            Ok(AttemptState::NotPrepared | AttemptState::NotStarted) => false,
            Ok(AttemptState::Running { .. } | AttemptState::Ended(_))
            | Ok(AttemptState::Interrupted(_) | AttemptState::Unreadable { .. })
            | Err(_) => true,
        }
    }

    async fn doubt(&self, spec: &StepSpec) -> Doubt {
        if self.evident(spec).await {
            return Doubt::Begin;
        }
        let lost = "the journal of this agent was lost or restored after the run was sent, and nothing shows whether the step ran";
        let evidence =
            self.unknown_earlier(spec).map_or_else(|| lost.to_owned(), |known| format!("in an earlier run: {known}"));
        let check = match &spec.effect {
            Effect::ReadOnly | Effect::Idempotent => return Doubt::Begin,
            Effect::Once => return Doubt::Undecided(evidence),
            Effect::Guarded(check) => check,
        };
        if let Some(reason) = &self.homeless {
            return Doubt::Undecided(format!("{evidence}; its check has no folder to run in: {reason}"));
        }
        if let Err(error) = make_folder(&self.worker.work_dir(self.record.start.run)) {
            return Doubt::Undecided(format!("{evidence}; its check has no folder to run in: {error}"));
        }
        match self.ask(spec, check).await {
            Ok(CheckOutcome::Done) => Doubt::Done,
            Ok(CheckOutcome::NotDone(code @ (126 | 127))) => {
                Doubt::Undecided(format!("{evidence}; its check could not be run (exit code {code})"))
            }
            Ok(CheckOutcome::NotDone(_)) => Doubt::Begin,
            Err(reason) => Doubt::Undecided(format!("{evidence}; {reason}")),
        }
    }
}
