//! R1: messages that are journaled and synced at both ends, as many as go, against the same broker used bare.

use std::path::PathBuf;
use std::sync::Arc;

use journal::Engine;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use super::ends::{End, Ground, body, tidy};
use super::raw::{self, Client};
use super::{
    BenchError, Benchmark, Bound, BrokerAt, CPU_US, Case, Figures, Goal, Measure, Meter, Options, PER_SECOND, Side, Stage, kept,
    peak_kib,
};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R1",
    what: "messages, journaled and synced at both ends, as many as go",
    how: "One endpoint sends messages of 1 KiB to another until the receiver's application has taken and settled the last: two \
          journals, two syncs and one RabbitMQ in between. At most 1,024 publishes are unconfirmed, and 4,096 messages on their way in \
          all, as Longshore has it by default; what waits for the same endpoint travels together. The reference is lapin \
          without any journal, each message by itself: persistent publishes with 1,024 confirms outstanding, manual acknowledgements for 64 deliveries at once, a queue of \
          the same type. Producer and consumer are in one process on both sides, on two threads. The second reference is the same with each \
          end keeping its messages and nothing else: a message is on stable storage at one end before it is published, at the other before \
          it is acknowledged, and what waits shares a sync. Over sled it is a sled at each end, configured as Longshore's: one row for a \
          message, dropped when it is confirmed or acknowledged. Over segments it is a log at each end, written over zeros. It has no \
          headers, no protocol, and nothing to begin again from after a crash. How far it is from the first reference is about \
          what durability alone leaves; it is one simple program and no bound.",
    unit: "message",
    cases,
    part: Some(part),
    picture: None,
};

/// Messages of a run: a few seconds.
const MESSAGES: u64 = 30_000;

/// Messages before those that are measured, so that connections, buffers and the broker's queue are as they stay.
pub(super) const WARM_UP: u64 = 2_000;

/// Messages that may be on their way, from the call that submits one until the receiver's application has settled it: what a session lets be
/// under way by itself. The transport lets 1,024 be unconfirmed, and so does the reference.
pub(super) const ON_THEIR_WAY: usize = 4_096;

/// The queue of the reference.
pub(super) const QUEUE: &str = "bench.raw.messages";

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Who {
    /// Longshore with journals kept by segments.
    Segments,
    /// Longshore with journals kept by sled.
    Sled,
    /// The reference.
    Bare,
}

impl Who {
    pub(super) const fn of(side: Side, engine: Engine) -> Self {
        match (side, engine) {
            (Side::Reference, _) => Self::Bare,
            (Side::Ours, Engine::Segments) => Self::Segments,
            (Side::Ours, Engine::Sled) => Self::Sled,
        }
    }

    /// The engine of the journals; none for the reference.
    pub(super) const fn engine(self) -> Option<Engine> {
        match self {
            Self::Segments => Some(Engine::Segments),
            Self::Sled => Some(Engine::Sled),
            Self::Bare => None,
        }
    }
}

/// What one process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) broker: BrokerAt,
    pub(super) dir: PathBuf,
    pub(super) who: Who,
    pub(super) messages: u64,
}

/// The rate beside a reference that keeps messages as well, and how far that one is from the bare one.
const BESIDE_SLED: &str = "a second, beside the reference with a sled at each end";
const SLED_BESIDE_BARE: &str = "a second, the reference with a sled at each end beside the bare one";
const BESIDE_LOG: &str = "a second, beside the reference with a synced log at each end";
const LOG_BESIDE_BARE: &str = "a second, the reference with a synced log at each end beside the bare one";

/// These two of an engine.
const fn beside_kept(engine: Engine) -> [Measure; 2] {
    match engine {
        Engine::Sled => [
            Measure { name: BESIDE_SLED, of: |figures| figures.other.get(BESIDE_SLED).copied() },
            Measure { name: SLED_BESIDE_BARE, of: |figures| figures.other.get(SLED_BESIDE_BARE).copied() },
        ],
        Engine::Segments => [
            Measure { name: BESIDE_LOG, of: |figures| figures.other.get(BESIDE_LOG).copied() },
            Measure { name: LOG_BESIDE_BARE, of: |figures| figures.other.get(LOG_BESIDE_BARE).copied() },
        ],
    }
}

/// What one process is to do, and whose journals the reference stands beside.
#[derive(Debug, Serialize, Deserialize)]
struct Stream {
    order: Order,
    beside: Who,
}

fn cases(options: &Options) -> Vec<Case> {
    let messages = options.amount(MESSAGES);
    let goals = |engine, goal| {
        let [rate, floor] = beside_kept(engine);
        let rates = [Goal::ratio(PER_SECOND, Bound::AtLeast(goal)), Goal::shown(rate), Goal::floor(floor)];
        rates.into_iter().chain([Goal::shown(CPU_US)]).collect()
    };
    let case = |(engine, goal)| Case {
        name: Engine::to_string(&engine),
        at: None,
        goals: goals(engine, goal),
        pairs_max: usize::MAX,
        has_reference: true,
        run: Box::new(move |stage, side| {
            let beside = Who::of(Side::Ours, engine);
            apart_as(stage, BENCHMARK.id, Who::of(side, engine), messages, |order| Stream { order, beside })
        }),
    };
    [(Engine::Segments, 0.8), (Engine::Sled, 0.6)].map(case).into()
}

