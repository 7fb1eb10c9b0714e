//! R8B: many messages that wait for one agent which is away, and what that does to the others, against the same without them.

use std::sync::Arc;

use futures_util::future::try_join_all;
use journal::Engine;
use messages::EndpointId;
use serde::{Deserialize, Serialize};

use super::drain::submit_all;
use super::ends::{End, Ground, agent_id, tidy};
use super::messages::{Order, Who, apart_as, runtime};
use super::peers::round;
use super::{BenchError, Benchmark, Bound, Case, Figures, Goal, Meter, Options, PER_SECOND, Side, peak_kib};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R8B",
    what: "messages a second to 100 agents beside 100,000 messages that wait for one that is away",
    how: "A server sends messages of 1 KiB to 100 agents in turn, at most 1,024 of them on their way, until each agent has settled its \
          share, while 100,000 messages wait in its journal for another agent that is away. The reference is the same without those. All \
          endpoints are in one process, on two threads.",
    unit: "message",
    cases,
    part: Some(part),
    picture: None,
};

/// Agents that are there.
const AGENTS: u64 = 100;

/// Messages to all of them together.
const MESSAGES: u64 = 12_000;

/// Messages that wait for the other one.
const WAITING: u64 = 100_000;

/// What one process is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Beside {
    order: Order,
    waiting: u64,
}

fn cases(options: &Options) -> Vec<Case> {
    let (messages, waiting) = (options.amount(MESSAGES), options.amount(WAITING));
    let case = |engine| Case {
        name: Engine::to_string(&engine),
        at: None,
        goals: vec![Goal::ratio(PER_SECOND, Bound::AtLeast(0.9))],
        pairs_max: 1,
        has_reference: true,
        run: Box::new(move |stage, side| {
            let waiting = if side == Side::Ours { waiting } else { 0 };
            let messages = messages.div_ceil(AGENTS) * AGENTS;
            let who = Who::of(Side::Ours, engine);
            apart_as(stage, BENCHMARK.id, who, messages, |order| Beside { order, waiting })
        }),
    };
    Engine::ALL.map(case).into()
}

fn part(order: &str) -> Result<Figures, BenchError> {
    let Beside { order, waiting } = serde_json::from_str(order)?;
    runtime()?.block_on(measure(&order, waiting))
}

async fn measure(order: &Order, waiting: u64) -> Result<Figures, BenchError> {
    let away = AGENTS + 1;
    tidy(&order.broker, away).await?;
    let engine = order.who.engine().unwrap_or_default();
    let ground = Ground { broker: &order.broker, dir: &order.dir, engine };
    let server = Arc::new(ground.server(away).await?);
    let agents = try_join_all((1..=AGENTS).map(|number| ground.agent(number))).await?;
    let agents: Vec<Arc<End>> = agents.into_iter().map(Arc::new).collect();
    round(&server, &agents, 0, 1).await?;
    submit_all(&server, &EndpointId::Agent(agent_id(away)), 0, waiting).await?;
    let meter = Meter::own(Some(order.broker.pid))?;
    round(&server, &agents, 1, order.messages / AGENTS).await?;
    let spent = meter.end()?;
    let figures = Figures { peak_kib: Some(peak_kib(std::process::id())?), ..Figures::of(order.messages, spent) };
    for end in agents.into_iter().chain([server]) {
        Arc::into_inner(end).expect("nobody else uses it any more").end().await?;
    }
    tidy(&order.broker, away).await?;
    Ok(figures)
}
