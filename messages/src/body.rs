//! The bodies of messages, by kind. A kind is a number on the wire, so that an endpoint can refuse one that it does not know
//! by its code instead of failing to read it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, from_msgpack, to_msgpack};
use crate::orders::{AgentDrain, AgentFacts, RefusalCode, RunCancel, RunDecide};
use crate::run::{RunFinished, RunRecalled, RunStart, StepChanged};
use crate::{EncodeError, MessageId};

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum Kind {
    /// Server to agent: do this run.
    RunStart,
    /// Server to agent: do this run, which goes on from an earlier one.
    RunRetry,
    /// Server to agent: end that run.
    RunCancel,
    /// Server to agent: a person decided about a step whose outcome nobody knows.
    RunDecide,
    /// Server to agent: take no new runs, or take them again.
    AgentDrain,
    /// Agent to server: a step of a run changed.
    StepChanged,
    /// Agent to server: a run ended.
    RunFinished,
    /// Agent to server, whose journal was lost or restored: this is a run that you sent me.
    RunRecalled,
    /// Agent to server: what this agent is.
    AgentFacts,
    /// Either way: your message was refused.
    Refusal,
    /// A kind that this build does not know.
    Unknown(u16),
}

impl From<u16> for Kind {
    fn from(code: u16) -> Self {
        match code {
            1 => Self::RunStart,
            2 => Self::RunCancel,
            3 => Self::RunDecide,
            4 => Self::AgentDrain,
            5 => Self::RunRetry,
            16 => Self::StepChanged,
            17 => Self::RunFinished,
            18 => Self::RunRecalled,
            19 => Self::AgentFacts,
            32 => Self::Refusal,
            other => Self::Unknown(other),
        }
    }
}

impl From<Kind> for u16 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::RunStart => 1,
            Kind::RunCancel => 2,
            Kind::RunDecide => 3,
            Kind::AgentDrain => 4,
            Kind::RunRetry => 5,
            Kind::StepChanged => 16,
            Kind::RunFinished => 17,
            Kind::RunRecalled => 18,
            Kind::AgentFacts => 19,
            Kind::Refusal => 32,
            Kind::Unknown(code) => code,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RunStart => f.pad("run.start"),
            Self::RunRetry => f.pad("run.retry"),
            Self::RunCancel => f.pad("run.cancel"),
            Self::RunDecide => f.pad("run.decide"),
            Self::AgentDrain => f.pad("agent.drain"),
            Self::StepChanged => f.pad("step.changed"),
            Self::RunFinished => f.pad("run.finished"),
            Self::RunRecalled => f.pad("run.recalled"),
            Self::AgentFacts => f.pad("agent.facts"),
            Self::Refusal => f.pad("refusal"),
            Self::Unknown(code) => f.pad(&format!("unknown({code})")),
        }
    }
}

/// A body, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// See [`Kind::RunStart`].
    RunStart(RunStart),
    /// See [`Kind::RunRetry`].
    RunRetry(RunStart),
    /// See [`Kind::RunCancel`].
    RunCancel(RunCancel),
    /// See [`Kind::RunDecide`].
    RunDecide(RunDecide),
    /// See [`Kind::AgentDrain`].
    AgentDrain(AgentDrain),
    /// See [`Kind::StepChanged`].
    StepChanged(StepChanged),
    /// See [`Kind::RunFinished`].
    RunFinished(RunFinished),
    /// See [`Kind::RunRecalled`].
    RunRecalled(RunRecalled),
    /// See [`Kind::AgentFacts`].
    AgentFacts(AgentFacts),
    /// See [`Kind::Refusal`].
    Refusal(Refusal),
}

/// Says that a message was journaled as refused and will never be acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The refused message.
    pub message: MessageId,
    /// Why, for people.
    pub reason: String,
    /// Why, for the sender.
    #[serde(default, skip_serializing_if = "RefusalCode::is_message")]
    pub code: RefusalCode,
}

