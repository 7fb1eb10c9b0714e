//! Exchanges, queues and bindings as data, valid on RabbitMQ 3.10 and on 4.x.
//!
//! Everything is durable; there is no TTL, no `expires`, no transient or exclusive queue and no global QoS here: 4.3
//! denies some of those, and the others drop messages that the broker has confirmed. Arguments are fixed for the life of
//! a queue, so a change of any of them needs a new schema version in the names.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::{
    CLASS_LINK, CLASS_LOGS, DEAD_EXCHANGE, DEAD_QUEUE, DOWN_EXCHANGE, InvalidId, LOGS_QUEUE, SERVER_QUEUE, UP_EXCHANGE,
    agent_queue_name, all_agents_up_pattern, down_key, up_key,
};

/// The virtual host when none is configured. One per installation: rights, limits and wiping are per virtual host.
pub const DEFAULT_VHOST: &str = "longshore";

/// How often a quorum queue delivers one message before it goes to the dead queue.
///
/// RabbitMQ 4 would take 20, 3.x would never stop. A receiver journals and then acknowledges, so only connections that
/// end between delivery and journaling count. 1000 rides out a long bad night of restarts; a message that kills its
/// reader every time still ends where people can see it.
pub const DELIVERY_LIMIT: i64 = 1000;

/// Largest backlog of one agent's queue in bytes: 256 envelopes of the largest size (256 KiB). Beyond it the broker
/// refuses a publish; the sender's journal holds the message until there is room.
pub const AGENT_QUEUE_MAX_BYTES: i64 = 64 << 20;

/// Largest backlog of the server's queue in bytes. It takes in every agent, so it is larger than an agent's, but small
/// enough that a stopped server does not fill the broker's disk.
pub const SERVER_QUEUE_MAX_BYTES: i64 = 512 << 20;

/// Largest backlog of the queue of logs in bytes: what some sixty agents may have under way. Beyond it the broker refuses a piece,
/// which its agent sends again later.
pub const LOGS_QUEUE_MAX_BYTES: i64 = 256 << 20;

/// Largest content of the dead queue in bytes. It is evidence for people, not storage, so the oldest is dropped.
pub const DEAD_QUEUE_MAX_BYTES: i64 = 64 << 20;

/// How RabbitMQ stores a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// Replicated by Raft and synced to disk before a confirm. The default.
    #[default]
    Quorum,
    /// On one node, much cheaper per queue: for many thousand agents. A confirm does not mean that it was synced.
    Classic,
}

/// A word that names no queue type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{given:?} is no queue type; use \"quorum\" or \"classic\"")]
pub struct InvalidQueueType {
    given: String,
}

impl QueueType {
    /// The word RabbitMQ uses for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

impl fmt::Display for QueueType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl FromStr for QueueType {
    type Err = InvalidQueueType;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "quorum" => Ok(Self::Quorum),
            "classic" => Ok(Self::Classic),
            // The word comes from outside: show enough of it to recognise it, not all of it.
            _ => Err(InvalidQueueType { given: word.chars().take(32).collect() }),
        }
    }
}

/// The value of a queue argument, in the three AMQP types that are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ArgValue {
    /// A long string.
    String(String),
    /// A signed 64 bit integer.
    Long(i64),
    /// A boolean.
    Bool(bool),
}

/// Queue arguments by name, in a fixed order.
pub type Arguments = BTreeMap<&'static str, ArgValue>;

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeKind {
    /// By the key alone. Only the server may publish to such a one.
    Direct,
    /// By pattern, which costs the broker half as much again for each message. Rights on routing keys exist only here.
    Topic,
    /// To every queue bound.
    Fanout,
}

/// An exchange to declare: durable, not auto-delete, not internal, without arguments. No alternate exchange either: it
/// would make an unroutable message count as routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: &'static str,
    /// How it routes.
    pub kind: ExchangeKind,
}

/// A queue to declare: durable, not exclusive, not auto-delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments; a broker refuses a second declaration with others.
    pub arguments: Arguments,
}

/// A binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The exchange.
    pub exchange: &'static str,
    /// The queue.
    pub queue: String,
    /// The routing key or pattern (empty for a fanout exchange).
    pub routing_key: String,
}

