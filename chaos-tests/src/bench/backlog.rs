//! C1: how the size of a backlog bears on the rate at which it is drained, beside a bare queue of that length.

use journal::Engine;

use super::drain::{Outage, after};
use super::messages::{Order, Who, apart, runtime};
use super::raw::{self, Client};
use super::{
    Axis, BenchError, Benchmark, CPU_US, Case, Figures, Goal, Meter, Options, PER_SECOND, Picture, peak_kib,
};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "C1",
    what: "messages a second out of a backlog, by its size",
    how: "The agent is away while messages of 1 KiB are submitted, and comes back, as in R6; journals under segments. The reference is \
          a bare queue of that length that lapin consumes, with acknowledgements for 64 deliveries at once: no journal at either end.",
    unit: "message",
    cases,
    part: Some(part),
    picture: Some(Picture {
        file: "performance-backlog.svg",
        x: Axis { name: "messages that wait", logarithmic: true },
        y: Axis { name: "messages a second", logarithmic: false },
    }),
};

/// Sizes of the backlog.
const SIZES: [u64; 3] = [1_000, 10_000, 100_000];

/// The queue of the reference.
const QUEUE: &str = "bench.raw.backlog";

fn cases(options: &Options) -> Vec<Case> {
    let case = |size| {
        let messages = options.amount(size);
        Case {
            name: format!("{messages} waiting"),
            at: Some(messages as f64),
            goals: vec![Goal::shown(PER_SECOND), Goal::shown(CPU_US)],
            pairs_max: 1,
            has_reference: true,
            run: Box::new(move |stage, side| apart(stage, BENCHMARK.id, Who::of(side, Engine::Segments), messages)),
        }
    };
    SIZES.map(case).into()
}

fn part(order: &str) -> Result<Figures, BenchError> {
    let order: Order = serde_json::from_str(order)?;
    runtime()?.block_on(async {
        match order.who.engine() {
            Some(engine) => after(&order, engine, Outage::AgentAway).await,
            None => reference(&order).await,
        }
    })
}

async fn reference(order: &Order) -> Result<Figures, BenchError> {
    let (producer, consumer) = (Client::connect(&order.broker).await?, Client::connect(&order.broker).await?);
    producer.queue(QUEUE, order.broker.queue_type).await?;
    producer.confirms().await?;
    raw::produce(&producer, QUEUE, order.messages).await?;
    let meter = Meter::own(Some(order.broker.pid))?;
    let mut deliveries = consumer.consume(QUEUE).await?;
    raw::take(&consumer, &mut deliveries, QUEUE, order.messages).await?;
    let spent = meter.end()?;
    let figures = Figures { peak_kib: Some(peak_kib(std::process::id())?), ..Figures::of(order.messages, spent) };
    producer.delete(QUEUE).await?;
    Ok(figures)
}
