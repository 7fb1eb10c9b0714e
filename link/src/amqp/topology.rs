//! What a server declares: everything on connecting for the first time or to a broker that has lost it, later what turns out to be
//! missing. An agent declares nothing.
//!
//! Nothing is deleted here, but for queues that are stuck: see `ping.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use broker_config::{
    ArgValue, Arguments, Binding, Exchange, ExchangeKind, LOGS_QUEUE, Queue, QueueType, SERVER_QUEUE, Topology,
};
use futures_util::future::{join_all, try_join_all};
use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use messages::AgentId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::CALL_LIMIT;
use super::dial::Link;
use super::failure::{Failure, within};
use super::ping;

/// Agents whose queues are declared at once. A quorum queue takes 10 ms to make, most of it waiting for the disk.
const CHUNK: usize = 64;

/// For declaring one chunk. A broker without a majority needs 22 s to say no.
const DECLARE_LIMIT: Duration = Duration::from_secs(60);

/// Queues that are tried at once. Each takes a channel.
const TRIED_AT_ONCE: usize = 4;

/// The shortest and the longest pause between repairs: a queue that somebody keeps deleting must not keep us busy.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How often what belongs to the server itself is declared again. If its binding is gone, only agents notice.
const REASSURE: Duration = Duration::from_secs(30);

/// How long after connecting what was taken for granted is declared all the same: when agents have had time to come back.
const GRANTED: Duration = Duration::from_secs(10);

/// Agents whose queue or binding seems to be missing.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    wanted: Mutex<BTreeMap<AgentId, Repair>>,
    requested: Notify,
}

/// What is to be done about an agent's queue. The later is the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Repair {
    /// It refused something: it is full, or changes its leader, or its process is down. It is to be tried if it holds nothing.
    Look,
    /// It or its binding seems to be missing.
    Declare,
    /// It may be stuck: it is to be tried, and made anew if it is.
    Try,
}

impl Repairs {
    /// Asks for that agent's queue and binding to be declared. Never waits.
    pub(super) fn request(&self, agent: AgentId) {
        self.want(agent, Repair::Declare);
    }

    /// Asks for that agent's queue to be looked at. Never waits.
    pub(super) fn doubt(&self, agent: AgentId) {
        self.want(agent, Repair::Look);
    }

    /// Asks for that agent's queue to be tried, and made anew if it is stuck. Never waits.
    pub(super) fn suspect(&self, agent: AgentId) {
        self.want(agent, Repair::Try);
    }