/// Has one run done in a process of its own. Its journals go away afterwards.
pub(super) fn apart(stage: &mut Stage<'_>, id: &str, who: Who, messages: u64) -> Result<Figures, BenchError> {
    apart_as(stage, id, who, messages, |order| order)
}

/// The same with something more to say than the order.
pub(super) fn apart_as<T: Serialize>(
    stage: &mut Stage<'_>,
    id: &str,
    who: Who,
    messages: u64,
    more: impl FnOnce(Order) -> T,
) -> Result<Figures, BenchError> {
    let (broker, dir) = (stage.broker()?, stage.folder(id)?);
    let figures = stage.apart(id, &more(Order { broker, dir: dir.clone(), who, messages }))?;
    std::fs::remove_dir_all(dir)?;
    Ok(figures)
}

/// Two threads, as server and agent have.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn part(order: &str) -> Result<Figures, BenchError> {
    let Stream { order, beside } = serde_json::from_str(order)?;
    runtime()?.block_on(async {
        match order.who.engine() {
            Some(engine) => ours(&order, engine).await,
            None => references(&order, beside.engine().unwrap_or_default()).await,
        }
    })
}

fn per_second(figures: &Figures) -> f64 {
    (PER_SECOND.of)(figures).unwrap_or(f64::NAN)
}

/// The bare one, and then the one that keeps messages.
async fn references(order: &Order, engine: Engine) -> Result<Figures, BenchError> {
    let bare = reference(order).await?;
    let kept = kept::stream(order, engine).await?;
    let [rate, floor] = beside_kept(engine);
    let [bare_rate, kept_rate] = [&bare, &kept].map(per_second);
    Ok(bare.with(rate.name, kept_rate).with(floor.name, kept_rate / bare_rate))
}

async fn ours(order: &Order, engine: Engine) -> Result<Figures, BenchError> {
    tidy(&order.broker, 1).await?;
    let ground = Ground { broker: &order.broker, dir: &order.dir, engine };
    let (server, agent) = (Arc::new(ground.server(1).await?), Arc::new(ground.agent(1).await?));
    server.agreed().await?;
    agent.agreed().await?;
    stream(&server, &agent, 0, WARM_UP).await?;
    let meter = Meter::own(Some(order.broker.pid))?;
    stream(&server, &agent, WARM_UP, order.messages).await?;
    let spent = meter.end()?;
    let figures = Figures { peak_kib: Some(peak_kib(std::process::id())?), ..Figures::of(order.messages, spent) };
    for end in [server, agent] {
        Arc::into_inner(end).expect("nobody else uses it any more").end().await?;
    }
    tidy(&order.broker, 1).await?;
    let [rate, _] = beside_kept(engine);
    let per_second = per_second(&figures);
    Ok(figures.with(rate.name, per_second))
}

/// Sends that many messages from one end to the other, as many as may be on their way at a time, and returns when the receiver's
/// application has settled the last.
pub(super) async fn stream(from: &Arc<End>, to: &Arc<End>, first: u64, count: u64) -> Result<(), BenchError> {
    let room = Arc::new(Semaphore::new(ON_THEIR_WAY));
    let (begun, mut waiting) = mpsc::channel(ON_THEIR_WAY);
    let (sender, receiver, free) = (Arc::clone(from), to.name.clone(), Arc::clone(&room));
    let submitting = tokio::spawn(async move {
        for number in first..first + count {
            // The semaphore is never closed.
            let Ok(permit) = free.acquire().await else { break };
            permit.forget();
            if begun.send(sender.submit(&receiver, body(number)).await?).await.is_err() {
                break;
            }
        }
        Ok::<_, BenchError>(())
    });
    let answered = tokio::spawn(async move {
        while let Some(begun) = waiting.recv().await {
            begun.done().await?;
        }
        Ok::<_, BenchError>(())
    });
    take(to, first, count, |taken| room.add_permits(taken)).await?;
    submitting.await.expect("it does not panic")?;
    answered.await.expect("it does not panic")?;
    Ok(())
}

/// Takes and settles that many messages as an application, and says how many it has taken each time.
pub(super) async fn take(to: &End, first: u64, count: u64, mut taken: impl FnMut(usize)) -> Result<(), BenchError> {
    let mut next = first;
    while next < first + count {
        let work = to.work().await?;
        for item in &work.items {
            raw::in_order(item.message.body(), next)?;
            next += 1;
        }
        to.settle(&work).await?;
        taken(work.items.len());
    }
    Ok(())
}

async fn reference(order: &Order) -> Result<Figures, BenchError> {
    let (producer, consumer) = (Client::connect(&order.broker).await?, Client::connect(&order.broker).await?);
    producer.queue(QUEUE, order.broker.queue_type).await?;
    producer.confirms().await?;
    let mut deliveries = consumer.consume(QUEUE).await?;
    let producer = Arc::new(producer);
    let mut meter = None;
    for count in [WARM_UP, order.messages] {
        meter = Some(Meter::own(Some(order.broker.pid))?);
        let sender = Arc::clone(&producer);
        let producing = tokio::spawn(async move { raw::produce(&sender, QUEUE, count).await });
        raw::take(&consumer, &mut deliveries, QUEUE, count).await?;
        producing.await.expect("it does not panic")?;
    }
    let spent = meter.expect("there were two rounds").end()?;
    let figures = Figures { peak_kib: Some(peak_kib(std::process::id())?), ..Figures::of(order.messages, spent) };
    producer.delete(QUEUE).await?;
    Ok(figures)
}
