//! How two journals stay in step across a broker that may lose, repeat, reorder or delay.
//!
//! - [`session`]: the protocol core, pure: told what happened, it answers with what to write and what to do.
//! - [`driver`](Driver): one task that feeds the session, commits to the journal, and carries out the effects.
//! - [`wire`]: what lies between the driver and a broker; `amqp` is its other end over RabbitMQ.
//! - [`Endpoint`]: the application's handle.
//! - [`control`]: the owner's socket, for looking into a running journal and deciding about stopped streams.

pub mod amqp;
mod causes;
pub mod control;
mod driver;
mod endpoint;
mod lately;
mod seldom;
mod service;
pub mod session;
pub mod wire;

pub use driver::{Driver, Parts, RunError, endpoint, wall_ms};
pub use endpoint::{
    Begun, Endpoint, EndpointView, LinkState, Outage, ResolveFailure, Stopped, SubmitError, Work, WorkItem, outbound,
};
pub use lately::Lately;
pub use service::{JOURNAL_DIR, Service, ServiceConfig, StartError};
