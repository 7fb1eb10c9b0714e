//! R2: one message and its durable answer at a time, against a bare request and reply over the same broker.

use std::sync::Arc;
use std::time::Instant;

use journal::Engine;
use link::session::{Outbound, Transaction};

use super::ends::{End, Ground, body, message, tidy};
use super::log::Log;
use super::messages::{Order, Who, apart, runtime};
use super::raw::{self, Client, in_order};
use super::{BenchError, Benchmark, Bound, CPU_US, Case, Figures, Goal, Latency, Measure, Meter, Options, P50_US, P99_US, peak_kib};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R2",
    what: "one message at a time, from submitting it to its durable answer",
    how: "A message of 1 KiB is submitted, the other end's application applies it and answers with 1 KiB in one transaction, and the \
          time is taken when the submitter's application has dealt with the answer, which is on its disk then: three syncs of journals and two \
          trips through the broker. The reference is lapin without any journal: a persistent request, a persistent reply, both \
          confirmed, and queues of the same type. The second figure is against the same with the three syncs and nothing else: each side \
          writes what it sends and what it gets over a file of zeros and syncs that, before it goes on; what the other end gets and answers is \
          one write.",
    unit: "round trip",
    cases,
    part: Some(part),
    picture: None,
};

/// Round trips of a run: a few seconds.
const ROUNDS: u64 = 700;

/// Round trips before those that are measured.
const WARM_UP: u64 = 50;

/// The time of one, beside a reference that is as durable.
const SYNCED: &str = "p50, us, beside the reference with three syncs";

/// What that costs by itself.
const FLOOR: &str = "p50, us, the reference with three syncs over the bare one";

/// The queues of the reference.
const REQUESTS: &str = "bench.raw.requests";
const REPLIES: &str = "bench.raw.replies";

fn cases(options: &Options) -> Vec<Case> {
    let rounds = options.amount(ROUNDS);
    let case = |(engine, goal)| Case {
        name: Engine::to_string(&engine),
        at: None,
        goals: vec![
            Goal::ratio(P50_US, Bound::AtMost(goal)),
            Goal::shown(Measure { name: SYNCED, of: |figures| figures.other.get(SYNCED).copied() }),
            Goal::floor(Measure { name: FLOOR, of: |figures| figures.other.get(FLOOR).copied() }),
            Goal::shown(P99_US),
            Goal::shown(CPU_US),
        ],
        pairs_max: usize::MAX,
        has_reference: true,
        run: Box::new(move |stage, side| apart(stage, BENCHMARK.id, Who::of(side, engine), rounds)),
    };
    [(Engine::Segments, 1.5), (Engine::Sled, 2.0)].map(case).into()
}

fn part(order: &str) -> Result<Figures, BenchError> {
    let order: Order = serde_json::from_str(order)?;
    runtime()?.block_on(async {
        match order.who.engine() {
            Some(engine) => ours(&order, engine).await,
            None => reference(&order).await,
        }
    })
}

fn figures(order: &Order, meter: Meter, times: Vec<std::time::Duration>) -> Result<Figures, BenchError> {
    let spent = meter.end()?;
    let peak_kib = Some(peak_kib(std::process::id())?);
    Ok(Figures { latency: Latency::of(times), peak_kib, ..Figures::of(order.messages, spent) })
}

async fn ours(order: &Order, engine: Engine) -> Result<Figures, BenchError> {
    tidy(&order.broker, 1).await?;
    let ground = Ground { broker: &order.broker, dir: &order.dir, engine };
    let (server, agent) = (ground.server(1).await?, Arc::new(ground.agent(1).await?));
    server.agreed().await?;
    agent.agreed().await?;
    let all = WARM_UP + order.messages;
    let answering = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move { answer(&agent, all).await }
    });
    let mut times = Vec::new();
    let mut meter = Meter::own(Some(order.broker.pid))?;
    for number in 0..all {
        if number == WARM_UP {
            times.clear();
            meter = Meter::own(Some(order.broker.pid))?;
        }
        let began = Instant::now();
        let begun = server.submit(&agent.name, body(number)).await?;
        begun.done().await?;
        let work = server.work().await?;
        for item in &work.items {
            in_order(item.message.body(), number)?;
        }
        // It is lent before it is on stable storage, and there with this.
        server.settle(&work).await?;
        times.push(began.elapsed());
    }
    let figures = figures(order, meter, times)?;
    let p50_us = figures.latency.map_or(f64::NAN, |latency| latency.p50_us);
    let figures = figures.with(SYNCED, p50_us);
    answering.await.expect("it does not panic")?;
    server.end().await?;
    Arc::into_inner(agent).expect("nobody else uses it any more").end().await?;
    tidy(&order.broker, 1).await?;
    Ok(figures)
}

