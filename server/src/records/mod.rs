//! What the server keeps of jobs, runs and agents: rows of its journal. There is no second database; the views are made from
//! these.

mod ended;
mod reports;

use std::collections::{BTreeMap, BTreeSet};

use messages::{
    AgentFacts, AgentId, Decision, DecodeError, Earlier, Effect, JobId, MessageId, RunId, RunRecalled, RunStart,
    StepId, StepSpec, Usage, from_msgpack, to_msgpack,
};
use serde::{Deserialize, Serialize};

pub(crate) use reports::ReportError;

use crate::clock::Since;
use crate::job_file::{Concurrency, Pick, Share, Target};
use crate::views::{RunState, StepState};

/// A job. After it was taken only its last four fields change.
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
    /// How its work is to be given out. Nothing for a job that an agent told of.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// From when on its time limits count.
    #[serde(default)]
    pub since: Option<Since>,
    /// Its run has still to be made, for the one agent that takes it.
    #[serde(default)]
    pub unassigned: bool,
    /// Somebody wants it ended, with the reason. Nothing more of it is given out.
    #[serde(default)]
    pub cancelled: Option<String>,
    /// It does again what another job did not.
    #[serde(default)]
    pub retry: Option<RetryOf>,
}

/// What a job does again, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RetryOf {
    /// The other job.
    pub job: JobId,
    /// The agents that were named; none for all where it did not succeed.
    pub agents: BTreeSet<AgentId>,
    /// The step that was named.
    pub from: Option<StepId>,
}

/// How the work of a job is to be given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Who is to do it.
    pub target: Target,
    /// What it must not do side by side with.
    pub concurrency: Option<Concurrency>,
    /// Milliseconds that a run of it may take.
    pub timeout_ms: Option<u64>,
}

impl Policy {
    /// Whether one agent is to be found that does it.
    #[must_use]
    pub(crate) fn is_for_one(&self) -> bool {
        self.target.pick == Pick::One
    }

    /// Which jobs stay with one agent together with a job of that name: those of its group, or else those of its name. Nothing if it
    /// goes to the least busy one every time.
    #[must_use]
    pub(crate) fn kin<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let together = self.concurrency.as_ref().map_or(name, |concurrency| &concurrency.group);
        (self.is_for_one() && self.target.sticky).then_some(together)
    }

    /// How many of so many runs may be under way at once.
    #[must_use]
    pub(crate) fn at_once(&self, runs: usize) -> usize {
        self.target.max_parallel.map_or(usize::MAX, |share: Share| share.of(runs))
    }
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
    /// When it was given to its agent.
    #[serde(default)]
    pub since: Option<Since>,
    /// Its agent was told to end it, with the reason.
    #[serde(default)]
    pub cancelling: Option<String>,
    /// What a person decided about a step, until the agent acts on it.
    #[serde(default)]
    pub decided: Option<Decided>,
    /// A person gave the run up while its agent could not be asked.
    #[serde(default)]
    pub given_up: bool,
    /// What the agent said of it after that.
    #[serde(default)]
    pub late: Option<String>,
    /// What earlier runs did of it, without what their steps handed on: that is in its steps.
    #[serde(default)]
    pub earlier: Option<Earlier>,
    /// The job that does again what this run did not.
    #[serde(default)]
    pub retried: Option<JobId>,
}

/// What a person decided about a step of which nobody knows whether it took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decided {
    /// The step.
    pub step: StepId,
    /// What.
    pub decision: Decision,
    /// Why.
    pub note: String,
}

