//! `longshore server run`: the server in the foreground, until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use messages::AgentId;

use crate::args::Global;
use crate::config::{BrokerFlags, ConfigFile, QueueType, ServerFlags, ServerSettings};
use crate::exit::Exit;
use crate::failure::{Failure, NotWired};
use crate::home::Home;
use crate::logging;

/// Arguments of `longshore server run`.
#[derive(Debug, Args)]
pub(crate) struct ServerRunArgs {
    /// The configuration file [default: config.toml in the home folder, if it exists]
    #[arg(long, env = "LONGSHORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerFlags,
    /// Where the API listens; port 0 takes a free one [default: 127.0.0.1:7766]
    #[arg(long, env = "LONGSHORE_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The agents that there are, separated by commas
    #[arg(long, env = "LONGSHORE_AGENTS", value_name = "NAMES", value_delimiter = ',')]
    agents: Option<Vec<AgentId>>,
    /// The type of the broker's queues [default: quorum]
    #[arg(long, env = "LONGSHORE_QUEUE_TYPE", value_enum, value_name = "TYPE")]
    queue_type: Option<QueueType>,
}

/// Reads the settings and runs the server.
pub(crate) fn run(args: &ServerRunArgs, global: &Global) -> Result<Exit, Failure> {
    let home = Home::find(global.dir.as_deref())?;
    let file = ConfigFile::read(args.config.as_deref(), &home.config_file())?;
    let flags = ServerFlags { listen: args.listen, agents: args.agents.clone(), queue_type: args.queue_type };
    let settings = ServerSettings::new(file, &args.broker, flags)?;
    logging::start(global);
    serve(&home, settings)
}

/// TO WIRE: runs the server with these settings in that home folder, and returns when it has stopped.
fn serve(_home: &Home, _settings: ServerSettings) -> Result<Exit, Failure> {
    Err(NotWired { command: "server run" }.into())
}
