//! `longshore agent run`: an agent in the foreground, until it is told to stop. Its running steps outlive it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use agent::attempt::ShimCommand;
use agent::{AgentConfig, AgentError, DiskLimits};
use clap::Args;
use link::amqp::Role;
use link::session::Config;
use messages::{AgentId, EndpointId};
use tokio::sync::watch;

use crate::args::Global;
use crate::config::{AgentFlags, AgentSettings, BrokerFlags, ConfigFile, JournalEngine, QueueType};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::{logging, serving};

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
    /// What keeps the journal, chosen when it is made [default: sled, or what an existing journal has]
    #[arg(long, env = "LONGSHORE_JOURNAL_ENGINE", value_enum, value_name = "ENGINE")]
    journal_engine: Option<JournalEngine>,
}

/// Reads the settings and runs the agent.
pub(crate) fn run(args: &AgentRunArgs, global: &Global) -> Result<Exit, Failure> {
    let home = Home::find(global.dir.as_deref())?;
    let file = ConfigFile::read(args.config.as_deref(), &home.config_file())?;
    let flags = AgentFlags { name: args.name.clone(), slots: args.slots, journal_engine: args.journal_engine };
    let settings = AgentSettings::new(file, &args.broker, flags)?;
    logging::start(global);
    serve(&home, settings)
}

/// Runs the agent with these settings in that home folder, and returns when it has stopped.
fn serve(home: &Home, settings: AgentSettings) -> Result<Exit, Failure> {
    // The queue's type is the server's to choose; an agent declares nothing.
    let broker = settings.broker.transport(Role::Agent(settings.name.clone()), QueueType::Quorum)?;
    let config = AgentConfig {
        dir: home.endpoint_dir(&EndpointId::Agent(settings.name.clone())),
        name: settings.name,
        slots: settings.slots,
        shim: ShimCommand::own(),
        session: Config::default(),
        engine: settings.journal_engine.map(Into::into),
        drain: watch::channel(false).1,
        once: false,
        pool: None,
        labels: watch::channel(BTreeMap::new()).1,
        disk: DiskLimits::default(),
    };
    serving::run(|shutdown| async move {
        let (name, slots) = (config.name.clone(), config.slots);
        let transport = |end, stop| link::amqp::start(broker, end, stop);
        let ready = || tracing::info!(%name, slots, "The agent is ready.");
        agent::run(config, transport, shutdown, ready).await
    })?
    .map_err(|error| failure(&error))?;
    Ok(Exit::Ok)
}

fn failure(error: &AgentError) -> Failure {
    let state = "the agent is not running; its journal is whole, and steps that were running go on";
    let (exit, next) = match error {
        AgentError::Start(error) => serving::start_failure(error),
        AgentError::Resume(_) => (Exit::Damaged, "run `longshore journal verify --endpoint NAME`"),
        AgentError::Folder { .. } => (Exit::Config, "look at the folder's owner and mode, and at the disk"),
        AgentError::Part => (Exit::Failed, "start again; report it with the log"),
        AgentError::Boot(_) => (Exit::Failed, "an agent needs Linux with /proc mounted"),
        AgentError::Run(error) => serving::run_failure(error),
    };
    Failure::new(exit, error, state, next)
}
