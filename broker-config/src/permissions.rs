//! Who may do what on the broker, as patterns.
//!
//! These limit what a broken or stolen endpoint can reach. They never establish who sent a message: rights on topics can
//! be bypassed on brokers before 4.0.3, so identity is proved end to end, not here.

use serde::Serialize;

use crate::names::{InvalidId, UP_EXCHANGE, check_id};

/// Matches only the empty name, which no resource here has: no right at all.
const NOTHING: &str = "^$";

/// A user's rights on the names of exchanges and queues, as regular expressions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Permission {
    /// What may be declared and deleted.
    pub configure: String,
    /// What may be published to (exchanges) and bound (queues).
    pub write: String,
    /// What may be consumed (queues) and bound from (exchanges).
    pub read: String,
}

/// A user's rights on the routing keys of one topic exchange, as regular expressions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicPermission {
    /// The exchange.
    pub exchange: &'static str,
    /// Keys that may be published with.
    pub write: String,
    /// Keys that may be bound.
    pub read: String,
}

impl Permission {
    /// The server's: everything of Longshore's, nothing else in the virtual host.
    #[must_use]
    pub fn server() -> Self {
        let ours = r"^longshore\.v1\.";
        Self { configure: ours.to_owned(), write: ours.to_owned(), read: ours.to_owned() }
    }

    /// One agent's: declare nothing, publish to the up exchange, read its own queue.
    ///
    /// # Errors
    /// When the id may not enter a pattern.
    pub fn agent(agent: &str) -> Result<Self, InvalidId> {
        let agent = check_id(agent)?;
        Ok(Self {
            configure: NOTHING.to_owned(),
            write: r"^longshore\.v1\.up$".to_owned(),
            read: format!(r"^longshore\.v1\.agent\.{agent}$"),
        })
    }
}

impl TopicPermission {
    /// One agent's: publish to the up exchange under its own key only.
    ///
    /// # Errors
    /// When the id may not enter a pattern.
    pub fn agent(agent: &str) -> Result<Self, InvalidId> {
        let agent = check_id(agent)?;
        Ok(Self { exchange: UP_EXCHANGE, write: format!(r"^agent\.{agent}\."), read: NOTHING.to_owned() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_read_its_queue_and_write_its_key_and_nothing_else() {
        let permission = Permission::agent("web-03").unwrap();
        assert_eq!(permission.configure, "^$");
        assert_eq!(permission.write, r"^longshore\.v1\.up$");
        assert_eq!(permission.read, r"^longshore\.v1\.agent\.web-03$");
        let topic = TopicPermission::agent("web-03").unwrap();
        assert_eq!((topic.exchange, topic.write.as_str()), (UP_EXCHANGE, r"^agent\.web-03\."));
    }

    #[test]
    fn a_pattern_never_takes_in_an_unchecked_id() {
        assert!(Permission::agent(".*").is_err());
        assert!(TopicPermission::agent("a|b").is_err());
    }
}
