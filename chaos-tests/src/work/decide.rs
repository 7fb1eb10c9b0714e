//! What a person then says of the steps that wait for one, with the command line, and what becomes of them. Each decision is taken after
//! each victim that can need one. Kills nothing.

use std::process::Command;

use super::round::Round;
use super::table::{Decision, Effect, Fate, Phase, Victim, decided};
use super::{Judged, LIMIT, WorkError, proc};
use crate::live::{longshore, wait_for};

/// What is said of a step that a victim left in that phase; nothing where no step waits for anybody.
const fn decision(victim: Victim, phase: Phase) -> Option<Decision> {
    match (victim, phase) {
        (Victim::Shim, Phase::Exiting) | (Victim::Machine, Phase::Running) => Some(Decision::Done),
        // Beside a step that lives on without its shim, and one of which only the mark is there.
        (Victim::Shim, Phase::Running) | (Victim::Machine, Phase::Started) => Some(Decision::Retry),
        (Victim::Shim, Phase::Started) | (Victim::Machine, Phase::Exiting) => Some(Decision::Fail),
        (Victim::Shim | Victim::Machine, Phase::BeforeStarted | Phase::Exited | Phase::Reported)
        | (Victim::Worker | Victim::Monitor | Victim::Both | Victim::Server | Victim::Broker, _) => None,
    }
}

impl Round<'_> {
    /// Decides about what waits for it, and judges again.
    pub(super) fn decide(&mut self, judged: &[Judged]) -> Result<Vec<Judged>, WorkError> {
        let mut again = Vec::new();
        for at in 0..self.cells.len() {
            let (phase, effect, job) = (self.cells[at].phase, self.cells[at].effect, self.cells[at].job.clone());
            let Some(decision) = decision(self.victim, phase).filter(|_| effect == Effect::Once) else { continue };
            if !judged.iter().any(|cell| cell.job == job && cell.found.job == "needs-decision") {
                // It is wrong already, and nobody would be listened to.
                continue;
            }
            let left = self.cells[at].leader();
            self.say(&job, decision)?;
            if decision == Decision::Retry && phase == Phase::Running {
                let gone = || left.is_none_or(proc::has_ended).then_some(());
                wait_for("what is left of a step to be ended", LIMIT, gone)?;
            }
            self.cells[at].open()?;
            let (fleet, cell) = (&*self.fleet, &self.cells[at]);
            let settled = || fleet.api().job_state(&job).filter(|state| state == "succeeded" || state == "failed");
            // One that does not come to rest is judged as it stands.
            let _ = wait_for("a decision to be carried out", LIMIT, settled);
            let (expected, found) = (decided(phase, decision), cell.outcome(fleet)?);
            let (victim, fate, ok) = (self.victim, Fate::PersonDecides, expected == found);
            again.push(Judged { phase, victim, effect, fate, decision: Some(decision), expected, found, ok, job });
        }
        Ok(again)
    }

    fn say(&self, job: &str, decision: Decision) -> Result<(), WorkError> {
        let mut command = Command::new(longshore()?);
        command.arg("--dir").arg(self.fleet.home()).args(["job", "resolve", job, "--as", decision.as_str()]);
        let output = command.args(["--note", "looked into it"]).output()?;
        let said = || WorkError::Decision(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        if output.status.success() { Ok(()) } else { Err(said()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decision_is_taken_after_both_kills_that_can_need_one() {
        for victim in [Victim::Shim, Victim::Machine] {
            for wanted in Decision::ALL {
                assert!(
                    Phase::ALL.iter().any(|phase| decision(victim, *phase) == Some(*wanted)),
                    "{victim:?} {wanted:?}"
                );
            }
        }
    }
}
