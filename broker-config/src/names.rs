//! Every name that appears on the broker, with its schema version, and the rule for ids inside names.
//!
//! An id is checked before it enters a name: without that, `*`, `#` or `.` in an agent's id would widen its routing key
//! or its permission pattern to other agents.

use thiserror::Error;

/// Direct exchange from the server to agents; routing key [`down_key`]. (`longshore.v1.down` was a topic exchange.)
pub const DOWN_EXCHANGE: &str = "longshore.v1.down.direct";
/// Topic exchange from agents to the server; routing key [`up_key`].
pub const UP_EXCHANGE: &str = "longshore.v1.up";
/// Fanout exchange that takes what a queue gives up on.
pub const DEAD_EXCHANGE: &str = "longshore.v1.dead";
/// The server's inbound queue.
pub const SERVER_QUEUE: &str = "longshore.v1.server";
/// The server's queue for pieces of logs, apart from [`SERVER_QUEUE`] so that no message ever waits behind them.
pub const LOGS_QUEUE: &str = "longshore.v1.logs";
/// The queue behind [`DEAD_EXCHANGE`], for people to look at.
pub const DEAD_QUEUE: &str = "longshore.v1.dead";
/// The message class of link envelopes in an [`up_key`].
pub const CLASS_LINK: &str = "link";
/// The message class of pieces of logs in an [`up_key`].
pub const CLASS_LOGS: &str = "logs";

/// Longest id in bytes: long enough for a UUID or a DNS label, and far below the 255 bytes AMQP allows for a whole name.
pub const MAX_ID_LEN: usize = 63;

/// An id that must not enter a broker name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// Nothing was given.
    #[error("an id must not be empty; use 1 to {MAX_ID_LEN} of a-z, 0-9, '-' and '_'")]
    Empty,
    /// Longer than [`MAX_ID_LEN`] bytes.
    #[error("an id of {length} bytes is too long; the limit is {MAX_ID_LEN}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Does not begin with a letter or digit.
    #[error("id {id:?} must start with a-z or 0-9")]
    Start {
        /// The id as given.
        id: String,
    },
    /// Holds a character with a meaning in routing keys or permission patterns, or an unexpected one.
    #[error("id {id:?} holds {character:?}; only a-z, 0-9, '-' and '_' are allowed")]
    Character {
        /// The id as given (at most [`MAX_ID_LEN`] bytes).
        id: String,
        /// The first character that is not allowed.
        character: char,
    },
}

/// Checks that `id` may be part of a broker name: 1 to 63 of `[a-z0-9-_]`, starting with a letter or digit.
///
/// # Errors
/// Says which rule the id breaks.
pub fn check_id(id: &str) -> Result<&str, InvalidId> {
    if id.is_empty() {
        return Err(InvalidId::Empty);
    }
    if id.len() > MAX_ID_LEN {
        return Err(InvalidId::TooLong { length: id.len() });
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if let Some(character) = id.chars().find(|c| !allowed(*c)) {
        return Err(InvalidId::Character { id: id.to_owned(), character });
    }
    if id.starts_with(['-', '_']) {
        return Err(InvalidId::Start { id: id.to_owned() });
    }
    Ok(id)
}

/// The queue that one agent reads: `longshore.v1.agent.<id>`.
///
/// # Errors
/// When the id breaks the rule of [`check_id`].
pub fn agent_queue_name(agent: &str) -> Result<String, InvalidId> {
    Ok(format!("longshore.v1.agent.{}", check_id(agent)?))
}

/// The routing key of messages to an agent: `agent.<id>`.
///
/// # Errors
/// When the id breaks the rule of [`check_id`].
pub fn down_key(agent: &str) -> Result<String, InvalidId> {
    Ok(format!("agent.{}", check_id(agent)?))
}

/// The routing key of messages from an agent: `agent.<id>.<class>`, with a class such as [`CLASS_LINK`].
///
/// # Errors
/// When the id or the class breaks the rule of [`check_id`].
pub fn up_key(agent: &str, class: &str) -> Result<String, InvalidId> {
    Ok(format!("agent.{}.{}", check_id(agent)?, check_id(class)?))
}

/// The binding pattern for everything from one agent: `agent.<id>.#`. Unbinding it cuts that agent off.
///
/// # Errors
/// When the id breaks the rule of [`check_id`].
pub fn up_pattern(agent: &str) -> Result<String, InvalidId> {
    Ok(format!("agent.{}.#", check_id(agent)?))
}

/// The binding pattern for one class of messages from every agent: `agent.*.<class>`.
///
/// # Errors
/// When the class breaks the rule of [`check_id`].
pub fn all_agents_up_pattern(class: &str) -> Result<String, InvalidId> {
    Ok(format!("agent.*.{}", check_id(class)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_schema_version_and_the_id() {
        assert_eq!(agent_queue_name("web-03").unwrap(), "longshore.v1.agent.web-03");
        assert_eq!(down_key("web-03").unwrap(), "agent.web-03");
        assert_eq!(up_key("web-03", CLASS_LINK).unwrap(), "agent.web-03.link");
        assert_eq!(up_pattern("web-03").unwrap(), "agent.web-03.#");
        assert_eq!(all_agents_up_pattern(CLASS_LOGS).unwrap(), "agent.*.logs");
    }

    #[test]
    fn ids_that_could_widen_a_key_or_pattern_are_refused() {
        for id in ["a.b", "a*", "#", "a/b", "a%2a", "A", "a b", "a\n", "é", "a$", "^a", "a|b", "(a)"] {
            assert!(matches!(check_id(id), Err(InvalidId::Character { .. })), "{id:?}");
        }
        assert_eq!(check_id(""), Err(InvalidId::Empty));
        assert!(matches!(check_id("-a"), Err(InvalidId::Start { .. })));
        assert!(matches!(check_id("_"), Err(InvalidId::Start { .. })));
        assert!(up_key("a", "link.#").is_err() && all_agents_up_pattern("#").is_err());
    }

    #[test]
    fn the_length_limit_is_63_bytes() {
        let longest = "a".repeat(63);
        assert_eq!(check_id(&longest), Ok(longest.as_str()));
        assert_eq!(check_id(&"a".repeat(64)), Err(InvalidId::TooLong { length: 64 }));
        assert!(check_id("0198f3a1-7c3e-7000-8000-000000000001").is_ok());
    }
}
