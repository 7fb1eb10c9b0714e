//! R6: what is left to be sent after an outage, and how fast it goes, against the same endpoints in a quiet life.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use journal::Engine;
use link::{Begun, EndpointView};
use link::session::{Config, StreamView};
use messages::{EndpointId, Seq};
use serde::{Deserialize, Serialize};

use super::apart::{Ask, ask};
use super::ends::{Counted, End, Ground, body, tidy};
use super::messages::{Order, Who, WARM_UP, apart_as, runtime, stream, take};
use super::raw::within;
use super::tap::Counts;
use super::{
    BenchError, Benchmark, Bound, BrokerAt, Case, Figures, Goal, Measure, Meter, Options, PER_SECOND, Side,
    peak_kib,
};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R6",
    what: "100,000 messages after an outage",
    how: "The agent is away while 100,000 messages of 1 KiB are submitted, and comes back; or it is away and the broker, too, loses \
          everything that it had. Taken is the time from the first message to the last, settled by the application. The handshake are the \
          statuses that ask or answer from the beginning of the outage until the first missing message is published again or, where the \
          broker has kept all, the application has the first. The reference are the same two endpoints without an outage, as in R1.",
    unit: "message",
    cases,
    part: Some(part),
    picture: None,
};

/// Messages that are submitted during the outage.
const BACKLOG: u64 = 100_000;

/// Messages of the reference.
const STEADY: u64 = 30_000;

/// Submits that may be under way at a time.
const UNDER_WAY: usize = 1_024;

/// How often to look whether the broker has confirmed everything.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outage {
    /// Nothing.
    None,
    /// The agent is away.
    AgentAway,
    /// It is away, and the broker loses what it has.
    BrokerWiped,
}

/// What one process is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Drain {
    order: Order,
    outage: Outage,
}

const RESENT: &str = "resent, of one missing";
const AGAIN: &str = "received again";
const HANDSHAKE: &str = "handshake, bytes";

fn cases(options: &Options) -> Vec<Case> {
    let (backlog, steady) = (options.amount(BACKLOG), options.amount(STEADY));
    let own = |name, of| Measure { name, of };
    let case = |(engine, outage, name): (Engine, Outage, &str)| Case {
        name: format!("{engine}, {name}"),
        at: None,
        goals: vec![
            Goal::ratio(PER_SECOND, Bound::AtLeast(0.95)),
            Goal::own(own(RESENT, |figures| figures.other.get(RESENT).copied()), Bound::AtMost(1.05)),
            Goal::own(own(AGAIN, |figures| figures.other.get(AGAIN).copied()), Bound::AtMost(0.0)),
            Goal::own(own(HANDSHAKE, |figures| figures.other.get(HANDSHAKE).copied()), Bound::AtMost(1_024.0)),
        ],
        pairs_max: 3,
        has_reference: true,
        run: Box::new(move |stage, side| {
            let (outage, messages) = match side {
                Side::Ours => (outage, backlog),
                Side::Reference => (Outage::None, steady),
            };
            let who = Who::of(Side::Ours, engine);
            apart_as(stage, BENCHMARK.id, who, messages, |order| Drain { order, outage })
        }),
    };
    let mut cases = Vec::new();
    for engine in [Engine::Segments, Engine::Sled] {
        for (outage, name) in [(Outage::AgentAway, "agent away"), (Outage::BrokerWiped, "broker wiped")] {
            cases.push(case((engine, outage, name)));
        }
    }
    cases
}

fn part(order: &str) -> Result<Figures, BenchError> {
    let Drain { order, outage } = serde_json::from_str(order)?;
    let engine = order.who.engine().unwrap_or_default();
    let run = async {
        match outage {
            Outage::None => steady(&order, engine).await,
            Outage::AgentAway | Outage::BrokerWiped => after(&order, engine, outage).await,
        }
    };
    runtime()?.block_on(run)
}

/// Both endpoints, connected, with a tap on each.
async fn both(order: &Order, engine: Engine) -> Result<[Counted; 2], BenchError> {
    tidy(&order.broker, 1).await?;
    let ground = Ground { broker: &order.broker, dir: &order.dir, engine };
    let (server, agent) = (ground.counted(None).await?, ground.counted(Some(1)).await?);
    server.end.agreed().await?;
    agent.end.agreed().await?;
    stream(&server.end, &agent.end, 0, WARM_UP).await?;
    Ok([server, agent])
}

