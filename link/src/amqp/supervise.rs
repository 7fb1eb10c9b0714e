//! Keeps two connections to the broker, one to publish and one to consume, for as long as the program runs. Either one's
//! end is the end of both: what was in flight is unknown then, and the session finds out by reconciling. While there is no
//! connection commands are dropped, so the driver never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_config::{SERVER_QUEUE, agent_queue_name};
use lapin::Channel;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::backlog::{Backlog, Haste};
use super::backoff::{Backoff, STABLE};
use super::bundles::Takers;
use super::config::{AmqpConfig, Role};
use super::consume::Inbox;
use super::dial::{Link, Purpose, dial};
use super::failure::Failure;
use super::logs;
use super::ping;
use super::publish::{self, Publisher};
use super::settle::{Decision, Settlements};
use super::topology::{self, Repairs};
use crate::wire::{WireCommand, WireEnd, WireEvent};

/// For the last settlements, and again for an orderly close. The broker repeats what it does not hear of.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);

/// Tries in a row that find no queue until that is worth a person's look: about ten seconds, in which a server that was started
/// together with its agents declares it.
const QUEUE_TRIES: u32 = 8;

/// Owns the transport's end of a wire.
pub(super) struct Supervisor {
    config: Arc<AmqpConfig>,
    events: mpsc::Sender<WireEvent>,
    logs: mpsc::Sender<Vec<u8>>,
    commands: mpsc::Receiver<WireCommand>,
    shutdown: watch::Receiver<bool>,
    backoff: Backoff,
    connection: u64,
    /// Tries in a row that found no queue.
    missing: u32,
    /// Everything was declared, and nothing has failed since in which it could have been lost or left out.
    declared: Arc<AtomicBool>,
    /// Who takes bundles, as far as was heard in any connection.
    takers: Arc<Takers>,
}

/// The transport is no longer wanted.
struct Stop;

/// How a time of being connected ended.
enum Ended {
    Stopped,
    Failed(Failure),
}

/// Both connections, ready. Fields are dropped in this order.
struct Ready {
    inbox: Inbox,
    outbox: Channel,
    consuming: Link,
    publishing: Link,
    /// What the queues of agents are is taken for granted.
    granted: bool,
}

impl Supervisor {
    pub(super) fn new(config: AmqpConfig, end: WireEnd, shutdown: watch::Receiver<bool>) -> Self {
        let WireEnd { events, logs, commands } = end;
        Self {
            config: Arc::new(config),
            events,
            logs,
            commands,
            shutdown,
            backoff: Backoff::default(),
            connection: 0,
            missing: 0,
            declared: Arc::default(),
            takers: Arc::default(),
        }
    }

    /// Runs until shutdown or until the driver is gone.
    pub(super) async fn run(mut self) {
        // Either way the transport is no longer wanted.
        let Stop = self.run_until_stopped().await;
    }

    async fn run_until_stopped(&mut self) -> Stop {
        loop {
            let failure = match self.connect_and_serve().await {
                Ok(failure) => failure,
                Err(stop) => return stop,
            };
            let wait = self.backoff.next(failure.trouble());
            let reason = format!("{failure}; the next attempt is in {:.1} s", wait.as_secs_f64());
            tracing::debug!(broker = %self.config.url, %reason, "not connected to the broker");
            let events = self.events.clone();
            let missing = matches!(failure, Failure::QueueMissing { .. });
            self.missing = if missing { self.missing.saturating_add(1) } else { 0 };
            let expected = missing && self.missing <= QUEUE_TRIES;
            let told = self.while_down(events.send(WireEvent::Down { reason, expected })).await;
            if !matches!(told, Ok(Ok(()))) || self.while_down(sleep(wait)).await.is_err() {
                return Stop;
            }
        }
    }

    /// One connection from beginning to end; why it ended or never began.
    async fn connect_and_serve(&mut self) -> Result<Failure, Stop> {
        let (config, declared) = (Arc::clone(&self.config), Arc::clone(&self.declared));
        let ready = match self.while_down(connect(&config, &declared)).await? {
            Ok(ready) => ready,
            Err(failure) => return Ok(failure),
        };
        self.connection += 1;
        let since = Instant::now();
        tracing::debug!(broker = %config.url, connection = self.connection, "connected to the broker");
        let events = self.events.clone();
        let up = WireEvent::Up { connection: self.connection };
        self.while_down(events.send(up)).await?.map_err(|_| Stop)?;
        match self.serve(ready).await {
            Ended::Stopped => Err(Stop),
            Ended::Failed(failure) => {
                if since.elapsed() > STABLE {
                    self.backoff.reset();
                }
                Ok(failure)
            }
        }
    }

    /// Waits for something while there is no connection, dropping commands meanwhile.
    async fn while_down<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Stop> {
        let mut wait = std::pin::pin!(wait);
        loop {
            tokio::select! {
                done = &mut wait => return Ok(done),
                command = self.commands.recv() => match command {
                    Some(_) => {}
                    None => return Err(Stop),
                },
                () = stopped(&mut self.shutdown) => return Err(Stop),
            }
        }
    }