/// What the server keeps of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentRow {
    /// What it said that it is.
    pub facts: Option<AgentFacts>,
    /// Nothing is given to it, for that reason.
    pub paused: Option<String>,
    /// It was told to take nothing, for that reason.
    pub draining: Option<String>,
    /// The one run that it was given, if it does only one.
    pub once: Option<RunId>,
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
    /// What the latest attempt used.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// What it handed on to later steps.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// What its agent could not do as the step wants it.
    #[serde(default)]
    pub note: Option<String>,
    /// It is over, and nobody knows whether it took effect.
    #[serde(default)]
    pub unknown: bool,
    /// Attempts of which nothing came on either output: their logs are complete, and there are no files of them. The
    /// latest [`reports::SILENT_MAX`] of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub silent: BTreeSet<u32>,
    /// It was done in that earlier run.
    #[serde(default)]
    pub earlier: Option<RunId>,
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
            usage: None,
            outputs: BTreeMap::new(),
            note: None,
            unknown: false,
            silent: BTreeSet::new(),
            earlier: None,
        }
    }

    /// A step of a run that an agent told of.
    fn recalled(spec: &StepSpec, start: &RunStart) -> Self {
        let done = start.earlier.as_ref().filter(|earlier| earlier.done.contains(&spec.id));
        let Some(earlier) = done else { return Self::new(spec) };
        let outputs = earlier.outputs.get(&spec.id).cloned().unwrap_or_default();
        Self { state: StepState::Succeeded, earlier: earlier.runs.first().copied(), outputs, ..Self::new(spec) }
    }

    /// Whether it took effect, for all that is known.
    #[must_use]
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, StepState::Succeeded | StepState::AlreadyDone)
    }
}

impl JobRow {
    /// A job that an agent still knows of, and this server's journal does not. Its file and the values of its parameters are lost.
    #[must_use]
    pub(crate) fn recalled(start: &RunStart, now_ms: u64) -> Self {
        let (definition, params) = (String::new(), BTreeMap::new());
        Self {
            id: start.job,
            name: start.name.clone(),
            definition,
            params,
            created_ms: now_ms,
            policy: None,
            since: None,
            unassigned: false,
            cancelled: None,
            retry: None,
        }
    }
}

impl RunRow {
    /// A run that waits to be given to its agent.
    #[must_use]
    pub(crate) fn waiting(id: RunId, job: JobId, agent: AgentId, message: MessageId, steps: Vec<StepRow>) -> Self {
        Self {
            id,
            job,
            agent,
            message,
            state: RunState::Waiting,
            reason: None,
            steps,
            ended_ms: None,
            since: None,
            cancelling: None,
            decided: None,
            given_up: false,
            late: None,
            earlier: None,
            retried: None,
        }
    }

    /// What earlier runs did of it, as its agent is told.
    #[must_use]
    pub(crate) fn told_earlier(&self) -> Option<Earlier> {
        let earlier = self.earlier.clone()?;
        let handed_on = |step: &&StepRow| earlier.done.contains(&step.id) && !step.outputs.is_empty();
        let outputs = self.steps.iter().filter(handed_on).map(|step| (step.id.clone(), step.outputs.clone())).collect();
        Some(Earlier { outputs, ..earlier })
    }

    /// A run that an agent still knows of, and this server's journal does not.
    #[must_use]
    pub(crate) fn recalled(agent: &AgentId, recalled: &RunRecalled, now_ms: u64) -> Self {
        let start = &recalled.start;
        let steps = start.steps.iter().map(|spec| StepRow::recalled(spec, start)).collect();
        let mut run = Self {
            state: RunState::Running,
            reason: Some("the server's journal was lost or restored; its agent told of this run".to_owned()),
            earlier: start.earlier.as_ref().map(|earlier| Earlier { outputs: BTreeMap::new(), ..earlier.clone() }),
            ..Self::waiting(start.run, start.job, agent.clone(), recalled.message, steps)
        };
        if let Some(end) = &recalled.end {
            // A run that was just made has not ended.
            let _just_made = run.finished(end, now_ms);
            run.mark_steps(end);
        }
        run
    }
}

/// What the names of job rows begin with.
pub(crate) const JOBS: &[u8] = b"job/";
/// What the names of run rows begin with.
pub(crate) const RUNS: &[u8] = b"run/";
/// What the names of agent rows begin with.
pub(crate) const AGENTS: &[u8] = b"agent/";

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

impl AgentRow {
    /// The row's name in the journal.
    #[must_use]
    pub(crate) fn key(agent: &AgentId) -> Vec<u8> {
        [AGENTS, agent.as_str().as_bytes()].concat()
    }

    /// Whose row has that name.
    #[must_use]
    pub(crate) fn owner(key: &[u8]) -> Option<AgentId> {
        std::str::from_utf8(key.strip_prefix(AGENTS)?).ok()?.parse().ok()
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