async fn steady(order: &Order, engine: Engine) -> Result<Figures, BenchError> {
    let [server, agent] = both(order, engine).await?;
    let meter = Meter::own(Some(order.broker.pid))?;
    stream(&server.end, &agent.end, WARM_UP, order.messages).await?;
    let spent = meter.end()?;
    let figures = Figures { peak_kib: Some(peak_kib(std::process::id())?), ..Figures::of(order.messages, spent) };
    server.finish().await?;
    agent.finish().await?;
    tidy(&order.broker, 1).await?;
    Ok(figures)
}

pub(super) async fn after(order: &Order, engine: Engine, outage: Outage) -> Result<Figures, BenchError> {
    let [server, agent] = both(order, engine).await?;
    let peer = agent.end.name.clone();
    // What the agent has and has not reported yet counts as waiting, of which there may be only so much.
    all_received(&server.end, &peer).await?;
    agent.finish().await?;
    submit_all(&server.end, &peer, WARM_UP, order.messages).await?;
    let streams = settled_in_broker(&server.end, &peer).await?;
    let in_broker = Seq::count(streams.published) - Seq::count(streams.received);

    let wiped = outage == Outage::BrokerWiped;
    server.counts.forget_resent();
    let outage_began = Instant::now();
    let broker: BrokerAt = if wiped {
        ask(Ask::WipeBroker)?;
        ask(Ask::StartBroker)?.ok_or_else(|| std::io::Error::other("there is no broker any more"))?
    } else {
        order.broker.clone()
    };
    let missing = if wiped { in_broker } else { 0 };
    let back = Instant::now();
    let agent = Ground { broker: &broker, dir: &order.dir, engine }.counted(Some(1)).await?;
    let first = agent.end.work().await?;
    let to_first = back.elapsed();
    let known = server.counts.first_resent().unwrap_or_else(Instant::now);
    let asked = |until| [&server, &agent].map(|end| end.counts.asking_between(outage_began, until)).iter().sum::<u64>();
    let (handshake, to_work) = (asked(known), asked(Instant::now()));
    let meter = Meter::own(Some(broker.pid))?;
    agent.end.settle(&first).await?;
    let taken = first.items.len() as u64;
    take(&agent.end, WARM_UP + taken, order.messages - taken, |_| {}).await?;
    let spent = meter.end()?;

    let resent = Counts::of(&server.counts.resent);
    let again = agent.end.view(&EndpointId::Server).await?.streams.duplicates;
    let figures = Figures { peak_kib: Some(peak_kib(std::process::id())?), ..Figures::of(order.messages - taken, spent) }
        .with(RESENT, resent as f64 / missing.max(1) as f64)
        .with(AGAIN, again as f64)
        .with(HANDSHAKE, handshake as f64)
        .with("the same until the application has the first message, bytes", to_work as f64)
        .with("missing", missing as f64)
        .with("resent", resent as f64)
        .with("to the first message, s", to_first.as_secs_f64());
    server.finish().await?;
    agent.finish().await?;
    tidy(&broker, 1).await?;
    Ok(figures)
}

/// Submits that many messages and waits until all are on disk.
pub(super) async fn submit_all(server: &End, peer: &EndpointId, first: u64, count: u64) -> Result<(), BenchError> {
    let mut waiting: VecDeque<Begun> = VecDeque::with_capacity(UNDER_WAY);
    for number in first..first + count {
        if waiting.len() == UNDER_WAY
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.done().await?;
        }
        waiting.push_back(server.submit(peer, body(number)).await?);
    }
    for begun in waiting {
        begun.done().await?;
    }
    Ok(())
}

/// Waits until the broker has confirmed everything that the endpoint may publish while its peer is away.
/// Waits until the peer has said that it has everything.
async fn all_received(server: &End, peer: &EndpointId) -> Result<(), BenchError> {
    let wait = async {
        loop {
            let out = server.view(peer).await?.streams.outgoing;
            if out.received == out.last {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    within("word of everything from an agent", wait).await?
}

async fn settled_in_broker(server: &End, peer: &EndpointId) -> Result<StreamView, BenchError> {
    let wait = async {
        loop {
            let EndpointView { streams, confirmed } = server.view(peer).await?;
            let out = streams.outgoing;
            let limit = Seq::count(out.received) + u64::from(Config::default().window);
            let all = Seq::count(out.published) == limit.min(Seq::count(out.last));
            if all && confirmed >= out.published {
                return Ok(out);
            }
            // A confirm announces itself to nobody.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    within("the broker's confirms", wait).await?
}
