//! What people send to have something ended, decided or held back.

use std::collections::BTreeSet;

use messages::{AgentId, Decision, JobId, StepId};
use serde::{Deserialize, Serialize};

/// Start again what failed. The client chooses the id, so that sending it again after a lost answer is the same job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryJob {
    /// A fresh UUIDv7, of the job that does it.
    pub id: JobId,
    /// The agents at which it is done again; none for all where it did not succeed.
    #[serde(default)]
    pub agents: BTreeSet<AgentId>,
    /// The step to begin with; nothing for the one that failed.
    #[serde(default)]
    pub from: Option<StepId>,
}

/// End a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelJob {
    /// Why, for whoever looks later.
    #[serde(default)]
    pub reason: String,
}

/// Decide about a step of which nobody knows whether it took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveJob {
    /// Whose run; may be left out when only one waits.
    #[serde(default)]
    pub agent: Option<AgentId>,
    /// The step; may be left out.
    #[serde(default)]
    pub step: Option<StepId>,
    /// `done`, `retry` or `fail`.
    pub decision: Decision,
    /// Why, for whoever looks later. Not empty.
    pub note: String,
    /// End the run at the server, without its agent.
    #[serde(default)]
    pub give_up: bool,
}

/// Hold an agent back, or let it work again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderAgent {
    /// What.
    pub order: AgentOrderWord,
    /// Why, for whoever looks later.
    #[serde(default)]
    pub note: String,
}

/// What an agent is to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentOrderWord {
    /// Nothing; what it has goes on.
    Pause,
    /// Something again, after a pause.
    Resume,
    /// Nothing, and the agent itself refuses what may still be on its way.
    Drain,
    /// Something again, after a drain.
    Undrain,
}
