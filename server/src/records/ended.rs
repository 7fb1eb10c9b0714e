//! When the work of a run ended, for people: an agent says it of each step, and its report may arrive long after. Decides nothing
//! about the run.

use super::{RunRow, StepRow};
use crate::views::StepState;

impl RunRow {
    /// When its work ended, in milliseconds since 1970; nothing while it is not over. The word of its agent about its steps counts if
    /// it fits between what this server saw itself, that the job was taken and that the run was over; the two clocks differ too much
    /// otherwise. Where the agent said nothing of a step that was begun, or was not asked, it is when the server learned of the end.
    #[must_use]
    pub(crate) fn work_ended_ms(&self, taken_ms: u64) -> Option<u64> {
        let heard_ms = self.ended_ms?;
        let said = || {
            if self.given_up {
                return None;
            }
            let times = self.steps.iter().filter(|step| has_run(step)).map(|step| step.started_ms.zip(step.ended_ms));
            let times: Vec<(u64, u64)> = times.collect::<Option<_>>()?;
            let (begun, ended) =
                (times.iter().map(|(begun, _)| *begun).min()?, times.iter().map(|(_, ended)| *ended).max()?);
            (taken_ms <= begun && begun <= ended && ended <= heard_ms).then_some(ended)
        };
        Some(said().unwrap_or(heard_ms))
    }
}

/// Whether the step was something to do in this run. That one is skipped is said when its agent comes to it, which may be later.
fn has_run(step: &StepRow) -> bool {
    step.earlier.is_none()
        && match step.state {
            StepState::Pending | StepState::Skipped | StepState::NotRun => false,
            StepState::Running | StepState::Succeeded | StepState::Failed | StepState::TimedOut => true,
            StepState::AlreadyDone | StepState::NeedsDecision | StepState::Cancelled => true,
        }
}

#[cfg(test)]
mod tests {
    use messages::{JobId, MessageId, Program, RunId, StepSpec};

    use super::*;

    /// A run whose steps began and ended then, heard of at 5000.
    fn run(steps: &[(StepState, Option<u64>, Option<u64>)]) -> RunRow {
        let id = |number: usize| format!("s{number}").parse().expect("a step's id");
        let rows = steps.iter().enumerate().map(|(number, (state, started_ms, ended_ms))| {
            let row = StepRow::new(&StepSpec::new(id(number), Program::Shell("true".into())));
            StepRow { state: *state, started_ms: *started_ms, ended_ms: *ended_ms, ..row }
        });
        let agent = "a1".parse().expect("an agent's name");
        let run =
            RunRow::waiting(RunId::from_u128(1), JobId::from_u128(2), agent, MessageId::from_u128(3), rows.collect());
        RunRow { ended_ms: Some(5_000), ..run }
    }

    #[test]
    fn a_run_whose_end_was_heard_of_late_ended_when_its_last_step_did() {
        use StepState::{Cancelled, Failed, NotRun, Skipped, Succeeded};
        let (done, failed) = ((Succeeded, Some(1_100), Some(1_200)), (Failed, Some(1_200), Some(1_900)));
        for (steps, ended) in [
            (&[done, failed, (NotRun, None, None)][..], 1_900),
            (&[done, failed, (Skipped, None, Some(4_900)), (Succeeded, Some(1_900), Some(2_000))], 2_000),
            // Its agent's clock is behind, or ahead.
            (&[(Succeeded, Some(999), Some(1_200))], 5_000),
            (&[done, (Succeeded, Some(1_300), Some(5_001))], 5_000),
            // Nothing is known of a step, or nothing was done.
            (&[done, (Succeeded, None, None)], 5_000),
            (&[(Cancelled, None, Some(1_500))], 5_000),
            (&[(NotRun, None, None)], 5_000),
            (&[], 5_000),
        ] {
            assert_eq!(run(steps).work_ended_ms(1_000), Some(ended), "{steps:?}");
        }
        let given_up = RunRow { given_up: true, ..run(&[done]) };
        assert_eq!(given_up.work_ended_ms(1_000), Some(5_000));
        assert_eq!(RunRow { ended_ms: None, ..run(&[done]) }.work_ended_ms(1_000), None);
        let mut earlier = run(&[(Succeeded, None, None), failed]);
        earlier.steps[0].earlier = Some(RunId::from_u128(9));
        assert_eq!(earlier.work_ended_ms(1_000), Some(1_900));
    }
}
