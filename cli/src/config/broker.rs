//! How to reach the broker: what flags, the configuration file and the defaults come to. Connects to nothing.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use link::amqp::{AmqpConfig, ConfigError, LISTEN_ANEW, Role, TlsFiles};

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

/// One setting of the broker, and who said it. What nobody said could be given as a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its key under `[broker]`.
    key: &'static str,
    /// The configuration file, if that says it.
    pub(super) file: Option<PathBuf>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "`{}` under [broker] in {}", self.key, file.display()),
            None => write!(f, "--broker-{}", self.key.replace('_', "-")),
        }
    }
}

/// What to do about a connection that cannot be set up.
pub(super) fn mend(place: &Place, error: &ConfigError) -> String {
    match error {
        ConfigError::MissingCa => match &place.file {
            Some(_) => "add `ca = \"FILE\"` below it".to_owned(),
            None => "give --broker-ca FILE".to_owned(),
        },
        ConfigError::TlsFilesWithoutTls => "give an address with amqps://, or name no files of certificates".to_owned(),
        ConfigError::Read { .. } | ConfigError::TooLarge { .. } | ConfigError::Invalid { .. } => {
            format!("name a readable PEM file in {place}")
        }
        ConfigError::ClientCertificate { .. } => {
            format!("name a certificate and the key that belongs to it in {place}")
        }
        ConfigError::Url(_)
        | ConfigError::PlainToNetwork { .. }
        | ConfigError::ExternalWithoutCertificate
        | ConfigError::ServerName { .. }
        | ConfigError::Provider { .. } => format!("look at {place}"),
    }
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
    /// Where each of these was said.
    said: Said,
}

/// Which settings of the broker a configuration file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    /// The file.
    pub(super) file: Option<PathBuf>,
    /// The keys of those that no flag won over.
    keys: Vec<&'static str>,
}

impl Said {
    fn place(&self, key: &'static str) -> Place {
        Place { key, file: self.file.clone().filter(|_| self.keys.contains(&key)) }
    }
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
            listen_anew: LISTEN_ANEW,
        };
        config
            .validate()
            .map_err(|source| SettingsError::Transport { place: self.said.place(self.about(&source)), source })?;
        Ok(config)
    }

    /// The key of the setting that an error is about.
    fn about(&self, error: &ConfigError) -> &'static str {
        match error {
            ConfigError::Read { path, .. } | ConfigError::TooLarge { path, .. } | ConfigError::Invalid { path, .. } => {
                match &self.identity {
                    _ if self.ca.as_ref() == Some(path) => "ca",
                    Some(identity) if identity.key == *path => "client_key",
                    Some(_) | None => "client_cert",
                }
            }
            ConfigError::ClientCertificate { .. } => "client_cert",
            // Then the address is the default, and nobody's mistake.
            ConfigError::TlsFilesWithoutTls if !self.given => {
                if self.ca.is_some() {
                    "ca"
                } else {
                    "client_cert"
                }
            }
            ConfigError::Url(_)
            | ConfigError::PlainToNetwork { .. }
            | ConfigError::MissingCa
            | ConfigError::TlsFilesWithoutTls
            | ConfigError::ExternalWithoutCertificate
            | ConfigError::ServerName { .. }
            | ConfigError::Provider { .. } => "url",
        }
    }

    /// Puts the section of the file and the flags together.
    ///
    /// # Errors
    /// [`SettingsError::BrokerUrl`] and [`SettingsError::HalfIdentity`].
    pub(crate) fn new(section: BrokerSection, flags: &BrokerFlags) -> Result<Self, SettingsError> {
        let in_file = [
            ("url", section.url.is_some() && flags.broker_url.is_none()),
            ("ca", section.ca.is_some() && flags.broker_ca.is_none()),
            ("client_cert", section.client_cert.is_some() && flags.broker_client_cert.is_none()),
            ("client_key", section.client_key.is_some() && flags.broker_client_key.is_none()),
        ];
        let keys = in_file.into_iter().filter(|(_, said)| *said).map(|(key, _)| key).collect();
        let said = Said { file: section.file, keys };
        let url = flags.broker_url.as_deref().map(str::parse::<BrokerUrl>).transpose()?.or(section.url);
        let given = url.is_some();
        let certificate = flags.broker_client_cert.clone().or(section.client_cert);
        let half = |given, missing| SettingsError::HalfIdentity { given: said.place(given), missing };
        let identity = match (certificate, flags.broker_client_key.clone().or(section.client_key)) {
            (Some(certificate), Some(key)) => Some(ClientIdentity { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(half("client_cert", "its key")),
            (None, Some(_)) => return Err(half("client_key", "its certificate")),
        };
        let url = url.map_or_else(|| BROKER_DEFAULT.parse(), Ok)?;
        Ok(Self { url, given, ca: flags.broker_ca.clone().or(section.ca), identity, said })
    }
}