/// What is configurable about the broker side of one installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The virtual host.
    pub vhost: String,
    /// The type of every queue.
    pub queue_type: QueueType,
}

impl Default for Topology {
    fn default() -> Self {
        Self { vhost: DEFAULT_VHOST.to_owned(), queue_type: QueueType::default() }
    }
}

impl Topology {
    /// The exchanges, in the order in which to declare them: queues name the dead-letter exchange, so it comes first.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        vec![
            Exchange { name: DEAD_EXCHANGE, kind: ExchangeKind::Fanout },
            Exchange { name: DOWN_EXCHANGE, kind: ExchangeKind::Direct },
            Exchange { name: UP_EXCHANGE, kind: ExchangeKind::Topic },
        ]
    }

    /// The queues that exist once: the dead queue and the server's two.
    #[must_use]
    pub fn server_queues(&self) -> Vec<Queue> {
        vec![self.dead_queue(), self.inbound(SERVER_QUEUE.to_owned(), SERVER_QUEUE_MAX_BYTES), self.logs_queue()]
    }

    /// The server's queue for pieces of logs. Classic, whatever the others are: the pieces are in their agents' files until the server
    /// has them in its own, so nothing is won by replicating and syncing them, and a gigabyte of output would go through the
    /// broker's write-ahead log. It need not be there for the server to work.
    #[must_use]
    pub fn logs_queue(&self) -> Queue {
        let classic = Self { queue_type: QueueType::Classic, ..self.clone() };
        let mut arguments = classic.common(LOGS_QUEUE_MAX_BYTES, "reject-publish");
        arguments.insert("x-single-active-consumer", ArgValue::Bool(true));
        Queue { name: LOGS_QUEUE.to_owned(), arguments }
    }

    /// The queue of one agent. The server declares it; agents declare nothing.
    ///
    /// # Errors
    /// When the id may not enter a name.
    pub fn agent_queue(&self, agent: &str) -> Result<Queue, InvalidId> {
        Ok(self.inbound(agent_queue_name(agent)?, AGENT_QUEUE_MAX_BYTES))
    }

    /// The bindings of [`Self::server_queues`]: the server hears every agent.
    #[must_use]
    pub fn server_bindings(&self) -> Vec<Binding> {
        let bind = |exchange, queue: &str, key: &str| Binding {
            exchange,
            queue: queue.to_owned(),
            routing_key: key.to_owned(),
        };
        let class = |class| all_agents_up_pattern(class).expect("the classes are words of ours");
        vec![
            bind(DEAD_EXCHANGE, DEAD_QUEUE, ""),
            bind(UP_EXCHANGE, SERVER_QUEUE, &class(CLASS_LINK)),
            bind(UP_EXCHANGE, LOGS_QUEUE, &class(CLASS_LOGS)),
        ]
    }

    /// Bindings that earlier versions made and that would now do harm: logs came with the messages.
    #[must_use]
    pub fn retired_bindings(&self) -> Vec<Binding> {
        vec![Binding { exchange: UP_EXCHANGE, queue: SERVER_QUEUE.to_owned(), routing_key: "agent.#".to_owned() }]
    }

    /// The binding of one agent's queue.
    ///
    /// # Errors
    /// When the id may not enter a name.
    pub fn agent_binding(&self, agent: &str) -> Result<Binding, InvalidId> {
        let routing_key = down_key(agent)?;
        Ok(Binding { exchange: DOWN_EXCHANGE, queue: agent_queue_name(agent)?, routing_key })
    }

    /// The bindings that let the server hear one agent only, for installations where agents are enrolled: taking them away
    /// cuts the agent off. They replace those of every agent in [`Self::server_bindings`], and are no use beside them.
    ///
    /// # Errors
    /// When the id may not enter a name.
    pub fn server_bindings_for(&self, agent: &str) -> Result<[Binding; 2], InvalidId> {
        let bind = |queue: &str, class| {
            let routing_key = up_key(agent, class)?;
            Ok(Binding { exchange: UP_EXCHANGE, queue: queue.to_owned(), routing_key })
        };
        Ok([bind(SERVER_QUEUE, CLASS_LINK)?, bind(LOGS_QUEUE, CLASS_LOGS)?])
    }

    /// A queue that an endpoint consumes. One active consumer keeps the order and makes a cloned agent visible.
    /// `reject-publish` because the default would drop messages that were already confirmed.
    fn inbound(&self, name: String, max_bytes: i64) -> Queue {
        let mut arguments = self.common(max_bytes, "reject-publish");
        arguments.insert("x-single-active-consumer", ArgValue::Bool(true));
        arguments.insert("x-dead-letter-exchange", ArgValue::String(DEAD_EXCHANGE.to_owned()));
        Queue { name, arguments }
    }

    /// Without a single active consumer: a person who looks into it must not wait for another one to finish.
    fn dead_queue(&self) -> Queue {
        Queue { name: DEAD_QUEUE.to_owned(), arguments: self.common(DEAD_QUEUE_MAX_BYTES, "drop-head") }
    }

    fn common(&self, max_bytes: i64, overflow: &str) -> Arguments {
        let mut arguments = Arguments::from([
            ("x-queue-type", ArgValue::String(self.queue_type.as_str().to_owned())),
            ("x-max-length-bytes", ArgValue::Long(max_bytes)),
            ("x-overflow", ArgValue::String(overflow.to_owned())),
        ]);
        match self.queue_type {
            // Always explicit: the default differs between 3.x and 4.x.
            QueueType::Quorum => {
                arguments.insert("x-delivery-limit", ArgValue::Long(DELIVERY_LIMIT));
            }
            // A classic queue has no delivery limit and refuses the argument.
            QueueType::Classic => {}
        }
        arguments
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn topology(queue_type: QueueType) -> Topology {
        Topology { queue_type, ..Topology::default() }
    }

    #[test]
    fn only_quorum_queues_carry_a_delivery_limit() {
        let quorum = topology(QueueType::Quorum).agent_queue("a1").unwrap();
        assert_eq!(quorum.arguments["x-delivery-limit"], ArgValue::Long(1000));
        let classic = topology(QueueType::Classic);
        for queue in classic.server_queues().into_iter().chain([classic.agent_queue("a1").unwrap()]) {
            assert!(!queue.arguments.contains_key("x-delivery-limit"), "{}", queue.name);
        }
    }

    #[test]
    fn no_queue_that_is_consumed_drops_confirmed_messages() {
        for queue_type in [QueueType::Quorum, QueueType::Classic] {
            let topology = topology(queue_type);
            for queue in topology.server_queues().into_iter().chain([topology.agent_queue("a1").unwrap()]) {
                let overflow = &queue.arguments["x-overflow"];
                let expected = if queue.name == DEAD_QUEUE { "drop-head" } else { "reject-publish" };
                assert_eq!(overflow, &ArgValue::String(expected.to_owned()), "{}", queue.name);
                assert!(!queue.arguments.contains_key("x-message-ttl"), "{}", queue.name);
                assert!(!queue.arguments.contains_key("x-expires"), "{}", queue.name);
            }
        }
    }

    #[test]
    fn every_binding_names_an_exchange_and_a_queue_that_are_declared() {
        let topology = Topology::default();
        let mut queues = topology.server_queues();
        queues.push(topology.agent_queue("a1").unwrap());
        let mut bindings = topology.server_bindings();
        bindings.push(topology.agent_binding("a1").unwrap());
        bindings.extend(topology.server_bindings_for("a1").unwrap());
        for binding in bindings {
            assert!(topology.exchanges().iter().any(|e| e.name == binding.exchange), "{binding:?}");
            assert!(queues.iter().any(|q| q.name == binding.queue), "{binding:?}");
        }
    }

    #[test]
    fn a_queue_type_reads_and_writes_the_same_word() {
        for queue_type in [QueueType::Quorum, QueueType::Classic] {
            assert_eq!(queue_type.to_string().parse(), Ok(queue_type));
            let json = serde_json::to_string(&queue_type).unwrap();
            assert_eq!(json, format!("\"{queue_type}\""));
        }
        let error = "Stream".parse::<QueueType>().unwrap_err();
        assert_eq!(error.to_string(), "\"Stream\" is no queue type; use \"quorum\" or \"classic\"");
    }
}
