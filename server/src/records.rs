//! What the server keeps of jobs and runs: rows of its journal, and the pure rules by which a report from an agent changes
//! them. There is no second database; the views are made from these.

use std::collections::BTreeMap;

use messages::limits::TEXT_BYTES_MAX;
use messages::{
    AgentId, DecodeError, Effect, JobId, MessageId, RunEnd, RunId, RunRecalled, RunStart, StepChanged, StepEnd,
    StepEvent, StepId, StepSpec, from_msgpack, to_msgpack,
};
use serde::{Deserialize, Serialize};

use crate::views::{RunState, StepState};

/// Attempts at one step that a report may speak of. An agent stops far earlier.
const ATTEMPTS_MAX: u32 = 1_000_000;

/// A job. Never changes after it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its name, parameters put in.
    pub name: String,
    /// The job file's text.
    pub definition: String,
    /// The values given for its parameters.
    pub params: BTreeMap<String, String>,
    /// When the server took it, in milliseconds since 1970.
    pub created_ms: u64,
}

/// What one agent does for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRow {
    /// Its id.
    pub id: RunId,
    /// The job.
    pub job: JobId,
    /// The agent.
    pub agent: AgentId,
    /// The message that started it.
    pub message: MessageId,
    /// Where it stands.
    pub state: RunState,
    /// Why, when the state alone does not say it.
    pub reason: Option<String>,
    /// Its steps, in order.
    pub steps: Vec<StepRow>,
    /// When the server learned of its end, in milliseconds since 1970.
    pub ended_ms: Option<u64>,
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepRow {
    /// Its id.
    pub id: StepId,
    /// The name of its effect.
    pub effect: String,
    /// Where it stands.
    pub state: StepState,
    /// The latest attempt, from 1; 0 when there was none.
    pub attempt: u32,
    /// More words: the exit code, the signal, the evidence.
    pub detail: Option<String>,
    /// When the latest attempt began, by the agent's clock.
    pub started_ms: Option<u64>,
    /// When it ended, by the agent's clock.
    pub ended_ms: Option<u64>,
}

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

impl StepRow {
    /// A step that has not begun.
    #[must_use]
    pub(crate) fn new(spec: &StepSpec) -> Self {
        let effect = match spec.effect {
            Effect::ReadOnly => "read-only",
            Effect::Idempotent => "idempotent",
            Effect::Guarded(_) => "guarded",
            Effect::Once => "once",
        };
        Self {
            id: spec.id.clone(),
            effect: effect.to_owned(),
            state: StepState::Pending,
            attempt: 0,
            detail: None,
            started_ms: None,
            ended_ms: None,
        }
    }
}

impl JobRow {
    /// A job that an agent still knows of, and this server's journal does not. Its file and the values of its parameters are lost.
    #[must_use]
    pub(crate) fn recalled(start: &RunStart, now_ms: u64) -> Self {
        let (definition, params) = (String::new(), BTreeMap::new());
        Self { id: start.job, name: start.name.clone(), definition, params, created_ms: now_ms }
    }
}

impl RunRow {
    /// A run that an agent still knows of, and this server's journal does not.
    #[must_use]
    pub(crate) fn recalled(agent: &AgentId, recalled: &RunRecalled, now_ms: u64) -> Self {
        let start = &recalled.start;
        let mut run = Self {
            id: start.run,
            job: start.job,
            agent: agent.clone(),
            message: recalled.message,
            state: RunState::Running,
            reason: Some("the server's journal was lost or restored; its agent told of this run".to_owned()),
            steps: start.steps.iter().map(StepRow::new).collect(),
            ended_ms: None,
        };
        if let Some(end) = &recalled.end {
            // A run that was just made has not ended.
            let _just_made = run.finished(end, now_ms);
            run.mark_steps(end);
        }
        run
    }

    /// What the end of a run says of its steps when their own reports are lost.
    fn mark_steps(&mut self, end: &RunEnd) {
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

    /// Takes in what an agent reports of a step.
    ///
    /// # Errors
    /// [`ReportError`]; the run is unchanged then.
    pub(crate) fn step_changed(&mut self, report: &StepChanged) -> Result<(), ReportError> {
        if self.state.is_over() {
            return Err(ReportError::Ended { run: self.id });
        }
        let unknown = || ReportError::UnknownStep { run: self.id, step: report.step.clone() };
        let index = self.steps.iter().position(|step| step.id == report.step).ok_or_else(unknown)?;
        let step = &mut self.steps[index];
        if report.attempt < step.attempt || report.attempt > ATTEMPTS_MAX {
            return Err(ReportError::Attempt { run: self.id, step: report.step.clone(), attempt: report.attempt });
        }
        step.attempt = report.attempt;
        self.state = RunState::Running;
        self.reason = None;
        match &report.event {
            StepEvent::Started => {
                step.state = StepState::Running;
                step.detail = None;
                step.started_ms = Some(report.at_ms);
                step.ended_ms = None;
            }
            StepEvent::Retrying(end, _) => {
                step.detail = meaning(end).1.map(bounded);
                step.ended_ms = Some(report.at_ms);
            }
            StepEvent::Undecided(evidence) => {
                step.state = StepState::NeedsDecision;
                step.detail = Some(bounded(evidence.clone()));
                step.ended_ms = Some(report.at_ms);
                let id = &step.id;
                self.reason =
                    Some(format!("nobody knows whether step {id} took effect; it is not run again by itself"));
                self.state = RunState::NeedsDecision;
            }
            StepEvent::Ended(end) => {
                let (state, detail) = meaning(end);
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
        if !self.state.is_over() {
            self.end(RunState::Refused, Some(bounded(reason.to_owned())), now_ms);
        }
    }

    fn end(&mut self, state: RunState, reason: Option<String>, now_ms: u64) {
        self.state = state;
        self.reason = reason;
        self.ended_ms = Some(now_ms);
        for step in self.steps.iter_mut().filter(|step| !step.state.is_settled()) {
            step.state = StepState::NotRun;
        }
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
fn bounded(text: String) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// What the names of job rows begin with.
pub(crate) const JOBS: &[u8] = b"job/";
/// What the names of run rows begin with.
pub(crate) const RUNS: &[u8] = b"run/";

fn name(prefix: &[u8], id: uuid::Uuid) -> Vec<u8> {
    [prefix, id.as_bytes()].concat()
}

impl JobRow {
    /// The row's name in the journal.
    #[must_use]
    pub(crate) fn key(id: JobId) -> Vec<u8> {
        name(JOBS, id.uuid())
    }

    /// The row's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        to_msgpack(self).expect("plain structs of text and numbers always encode")
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        from_msgpack(bytes)
    }
}

impl RunRow {
    /// The row's name in the journal.
    #[must_use]
    pub(crate) fn key(id: RunId) -> Vec<u8> {
        name(RUNS, id.uuid())
    }

    /// The row's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        to_msgpack(self).expect("plain structs of text and numbers always encode")
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        from_msgpack(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run() -> RunRow {
        let step = |id: &str| StepRow {
            id: id.parse().unwrap(),
            effect: "once".into(),
            state: StepState::Pending,
            attempt: 0,
            detail: None,
            started_ms: None,
            ended_ms: None,
        };
        RunRow {
            id: RunId::from_u128(1),
            job: JobId::from_u128(2),
            agent: "a1".parse().unwrap(),
            message: MessageId::from_u128(3),
            state: RunState::Sent,
            reason: None,
            steps: vec![step("one"), step("two")],
            ended_ms: None,
        }
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