    async fn serve(&mut self, mut ready: Ready) -> Ended {
        let backlog = Backlog::default();
        let settlements = Settlements::new(self.connection);
        let repairs = Repairs::default();
        let takers = Arc::clone(&self.takers);
        let publisher = Publisher::new(&self.config.role, &backlog, &repairs, &takers, &self.events);
        let ended = tokio::select! {
            () = stopped(&mut self.shutdown) => Ended::Stopped,
            () = route(&mut self.commands, &backlog, &settlements) => Ended::Stopped,
            ended = publisher.run(&ready.publishing, &ready.outbox) => Ended::from(ended),
            ended = ready.inbox.run((&ready.consuming, self.config.listen_anew), (self.connection, &self.config.role, &takers), &settlements, &self.events) => Ended::from(ended),
            failure = repair(&self.config, &repairs, &ready.consuming, ready.granted.then_some(&*self.declared)) => Ended::Failed(failure),
            () = take_logs(&self.config, &ready.consuming, &self.logs) => Ended::Stopped,
        };
        match ended {
            Ended::Stopped => {
                while let Ok(command) = self.commands.try_recv() {
                    take(command, &backlog, &settlements);
                }
                farewell(&ready, &settlements).await;
                Ended::Stopped
            }
            Ended::Failed(failure) => {
                // A new connection begins unblocked.
                if ready.publishing.connection.status().blocked() {
                    let events = self.events.clone();
                    if !matches!(self.while_down(events.send(WireEvent::Blocked(None))).await, Ok(Ok(()))) {
                        return Ended::Stopped;
                    }
                }
                Ended::Failed(failure)
            }
        }
    }
}

impl From<Result<(), Failure>> for Ended {
    fn from(result: Result<(), Failure>) -> Self {
        match result {
            // The driver is gone.
            Ok(()) => Self::Stopped,
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// Resolves on shutdown. An owner that is gone wants no transport either.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Connects. What was declared before is not declared again where the broker still has it: a thousand queues that are there take a broker
/// that was just started as long as the agents' own connections. One that is missing all the same is found by the server's first word to
/// its agent, which comes back.
async fn connect(config: &AmqpConfig, declared: &AtomicBool) -> Result<Ready, Failure> {
    let mut consuming = dial(config, Purpose::Consume).await?;
    let (queue, granted) = match &config.role {
        Role::Server { agents } => {
            let granted = declared.load(Ordering::Relaxed) && topology::is_kept(&consuming).await?;
            // Until it is done: what is interrupted is begun again from the front.
            declared.store(false, Ordering::Relaxed);
            topology::declare(&consuming, config.queue_type, if granted { &[] } else { agents }).await?;
            declared.store(!granted, Ordering::Relaxed);
            (SERVER_QUEUE.to_owned(), granted)
        }
        Role::Agent(agent) => (agent_queue_name(agent.as_str())?, false),
    };
    let inbox = match (Inbox::open(&consuming, queue.clone()).await, &config.role) {
        (Err(Failure::Stuck { .. }), Role::Server { agents }) => {
            ping::delete(&consuming, &queue).await;
            topology::declare(&consuming, config.queue_type, agents).await?;
            Inbox::open(&consuming, queue).await?
        }
        (Err(Failure::QueueDown { .. }), Role::Server { agents }) => {
            // The answer has ended the connection.
            consuming = dial(config, Purpose::Consume).await?;
            ping::delete_if_empty(&consuming, &queue).await;
            topology::declare(&consuming, config.queue_type, agents).await?;
            Inbox::open(&consuming, queue).await?
        }
        (opened, Role::Server { .. } | Role::Agent(_)) => opened?,
    };
    let publishing = dial(config, Purpose::Publish).await?;
    let outbox = publish::open(&publishing).await?;
    Ok(Ready { inbox, outbox, consuming, publishing, granted })
}

/// Hands commands on for as long as there are any. Never waits for the broker.
async fn route(commands: &mut mpsc::Receiver<WireCommand>, backlog: &Backlog, settlements: &Settlements) {
    while let Some(command) = commands.recv().await {
        take(command, backlog, settlements);
    }
}

fn take(command: WireCommand, backlog: &Backlog, settlements: &Settlements) {
    match command {
        WireCommand::Publish(publish) => backlog.push(publish, Haste::Now),
        WireCommand::PublishSoon(publish) => backlog.push(publish, Haste::Soon),
        WireCommand::Acknowledge(tags) => settlements.decide(&tags, Decision::Acknowledge),
        WireCommand::Discard(tags) => settlements.decide(&tags, Decision::Reject),
    }
}

/// Where the queues of agents were taken for granted, notes that they are declared once they are.
async fn repair(config: &AmqpConfig, repairs: &Repairs, link: &Link, granted: Option<&AtomicBool>) -> Failure {
    match &config.role {
        Role::Server { agents } => {
            repairs.run(link, config.queue_type, granted.map(|declared| (&agents[..], declared))).await
        }
        Role::Agent(_) => std::future::pending().await,
    }
}

/// Returns when the driver is gone.
async fn take_logs(config: &AmqpConfig, link: &Link, logs: &mpsc::Sender<Vec<u8>>) {
    match &config.role {
        Role::Server { .. } => logs::consume(link, config.listen_anew, logs).await,
        // What it hears of its logs comes with its messages.
        Role::Agent(_) => std::future::pending().await,
    }
}

/// Ends both connections in order if that goes quickly. A blocked one cannot be closed; dropping it ends it.
async fn farewell(ready: &Ready, settlements: &Settlements) {
    // What does not get through is delivered again.
    let _ = timeout(FAREWELL_LIMIT, ready.inbox.settle(settlements)).await;
    let close = async |link: &Link| {
        if !link.connection.status().blocked() {
            let _ = link.connection.close(200, "shutting down".into()).await;
        }
    };
    let _ = timeout(FAREWELL_LIMIT, async { tokio::join!(close(&ready.publishing), close(&ready.consuming)) }).await;
}
