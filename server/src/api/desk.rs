//! What the API asks of the server behind it. The router checks a question's form; the desk answers it. Every method is called
//! from many tasks at once, may be cancelled at any await, and is given up on after [`REQUEST_TIME_MAX`](super::REQUEST_TIME_MAX).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::str::FromStr;

use messages::{AgentId, Decision, JobId, LogKey, StepId};
use tokio::sync::watch;

use crate::job_file::{Plan, Target};
use crate::views::{AgentView, JobState, JobView, JobsView, LinkView, ServerView};

/// The server as the API sees it.
pub trait Desk: Clone + Send + Sync + 'static {
    /// Takes a job. When this answers `Ok`, the job is on stable storage. A job with the same id, definition and parameters
    /// is the same job: it is answered as it stands now, not taken again.
    fn submit(&self, submission: Submission) -> impl Future<Output = Result<Submitted, SubmitError>> + Send;

    /// Takes a job that does again what another one did not. The same retry with the same id is the same job.
    fn retry(&self, retry: Retry) -> impl Future<Output = Result<Submitted, RetryError>> + Send;

    /// Ends a job. What no agent has is ended when this answers; the rest when its agents say so.
    fn cancel(&self, job: JobId, reason: String) -> impl Future<Output = Result<JobView, OrderError>> + Send;

    /// Carries out what a person decided about a step of which nobody knows whether it took effect.
    fn resolve(&self, job: JobId, resolution: Resolution) -> impl Future<Output = Result<JobView, OrderError>> + Send;

    /// Gives an agent nothing more, or something again. Nothing is given to it after the answer.
    fn order(&self, agent: &AgentId, order: AgentOrder) -> impl Future<Output = Result<AgentView, OrderError>> + Send;

    /// The latest jobs, newest first.
    fn jobs(&self, filter: JobFilter) -> impl Future<Output = Result<JobsView, DeskError>> + Send;

    /// The one job whose id begins so.
    fn job(&self, prefix: &JobPrefix) -> impl Future<Output = Result<JobView, LookupError>> + Send;

    /// How the job of that id stands; nothing if there is none. Cheap: it waits for nobody.
    fn job_state(&self, id: JobId) -> Option<JobState>;

    /// Every agent, by name.
    fn agents(&self) -> impl Future<Output = Result<Vec<AgentView>, DeskError>> + Send;

    /// One agent.
    fn agent(&self, name: &AgentId) -> impl Future<Output = Result<AgentView, LookupError>> + Send;

    /// The streams shared with one agent.
    fn link(&self, name: &AgentId) -> impl Future<Output = Result<LinkView, LookupError>> + Send;

    /// The server itself.
    fn status(&self) -> impl Future<Output = Result<ServerView, DeskError>> + Send;

    /// A number that changes whenever anything changes that a view or a log could show: also when output of a step arrives. It
    /// changes after the change can be read, never before. It may begin anywhere when the process starts.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Returns when everything that any answer said by now is on stable storage. What is sent to a client waits for this.
    fn kept(&self) -> impl Future<Output = Result<(), DeskError>> + Send;

    /// At most `max` bytes of a log from an offset. A log that does not exist yet is empty and not complete.
    fn read_log(
        &self,
        key: &LogKey,
        offset: u64,
        max: usize,
    ) -> impl Future<Output = Result<LogPiece, LogReadError>> + Send;
}

/// A job that passed every check that needs no knowledge of agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Chosen by the client.
    pub id: JobId,
    /// The job file's text, to be kept with the job.
    pub definition: String,
    /// The values given.
    pub params: BTreeMap<String, String>,
    /// Who is to do it.
    pub target: Target,
    /// What is to be done; it fits one message.
    pub plan: Plan,
}

/// What is to be done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The id of the job that does it, chosen by the client.
    pub id: JobId,
    /// The job that did not succeed.
    pub job: JobId,
    /// The agents at which it is done again; none for all where it did not succeed.
    pub agents: BTreeSet<AgentId>,
    /// The step to begin with; nothing for the one that failed.
    pub from: Option<StepId>,
}

/// What a person decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Whose run; nothing if only one waits for a decision.
    pub agent: Option<AgentId>,
    /// The step that was looked at, lest another one is meant by accident.
    pub step: Option<StepId>,
    /// What.
    pub decision: Decision,
    /// Why.
    pub note: String,
    /// End the run here, without its agent.
    pub give_up: bool,
}

