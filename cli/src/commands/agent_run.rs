//! `longshore agent run`: an agent in the foreground, until it is told to stop. This process becomes the monitor, and starts the worker
//! with the same arguments. Running steps outlive both.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use messages::AgentId;

use super::agent_monitor;
use super::agent_worker::{self, Keeper};
use crate::args::{Global, number};
use crate::config::{AgentFlags, AgentSettings, BrokerFlags, ConfigFile, DiskFlags, JournalEngine, Label};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::logging;

/// Arguments of `longshore agent run`.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGTERM or Ctrl-C lets it finish what it does and take nothing new; a second one stops it, and running steps go on. \
                        SIGHUP starts the worker anew, with the configuration and the program that are on disk."
)]
pub(crate) struct AgentRunArgs {
    /// The agent's name
    #[arg(long, env = "LONGSHORE_AGENT_NAME", value_name = "NAME")]
    name: Option<AgentId>,
    /// Runs that it does at once [default: 2]
    #[arg(long, env = "LONGSHORE_AGENT_SLOTS", value_name = "N", value_parser = number::<u16>)]
    slots: Option<u16>,
    /// The pool that it belongs to
    #[arg(long, env = "LONGSHORE_AGENT_POOL", value_name = "NAME")]
    pool: Option<String>,
    /// A label, as often as there are labels; beside those of the configuration
    #[arg(long = "label", env = "LONGSHORE_AGENT_LABELS", value_delimiter = ',', value_name = "NAME=VALUE")]
    labels: Vec<Label>,
    /// Do one run, then end
    #[arg(long, env = "LONGSHORE_AGENT_ONCE", value_parser = FalseyValueParser::new())]
    once: bool,
    /// The configuration file [default: config.toml in the home folder, if it exists]
    #[arg(long, env = "LONGSHORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerFlags,
    /// What keeps the journal, chosen when it is made [default: sled, or what an existing journal has]
    #[arg(long, env = "LONGSHORE_JOURNAL_ENGINE", value_enum, value_name = "ENGINE")]
    journal_engine: Option<JournalEngine>,
    #[command(flatten)]
    disk: DiskFlags,
    /// Without the process that starts the agent again when it dies: for containers
    #[arg(long, env = "LONGSHORE_NO_MONITOR", value_parser = FalseyValueParser::new())]
    no_monitor: bool,
    /// Seconds after which finishing becomes stopping [default: never]
    #[arg(long, env = "LONGSHORE_DRAIN_LIMIT", value_name = "SECONDS", value_parser = number::<u64>)]
    drain_limit: Option<u64>,
    /// Be the worker of the monitor that started this
    #[arg(long, hide = true)]
    as_worker: bool,
    /// Take nothing new from the start on
    #[arg(long, hide = true, requires = "as_worker")]
    draining: bool,
}

/// Reads the settings, and becomes the monitor or runs the agent.
pub(crate) fn run(args: &AgentRunArgs, global: &Global) -> Result<Exit, Failure> {
    let home = Home::find(global.dir.as_deref())?;
    let file = ConfigFile::read(args.config.as_deref(), &home.config_file())?;
    let flags = AgentFlags {
        name: args.name.clone(),
        slots: args.slots,
        journal_engine: args.journal_engine,
        pool: args.pool.clone(),
        labels: args.labels.clone(),
        once: args.once,
        disk: args.disk.clone(),
    };
    // Before there is a monitor, so that what is wrong is said once and where it was typed.
    let settings = AgentSettings::new(file, &args.broker, flags)?;
    let keeper = match (args.as_worker, args.no_monitor) {
        (true, _) => Keeper::Monitor { draining: args.draining },
        (false, true) => Keeper::Nobody,
        (false, false) => return Err(agent_monitor::become_one(args.drain_limit)),
    };
    logging::start(global);
    agent_worker::serve(&home, settings, keeper)
}
