//! Names that people choose: of agents, endpoints and steps. Checked once, where they come in; afterwards the type says that
//! they are fit for routing keys and folder names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::limits::{AGENT_ID_CHARS_MAX, STEP_ID_CHARS_MAX};

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or too long.
    #[error("{what} `{text}` must have 1 to {max} characters")]
    Length {
        /// What the text was meant to name.
        what: &'static str,
        /// The text, cut to a printable length.
        text: String,
        /// Characters allowed.
        max: usize,
    },
    /// The text holds a character that the name may not have, or begins with one.
    #[error("{what} `{text}` may hold only {allowed}, and must begin with a letter or digit")]
    Characters {
        /// What the text was meant to name.
        what: &'static str,
        /// The text.
        text: String,
        /// The allowed characters, in words.
        allowed: &'static str,
    },
    /// The text is `server`, which names the server itself.
    #[error("an agent cannot be called `server`: that name is the server's own")]
    Reserved,
    /// The text is not a UUID.
    #[error("`{text}` is not a {what}: expected a UUID such as 0198f3a1-7c2e-7000-8000-000000000000")]
    Uuid {
        /// What the text was meant to name.
        what: &'static str,
        /// The text, cut to a printable length.
        text: String,
    },
}

pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// The name of an agent: 1 to 63 characters of `a-z 0-9 - _`, beginning with a letter or digit. It is one word of an AMQP
/// routing key and a folder name, so nothing that either could read as syntax may be in it. Cheap to clone: it is in every row,
/// message and effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct AgentId(Arc<str>);

impl AgentId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AgentId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let what = "agent name";
        if text.is_empty() || text.len() > AGENT_ID_CHARS_MAX {
            return Err(IdError::Length { what, text: printable(&text), max: AGENT_ID_CHARS_MAX });
        }
        let valid = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        if !valid || matches!(text.as_bytes()[0], b'-' | b'_') {
            return Err(IdError::Characters { what, text: printable(&text), allowed: "a-z, 0-9, - and _" });
        }
        if text == "server" {
            return Err(IdError::Reserved);
        }
        Ok(Self(text.into()))
    }
}

impl Serialize for AgentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl FromStr for AgentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One end of a stream. As text: `server`, or the agent's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum EndpointId {
    /// The server.
    Server,
    /// The agent of that name.
    Agent(AgentId),
}

impl EndpointId {
    /// The endpoint's name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Server => "server",
            Self::Agent(id) => id.as_str(),
        }
    }

    /// The agent's name, or nothing for the server.
    #[must_use]
    pub fn agent(&self) -> Option<&AgentId> {
        match self {
            Self::Server => None,
            Self::Agent(id) => Some(id),
        }
    }
}

impl TryFrom<String> for EndpointId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        if text == "server" { Ok(Self::Server) } else { AgentId::try_from(text).map(Self::Agent) }
    }
}

impl Serialize for EndpointId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl FromStr for EndpointId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl From<EndpointId> for String {
    fn from(id: EndpointId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The id of a step within its job file: 1 to 64 characters of `A-Z a-z 0-9 - _ .`, beginning with a letter or digit. It names
/// a folder on the agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StepId(String);

impl StepId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for StepId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let what = "step id";
        if text.is_empty() || text.len() > STEP_ID_CHARS_MAX {
            return Err(IdError::Length { what, text: printable(&text), max: STEP_ID_CHARS_MAX });
        }
        let valid = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !valid || !text.as_bytes()[0].is_ascii_alphanumeric() {
            return Err(IdError::Characters { what, text: printable(&text), allowed: "letters, digits, - _ and ." });
        }
        Ok(Self(text))
    }
}

impl FromStr for StepId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl From<StepId> for String {
    fn from(id: StepId) -> Self {
        id.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_name_holds_nothing_that_a_routing_key_could_read_as_syntax() {
        for bad in ["", "-a", "_a", "a.b", "a*", "a#", "a/b", "a%b", "A", "ä", "a b", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad:?}");
        }
        for good in ["a", "web-01", "0", "db_1", &"x".repeat(63)] {
            assert_eq!(good.parse::<AgentId>().unwrap().as_str(), good);
        }
        assert_eq!("server".parse::<AgentId>(), Err(IdError::Reserved));
    }

    #[test]
    fn an_endpoint_is_the_server_or_an_agent() {
        assert_eq!("server".parse::<EndpointId>().unwrap(), EndpointId::Server);
        assert_eq!("web-01".parse::<EndpointId>().unwrap().agent().unwrap().as_str(), "web-01");
    }

    #[test]
    fn a_step_id_cannot_leave_its_folder() {
        for bad in ["", ".", "..", "../x", "a/b", "-x", "a b"] {
            assert!(bad.parse::<StepId>().is_err(), "{bad:?}");
        }
        assert!("build.2_x-y".parse::<StepId>().is_ok());
    }
}
