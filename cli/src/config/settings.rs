//! Settings in their valid form, put together from the configuration file and what the command line and environment say. The
//! command line's parser already lets a flag win over its variable.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use agent::DiskLimits;
use clap::ValueEnum;
use link::amqp::ConfigError;
use messages::{AgentFacts, AgentId, is_label};
use serde::Deserialize;

use super::broker::{BrokerFlags, BrokerSettings, Place, mend};
use super::broker_url::BrokerUrlError;
use super::disk::DiskFlags;
use super::file::ConfigFile;
use crate::exit::Exit;
use crate::failure::Failure;

/// Where the API listens when nothing is said.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7766);
/// Runs at once when nothing is said.
const SLOTS_DEFAULT: u16 = 2;
/// Runs at once. Each has a process and two files open per step; more belongs on more machines.
pub(super) const SLOTS: std::ops::RangeInclusive<u16> = 1..=1024;

/// The type of RabbitMQ queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum QueueType {
    /// Replicated, for clusters
    Quorum,
    /// For many thousand agents on one node
    Classic,
}

impl From<QueueType> for broker_config::QueueType {
    fn from(queue_type: QueueType) -> Self {
        match queue_type {
            QueueType::Quorum => Self::Quorum,
            QueueType::Classic => Self::Classic,
        }
    }
}

/// What keeps an endpoint's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JournalEngine {
    /// sled 0.34
    Sled,
    /// Longshore's own segmented log
    Segments,
}

impl From<JournalEngine> for journal::Engine {
    fn from(engine: JournalEngine) -> Self {
        match engine {
            JournalEngine::Sled => Self::Sled,
            JournalEngine::Segments => Self::Segments,
        }
    }
}

/// Why settings do not go together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The broker's address is wrong.
    #[error(transparent)]
    BrokerUrl(#[from] BrokerUrlError),
    /// A certificate without its key, or a key without its certificate.
    #[error("{given} is given without {missing}; the broker's client certificate and its key come together")]
    HalfIdentity {
        /// The one that is there, and where.
        given: Place,
        /// The other.
        missing: &'static str,
    },
    /// Too few or too many slots.
    #[error("{slots} slots, an agent has {} to {}", SLOTS.start(), SLOTS.end())]
    Slots {
        /// The slots that were asked for.
        slots: u16,
    },
    /// The transport's settings or files are wrong.
    #[error("the connection to the broker cannot be set up as {place} says")]
    Transport {
        /// What it is about, and where that is said.
        place: Place,
        /// What is wrong.
        source: ConfigError,
    },
    /// The agent has no name.
    #[error("the agent has no name")]
    NoName,
    /// A label or the pool cannot be one.
    #[error("{0}")]
    Facts(&'static str),
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let next = match &error {
            SettingsError::BrokerUrl(BrokerUrlError::NotEncrypted { .. }) => {
                "use amqps:// and --broker-ca FILE, or a tunnel to loopback".to_owned()
            }
            SettingsError::BrokerUrl(_) => {
                "write for example amqps://USER:PASSWORD@mq.example:5671, or amqp://USER:PASSWORD@127.0.0.1:5672"
                    .to_owned()
            }
            SettingsError::HalfIdentity { given: Place { file: Some(_), .. }, .. } => {
                "name both `client_cert` and `client_key` there, or neither".to_owned()
            }
            SettingsError::HalfIdentity { .. } => {
                "give --broker-client-cert FILE and --broker-client-key FILE, or neither".to_owned()
            }
            SettingsError::Slots { .. } => "give --slots N, or LONGSHORE_AGENT_SLOTS, within that range".to_owned(),
            SettingsError::Transport { place, source } => mend(place, source),
            SettingsError::NoName => "give --name NAME, or name under [agent] in the configuration".to_owned(),
            SettingsError::Facts(_) => "look at --pool and --label, and at labels under [agent]".to_owned(),
        };
        Self::new(Exit::Config, &error, "nothing was started", next)
    }
}

