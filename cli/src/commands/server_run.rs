//! `longshore server run`: the server in the foreground, until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use journal::RoomLimits;
use link::amqp::Role;
use link::session::Config;
use messages::AgentId;
use server::api::BindError;
use server::{ServerConfig, ServerError};

use crate::args::Global;
use crate::config::{BrokerFlags, ConfigFile, JournalEngine, QueueType, ServerFlags, ServerSettings};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::supervised::Supervisor;
use crate::{logging, serving};

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
    /// What keeps the journal, chosen when it is made [default: sled, or what an existing journal has]
    #[arg(long, env = "LONGSHORE_JOURNAL_ENGINE", value_enum, value_name = "ENGINE")]
    journal_engine: Option<JournalEngine>,
}

/// Reads the settings and runs the server.
pub(crate) fn run(args: &ServerRunArgs, global: &Global) -> Result<Exit, Failure> {
    let home = Home::find(global.dir.as_deref())?;
    let file = ConfigFile::read(args.config.as_deref(), &home.config_file())?;
    let flags = ServerFlags {
        listen: args.listen,
        agents: args.agents.clone(),
        queue_type: args.queue_type,
        journal_engine: args.journal_engine,
    };
    let settings = ServerSettings::new(file, &args.broker, flags)?;
    logging::start(global);
    serve(&home, settings)
}

/// Runs the server with these settings in that home folder, and returns when it has stopped.
fn serve(home: &Home, settings: ServerSettings) -> Result<Exit, Failure> {
    let role = Role::Server { agents: settings.agents.clone() };
    let broker = settings.broker.transport(role, settings.queue_type)?;
    let config = ServerConfig {
        dir: home.server_dir(),
        agents: settings.agents.into_iter().collect(),
        listen: settings.listen.to_string(),
        broker_url: settings.broker.url.to_string(),
        session: Config::default(),
        engine: settings.journal_engine.map(Into::into),
        room: RoomLimits::default(),
    };
    let agents = config.agents.len();
    let supervisor = Arc::new(Supervisor::manager()?);
    serving::run(|shutdown| async move {
        supervisor.live();
        let transport = |end, stop| link::amqp::start(broker.clone(), end, stop);
        let ready = |url: &str| {
            tracing::info!(%url, agents, "The server is ready.");
            supervisor.ready();
        };
        let ended = server::run(config, transport, shutdown, ready).await;
        supervisor.stopping();
        ended
    })?
    .map_err(|error| failure(&error))?;
    Ok(Exit::Ok)
}

fn failure(error: &ServerError) -> Failure {
    let state = "the server is not running; whatever it acknowledged is in its journal";
    let (exit, next) = match error {
        ServerError::Start(error) => serving::start_failure(error),
        ServerError::Bind(BindError::InUse { .. }) => {
            (Exit::Config, "stop the other process, or give another address with --listen (port 0 takes a free one)")
        }
        ServerError::Bind(_) => (Exit::Config, "give --listen 127.0.0.1:7766"),
        ServerError::Access(_) => (Exit::Config, "remove the file, or correct its owner and mode; it is written anew"),
        ServerError::Logs { .. } => (Exit::Config, "look at the folder's owner and mode, and at the disk"),
        ServerError::Books(_) => (Exit::Damaged, "run `longshore journal verify`"),
        ServerError::Part => (Exit::Failed, "start again; report it with the log"),
        ServerError::Token(_) => (Exit::Failed, "start again"),
        ServerError::Run(error) => serving::run_failure(error),
    };
    Failure::new(exit, error, state, next)
}
