//! Why a connection could not be made or did not last, in words for people, and whether trying again soon is of use.
//! Never holds a password.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lapin::{Error, ErrorKind};

use super::backoff::Trouble;
use super::config::ConfigError;
use crate::causes::chain;

/// AMQP reply codes that are told apart.
mod code {
    pub(super) const CONNECTION_FORCED: u16 = 320;
    pub(super) const ACCESS_REFUSED: u16 = 403;
    pub(super) const NOT_FOUND: u16 = 404;
    pub(super) const PRECONDITION_FAILED: u16 = 406;
    pub(super) const NOT_ALLOWED: u16 = 530;
    pub(super) const INTERNAL_ERROR: u16 = 541;
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}", chain(.0))]
    Config(#[from] ConfigError),
    #[error("the address of {host} cannot be found: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("{host} has no usable address")]
    NoAddress { host: String },
    #[error("{address} cannot be reached: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("the proxy {proxy} opens no way to {host}: {source}")]
    Proxy { proxy: String, host: String, source: io::Error },
    #[error("the TLS handshake with {host} failed: {source}")]
    Tls { host: String, source: io::Error },
    #[error("{what} took longer than {} s", after.as_secs())]
    TimedOut { what: &'static str, after: Duration },
    #[error(
        "{queue} did not answer within {} s: it has no leader, perhaps since its node crashed; if this lasts, delete the \
         queue on the broker, nothing is lost with it",
        after.as_secs()
    )]
    Stuck { queue: String, after: Duration },
    #[error(
        "{queue} is there by name, but the broker cannot use it: its process is down, and `rabbitmqctl list_queues name state` shows it so; \
         the server makes it anew when it finds that; if this lasts, delete the queue on the broker, nothing is lost with it"
    )]
    QueueDown { queue: String },
    #[error("the broker refused {user}: wrong password, or no such user ({text})")]
    Login { user: String, text: String },
    #[error("the broker does not let {user} into this virtual host: {text}")]
    NotAllowed { user: String, text: String },
    #[error("access refused: {text}")]
    Access { text: String },
    #[error("{queue} is missing: the server has not declared it yet")]
    QueueMissing { queue: String },
    #[error(
        "what exists on the broker differs from what is to be declared: {text}; delete it there, or configure the same"
    )]
    Different { text: String },
    #[error("the broker closed the connection: {text}")]
    Closed { text: String },
    #[error("the broker answered {code}: {text}")]
    Protocol { code: u16, text: String },
    #[error("the broker stopped delivering from {queue}: it was deleted, or its node went away")]
    Cancelled { queue: String },
    #[error("no delivery tag {expected} but {found} came; the connection is given up")]
    TagOrder { expected: u64, found: u64 },
    #[error("a name for the broker cannot be made: {0}")]
    Name(#[from] broker_config::InvalidId),
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl Failure {
    /// What is to be made of an error of the library, in general.
    pub(super) fn of(error: &Error) -> Self {
        let ErrorKind::ProtocolError(protocol) = error.kind() else {
            return Self::Broken(error.to_string());
        };
        let text = protocol.get_message().to_string();
        match protocol.get_id() {
            code::CONNECTION_FORCED => Self::Closed { text },
            code::ACCESS_REFUSED => Self::Access { text },
            code::PRECONDITION_FAILED => Self::Different { text },
            code => Self::Protocol { code, text },
        }
    }

    /// What is to be made of an error while logging in.
    pub(super) fn of_login(error: &Error, user: &str) -> Self {
        let user = user.to_owned();
        match Self::of(error) {
            Self::Access { text } => Self::Login { user, text },
            Self::Protocol { code: code::NOT_ALLOWED, text } => Self::NotAllowed { user, text },
            other => other,
        }
    }

    /// What is to be made of an error of beginning to consume. A queue of which only the name is left can be declared and asked for, and
    /// whoever consumes from it loses his connection.
    pub(super) fn of_consume(error: &Error, queue: &str) -> Self {
        match Self::of(error) {
            Self::Protocol { code: code::NOT_FOUND, .. } => Self::QueueMissing { queue: queue.to_owned() },
            Self::Protocol { code: code::INTERNAL_ERROR, .. } => Self::QueueDown { queue: queue.to_owned() },
            other => other,
        }
    }

    /// What is to be made of an error in the life of a connection, where 406 speaks of a consumer that was too slow.
    pub(super) fn of_life(error: &Error) -> Self {
        match Self::of(error) {
            Self::Different { text } => Self::Protocol { code: code::PRECONDITION_FAILED, text },
            other => other,
        }
    }

    /// Whether waiting helps.
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            Self::Config(_)
            | Self::Login { .. }
            | Self::NotAllowed { .. }
            | Self::Access { .. }
            | Self::Different { .. }
            | Self::Name(_) => Trouble::Refused,
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => Trouble::Absent,
            Self::Resolve { .. }
            | Self::NoAddress { .. }
            | Self::Connect { .. }
            | Self::Proxy { .. }
            | Self::Tls { .. }
            | Self::TimedOut { .. }
            | Self::QueueMissing { .. }
            | Self::QueueDown { .. }
            | Self::Stuck { .. }
            | Self::Closed { .. }
            | Self::Protocol { .. }
            | Self::Cancelled { .. }
            | Self::TagOrder { .. }
            | Self::Broken(_) => Trouble::Passing,
        }
    }
}

/// Bounds a wait for the broker.
pub(super) async fn within<T>(
    after: Duration,
    what: &'static str,
    wait: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::time::timeout(after, wait).await.map_err(|_| Failure::TimedOut { what, after })
}