/// Answers that many messages, each with its own body, as an application that had its outcome at once.
async fn answer(agent: &End, count: u64) -> Result<(), BenchError> {
    let mut answered = 0;
    while answered < count {
        let work = agent.work().await?;
        let mut transaction = Transaction::default();
        for item in &work.items {
            let reply = message(&work.peer, item.message.body().to_vec());
            transaction.apply.push(item.hold());
            transaction.send.push(Outbound { answers: Some(item.seq), cause: Some(item.message.header.id), ..reply });
            answered += 1;
        }
        agent.endpoint.transact(transaction).await?;
    }
    Ok(())
}

async fn reference(order: &Order) -> Result<Figures, BenchError> {
    let bare = exchanges(order, [None, None]).await?;
    let synced = exchanges(order, [Some(Log::new(&order.dir)?), Some(Log::new(&order.dir)?)]).await?;
    let [bare_us, synced_us] = [&bare, &synced].map(|one| one.latency.map_or(f64::NAN, |latency| latency.p50_us));
    Ok(bare.with(SYNCED, synced_us).with(FLOOR, synced_us / bare_us))
}

/// Keeps what is sent or was received, if that is wanted.
async fn keep(log: Option<&Log>, bytes: &[u8]) -> std::io::Result<()> {
    match log {
        Some(log) => log.keep(bytes).await,
        None => Ok(()),
    }
}

/// Requests and replies over the bare broker. With logs each end keeps what it sends and gets, and waits for that.
async fn exchanges(order: &Order, logs: [Option<Log>; 2]) -> Result<Figures, BenchError> {
    let [asking, answering] = logs;
    let (asker, answerer) = (Client::connect(&order.broker).await?, Client::connect(&order.broker).await?);
    for queue in [REQUESTS, REPLIES] {
        asker.queue(queue, order.broker.queue_type).await?;
    }
    asker.confirms().await?;
    answerer.confirms().await?;
    let mut replies = asker.consume(REPLIES).await?;
    let mut requests = answerer.consume(REQUESTS).await?;
    let all = WARM_UP + order.messages;
    let answers = tokio::spawn(async move {
        for _ in 0..all {
            let request = raw::next(&mut requests, REQUESTS).await?;
            keep(answering.as_ref(), &[&request.data[..], &request.data].concat()).await?;
            raw::confirmed(answerer.publish(REPLIES, &request.data).await?).await?;
            answerer.acknowledge(request.delivery_tag).await?;
        }
        Ok::<_, BenchError>(())
    });
    let mut times = Vec::new();
    let mut meter = Meter::own(Some(order.broker.pid))?;
    for number in 0..all {
        if number == WARM_UP {
            times.clear();
            meter = Meter::own(Some(order.broker.pid))?;
        }
        let began = Instant::now();
        let body = body(number);
        keep(asking.as_ref(), &body).await?;
        raw::confirmed(asker.publish(REQUESTS, &body).await?).await?;
        let reply = raw::next(&mut replies, REPLIES).await?;
        keep(asking.as_ref(), &reply.data).await?;
        times.push(began.elapsed());
        in_order(&reply.data, number)?;
        asker.acknowledge(reply.delivery_tag).await?;
    }
    let figures = figures(order, meter, times)?;
    answers.await.expect("it does not panic")?;
    for queue in [REQUESTS, REPLIES] {
        asker.delete(queue).await?;
    }
    Ok(figures)
}
