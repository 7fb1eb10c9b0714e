//! C3: what the number of agents does to the rate of one server's messages, beside a bare producer with as many queues.

use std::sync::Arc;

use futures_util::future::try_join_all;
use journal::Engine;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use super::ends::{End, Ground, body, tidy};
use super::messages::{ON_THEIR_WAY, Order, Who, apart_as, runtime, take};
use super::raw::{self, Client};
use super::{
    Axis, BenchError, Benchmark, CPU_US, Case, Figures, Goal, Meter, Options, PER_SECOND, Picture, Side, peak_kib,
};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "C3",
    what: "messages a second from one server to a number of agents",
    how: "The server sends messages of 1 KiB to its agents in turn, at most 4,096 of them on their way, until every agent has \
          settled its share; journals under segments. The reference is lapin without any journal: one producer, and a queue and a \
          connection for each consumer. All are in one process, on two threads.",
    unit: "message",
    cases,
    part: Some(part),
    picture: Some(Picture {
        file: "performance-peers.svg",
        x: Axis { name: "agents", logarithmic: true },
        y: Axis { name: "messages a second", logarithmic: false },
    }),
};

/// Messages of a run, to all agents together.
const MESSAGES: u64 = 16_000;

/// Numbers of agents.
const PEERS: [u64; 4] = [1, 4, 16, 64];

/// What one process is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Crowd {
    order: Order,
    peers: u64,
}

fn cases(options: &Options) -> Vec<Case> {
    let messages = options.amount(MESSAGES);
    let case = |peers| Case {
        name: format!("{peers} agents"),
        at: Some(peers as f64),
        goals: vec![Goal::shown(PER_SECOND), Goal::shown(CPU_US)],
        pairs_max: 1,
        has_reference: true,
        run: Box::new(move |stage, side: Side| {
            let who = Who::of(side, Engine::Segments);
            // Every agent has as many.
            apart_as(stage, BENCHMARK.id, who, messages.div_ceil(peers) * peers, |order| Crowd { order, peers })
        }),
    };
    PEERS.map(case).into()
}

fn part(order: &str) -> Result<Figures, BenchError> {
    let Crowd { order, peers } = serde_json::from_str(order)?;
    runtime()?.block_on(async {
        match order.who.engine() {
            Some(engine) => ours(&order, engine, peers).await,
            None => reference(&order, peers).await,
        }
    })
}

async fn ours(order: &Order, engine: Engine, peers: u64) -> Result<Figures, BenchError> {
    tidy(&order.broker, peers).await?;
    let ground = Ground { broker: &order.broker, dir: &order.dir, engine };
    let server = Arc::new(ground.server(peers).await?);
    let agents = try_join_all((1..=peers).map(|number| ground.agent(number))).await?;
    let agents: Vec<Arc<End>> = agents.into_iter().map(Arc::new).collect();
    // The first message reaches an agent when both have heard each other.
    round(&server, &agents, 0, 1).await?;
    let each = order.messages / peers;
    let meter = Meter::own(Some(order.broker.pid))?;
    round(&server, &agents, 1, each).await?;
    let spent = meter.end()?;
    let figures = Figures { peak_kib: Some(peak_kib(std::process::id())?), ..Figures::of(order.messages, spent) };
    for end in agents.into_iter().chain([server]) {
        Arc::into_inner(end).expect("nobody else uses it any more").end().await?;
    }
    tidy(&order.broker, peers).await?;
    Ok(figures)
}

/// Sends so many messages to each agent, in turn, and waits until all are settled.
pub(super) async fn round(server: &Arc<End>, agents: &[Arc<End>], first: u64, each: u64) -> Result<(), BenchError> {
    let room = Arc::new(Semaphore::new(ON_THEIR_WAY));
    let (begun, mut waiting) = mpsc::channel(ON_THEIR_WAY);
    let names: Vec<_> = agents.iter().map(|agent| agent.name.clone()).collect();
    let (sender, free) = (Arc::clone(server), Arc::clone(&room));
    let submitting = tokio::spawn(async move {
        for number in first..first + each {
            for name in &names {
                // The semaphore is never closed.
                let Ok(permit) = free.acquire().await else { return Ok(()) };
                permit.forget();
                if begun.send(sender.submit(name, body(number)).await?).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok::<_, BenchError>(())
    });
    let taking = agents.iter().map(|agent| {
        let (agent, room) = (Arc::clone(agent), Arc::clone(&room));
        tokio::spawn(async move { take(&agent, first, each, |taken| room.add_permits(taken)).await })
    });
    let taking: Vec<_> = taking.collect();
    while let Some(begun) = waiting.recv().await {
        begun.done().await?;
    }
    submitting.await.expect("it does not panic")?;
    for taking in taking {
        taking.await.expect("it does not panic")?;
    }
    Ok(())
}

async fn reference(order: &Order, peers: u64) -> Result<Figures, BenchError> {
    let producer = Client::connect(&order.broker).await?;
    producer.confirms().await?;
    let queues: Vec<String> = (1..=peers).map(|number| format!("bench.raw.peer.{number}")).collect();
    let each = order.messages / peers;
    let mut ready = Vec::new();
    for queue in &queues {
        producer.queue(queue, order.broker.queue_type).await?;
        let consumer = Client::connect(&order.broker).await?;
        let deliveries = consumer.consume(queue).await?;
        ready.push((consumer, deliveries));
    }
    let meter = Meter::own(Some(order.broker.pid))?;
    let taking = ready.into_iter().zip(queues.clone()).map(|((consumer, mut deliveries), queue)| {
        tokio::spawn(async move { raw::take(&consumer, &mut deliveries, &queue, each).await })
    });
    let taking: Vec<_> = taking.collect();
    let in_turn = (0..each).flat_map(|number| queues.iter().map(move |queue| (queue.as_str(), number)));
    raw::produce_to(&producer, in_turn).await?;
    for taking in taking {
        taking.await.expect("it does not panic")?;
    }
    let spent = meter.end()?;
    let figures = Figures { peak_kib: Some(peak_kib(std::process::id())?), ..Figures::of(order.messages, spent) };
    for queue in &queues {
        producer.delete(queue).await?;
    }
    Ok(figures)
}
