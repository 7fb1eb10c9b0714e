//! The pure rules by which reports from agents change a run's row. A report that cannot be right changes nothing.

use messages::limits::TEXT_BYTES_MAX;
use messages::{RunEnd, RunId, StepChanged, StepEnd, StepEvent, StepId};

use super::RunRow;
use crate::views::{RunState, StepState};

/// Attempts at one step that a report may speak of. An agent stops far earlier.
const ATTEMPTS_MAX: u32 = 1_000_000;

/// Attempts without output that are remembered of a step. An agent stops far earlier.
pub(super) const SILENT_MAX: usize = 256;

/// Why a report cannot be right. It is refused with these words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    /// There is no such run, or it is another agent's.
    #[error("run {run} is not known here")]
    UnknownRun {
        /// The run.
        run: RunId,
    },
    /// The run has no such step.
    #[error("run {run} has no step `{step}`")]
    UnknownStep {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
    },
    /// The run has ended.
    #[error("run {run} has ended already")]
    Ended {
        /// The run.
        run: RunId,
    },
    /// The attempt is out of range or goes back.
    #[error("step `{step}` of run {run} cannot be at attempt {attempt}")]
    Attempt {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
        /// The attempt reported.
        attempt: u32,
    },
}

impl RunRow {
    /// What the end of a run says of its steps when their own reports are lost.
    pub(super) fn mark_steps(&mut self, end: &RunEnd) {
        let (last, state) = match end {
            RunEnd::Succeeded => (None, StepState::Succeeded),
            RunEnd::Failed(step) => (Some(step), StepState::Failed),
            // Where it stood is not known any more.
            RunEnd::Cancelled(_) | RunEnd::TimedOut => return,
        };
        for step in &mut self.steps {
            if Some(&step.id) == last {
                step.state = state;
                return;
            }
            step.state = StepState::Succeeded;
        }
    }

    /// Whether nothing came on either output of an attempt that is over.
    pub(crate) fn is_silent(&self, step: &StepId, attempt: u32) -> bool {
        self.steps.iter().any(|row| row.id == *step && row.silent.contains(&attempt))
    }

    /// Takes in what an agent reports of a step. Of a run that was given up only the step changes.
    ///
    /// # Errors
    /// [`ReportError`]; the run is unchanged then.
    pub(crate) fn step_changed(&mut self, report: &StepChanged) -> Result<(), ReportError> {
        if self.state.is_over() && !self.given_up {
            return Err(ReportError::Ended { run: self.id });
        }
        let unknown = || ReportError::UnknownStep { run: self.id, step: report.step.clone() };
        let index = self.steps.iter().position(|step| step.id == report.step).ok_or_else(unknown)?;
        let step = &mut self.steps[index];
        if report.attempt < step.attempt || report.attempt > ATTEMPTS_MAX {
            return Err(ReportError::Attempt { run: self.id, step: report.step.clone(), attempt: report.attempt });
        }
        step.attempt = report.attempt;
        if !self.given_up {
            self.state = RunState::Running;
            self.reason = None;
            self.decided = None;
        }
        step.usage = report.usage.or(step.usage);
        // An agent that lost its journal counts anew: what is known of an attempt is what was said of it last.
        step.silent.remove(&report.attempt);
        if report.silent {
            step.silent.insert(report.attempt);
            if step.silent.len() > SILENT_MAX {
                step.silent.pop_first();
            }
        }
        if !report.outputs.is_empty() {
            step.outputs.clone_from(&report.outputs);
        }
        match &report.event {
            StepEvent::Started => {
                step.state = StepState::Running;
                step.detail = None;
                step.note = report.note.clone().map(bounded);
                step.started_ms = Some(report.at_ms);
                step.ended_ms = None;
                step.unknown = false;
            }
            StepEvent::Retrying(end, _) => {
                step.detail = meaning(end).1.map(bounded);
                step.ended_ms = Some(report.at_ms);
            }
            StepEvent::Undecided(evidence) => {
                step.state = StepState::NeedsDecision;
                step.detail = Some(bounded(evidence.clone()));
                step.ended_ms = Some(report.at_ms);
                step.unknown = true;
                if !self.given_up {
                    let id = &step.id;
                    self.reason =
                        Some(format!("nobody knows whether step {id} took effect; it is not run again by itself"));
                    self.state = RunState::NeedsDecision;
                }
            }
            StepEvent::Ended(end) => {
                let (state, detail) = meaning(end);
                // Whoever gives it up does not say that it took no effect.
                step.unknown = report.unknown || matches!(end, StepEnd::DeclaredFailed(_));
                step.state = state;
                step.detail = detail.map(bounded);
                step.ended_ms = Some(report.at_ms);
            }
        }
        Ok(())
    }