/// Why a body cannot be acted on.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The kind is not known to this build.
    #[error("message kind {code} is not known to this version")]
    UnknownKind {
        /// The kind's number.
        code: u16,
    },
    /// The bytes are not what the kind says.
    #[error("the body is not a {kind}")]
    Malformed {
        /// The kind in the header.
        kind: Kind,
        /// What is wrong with the bytes.
        source: DecodeError,
    },
    /// The content breaks a limit.
    #[error("the {kind} breaks a limit: {what}")]
    Limit {
        /// The kind in the header.
        kind: Kind,
        /// Which limit, in words.
        what: &'static str,
    },
}

impl Body {
    /// The kind and the bytes.
    ///
    /// # Errors
    /// [`EncodeError::MessagePack`]; a body that is too large is found when its frame is made.
    pub fn encode(&self) -> Result<(Kind, Vec<u8>), EncodeError> {
        Ok(match self {
            Self::RunStart(body) => (Kind::RunStart, to_msgpack(body)?),
            Self::RunRetry(body) => (Kind::RunRetry, to_msgpack(body)?),
            Self::RunCancel(body) => (Kind::RunCancel, to_msgpack(body)?),
            Self::RunDecide(body) => (Kind::RunDecide, to_msgpack(body)?),
            Self::AgentDrain(body) => (Kind::AgentDrain, to_msgpack(body)?),
            Self::StepChanged(body) => (Kind::StepChanged, to_msgpack(body)?),
            Self::RunFinished(body) => (Kind::RunFinished, to_msgpack(body)?),
            Self::RunRecalled(body) => (Kind::RunRecalled, to_msgpack(body)?),
            Self::AgentFacts(body) => (Kind::AgentFacts, to_msgpack(body)?),
            Self::Refusal(body) => (Kind::Refusal, to_msgpack(body)?),
        })
    }

    /// Reads the bytes of a body of that kind.
    ///
    /// # Errors
    /// [`BodyError`] for a kind this build does not know, for bytes that are not of that kind, and for content over a limit.
    pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, BodyError> {
        let malformed = |source| BodyError::Malformed { kind, source };
        match kind {
            Kind::RunStart => {
                let body: RunStart = from_msgpack(bytes).map_err(malformed)?;
                body.check().map_err(|what| BodyError::Limit { kind, what })?;
                match body.earlier {
                    None => Ok(Self::RunStart(body)),
                    Some(_) => {
                        Err(BodyError::Limit { kind, what: "a run that goes on from another one is a run.retry" })
                    }
                }
            }
            Kind::RunRetry => {
                let body: RunStart = from_msgpack(bytes).map_err(malformed)?;
                body.check().map_err(|what| BodyError::Limit { kind, what })?;
                match body.earlier {
                    Some(_) => Ok(Self::RunRetry(body)),
                    None => Err(BodyError::Limit { kind, what: "it does not say what it goes on from" }),
                }
            }
            Kind::RunCancel => from_msgpack(bytes).map_err(malformed).map(Self::RunCancel),
            Kind::RunDecide => from_msgpack(bytes).map_err(malformed).map(Self::RunDecide),
            Kind::AgentDrain => from_msgpack(bytes).map_err(malformed).map(Self::AgentDrain),
            Kind::AgentFacts => {
                let body: AgentFacts = from_msgpack(bytes).map_err(malformed)?;
                body.check().map_err(|what| BodyError::Limit { kind, what })?;
                Ok(Self::AgentFacts(body))
            }
            Kind::StepChanged => from_msgpack(bytes).map_err(malformed).map(Self::StepChanged),
            Kind::RunFinished => from_msgpack(bytes).map_err(malformed).map(Self::RunFinished),
            Kind::RunRecalled => {
                let body: RunRecalled = from_msgpack(bytes).map_err(malformed)?;
                body.start.check().map_err(|what| BodyError::Limit { kind, what })?;
                Ok(Self::RunRecalled(body))
            }
            Kind::Refusal => from_msgpack(bytes).map_err(malformed).map(Self::Refusal),
            Kind::Unknown(code) => Err(BodyError::UnknownKind { code }),
        }
    }
}
