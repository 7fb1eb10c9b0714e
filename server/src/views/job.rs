//! Jobs, runs, steps and their logs as the API shows them. States are words for people and scripts; how one follows from
//! another is the server's business.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use messages::{AgentId, JobId, LogStream, RunId, StepId, Usage};
use serde::{Deserialize, Serialize};

/// Why a text is not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a state; the states are {known}")]
pub struct UnknownState {
    /// The text, cut to a printable length.
    pub text: String,
    /// The states that there are.
    pub known: String,
}

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The state as scripts see it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownState;

            fn from_str(text: &str) -> Result<Self, UnknownState> {
                Self::ALL.iter().copied().find(|state| state.as_str() == text).ok_or_else(|| UnknownState {
                    text: text.chars().filter(|c| !c.is_control()).take(40).collect(),
                    known: Self::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

states! {
    /// Where a job stands.
    JobState {
        /// Nothing of it is under way; its runs or the job itself say what they wait for.
        Waiting = "waiting",
        /// At least one run is under way.
        Running = "running",
        /// Every run succeeded.
        Succeeded = "succeeded",
        /// Every run ended, at least one badly, and none waits for a decision.
        Failed = "failed",
        /// It was cancelled, and nothing of it runs any more.
        Cancelled = "cancelled",
        /// A run waits for a person to say what became of a step, and no other is still going on.
        NeedsDecision = "needs-decision",
    }
}

states! {
    /// Where the run of one agent stands.
    RunState {
        /// On the server's disk, and given to no agent yet. The reason says what it waits for.
        Waiting = "waiting",
        /// On the server's disk and on its way; the agent has not confirmed that it has it.
        Sent = "sent",
        /// On the agent's disk, not begun.
        Accepted = "accepted",
        /// At least one step has begun.
        Running = "running",
        /// Every step succeeded.
        Succeeded = "succeeded",
        /// A step failed; those after it were not started.
        Failed = "failed",
        /// Nobody knows what became of a step, and a person must say.
        NeedsDecision = "needs-decision",
        /// It was cancelled, and nothing of it runs any more.
        Cancelled = "cancelled",
        /// Its time limit ended it.
        TimedOut = "timed-out",
        /// No agent took it in the time that its job gave.
        Expired = "expired",
        /// The agent refused the run. The reason says why.
        Refused = "refused",
    }
}

states! {
    /// Where a step stands.
    StepState {
        /// Not begun yet.
        Pending = "pending",
        /// Begun.
        Running = "running",
        /// Ended with exit code 0.
        Succeeded = "succeeded",
        /// Ended otherwise, or could not be started.
        Failed = "failed",
        /// Ended by its time limit.
        TimedOut = "timed-out",
        /// Its outcome was unknown, and its check found it done.
        AlreadyDone = "already-done",
        /// Nobody knows whether it took effect, and a person must say.
        NeedsDecision = "needs-decision",
        /// Ended because its run was cancelled.
        Cancelled = "cancelled",
        /// Not run, because its condition did not hold.
        Skipped = "skipped",
        /// Never begun, because its run ended before.
        NotRun = "not-run",
    }
}

impl JobState {
    /// Whether the job changes only when a person decides something.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Waiting | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::NeedsDecision => true,
        }
    }
}

impl RunState {
    /// Whether the run changes only when a person decides something.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Waiting | Self::Sent | Self::Accepted | Self::Running => false,
            Self::NeedsDecision => true,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::TimedOut | Self::Expired | Self::Refused => true,
        }
    }

    /// Whether the run has ended and never changes again.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::Waiting | Self::Sent | Self::Accepted | Self::Running | Self::NeedsDecision => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::TimedOut | Self::Expired | Self::Refused => true,
        }
    }
}

impl StepState {
    /// Whether the run has dealt with the step: what its end left undone does not count.
    #[must_use]
    pub const fn is_dealt_with(self) -> bool {
        self.is_settled() && !matches!(self, Self::NotRun)
    }

    /// Whether the run went on after the step as if nothing had gone wrong.
    #[must_use]
    pub const fn is_passed(self) -> bool {
        match self {
            Self::Succeeded | Self::AlreadyDone | Self::Skipped => true,
            Self::Pending | Self::Running | Self::NotRun => false,
            Self::Failed | Self::TimedOut | Self::NeedsDecision | Self::Cancelled => false,
        }
    }

    /// Whether the step is over, well or badly.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Succeeded
            | Self::Failed
            | Self::TimedOut
            | Self::AlreadyDone
            | Self::NeedsDecision
            | Self::Cancelled
            | Self::Skipped
            | Self::NotRun => true,
        }
    }
}

/// A job to be done. The client chooses the id, so that sending it again after a lost answer is the same job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// A fresh UUIDv7.
    pub id: JobId,
    /// The job file, as TOML.
    pub definition: String,
    /// Values for its parameters.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
}

