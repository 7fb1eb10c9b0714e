//! Settings of the server and the agents: defaults, then the configuration file, then the environment, then flags. Read once into
//! their valid form; unknown keys are refused with their place. Nothing is started here.

mod broker;
mod broker_url;
mod disk;
mod file;
mod keys;
mod settings;

pub(crate) use broker::{BrokerFlags, BrokerSettings};
pub(crate) use broker_url::BrokerUrl;
pub(crate) use disk::DiskFlags;
pub(crate) use file::ConfigFile;
pub(crate) use settings::{
    AgentFlags, AgentSettings, JournalEngine, Label, QueueType, ServerFlags, ServerSettings, SettingsError,
};
