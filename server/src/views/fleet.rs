//! Agents and the server itself, as the API shows them.

use std::collections::BTreeMap;
use std::fmt;

use messages::AgentId;
use serde::{Deserialize, Serialize};

use super::JobState;

/// Whether an agent can be spoken with. An agent out of reach goes on with its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentState {
    /// It was heard from lately.
    Online,
    /// It was not heard from lately. Not a failure: its work goes on.
    Unreachable,
    /// It has never been heard from.
    NeverSeen,
    /// Its journal and the server's contradict each other; an operator must look.
    Frozen,
}

impl AgentState {
    /// The state as scripts see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Unreachable => "unreachable",
            Self::NeverSeen => "never-seen",
            Self::Frozen => "frozen",
        }
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its name.
    pub name: AgentId,
    /// Whether it can be spoken with.
    pub state: AgentState,
    /// Runs that it does at once, at most; 0 until it has said so.
    pub slots: u16,
    /// Runs that it could begin at once, when it was last heard from.
    pub slots_free: u16,
    /// Whether it takes no new work.
    pub draining: bool,
    /// The version of its program, empty until it has said so.
    pub version: String,
    /// When it was last heard from, by the server's clock.
    pub seen_ms: Option<u64>,
    /// Why nothing is given to it, if an operator wants that.
    #[serde(default)]
    pub paused: Option<String>,
    /// Why it takes no work at the moment, by its own word.
    #[serde(default)]
    pub refusing: Option<String>,
    /// Its pool.
    #[serde(default)]
    pub pool: Option<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Runs that it was sent and has not ended.
    pub runs_active: u64,
    /// Messages to it that it has not received yet.
    pub lag: u64,
    /// Why its streams are frozen.
    pub frozen_reason: Option<String>,
    /// What state they are in then, and what to do.
    #[serde(default)]
    pub frozen_advice: Option<String>,
}

/// Every agent that the server knows, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentsView {
    /// The agents.
    pub agents: Vec<AgentView>,
}

/// The server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// The version of its program.
    pub version: String,
    /// The name that it goes by among endpoints.
    pub name: String,
    /// Its broker.
    pub broker: BrokerView,
    /// Jobs by state.
    pub jobs: JobCounts,
    /// Agents by state.
    pub agents: AgentCounts,
    /// Why it takes no new jobs now. Those that it has go on.
    #[serde(default)]
    pub refusing: Option<String>,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
}

/// The connection to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerView {
    /// Whether there is one now.
    pub connected: bool,
    /// The broker's address, without user and password.
    pub url: String,
    /// Since when it is so.
    pub since_ms: Option<u64>,
    /// What is wrong, or what is being tried.
    pub detail: Option<String>,
}

/// Jobs by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCounts {
    /// Waiting to be given out.
    pub waiting: u64,
    /// Still going on.
    pub running: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Ended badly.
    pub failed: u64,
    /// Ended because somebody wanted it.
    pub cancelled: u64,
    /// Waiting for a person.
    pub needs_decision: u64,
}

impl JobCounts {
    /// Those in that state.
    pub const fn of(&mut self, state: JobState) -> &mut u64 {
        match state {
            JobState::Waiting => &mut self.waiting,
            JobState::Running => &mut self.running,
            JobState::Succeeded => &mut self.succeeded,
            JobState::Failed => &mut self.failed,
            JobState::Cancelled => &mut self.cancelled,
            JobState::NeedsDecision => &mut self.needs_decision,
        }
    }
}

/// Agents by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCounts {
    /// Heard from lately.
    pub online: u64,
    /// Not heard from lately.
    pub unreachable: u64,
    /// Never heard from.
    pub never_seen: u64,
    /// Waiting for an operator.
    pub frozen: u64,
}

impl AgentCounts {
    /// Counts agents.
    #[must_use]
    pub fn of(agents: &[AgentView]) -> Self {
        let count = |state| agents.iter().filter(|agent| agent.state == state).count() as u64;
        Self {
            online: count(AgentState::Online),
            unreachable: count(AgentState::Unreachable),
            never_seen: count(AgentState::NeverSeen),
            frozen: count(AgentState::Frozen),
        }
    }
}