/// A job with everything known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its name, parameters put in.
    pub name: String,
    /// Where it stands.
    pub state: JobState,
    /// When the server took it.
    pub created_ms: u64,
    /// When its last run ended, as its agent says, if that can be: else when the server learned of it.
    pub ended_ms: Option<u64>,
    /// What it waits for before an agent is chosen for it.
    #[serde(default)]
    pub waiting: Option<String>,
    /// Why it was cancelled, if it was.
    #[serde(default)]
    pub cancelled: Option<String>,
    /// The job of which it does again what failed, if it does.
    #[serde(default)]
    pub retry_of: Option<JobId>,
    /// That job and those before and after it, the first first, this one included; none if there are no others.
    #[serde(default)]
    pub chain: Vec<JobLink>,
    /// One run for each agent.
    pub runs: Vec<RunView>,
}

/// A job among those that do again what failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLink {
    /// Its id.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// When the server took it.
    pub created_ms: u64,
}

/// What one agent does for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// The agent.
    pub agent: AgentId,
    /// Where it stands.
    pub state: RunState,
    /// Why, when the state alone does not say it.
    pub reason: Option<String>,
    /// The job that does again what this run did not.
    #[serde(default)]
    pub retried: Option<JobId>,
    /// Every step, in order.
    pub steps: Vec<StepView>,
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// Its id.
    pub id: StepId,
    /// What may happen when nobody knows whether it ran: `read-only`, `idempotent`, `guarded` or `once`.
    pub effect: String,
    /// Where it stands.
    pub state: StepState,
    /// The latest attempt, from 1; 0 when there was none.
    pub attempt: u32,
    /// More words: the exit code, the signal, the evidence.
    pub detail: Option<String>,
    /// When the latest attempt began, by the agent's clock.
    pub started_ms: Option<u64>,
    /// When the step ended, by the agent's clock.
    pub ended_ms: Option<u64>,
    /// What its latest attempt used, where the agent's system says so.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// What it handed on to later steps.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// What its agent could not do as the step wants it: limits that its system does not enforce.
    #[serde(default)]
    pub note: Option<String>,
    /// The earlier run that did it, if it is not run in this one.
    #[serde(default)]
    pub earlier: Option<RunId>,
}

/// A job in one line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its id.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: JobState,
    /// When the server took it.
    pub created_ms: u64,
    /// When its last run ended, as its agent says, if that can be: else when the server learned of it.
    pub ended_ms: Option<u64>,
    /// How many agents do it.
    pub agents: u64,
    /// Steps of all its runs.
    pub steps: u64,
    /// Steps of all its runs that are over.
    pub steps_settled: u64,
    /// Steps of all its runs that are over and got through: they succeeded, were found done, or were not to be run.
    #[serde(default)]
    pub steps_passed: u64,
    /// The steps at which runs stopped that did not succeed, each once.
    #[serde(default)]
    pub stopped_at: Vec<StepId>,
}

impl RunView {
    /// The step at which it stopped, if it did and did not succeed: the first that went wrong or waits for a person, or else the one
    /// that would have been next. Nothing if it never came to a step.
    #[must_use]
    pub fn stopped_at(&self) -> Option<&StepId> {
        if !self.state.is_settled() || self.state == RunState::Succeeded {
            return None;
        }
        let wrong = self.steps.iter().find(|step| step.state.is_settled() && !step.state.is_passed());
        let begun = self.steps.iter().any(|step| step.attempt > 0);
        wrong.filter(|step| step.state != StepState::NotRun || begun).map(|step| &step.id)
    }
}

impl JobView {
    /// The job in one line.
    #[must_use]
    pub fn summary(&self) -> JobSummary {
        let steps = || self.runs.iter().flat_map(|run| &run.steps);
        let mut stopped_at: Vec<StepId> = Vec::new();
        for step in self.runs.iter().filter_map(RunView::stopped_at) {
            if !stopped_at.contains(step) {
                stopped_at.push(step.clone());
            }
        }
        JobSummary {
            id: self.id,
            name: self.name.clone(),
            state: self.state,
            created_ms: self.created_ms,
            ended_ms: self.ended_ms,
            agents: self.runs.len() as u64,
            steps: steps().count() as u64,
            steps_settled: steps().filter(|step| step.state.is_dealt_with()).count() as u64,
            steps_passed: steps().filter(|step| step.state.is_passed()).count() as u64,
            stopped_at,
        }
    }
}

/// Jobs, the latest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsView {
    /// As many as were asked for.
    pub jobs: Vec<JobSummary>,
    /// Whether there are more.
    pub more: bool,
}

/// New output of a step, in an event stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Which output.
    pub stream: LogStream,
    /// Where in the output the piece begins, in bytes.
    pub offset: u64,
    /// Bytes of the piece.
    pub bytes: u64,
    /// The piece. What is not UTF-8 is replaced; the logs endpoint has the bytes themselves.
    pub text: String,
}
