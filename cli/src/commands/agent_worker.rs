//! The worker of an agent: the process with the journal, the connection and the runs. Started by its monitor, or alone. Its running
//! steps outlive it.

use std::sync::Arc;
use std::time::Duration;

use agent::attempt::ShimCommand;
use agent::monitor::Lifeline;
use agent::{AgentConfig, AgentError};
use journal::OpenError;
use link::StartError;
use link::amqp::{AmqpConfig, Role};
use link::session::Config;
use messages::EndpointId;
use tokio::sync::watch;

use crate::config::{AgentSettings, QueueType};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::serving::{self, Asked};
use crate::supervised::Supervisor;

/// A worker that was killed holds its journal until the kernel has ended it, its last write to the disk included. For as many tries
/// the next one waits for that, [`LOCK_PAUSE`] apart.
const LOCK_TRIES: u32 = 50;

/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Who keeps a worker running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// A monitor. Whether the worker is to take nothing new from its start on.
    Monitor { draining: bool },
    /// Nobody, or whatever started it.
    Nobody,
}

/// Runs the agent with these settings in that home folder, and returns when it has stopped.
pub(crate) fn serve(home: &Home, settings: AgentSettings, keeper: Keeper) -> Result<Exit, Failure> {
    let (supervisor, draining, tries) = match keeper {
        Keeper::Monitor { draining } => (Supervisor::Monitor(lifeline()?), draining, LOCK_TRIES),
        Keeper::Nobody => {
            agent::groups::settle();
            (Supervisor::manager()?, false, 1)
        }
    };
    let supervisor = Arc::new(supervisor);
    // The queue's type is the server's to choose; an agent declares nothing.
    let broker = settings.broker.transport(Role::Agent(settings.name.clone()), QueueType::Quorum)?;
    serving::run_agent(draining, |asked| async move {
        supervisor.live();
        // Kept until the end: a sender that is gone would look like a change.
        let (_labels, labels) = watch::channel(settings.labels);
        let config = AgentConfig {
            dir: home.endpoint_dir(&EndpointId::Agent(settings.name.clone())),
            name: settings.name,
            slots: settings.slots,
            shim: ShimCommand::own(),
            session: Config::default(),
            engine: settings.journal_engine.map(Into::into),
            drain: asked.drain.clone(),
            once: settings.once,
            pool: settings.pool,
            labels,
            disk: settings.disk,
        };
        run(config, broker, asked, &supervisor, tries).await
    })?
    .map_err(|error| failure(&error))?;
    Ok(Exit::Ok)
}

async fn run(
    config: AgentConfig,
    broker: AmqpConfig,
    asked: Asked,
    supervisor: &Supervisor,
    tries: u32,
) -> Result<(), AgentError> {
    let mut left = tries;
    let ended = loop {
        left -= 1;
        let broker = broker.clone();
        let (name, slots) = (config.name.clone(), config.slots);
        let transport = |end, stop| link::amqp::start(broker, end, stop);
        let ready = || {
            tracing::info!(%name, slots, "The agent is ready.");
            supervisor.ready();
        };
        match agent::run(config.clone(), transport, asked.stop.clone(), ready).await {
            Err(AgentError::Start(StartError::Journal(OpenError::Locked { .. }))) if left > 0 => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            ended => break ended,
        }
    };
    supervisor.stopping();
    ended
}

fn lifeline() -> Result<Lifeline, Failure> {
    Lifeline::from_stdin().map_err(|error| {
        Failure::new(Exit::Failed, &error, "nothing was started", "run `longshore agent run`, without --as-worker")
    })
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