    fn want(&self, agent: AgentId, repair: Repair) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = wanted.entry(agent).or_insert(repair);
        *entry = (*entry).max(repair);
        self.requested.notify_one();
    }

    fn take(&self) -> BTreeMap<AgentId, Repair> {
        std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Declares what is asked for, and now and then what is the server's own, until that fails; and once, when there is time for it, what
    /// was taken for granted on connecting.
    pub(super) async fn run(
        &self,
        link: &Link,
        queue_type: QueueType,
        mut granted: Option<(&[AgentId], &AtomicBool)>,
    ) -> Failure {
        let mut pause = PAUSE.0;
        let mut last = Instant::now();
        let connected = last;
        loop {
            // Out of time means that nothing was asked for, and it is time to reassure.
            // What others ask for does not put it off.
            let wait = granted.map_or(REASSURE, |_| GRANTED.saturating_sub(connected.elapsed()));
            let asked = timeout(wait, self.requested.notified()).await.is_ok();
            let wanted = look(link, self.take()).await;
            if asked && !wanted.is_empty() {
                tracing::warn!(
                    agents = wanted.len(),
                    "Queues or bindings are missing on the broker or stuck; declaring them."
                );
                pause = if last.elapsed() > PAUSE.1 * 2 { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
                last = Instant::now();
            }
            let suspects: Vec<&AgentId> =
                wanted.iter().filter(|(_, repair)| **repair == Repair::Try).map(|(agent, _)| agent).collect();
            for suspects in suspects.chunks(TRIED_AT_ONCE) {
                join_all(suspects.iter().map(|agent| ping::delete_if_stuck(link, agent))).await;
            }
            let mut agents: Vec<AgentId> = wanted.into_keys().collect();
            let due = granted.take_if(|_| connected.elapsed() >= GRANTED);
            agents.extend(due.iter().flat_map(|(agents, _)| agents.iter().cloned()));
            if let Err(failure) = declare(link, queue_type, &agents).await {
                return failure;
            }
            if let Some((_, declared)) = due {
                declared.store(true, Ordering::Relaxed);
            }
            sleep(pause).await;
        }
    }
}

/// Looks at those that are to be looked at. What is left is to be repaired.
async fn look(link: &Link, mut wanted: BTreeMap<AgentId, Repair>) -> BTreeMap<AgentId, Repair> {
    let doubted: Vec<AgentId> =
        wanted.iter().filter(|(_, repair)| **repair == Repair::Look).map(|(agent, _)| agent.clone()).collect();
    for agent in doubted {
        if ping::holds_nothing(link, &agent).await {
            wanted.insert(agent, Repair::Try);
        } else {
            // It is full; its consumer makes room.
            wanted.remove(&agent);
        }
    }
    wanted
}

/// Whether the broker has the server's own queue. If it has, it has not lost what was declared before.
pub(super) async fn is_kept(link: &Link) -> Result<bool, Failure> {
    // Of its own, since a no ends it.
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let ask = channel.queue_declare(SERVER_QUEUE.into(), options, FieldTable::default());
    match within(DECLARE_LIMIT, "asking for the server's queue", ask).await?.map_err(|e| Failure::of(&e)) {
        Ok(_) => Ok(true),
        Err(Failure::Protocol { code: 404, .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Declares what is the server's own, and the queues of those agents.
pub(super) async fn declare(link: &Link, queue_type: QueueType, agents: &[AgentId]) -> Result<(), Failure> {
    let topology = Topology { queue_type, ..Topology::default() };
    let channel = link.channel().await?;
    within(DECLARE_LIMIT, "declaring what is the server's own", own(&channel, &topology)).await??;
    for chunk in agents.chunks(CHUNK) {
        let declared = try_join_all(chunk.iter().map(|agent| of_agent(&channel, &topology, agent)));
        within(DECLARE_LIMIT, "declaring the queues of agents", declared).await??;
    }
    let close = channel.close(200, "declared".into());
    within(CALL_LIMIT, "closing a channel", close).await?.map_err(|e| Failure::of(&e))
}

async fn own(channel: &Channel, topology: &Topology) -> Result<(), Failure> {
    for exchange in topology.exchanges() {
        declare_exchange(channel, &exchange).await?;
    }
    for queue in topology.server_queues().into_iter().filter(|queue| queue.name != LOGS_QUEUE) {
        declare_queue(channel, queue).await?;
    }
    for binding in topology.server_bindings().into_iter().filter(|binding| binding.queue != LOGS_QUEUE) {
        bind(channel, binding).await?;
    }
    for binding in topology.retired_bindings() {
        unbind(channel, binding).await?;
    }
    Ok(())
}

/// Declares the queue of logs, which may be missing or out of reach without anything else being so.
pub(super) async fn declare_logs(channel: &Channel, topology: &Topology) -> Result<(), Failure> {
    let declare = async {
        declare_queue(channel, topology.logs_queue()).await?;
        for binding in topology.server_bindings().into_iter().filter(|binding| binding.queue == LOGS_QUEUE) {
            bind(channel, binding).await?;
        }
        Ok(())
    };
    within(DECLARE_LIMIT, "declaring the queue of logs", declare).await?
}

async fn of_agent(channel: &Channel, topology: &Topology, agent: &AgentId) -> Result<(), Failure> {
    declare_queue(channel, topology.agent_queue(agent.as_str())?).await?;
    bind(channel, topology.agent_binding(agent.as_str())?).await
}

async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> Result<(), Failure> {
    let kind = match exchange.kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
    };
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declare = channel.exchange_declare(exchange.name.into(), kind, options, FieldTable::default());
    declare.await.map_err(|e| Failure::of(&e))
}

async fn declare_queue(channel: &Channel, queue: Queue) -> Result<(), Failure> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declare = channel.queue_declare(queue.name.into(), options, table(&queue.arguments));
    declare.await.map(|_| ()).map_err(|e| Failure::of(&e))
}

async fn bind(channel: &Channel, binding: Binding) -> Result<(), Failure> {
    let (queue, exchange, key) = (binding.queue.into(), binding.exchange.into(), binding.routing_key.into());
    let bind = channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default());
    bind.await.map_err(|e| Failure::of(&e))
}

async fn unbind(channel: &Channel, binding: Binding) -> Result<(), Failure> {
    let (queue, exchange, key) = (binding.queue.into(), binding.exchange.into(), binding.routing_key.into());
    channel.queue_unbind(queue, exchange, key, FieldTable::default()).await.map_err(|e| Failure::of(&e))
}

fn table(arguments: &Arguments) -> FieldTable {
    let value = |value: &ArgValue| match value {
        ArgValue::String(text) => AMQPValue::LongString(text.as_str().into()),
        ArgValue::Long(number) => AMQPValue::LongLongInt(*number),
        ArgValue::Bool(flag) => AMQPValue::Boolean(*flag),
    };
    let entries: BTreeMap<_, _> = arguments.iter().map(|(name, v)| ((*name).into(), value(v))).collect();
    entries.into()
}