    /// Takes in that the agent is done with the run.
    ///
    /// # Errors
    /// [`ReportError::Ended`]
    pub(crate) fn finished(&mut self, end: &RunEnd, now_ms: u64) -> Result<(), ReportError> {
        if self.given_up {
            self.late = Some(late(end));
            return Ok(());
        }
        if self.state.is_over() {
            return Err(ReportError::Ended { run: self.id });
        }
        let (state, reason) = match end {
            RunEnd::Succeeded => (RunState::Succeeded, None),
            RunEnd::Failed(step) => (RunState::Failed, Some(format!("step {step} failed"))),
            RunEnd::Cancelled(reason) => (RunState::Cancelled, Some(bounded(reason.clone()))),
            RunEnd::TimedOut => (RunState::TimedOut, Some("its time limit ended it".to_owned())),
        };
        self.end(state, reason, now_ms);
        Ok(())
    }

    /// Takes in that the agent refused the run.
    pub(crate) fn refused(&mut self, reason: &str, now_ms: u64) {
        if self.given_up {
            self.late.get_or_insert_with(|| not_taken(reason));
        } else if !self.state.is_over() {
            self.end(RunState::Refused, Some(bounded(reason.to_owned())), now_ms);
        }
    }

    /// Takes in that the agent refused the run for a reason that passes: it waits again.
    pub(crate) fn put_off(&mut self, reason: &str) {
        if self.given_up {
            self.late.get_or_insert_with(|| not_taken(reason));
        } else if !self.state.is_over() {
            self.state = RunState::Waiting;
            self.reason = Some(bounded(format!("its agent did not take it: {reason}")));
            self.since = None;
        }
    }

    /// Ends a run that no agent has, or that a person gave up.
    pub(crate) fn end(&mut self, state: RunState, reason: Option<String>, now_ms: u64) {
        self.state = state;
        self.reason = reason;
        self.ended_ms = Some(now_ms);
        for step in self.steps.iter_mut().filter(|step| !step.state.is_settled()) {
            step.state = StepState::NotRun;
        }
    }
}

fn not_taken(reason: &str) -> String {
    bounded(format!("the agent reported later that it did not take it: {reason}"))
}

/// What an agent says of a run that was given up, in words.
fn late(end: &RunEnd) -> String {
    match end {
        RunEnd::Succeeded => "the agent reported later that it succeeded".to_owned(),
        RunEnd::Failed(step) => format!("the agent reported later that step {step} failed"),
        RunEnd::Cancelled(_) => "the agent reported later that it was cancelled".to_owned(),
        RunEnd::TimedOut => "the agent reported later that its time limit ended it".to_owned(),
    }
}

fn meaning(end: &StepEnd) -> (StepState, Option<String>) {
    match end {
        StepEnd::Exited(0) => (StepState::Succeeded, None),
        StepEnd::Exited(code) => (StepState::Failed, Some(format!("exit code {code}"))),
        StepEnd::Signaled(signal) => (StepState::Failed, Some(format!("ended by signal {signal}"))),
        StepEnd::TimedOut => (StepState::TimedOut, Some("its time limit ended it".to_owned())),
        StepEnd::NotStarted(reason) => (StepState::Failed, Some(format!("not started: {reason}"))),
        StepEnd::AlreadyDone => (StepState::AlreadyDone, Some("its check found it done".to_owned())),
        StepEnd::Failed(reason) => (StepState::Failed, Some(reason.clone())),
        StepEnd::Cancelled => (StepState::Cancelled, Some("its run was cancelled".to_owned())),
        StepEnd::Skipped => (StepState::Skipped, None),
        StepEnd::DeclaredDone(note) => (StepState::Succeeded, Some(format!("a person said that it is done: {note}"))),
        StepEnd::DeclaredFailed(note) => (StepState::Failed, Some(format!("a person gave it up: {note}"))),
    }
}

