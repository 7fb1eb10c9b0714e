//! What the transport is told: which broker, how to trust it, for which endpoint. Checked as a whole before anything
//! connects. Limits and timeouts are constants beside the code that keeps them, not configuration.

use std::path::PathBuf;
use std::time::Duration;

use broker_config::QueueType;
use messages::{AgentId, EndpointId};

use super::proxy::Proxy;
use super::tls;
use super::url::{BrokerUrl, Login, Scheme, UrlError};

/// The PEM files of a connection with TLS. They are read again for every connection, so that certificates can be
/// replaced while the program runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may have signed the broker's certificate. Nobody else is trusted: not the system's list, not a
    /// built-in one.
    pub ca: Option<PathBuf>,
    /// The certificate chain to show to the broker, and its private key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Whose messages travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The server's: it declares every queue, and repairs what is missing.
    Server {
        /// The agents whose queues are declared on connecting. The queue of an agent that is not among them is declared
        /// when a publish to it is returned.
        agents: Vec<AgentId>,
    },
    /// That agent's: it declares nothing.
    Agent(AgentId),
}

impl Role {
    /// The endpoint whose messages these are.
    #[must_use]
    pub fn endpoint(&self) -> EndpointId {
        match self {
            Self::Server { .. } => EndpointId::Server,
            Self::Agent(id) => EndpointId::Agent(id.clone()),
        }
    }
}

/// After how long without a delivery a queue is consumed anew: see `consume.rs` for why. It is how long an endpoint can be deaf at most. An agent says
/// twelve times in it that it lives, each of which costs the broker as much.
pub const LISTEN_ANEW: Duration = Duration::from_secs(120);

/// Everything that the transport is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpConfig {
    /// The broker.
    pub url: BrokerUrl,
    /// How to trust it and be trusted.
    pub tls: TlsFiles,
    /// Whose messages travel.
    pub role: Role,
    /// The type of the queues that a server declares.
    pub queue_type: QueueType,
    /// An HTTP proxy to go through. Never taken from the environment.
    pub proxy: Option<Proxy>,
    /// After how long without a delivery a queue is consumed anew. [`LISTEN_ANEW`], but in tests.
    pub listen_anew: Duration,
}

/// Why the transport cannot be configured so. Nothing was connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL is not one.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Passwords and messages would cross a network in the clear.
    #[error(
        "a broker that is not on loopback needs amqps; `{host}` is neither a loopback address nor localhost, so nothing \
         was sent to it"
    )]
    PlainToNetwork {
        /// The host.
        host: String,
    },
    /// An amqps URL without an authority to trust.
    #[error("amqps needs the certificate of the authority that signed the broker's (the CA file); no other is trusted")]
    MissingCa,
    /// TLS files were given for a connection without TLS.
    #[error("TLS files are given but the URL says amqp; write amqps, or leave the files out")]
    TlsFilesWithoutTls,
    /// Logging in by certificate needs a certificate, and TLS.
    #[error("auth_mechanism=external needs amqps and a client certificate with its key")]
    ExternalWithoutCertificate,
    /// A file cannot be read.
    #[error("{what} {} cannot be read", path.display())]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is far larger than certificates are.
    #[error("{what} {} is larger than {} KiB", path.display(), max / 1024)]
    TooLarge {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        max: u64,
    },
    /// A file does not hold what it should.
    #[error("{what} {} is not valid: {why}", path.display())]
    Invalid {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The client certificate and the key do not go together, or cannot be used.
    #[error("client certificate {} cannot be used with key {}: {why}", certificate.display(), key.display())]
    ClientCertificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        why: String,
    },
    /// The cryptography refuses the host as a name to verify.
    #[error("`{host}` cannot be verified against a certificate")]
    ServerName {
        /// The host.
        host: String,
    },
    /// The cryptographic library cannot be set up.
    #[error("TLS cannot be set up: {why}")]
    Provider {
        /// Why not.
        why: String,
    },
}

impl AmqpConfig {
    /// Checks everything that can be known without connecting, and reads the TLS files.
    ///
    /// # Errors
    /// [`ConfigError`] names the first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_scheme()?;
        match self.url.scheme {
            Scheme::Amqp => Ok(()),
            Scheme::Amqps => tls::load(self).map(|_| ()),
        }
    }

    /// The rules that hold for every connection, before a single packet.
    pub(super) fn check_scheme(&self) -> Result<(), ConfigError> {
        if self.url.login == Login::External && (self.url.scheme == Scheme::Amqp || self.tls.client.is_none()) {
            return Err(ConfigError::ExternalWithoutCertificate);
        }
        match self.url.scheme {
            Scheme::Amqp if !self.url.is_loopback() => Err(ConfigError::PlainToNetwork { host: self.url.host.clone() }),
            Scheme::Amqp if self.tls != TlsFiles::default() => Err(ConfigError::TlsFilesWithoutTls),
            Scheme::Amqps if self.tls.ca.is_none() => Err(ConfigError::MissingCa),
            Scheme::Amqp | Scheme::Amqps => Ok(()),
        }
    }
}
