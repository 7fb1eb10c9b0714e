//! `longshore broker`: whether the broker is as it should be, and the files that make it so.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use messages::AgentId;

use crate::args::Global;
use crate::config::{BrokerFlags, BrokerSettings, ConfigFile, QueueType};
use crate::exit::Exit;
use crate::failure::{Failure, NotWired};
use crate::home::Home;

/// Commands about the broker.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Reach the broker and check it against what we need; exit code 1 when something is missing, 69 when it is not there
    Check(BrokerCheckArgs),
    /// Print definitions.json: exchanges, queues, policies and permissions
    Definitions(BrokerDefinitionsArgs),
    /// Print rabbitmq.conf
    Conf,
}

/// Arguments of `longshore broker check`.
#[derive(Debug, Args)]
pub(crate) struct BrokerCheckArgs {
    /// The configuration file [default: config.toml in the home folder, if it exists]
    #[arg(long, env = "LONGSHORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerFlags,
}

/// Arguments of `longshore broker definitions`.
#[derive(Debug, Args)]
pub(crate) struct BrokerDefinitionsArgs {
    /// The agents that get a queue, separated by commas
    #[arg(long, env = "LONGSHORE_AGENTS", value_name = "NAMES", value_delimiter = ',')]
    agents: Vec<AgentId>,
    /// The type of the queues
    #[arg(long, env = "LONGSHORE_QUEUE_TYPE", value_enum, value_name = "TYPE", default_value = "quorum")]
    queue_type: QueueType,
}

/// Does what was asked for.
pub(crate) fn run(command: &BrokerCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        BrokerCommand::Check(args) => {
            let home = Home::find(global.dir.as_deref())?;
            let file = ConfigFile::read(args.config.as_deref(), &home.config_file())?;
            check(&BrokerSettings::new(file.broker, &args.broker)?)
        }
        BrokerCommand::Definitions(args) => definitions(&args.agents, args.queue_type),
        BrokerCommand::Conf => conf(),
    }
}

/// TO WIRE: reaches the broker and prints what was found.
fn check(settings: &BrokerSettings) -> Result<Exit, Failure> {
    tracing::debug!(url = %settings.url, "Would check.");
    Err(NotWired { command: "broker check" }.into())
}

/// TO WIRE: prints definitions.json.
fn definitions(_agents: &[AgentId], _queue_type: QueueType) -> Result<Exit, Failure> {
    Err(NotWired { command: "broker definitions" }.into())
}

/// TO WIRE: prints rabbitmq.conf.
fn conf() -> Result<Exit, Failure> {
    Err(NotWired { command: "broker conf" }.into())
}
