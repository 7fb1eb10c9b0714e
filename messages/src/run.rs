//! Work: what a run is made of, and what an agent reports of it. A run is self-contained: everything an agent needs to finish
//! it is in the one message that starts it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits::STEPS_MAX;
use crate::{JobId, MessageId, RunId, StepId};

/// Everything that one agent is to do for one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// This run.
    pub run: RunId,
    /// The job that it belongs to.
    pub job: JobId,
    /// The job's name, for people.
    pub name: String,
    /// The steps, in order. At least one, at most [`STEPS_MAX`], no id twice.
    pub steps: Vec<StepSpec>,
}

impl RunStart {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// Which limit is broken, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.steps.is_empty() {
            return Err("a run has at least one step");
        }
        if self.steps.len() > STEPS_MAX {
            return Err("a run has at most 1000 steps");
        }
        let ids: BTreeSet<_> = self.steps.iter().map(|step| &step.id).collect();
        if ids.len() != self.steps.len() {
            return Err("a step id occurs only once in a run");
        }
        Ok(())
    }
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSpec {
    /// Its name within the run.
    pub id: StepId,
    /// What to execute.
    pub program: Program,
    /// Environment on top of the agent's own small one.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What may happen when nobody knows whether it ran.
    pub effect: Effect,
    /// Milliseconds after which its process tree is ended; nothing means no limit of its own.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// The folder to run in: absolute, or relative to the run's own folder, which is also the default.
    #[serde(default)]
    pub dir: Option<String>,
}

/// What a step executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// A script, given to `/bin/sh -eu`.
    Shell(String),
    /// A program and its arguments, without a shell. Never empty: the first entry is the program.
    Exec(Vec<String>),
}

/// What may happen when nobody knows whether a step ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It changes nothing: run it again.
    ReadOnly,
    /// Running it twice is as good as once: run it again.
    Idempotent,
    /// Ask this program: exit code 0 means that the step is done already, any other that it is not.
    Guarded(Program),
    /// Never run it again by itself: a person decides.
    Once,
}

/// Something happened to a step. Reported in order within a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepChanged {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// What happened.
    pub event: StepEvent,
    /// When, by the agent's clock, in milliseconds since 1970. Shown to people, decides nothing.
    pub at_ms: u64,
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEvent {
    /// The agent has committed to starting it.
    Started,
    /// It ended.
    Ended(StepEnd),
}

/// How an attempt at a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEnd {
    /// The program ended with that exit code; 0 is success.
    Exited(i32),
    /// A signal with that number ended the program.
    Signaled(i32),
    /// The step's own time limit ended it.
    TimedOut,
    /// The program could not be started, with the reason in words.
    NotStarted(String),
    /// The outcome was unknown, and the step's check found it done already.
    AlreadyDone,
    /// Nobody knows whether it took effect, and its author forbade to run it again: a person decides. The text is the evidence.
    Unknown(String),
}

impl StepEnd {
    /// Whether the run may go on to its next step.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        match self {
            Self::Exited(0) | Self::AlreadyDone => true,
            Self::Exited(_) | Self::Signaled(_) | Self::TimedOut | Self::NotStarted(_) | Self::Unknown(_) => false,
        }
    }
}

/// A run ended at the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFinished {
    /// The run.
    pub run: RunId,
    /// How.
    pub end: RunEnd,
    /// When, by the agent's clock, in milliseconds since 1970. Shown to people, decides nothing.
    pub at_ms: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// Every step succeeded.
    Succeeded,
    /// That step failed; the later ones were not started.
    Failed(StepId),
    /// The outcome of that step is unknown and a person must decide; the later ones were not started.
    NeedsDecision(StepId),
}

/// What an agent still knows of a run, told to a server whose journal was lost or restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecalled {
    /// What it was sent.
    pub start: RunStart,
    /// The message that it was sent in.
    pub message: MessageId,
    /// How it ended, if it has.
    pub end: Option<RunEnd>,
}