/// What an agent is to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentOrder {
    /// Nothing.
    Pause {
        /// Why.
        note: String,
    },
    /// Something again, after a pause.
    Resume,
    /// Nothing, and it is told to take nothing.
    Drain {
        /// Why.
        note: String,
    },
    /// Something again, after a drain.
    Undrain,
}

/// A job that the server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Whether it was new.
    pub created: bool,
    /// How it stands.
    pub job: JobView,
}

/// Which jobs to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobFilter {
    /// At most so many, 1 to [`JOBS_LIMIT_MAX`](super::JOBS_LIMIT_MAX).
    pub limit: usize,
    /// Only those that stand so.
    pub state: Option<JobState>,
}

/// A piece of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPiece {
    /// The bytes from the offset that was asked for; none when the log is not that long.
    pub bytes: Vec<u8>,
    /// Bytes of the log that the server has.
    pub size: u64,
    /// Whether that is the whole log.
    pub complete: bool,
    /// Bytes of the output beyond its limit, which were not kept. Known once the log is complete.
    pub cut: u64,
}

/// The beginning of a job's id, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPrefix(String);

/// Why a text cannot be the beginning of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the beginning of a job id: 4 to 36 of 0-9, a-f and -")]
pub struct PrefixError {
    /// The text, cut to a printable length.
    pub text: String,
}

impl JobPrefix {
    /// Whether that id begins so.
    #[must_use]
    pub fn matches(&self, id: JobId) -> bool {
        id.to_string().starts_with(&self.0)
    }

    /// The least id that could begin so, from which those that do follow one another; nothing if no id can.
    #[must_use]
    pub fn least(&self) -> Option<JobId> {
        let zeros = JobId::from_u128(0).to_string();
        [&self.0, zeros.get(self.0.len()..)?].concat().parse().ok()
    }

    /// The text, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobPrefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let lower = text.to_ascii_lowercase();
        if !(4..=36).contains(&lower.len()) || !lower.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
            return Err(PrefixError { text: text.chars().filter(|c| !c.is_control()).take(40).collect() });
        }
        Ok(Self(lower))
    }
}

impl From<JobId> for JobPrefix {
    fn from(id: JobId) -> Self {
        Self(id.to_string())
    }
}

impl fmt::Display for JobPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why the server cannot answer anything.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// It is on its way down.
    #[error("the server is stopping")]
    Stopping,
    /// Its journal does not work.
    #[error("the server's journal does not work: {reason}")]
    Journal {
        /// Why, for people.
        reason: String,
    },
}

/// Why a job is not taken. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The server does not know an agent.
    #[error("there is no agent `{agent}`")]
    UnknownAgent {
        /// The agent that was named.
        agent: AgentId,
        /// The agents that there are.
        known: Vec<AgentId>,
    },
    /// The job is for all agents, and there are none.
    #[error("the job is for all agents, and the server knows none")]
    NoAgents,
    /// No agent is as the job wants it.
    #[error("none of the server's {of} agents matches the job's target")]
    NoMatch {
        /// Agents that there are.
        of: usize,
    },
    /// Another job holds the group, and the job is not to wait.
    #[error("the group `{group}` is held by job {holder}")]
    GroupHeld {
        /// The group.
        group: String,
        /// Who holds it.
        holder: JobId,
    },
    /// Another job has that id.
    #[error("another job has the id {id}")]
    IdTaken {
        /// The id.
        id: JobId,
    },
    /// The job was taken, is over, and was forgotten before its state could be told: it was among the oldest beyond the limit.
    #[error("job {id} was taken, is over, and has been forgotten")]
    Forgotten {
        /// The id.
        id: JobId,
    },
    /// A limit of the server is reached.
    #[error("the server takes no more work: {reason}")]
    Full {
        /// Which limit, for people.
        reason: String,
    },
    /// The disk is too full for new work.
    #[error("the server takes no new jobs: {reason}")]
    Disk {
        /// How full it is, for people.
        reason: String,
    },
    /// The server cannot answer.
    #[error(transparent)]
    Desk(#[from] DeskError),
}