/// Text from an agent, fit to be kept and shown: one line, no control characters, bounded.
pub(super) fn bounded(text: String) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use messages::{JobId, MessageId, Program, StepSpec};

    use super::super::StepRow;
    use super::*;

    fn run() -> RunRow {
        let step = |id: &str| StepRow::new(&StepSpec::new(id.parse().unwrap(), Program::Shell("true".into())));
        let (agent, steps) = ("a1".parse().unwrap(), vec![step("one"), step("two")]);
        let run = RunRow::waiting(RunId::from_u128(1), JobId::from_u128(2), agent, MessageId::from_u128(3), steps);
        RunRow { state: RunState::Sent, ..run }
    }

    fn report(step: &str, attempt: u32, event: StepEvent) -> StepChanged {
        StepChanged {
            run: RunId::from_u128(1),
            step: step.parse().unwrap(),
            attempt,
            event,
            at_ms: 5,
            usage: None,
            outputs: BTreeMap::new(),
            note: None,
            unknown: false,
            silent: false,
        }
    }

    #[test]
    fn steps_begin_and_end_and_the_rest_is_not_run() {
        let mut run = run();
        run.step_changed(&report("one", 1, StepEvent::Started)).unwrap();
        assert_eq!((run.state, run.steps[0].state), (RunState::Running, StepState::Running));
        run.step_changed(&report("one", 1, StepEvent::Ended(StepEnd::Exited(3)))).unwrap();
        assert_eq!(run.steps[0].detail.as_deref(), Some("exit code 3"));
        run.finished(&RunEnd::Failed("one".parse().unwrap()), 9).unwrap();
        assert_eq!((run.state, run.steps[1].state), (RunState::Failed, StepState::NotRun));
        assert_eq!(run.ended_ms, Some(9));
    }

    #[test]
    fn attempts_that_said_nothing_are_remembered_the_latest_of_very_many() {
        let mut run = run();
        let (one, silent) = ("one".parse().unwrap(), |attempt| {
            let event = StepEvent::Retrying(StepEnd::Exited(1), 0);
            StepChanged { silent: true, ..report("one", attempt, event) }
        });
        run.step_changed(&silent(1)).unwrap();
        run.step_changed(&report("one", 2, StepEvent::Ended(StepEnd::Exited(0)))).unwrap();
        let known = |run: &RunRow| [0, 1, 2, 3].map(|attempt| run.is_silent(&one, attempt));
        assert_eq!(known(&run), [false, true, false, false]);
        // An agent that lost its journal begins at 1 again.
        let mut again = run.clone();
        again.steps[0].attempt = 1;
        again.step_changed(&report("one", 1, StepEvent::Started)).unwrap();
        assert_eq!(known(&again), [false; 4]);
        for attempt in 3..3 + SILENT_MAX as u32 {
            run.step_changed(&silent(attempt)).unwrap();
        }
        assert_eq!(known(&run), [false, false, false, true]);
    }

    #[test]
    fn an_unknown_outcome_waits_for_a_person_with_its_evidence() {
        let mut run = run();
        let undecided = StepEvent::Undecided("the shim was killed\u{1b}[31m".into());
        run.step_changed(&report("one", 1, undecided)).unwrap();
        assert_eq!((run.state, run.steps[0].state), (RunState::NeedsDecision, StepState::NeedsDecision));
        assert_eq!(run.steps[0].detail.as_deref(), Some("the shim was killed [31m"));
        assert_eq!(run.ended_ms, None);
        run.step_changed(&report("one", 1, StepEvent::Ended(StepEnd::DeclaredDone("seen".into())))).unwrap();
        assert_eq!((run.state, run.steps[0].state), (RunState::Running, StepState::Succeeded));
    }

    #[test]
    fn reports_that_cannot_be_right_change_nothing() {
        let mut run = run();
        run.step_changed(&report("one", 2, StepEvent::Started)).unwrap();
        let before = run.clone();
        assert!(matches!(
            run.step_changed(&report("nine", 1, StepEvent::Started)),
            Err(ReportError::UnknownStep { .. })
        ));
        assert!(matches!(run.step_changed(&report("one", 1, StepEvent::Started)), Err(ReportError::Attempt { .. })));
        assert_eq!(run, before);
        run.refused("no", 3);
        assert!(matches!(run.finished(&RunEnd::Succeeded, 4), Err(ReportError::Ended { .. })));
        assert_eq!(run.state, RunState::Refused);
    }
}
