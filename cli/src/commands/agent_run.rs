//! `longshore agent run`: an agent in the foreground, until it is told to stop. Its running steps outlive it.

use std::path::PathBuf;

use clap::Args;
use messages::AgentId;

use crate::args::Global;
use crate::config::{AgentSettings, BrokerFlags, ConfigFile};
use crate::exit::Exit;
use crate::failure::{Failure, NotWired};
use crate::home::Home;
use crate::logging;

/// Arguments of `longshore agent run`.
#[derive(Debug, Args)]
pub(crate) struct AgentRunArgs {
    /// The agent's name
    #[arg(long, env = "LONGSHORE_AGENT_NAME", value_name = "NAME")]
    name: Option<AgentId>,
    /// Runs that it does at once [default: 2]
    #[arg(long, env = "LONGSHORE_AGENT_SLOTS", value_name = "N")]
    slots: Option<u16>,
    /// The configuration file [default: config.toml in the home folder, if it exists]
    #[arg(long, env = "LONGSHORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerFlags,
}

/// Reads the settings and runs the agent.
pub(crate) fn run(args: &AgentRunArgs, global: &Global) -> Result<Exit, Failure> {
    let home = Home::find(global.dir.as_deref())?;
    let file = ConfigFile::read(args.config.as_deref(), &home.config_file())?;
    let settings = AgentSettings::new(file, &args.broker, args.name.clone(), args.slots)?;
    logging::start(global);
    serve(&home, settings)
}

/// TO WIRE: runs the agent with these settings in that home folder, and returns when it has stopped.
fn serve(_home: &Home, _settings: AgentSettings) -> Result<Exit, Failure> {
    Err(NotWired { command: "agent run" }.into())
}