/// Why a job is not done again. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// There is no such job.
    #[error("there is no such job")]
    NotFound,
    /// Another job has that id.
    #[error("another job has the id {id}")]
    IdTaken {
        /// The id.
        id: JobId,
    },
    /// Something of it is still under way.
    #[error("the job is not over{}", at(agent.as_ref()))]
    NotOver {
        /// Where; nothing if it has no agent yet.
        agent: Option<AgentId>,
    },
    /// A step waits for a person.
    #[error("the run on {agent} waits for a decision")]
    Undecided {
        /// The agent.
        agent: AgentId,
    },
    /// Nothing of it went wrong.
    #[error("nothing of that failed")]
    Succeeded,
    /// It was done again already.
    #[error("it was started again already{}, as job {by}", at(agent.as_ref()))]
    Retried {
        /// Where; nothing if the job had no agent.
        agent: Option<AgentId>,
        /// The job that did.
        by: JobId,
    },
    /// The job has no run there.
    #[error("the job has no run on {agent}")]
    NoRun {
        /// The agent that was named.
        agent: AgentId,
        /// The agents that there are.
        agents: Vec<AgentId>,
    },
    /// The server does not know the agent any more.
    #[error("the server does not know agent {agent} any more")]
    AgentGone {
        /// The agent.
        agent: AgentId,
    },
    /// The job has no such step.
    #[error("the job has no step `{step}`")]
    UnknownStep {
        /// The step that was named.
        step: StepId,
        /// The steps that there are.
        steps: Vec<StepId>,
    },
    /// A step that failed would be left out.
    #[error("step {step} failed on {agent} and would be left out")]
    Skips {
        /// The agent.
        agent: AgentId,
        /// The step.
        step: StepId,
    },
    /// A step that must not run twice would be run again.
    #[error("step {step} took effect on {agent}, and its effect is `once`: it is not run again")]
    OnceDone {
        /// The agent.
        agent: AgentId,
        /// The step.
        step: StepId,
    },
    /// The run was given up without its agent, which has not said since what became of it.
    #[error("the run on {agent} was given up, and the agent has not said since what became of it")]
    NotHeardOf {
        /// The agent.
        agent: AgentId,
    },
    /// What the earlier steps left is gone.
    #[error(
        "the working folder on {agent} was removed when the run ended, as the job file wants it (keep = \"never\")"
    )]
    NoFolder {
        /// The agent.
        agent: AgentId,
        /// The first step, which needs none.
        first: StepId,
    },
    /// It does not fit one message.
    #[error("with what its steps handed on, the run on {agent} has {bytes} bytes, which do not fit in one message")]
    TooLarge {
        /// The agent.
        agent: AgentId,
        /// Bytes that it has.
        bytes: usize,
    },
    /// The server does not have the job file.
    #[error("the job file was lost with the server's journal: an agent told of this job")]
    FileLost,
    /// This version of the server cannot read its job file.
    #[error("{reason}")]
    Unreadable {
        /// Why, for people.
        reason: String,
    },
    /// No job is taken.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

fn at(agent: Option<&AgentId>) -> String {
    agent.map_or_else(String::new, |agent| format!(" on {agent}"))
}

impl From<DeskError> for RetryError {
    fn from(error: DeskError) -> Self {
        Self::Submit(error.into())
    }
}

/// Why an order is not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such job or agent.
    #[error("there is no such thing")]
    NotFound,
    /// The job is over.
    #[error("the job is over: {state}")]
    Over {
        /// How it ended.
        state: String,
    },
    /// Nothing of it waits for a decision.
    #[error("nothing of the job waits for a decision")]
    NothingToDecide,
    /// More than one agent's run waits for a decision.
    #[error("the runs of {} agents could be meant", agents.len())]
    WhichRun {
        /// The agents.
        agents: Vec<AgentId>,
    },
    /// Another step waits for a decision.
    #[error("it is step {step} that waits for a decision")]
    OtherStep {
        /// The step.
        step: StepId,
    },
    /// It was decided, and the agent has not acted on it yet.
    #[error("that was decided already, and agent {agent} has not acted on it yet")]
    AlreadyDecided {
        /// The agent.
        agent: AgentId,
    },
    /// Without its agent a run cannot be begun again.
    #[error("without agent {agent} the step cannot be run again")]
    CannotRetry {
        /// The agent.
        agent: AgentId,
    },
    /// The messages cannot be made or taken.
    #[error("the order cannot be sent: {reason}")]
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// The server cannot answer.
    #[error(transparent)]
    Desk(#[from] DeskError),
}

/// Why a job or an agent cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is none.
    #[error("there is no such thing")]
    NotFound,
    /// More than one job's id begins so.
    #[error("{} jobs begin so", candidates.len())]
    Ambiguous {
        /// Some of them.
        candidates: Vec<JobId>,
    },
    /// The server cannot answer.
    #[error(transparent)]
    Desk(#[from] DeskError),
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogReadError {
    /// The file cannot be read.
    #[error("the log cannot be read")]
    Io(#[from] std::io::Error),
    /// The server cannot answer.
    #[error(transparent)]
    Desk(#[from] DeskError),
}
