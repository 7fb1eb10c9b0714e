//! The RabbitMQ side of Longshore, in one place.
//!
//! [`Topology`] holds the names, arguments and permission patterns as plain data: what the link declares over AMQP and
//! what the rendered `definitions.json` contains cannot drift apart, because both read it. [`node`] finds or unpacks
//! RabbitMQ and runs a private broker for development and tests.
//!
//! This crate never speaks AMQP beyond the eight bytes that ask a broker whether it is there, and never touches a
//! broker that it did not start itself.

pub mod live;
mod names;
pub mod node;
mod permissions;
pub mod render;
mod topology;

pub use names::{
    CLASS_LINK, CLASS_LOGS, DEAD_EXCHANGE, DEAD_QUEUE, DOWN_EXCHANGE, InvalidId, LOGS_QUEUE, MAX_ID_LEN, SERVER_QUEUE,
    UP_EXCHANGE, agent_queue_name, all_agents_up_pattern, check_id, down_key, up_key, up_pattern,
};
pub use permissions::{Permission, TopicPermission};
pub use topology::{
    AGENT_QUEUE_MAX_BYTES, ArgValue, Arguments, Binding, DEAD_QUEUE_MAX_BYTES, DEFAULT_VHOST, DELIVERY_LIMIT, Exchange,
    ExchangeKind, InvalidQueueType, LOGS_QUEUE_MAX_BYTES, Queue, QueueType, SERVER_QUEUE_MAX_BYTES, Topology,
};