/// What `server run` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerSettings {
    /// How to reach the broker.
    pub(crate) broker: BrokerSettings,
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// The agents that there are, each once, in order.
    pub(crate) agents: Vec<AgentId>,
    /// The type of the queues.
    pub(crate) queue_type: QueueType,
    /// What is to keep the journal; nothing for what it has.
    pub(crate) journal_engine: Option<JournalEngine>,
}

/// What `server run` was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerFlags {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) agents: Option<Vec<AgentId>>,
    pub(crate) queue_type: Option<QueueType>,
    pub(crate) journal_engine: Option<JournalEngine>,
}

impl ServerSettings {
    /// Puts the file and the flags together.
    ///
    /// # Errors
    /// See [`BrokerSettings::new`].
    pub(crate) fn new(file: ConfigFile, broker: &BrokerFlags, flags: ServerFlags) -> Result<Self, SettingsError> {
        let mut agents = flags.agents.or(file.server.agents).unwrap_or_default();
        agents.sort();
        agents.dedup();
        Ok(Self {
            broker: BrokerSettings::new(file.broker, broker)?,
            listen: flags.listen.or(file.server.listen).unwrap_or(LISTEN_DEFAULT),
            agents,
            queue_type: flags.queue_type.or(file.server.queue_type).unwrap_or(QueueType::Quorum),
            journal_engine: flags.journal_engine.or(file.server.journal_engine),
        })
    }
}

/// What `agent run` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentSettings {
    /// How to reach the broker.
    pub(crate) broker: BrokerSettings,
    /// The agent's name.
    pub(crate) name: AgentId,
    /// Runs that it does at once.
    pub(crate) slots: u16,
    /// What is to keep the journal; nothing for what it has.
    pub(crate) journal_engine: Option<JournalEngine>,
    /// The pool that it belongs to.
    pub(crate) pool: Option<String>,
    /// Its labels, by name.
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether it does one run and then ends.
    pub(crate) once: bool,
    /// What it may fill its disk with.
    pub(crate) disk: DiskLimits,
}

/// What `agent run` was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentFlags {
    pub(crate) name: Option<AgentId>,
    pub(crate) slots: Option<u16>,
    pub(crate) journal_engine: Option<JournalEngine>,
    pub(crate) pool: Option<String>,
    /// Beside those of the file; one of the same name wins over it.
    pub(crate) labels: Vec<Label>,
    pub(crate) once: bool,
    pub(crate) disk: DiskFlags,
}

/// One label, as `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    name: String,
    value: String,
}

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("a label is NAME=VALUE")?;
        let label = Self { name: name.to_owned(), value: value.to_owned() };
        let valid = is_label(&label.name) && is_label(&label.value);
        valid.then_some(label).ok_or("a label's name and value are 1 to 63 letters, digits and -_./ without spaces")
    }
}

