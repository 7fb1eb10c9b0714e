//! How to reach the broker: what flags, the configuration file and the defaults come to. Connects to nothing.

use std::path::PathBuf;

use clap::Args;
use link::amqp::{AmqpConfig, Role, TlsFiles};

use super::broker_url::BrokerUrl;
use super::file::BrokerSection;
use super::settings::{QueueType, SettingsError};

/// The broker when nothing is said: the one on this machine.
const BROKER_DEFAULT: &str = "amqp://guest:guest@127.0.0.1:5672";

/// How to reach the broker, as flags.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct BrokerFlags {
    /// The broker's address, amqp:// or amqps://. Put a password into the variable or the configuration file: others can
    /// see a process's flags [default: amqp://guest:guest@127.0.0.1:5672]
    #[arg(long, env = "LONGSHORE_BROKER_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) broker_url: Option<String>,
    /// PEM file of the authority that signed the broker's certificate
    #[arg(long, env = "LONGSHORE_BROKER_CA", value_name = "FILE")]
    pub(crate) broker_ca: Option<PathBuf>,
    /// PEM file of the certificate to show the broker
    #[arg(long, env = "LONGSHORE_BROKER_CLIENT_CERT", value_name = "FILE")]
    pub(crate) broker_client_cert: Option<PathBuf>,
    /// PEM file of that certificate's key
    #[arg(long, env = "LONGSHORE_BROKER_CLIENT_KEY", value_name = "FILE")]
    pub(crate) broker_client_key: Option<PathBuf>,
}

/// A certificate and its key, to show the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    /// PEM file of the certificate.
    pub(crate) certificate: PathBuf,
    /// PEM file of its key.
    pub(crate) key: PathBuf,
}

/// How to reach the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerSettings {
    /// Its address. Whether one was given or it is the default is in [`Self::given`].
    pub(crate) url: BrokerUrl,
    /// Whether anybody named the broker.
    pub(crate) given: bool,
    /// The authority that signed its certificate.
    pub(crate) ca: Option<PathBuf>,
    /// Who we are to it.
    pub(crate) identity: Option<ClientIdentity>,
}

impl BrokerSettings {
    /// What the transport needs, its files read and checked.
    ///
    /// # Errors
    /// [`SettingsError::Transport`]
    pub(crate) fn transport(&self, role: Role, queue_type: QueueType) -> Result<AmqpConfig, SettingsError> {
        let identity = self.identity.as_ref();
        let client = identity.map(|identity| (identity.certificate.clone(), identity.key.clone()));
        let config = AmqpConfig {
            url: self.url.transport().clone(),
            tls: TlsFiles { ca: self.ca.clone(), client },
            role,
            queue_type: queue_type.into(),
            proxy: None,
        };
        config.validate()?;
        Ok(config)
    }

    /// Puts the section of the file and the flags together.
    ///
    /// # Errors
    /// [`SettingsError::BrokerUrl`] and [`SettingsError::HalfIdentity`].
    pub(crate) fn new(section: BrokerSection, flags: &BrokerFlags) -> Result<Self, SettingsError> {
        let url = flags.broker_url.as_deref().map(str::parse::<BrokerUrl>).transpose()?.or(section.url);
        let given = url.is_some();
        let certificate = flags.broker_client_cert.clone().or(section.client_cert);
        let identity = match (certificate, flags.broker_client_key.clone().or(section.client_key)) {
            (Some(certificate), Some(key)) => Some(ClientIdentity { certificate, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(SettingsError::HalfIdentity),
        };
        let url = url.map_or_else(|| BROKER_DEFAULT.parse(), Ok)?;
        Ok(Self { url, given, ca: flags.broker_ca.clone().or(section.ca), identity })
    }
}
