//! Work: what a run is made of, and what an agent reports of it. A run is self-contained: everything an agent needs to finish
//! it is in the one message that starts it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits::{OUTPUT_NAME_CHARS_MAX, OUTPUTS_MAX, RETRIES_MAX, STEPS_MAX};
use crate::{Earlier, JobId, MessageId, RunId, StepId};

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
    /// Milliseconds that it may take at the agent, from the beginning of its first step; nothing means no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What becomes of its working folder.
    #[serde(default, skip_serializing_if = "Keep::is_default")]
    pub keep: Keep,
    /// What earlier runs did of it, for a run that goes on from them. It travels as [`Kind::RunRetry`](crate::Kind::RunRetry) then, so
    /// that an agent that does not know of it refuses the run instead of doing everything again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
}

/// What becomes of the working folder of a run that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// It is removed, unless the run did not succeed.
    #[default]
    OnFailure,
    /// It stays until the run is forgotten.
    Always,
    /// It is removed.
    Never,
}

impl Keep {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
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
        self.earlier.iter().try_for_each(|earlier| earlier.check(&ids))?;
        self.steps.iter().try_for_each(StepSpec::check)
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
    /// After what kind of steps it is run.
    #[serde(default, skip_serializing_if = "When::is_default")]
    pub when: When,
    /// Whether a known failure is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The user to run as; nothing for the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it hands on to later steps when it succeeds, by name. At most [`OUTPUTS_MAX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, OutputType>,
}

impl StepSpec {
    /// A step that does nothing but execute a program: effect `once`, no limits, run after success.
    #[must_use]
    pub fn new(id: StepId, program: Program) -> Self {
        Self {
            id,
            program,
            env: BTreeMap::new(),
            effect: Effect::Once,
            timeout_ms: None,
            dir: None,
            when: When::default(),
            retry: None,
            limits: Limits::default(),
            user: None,
            outputs: BTreeMap::new(),
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.retry.as_ref().is_some_and(|retry| retry.limit > RETRIES_MAX) {
            return Err("a step is tried again at most 100 times");
        }
        if self.outputs.len() > OUTPUTS_MAX {
            return Err("a step has at most 64 outputs");
        }
        if !self.outputs.keys().all(|name| is_output_name(name)) {
            return Err("the name of an output is 1 to 64 letters, digits and _, not beginning with a digit");
        }
        Ok(())
    }
}

/// Whether that can name an output: it becomes a part of the name of an environment variable.
#[must_use]
pub fn is_output_name(name: &str) -> bool {
    (1..=OUTPUT_NAME_CHARS_MAX).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// After what kind of steps a step is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// While every step before it succeeded.
    #[default]
    Success,
    /// After a step failed or the run was cancelled.
    Failure,
    /// In either case.
    Always,
}

impl When {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// That a step is tried again after a known failure. An unknown outcome is not one: there its effect decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Further attempts after the first, at most [`RETRIES_MAX`].
    pub limit: u32,
    /// Only after these exit codes; empty for any failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_exit: Vec<i32>,
    /// Milliseconds to wait before the first further attempt; doubled for each one after it.
    pub first_ms: u64,
    /// Milliseconds to wait at most.
    pub max_ms: u64,
}

/// What a step may use; nothing means no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Percent of one core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Bytes of output that are kept, of each of its two outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What the text of an output must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputType {
    /// Any text.
    Text,
    /// A whole number that fits 64 bits.
    Integer,
    /// `true` or `false`.
    Boolean,
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
    /// With its end: what the attempt used, where the system says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// With its end: what it hands on to later steps.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// With its beginning: which of the step's limits its host cannot enforce, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// With its end: it is given up, and nobody knows whether it took effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// With the end of an attempt: nothing came on either of its outputs. Both logs are complete without a byte, and no piece of them
    /// comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Milliseconds of processor time of its own.
    pub user_ms: u64,
    /// Milliseconds of processor time in the system.
    pub system_ms: u64,
    /// Bytes of memory of its largest process, at most.
    pub memory_bytes: u64,
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEvent {
    /// The agent has committed to starting it.
    Started,
    /// That attempt failed, and another one is begun after that many milliseconds.
    Retrying(StepEnd, u64),
    /// Nobody knows whether it took effect, and its author forbade to run it again: the run waits for a person. The text is the
    /// evidence.
    Undecided(String),
    /// It ended; nothing more is done about it.
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
    /// It is a failure for the reason given, whatever its program says: an output is missing, for one.
    Failed(String),
    /// Somebody wanted its run ended, and it was ended for that.
    Cancelled,
    /// It was not run: its condition did not hold, or its run ended before.
    Skipped,
    /// Nobody knew whether it took effect, and a person said that it did. The text is the person's note.
    DeclaredDone(String),
    /// Nobody knew whether it took effect, and a person gave it up. The text is the person's note.
    DeclaredFailed(String),
}

impl StepEnd {
    /// Whether the run may go on to its next step.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        match self {
            Self::Exited(0) | Self::AlreadyDone | Self::Skipped | Self::DeclaredDone(_) => true,
            Self::Exited(_) | Self::Signaled(_) | Self::TimedOut | Self::NotStarted(_) | Self::Failed(_) => false,
            Self::Cancelled | Self::DeclaredFailed(_) => false,
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
    /// That step failed, as the first; of the later ones only those were run that are for this case.
    Failed(StepId),
    /// It was cancelled; the text is the reason that was given.
    Cancelled(String),
    /// Its own time limit ended it.
    TimedOut,
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