impl AgentSettings {
    /// Puts the file and the flags together.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub(crate) fn new(file: ConfigFile, broker: &BrokerFlags, flags: AgentFlags) -> Result<Self, SettingsError> {
        let disk = flags.disk.limits(&file.agent);
        let slots = flags.slots.or(file.agent.slots).unwrap_or(SLOTS_DEFAULT);
        if !SLOTS.contains(&slots) {
            return Err(SettingsError::Slots { slots });
        }
        let name = flags.name.or(file.agent.name).ok_or(SettingsError::NoName)?;
        let journal_engine = flags.journal_engine.or(file.agent.journal_engine);
        let pool = flags.pool.or(file.agent.pool);
        let mut labels = file.agent.labels.unwrap_or_default();
        labels.extend(flags.labels.into_iter().map(|label| (label.name, label.value)));
        let once = flags.once || file.agent.once.unwrap_or(false);
        let facts = AgentFacts { pool, labels, slots, once, ..AgentFacts::default() };
        facts.check().map_err(SettingsError::Facts)?;
        let AgentFacts { pool, labels, .. } = facts;
        let broker = BrokerSettings::new(file.broker, broker)?;
        Ok(Self { broker, name, slots, journal_engine, pool, labels, once, disk })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(text: &str) -> ConfigFile {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_file_wins_over_the_default_and_the_flag_over_the_file() {
        let none = BrokerFlags::default();
        let settings = ServerSettings::new(file(""), &none, ServerFlags::default()).unwrap();
        assert_eq!(
            (settings.listen, settings.queue_type, settings.broker.given),
            (LISTEN_DEFAULT, QueueType::Quorum, false)
        );
        let text = "[server]\nlisten='127.0.0.1:1'\nagents=['b','a','b']\n[broker]\nurl='amqp://u:p@localhost'\nca='f'";
        let settings = ServerSettings::new(file(text), &none, ServerFlags::default()).unwrap();
        assert_eq!((settings.listen.port(), settings.agents.len(), settings.broker.given), (1, 2, true));
        let flags = BrokerFlags {
            broker_url: Some("amqp://u:p@127.0.0.1:9".into()),
            broker_ca: Some("g".into()),
            ..BrokerFlags::default()
        };
        let listen = Some("127.0.0.1:2".parse().unwrap());
        let settings =
            ServerSettings::new(file(text), &flags, ServerFlags { listen, ..ServerFlags::default() }).unwrap();
        assert_eq!((settings.listen.port(), settings.broker.url.transport().port()), (2, 9));
        assert_eq!(settings.broker.ca, Some("g".into()));
    }

    #[test]
    fn the_journals_engine_is_whatever_it_has_unless_one_is_asked_for() {
        let none = BrokerFlags::default();
        let server = |text, journal_engine| {
            let flags = ServerFlags { journal_engine, ..ServerFlags::default() };
            ServerSettings::new(file(text), &none, flags).unwrap().journal_engine
        };
        let agent = |text, journal_engine| {
            let flags = AgentFlags { name: Some("a1".parse().unwrap()), journal_engine, ..AgentFlags::default() };
            AgentSettings::new(file(text), &none, flags).unwrap().journal_engine
        };
        let (sled, segments) = (Some(JournalEngine::Sled), Some(JournalEngine::Segments));
        assert_eq!((server("", None), agent("", None)), (None, None));
        let text = "[server]\njournal_engine='segments'\n[agent]\njournal_engine='segments'";
        assert_eq!((server(text, None), agent(text, None)), (segments, segments));
        assert_eq!((server(text, sled), agent(text, sled)), (sled, sled));
    }

    #[test]
    fn labels_of_the_command_line_come_to_those_of_the_file_and_win() {
        let text = "[agent]\nname='a1'\npool='p'\nlabels={env='test',os='linux'}";
        let settings = |labels: &[&str], pool: Option<&str>| {
            let labels = labels.iter().map(|label| label.parse().unwrap()).collect();
            let flags = AgentFlags { labels, pool: pool.map(Into::into), ..AgentFlags::default() };
            AgentSettings::new(file(text), &BrokerFlags::default(), flags)
        };
        let both = settings(&["env=prod", "zone=eu-1"], None).unwrap();
        let expected = [("env", "prod"), ("os", "linux"), ("zone", "eu-1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!((both.labels, both.pool.as_deref(), both.once), (expected.into(), Some("p"), false));
        assert_eq!(settings(&[], Some("q")).unwrap().pool.as_deref(), Some("q"));
        assert!(matches!(settings(&[], Some("a b")), Err(SettingsError::Facts(_))));
        for wrong in ["env", "=x", "env=", "a b=c", "env=a=b"] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        let half = BrokerFlags { broker_client_cert: Some("c".into()), ..BrokerFlags::default() };
        let named = |slots| AgentFlags { name: Some("a1".parse().unwrap()), slots, ..AgentFlags::default() };
        assert!(matches!(AgentSettings::new(file(""), &half, named(None)), Err(SettingsError::HalfIdentity { .. })));
        let none = BrokerFlags::default();
        assert!(matches!(AgentSettings::new(file(""), &none, AgentFlags::default()), Err(SettingsError::NoName)));
        assert!(matches!(AgentSettings::new(file(""), &none, named(Some(0))), Err(SettingsError::Slots { slots: 0 })));
        let remote = BrokerFlags { broker_url: Some("amqp://u:p@mq.example".into()), ..none };
        assert!(matches!(AgentSettings::new(file(""), &remote, named(None)), Err(SettingsError::BrokerUrl(_))));
    }
}
