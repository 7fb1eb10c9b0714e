//! A wire over RabbitMQ. The only part that knows AMQP; it moves bytes and keeps no promise: the broker may lose, repeat or
//! reorder, and so may this. What must arrive is the business of the journals at both ends.
//!
//! The server declares exchanges and queues, agents declare nothing. Publishing and consuming have a connection each,
//! because a broker that blocks publishers reads nothing from them, acknowledgements included.

mod backlog;
mod backoff;
mod bundles;
mod check;
mod config;
mod consume;
mod dial;
mod failure;
mod logs;
mod ping;
mod proxy;
mod publish;
mod settle;
mod stream;
mod supervise;
#[cfg(test)]
mod tests;
mod tls;
mod topology;
mod url;

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use check::{CheckError, Finding, check};
pub use config::{AmqpConfig, ConfigError, LISTEN_ANEW, Role, TlsFiles};
pub use proxy::{Proxy, ProxyError};
pub use url::{BrokerUrl, Scheme, UrlError};

use crate::wire::WireEnd;

/// For one call to the broker that it answers from memory. A broker that is alive needs milliseconds.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Serves a wire over RabbitMQ, reconnecting for ever, until `shutdown` is true or its sender is gone, or the other end
/// of the wire is dropped. Ends within two seconds of that.
///
/// A configuration that [`AmqpConfig::validate`] refuses is not connected with; it shows as
/// [`WireEvent::Down`](crate::wire::WireEvent::Down) with the reason, again and again, because files can be repaired.
///
/// Must be called within a Tokio runtime that has its I/O and time drivers on.
#[must_use = "the handle tells when the connections are closed"]
pub fn start(config: AmqpConfig, end: WireEnd, shutdown: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(supervise::Supervisor::new(config, end, shutdown).run())
}
