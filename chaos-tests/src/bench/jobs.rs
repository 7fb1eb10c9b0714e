//! R3: jobs of one step `true`, as many as go, from the API of a server to the outcome in its journal, against a bare worker and
//! against Celery.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use journal::Engine;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::celery::{Celery, Kit};
use super::crew::{Crew, CrewOptions};
use super::durable_ends::{Work, work};
use super::messages::runtime;
use super::raw::{Client, WINDOW, confirmed, next};
use super::shown::{DURABLE, SERVED, Shown, WHOLE, compared, show_beside};
use super::supervisor::{Supervise, serve};
use super::{
    BenchError, Benchmark, Bound, BrokerAt, Case, Figures, Goal, Latency, Meter, Options, PER_SECOND, Side,
    Stage, durable_worker, peak_kib, served_worker,
};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R3",
    what: "jobs of one step `true`, as many as go",
    how: "A server and an agent with 4 slots run as processes, two clients submit jobs to the server's API, and a job counts when the \
          server has its outcome: each is durable at both ends, and each step has a shim, a folder, its output in files and \
          a record of its end, all kept until the end of the benchmark. The bare reference is lapin without any of that: persistent and \
          confirmed requests, 4 at a time started with tokio, a persistent and confirmed result, the request acknowledged after it. Beside it, in \
          the same run, stands a worker that is as durable as Longshore, and nothing else, each of its two ends a process. For each of its 4 places \
          a supervising process is ready before jobs come, and for a job it makes a folder and in it one file full of zeros, syncs both folders, \
          writes over the zeros that it begins and syncs that, runs `true`, reads its output, which gets files only if there is any, and writes \
          the end over zeros and syncs it. A log at either end has the job and its outcome before it goes on; those that wait share a sync. The server is told of \
          the beginning, while the program starts, and of the end, each message persistent and confirmed. It has no API, reads nothing \
          again and recovers from nothing. The durable worker with an API and groups is the same with two things besides that a job cannot do \
          without. Jobs come over HTTP from the clients that ask Longshore, with the same definition; each is answered once it is in the server's log, \
          and how many have ended is asked of the server. And each step has a control group, made before it comes and removed afterwards, \
          in which its program is from its first instruction on. That is a group for threads: into such a one safe code has a way that waits for \
          no other processor. What is in it can be listed and frozen, not killed at one stroke, and it has no limits. The API \
          asks for no token. One more has what a step of Longshore has besides: a working folder apart from its record, and a process that is \
          made with a copy of its parent's memory. A group with limits cannot be entered by a thread, so what starts there has to be made there, and \
          what safe code can make borrows no memory. The other reference is \
          Celery 5.7.0 on the same broker, with a worker of 2 processes that runs `true` in a subprocess, publisher confirms, persistent \
          messages, late acknowledgement, results over RPC, and the type of queue that it declares by itself.",
    unit: "job",
    cases,
    part: Some(part),
    picture: None,
};

/// Jobs of a run: a few seconds.
const JOBS: u64 = 600;

/// Pairs of a case: there are eight with processes that start and end.
pub(super) const PAIRS_MAX: usize = 2;

/// Jobs before those that are measured.
pub(super) const WARM_UP: u64 = 50;

/// Runs that the agent does at once. Four keep two cores busy; eight were no faster.
pub(super) const SLOTS: u16 = 4;

/// Programs that the bare worker runs at once.
const AT_ONCE: u64 = 4;

/// Connections of clients to the API.
pub(super) const CLIENTS: usize = 2;

/// Tasks that Celery's client has under way. More did not make it faster.
const CELERY_WINDOW: usize = 64;

/// Requests that wait at each of the bare worker's consumers.
const PREFETCH: u16 = 4;

/// The queues of the bare worker.
const REQUESTS: &str = "bench.raw.jobs";
const RESULTS: &str = "bench.raw.outcomes";

/// What a process of the references is to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// All workers, one after the other: the bare one, the one that is as durable, and the one that has an API and groups besides.
    Workers(Bare),
    /// To be the process of the latter two that does jobs.
    Work(Work),
    /// To be a supervising process of that.
    Supervise(Supervise),
}

/// What a bare worker is to do. The others do as much.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bare {
    pub(super) broker: BrokerAt,
    /// For what the durable ones keep.
    pub(super) dir: PathBuf,
    pub(super) jobs: u64,
    pub(super) warm_up: u64,
    pub(super) at_once: u64,
    /// Requests under way.
    pub(super) window: usize,
}

/// What is compared.
#[derive(Debug, Clone)]
pub(super) enum Against {
    /// A bare worker.
    Bare,
    /// Celery.
    Celery(Kit),
}

/// Cases for both engines, against that reference. Where there is no Celery the case says so and is not run.
pub(super) fn cases_against(
    options: &Options,
    celery: bool,
    goals: &[Goal],
    pairs_max: usize,
    run: fn(&mut Stage<'_>, Side, Engine, &Against) -> Result<Figures, BenchError>,
) -> Vec<Case> {
    let found = if celery { Kit::find(&options.dir.join("celery")).map(Against::Celery) } else { Ok(Against::Bare) };
    let case = |engine: Engine| {
        let (word, pairs_max, against) = match &found {
            Ok(Against::Bare) => ("against a bare worker".to_owned(), pairs_max, Against::Bare),
            Ok(against @ Against::Celery(_)) => ("against Celery".to_owned(), pairs_max, against.clone()),
            Err(why) => (format!("against Celery: left out, {why}"), 0, Against::Bare),
        };
        Case {
            name: format!("{engine}, {word}"),
            at: None,
            goals: goals.to_vec(),
            pairs_max,
            has_reference: true,
            run: Box::new(move |stage, side| run(stage, side, engine, &against)),
        }
    };
    [Engine::Segments, Engine::Sled].map(case).into()
}

fn cases(options: &Options) -> Vec<Case> {
    let goal = |least| Goal::ratio(PER_SECOND, Bound::AtLeast(least));
    let mut cases = show_beside(cases_against(options, false, &[goal(0.6)], PAIRS_MAX, run), Shown::of_many);
    cases.extend(cases_against(options, true, &[goal(1.7)], PAIRS_MAX, run));
    cases
}

fn run(stage: &mut Stage<'_>, side: Side, engine: Engine, against: &Against) -> Result<Figures, BenchError> {
    let jobs = stage.options().amount(JOBS);
    let broker = stage.broker()?;
    match (side, against) {
        (Side::Ours, Against::Bare | Against::Celery(_)) => ours(stage, &broker, engine, jobs),
        (Side::Reference, Against::Bare) => bare(stage, jobs, AT_ONCE, WINDOW),
        (Side::Reference, Against::Celery(kit)) => {
            let dir = stage.folder("celery")?;
            let mut celery = Celery::start(kit, &broker, &dir)?;
            celery.run(WARM_UP, CELERY_WINDOW)?;
            let meter = Meter::begin(&celery.pids()?, Some(broker.pid))?;
            let ran = celery.run(jobs, CELERY_WINDOW)?;
            let mut spent = meter.end()?;
            spent.seconds = ran.seconds;
            Ok(Figures::of(jobs, spent))
        }
    }
}

fn ours(stage: &mut Stage<'_>, broker: &BrokerAt, engine: Engine, jobs: u64) -> Result<Figures, BenchError> {
    let dir = stage.folder("jobs")?;
    let crew = Crew::start(&CrewOptions { broker, dir: &dir, engine, slots: SLOTS, monitor: false })?;
    crew.clients.saturate(WARM_UP, CLIENTS)?;
    let meter = Meter::begin(&crew.pids()?, Some(broker.pid))?;
    crew.clients.saturate(jobs, CLIENTS)?;
    let spent = meter.end()?;
    let peak = crew.server.pid().into_iter().chain(crew.agent.pid()).map(peak_kib).collect::<Result<Vec<_>, _>>()?;
    crew.end()?;
    Ok(compared(Figures { peak_kib: peak.into_iter().max(), ..Figures::of(jobs, spent) }))
}

/// Has a bare worker do that many, in a process of its own, and then those that are as durable. Their folders stay: see `crew`.
pub(super) fn bare(stage: &mut Stage<'_>, jobs: u64, at_once: u64, window: usize) -> Result<Figures, BenchError> {
    let broker = stage.broker()?;
    let dir = stage.folder("durable-worker")?;
    stage.apart(BENCHMARK.id, &Order::Workers(Bare { broker, dir, jobs, warm_up: WARM_UP, at_once, window }))
}

fn part(order: &str) -> Result<Figures, BenchError> {
    match serde_json::from_str(order)? {
        Order::Workers(order) => {
            let bare = runtime()?.block_on(reference(&order))?;
            let figures = DURABLE.beside(bare, &durable_worker::measure(&order)?);
            [(&SERVED, false), (&WHOLE, true)].into_iter().try_fold(figures, |figures, (shown, whole)| {
                let served = served_worker::measure(&order, whole)?;
                Ok(served.map_or(figures.clone(), |served| shown.beside(figures, &served)))
            })
        }
        Order::Work(order) => {
            work(&order)?;
            Ok(Figures::default())
        }
        Order::Supervise(order) => {
            serve(&order)?;
            Ok(Figures::default())
        }
    }
}

async fn reference(order: &Bare) -> Result<Figures, BenchError> {
    let client = Client::connect(&order.broker).await?;
    for queue in [REQUESTS, RESULTS] {
        client.queue(queue, order.broker.queue_type).await?;
    }
    client.confirms().await?;
    let mut workers = JoinSet::new();
    for _ in 0..order.at_once {
        let worker = Client::connect(&order.broker).await?;
        workers.spawn(async move { work_bare(&worker).await });
    }
    let taker = Client::connect(&order.broker).await?;
    let mut results = taker.consume(RESULTS).await?;
    let mut ask = Asking { client: &client, taker: &taker, results: &mut results, window: order.window };
    ask.run(order.warm_up).await?;
    let meter = Meter::own(Some(order.broker.pid))?;
    let times = ask.run(order.jobs).await?;
    let spent = meter.end()?;
    workers.shutdown().await;
    for queue in [REQUESTS, RESULTS] {
        client.delete(queue).await?;
    }
    let peak_kib = Some(peak_kib(std::process::id())?);
    let latency = if order.window == 1 { Latency::of(times) } else { None };
    Ok(Figures { peak_kib, latency, ..Figures::of(order.jobs, spent) })
}

/// One consumer of requests, one program at a time.
async fn work_bare(worker: &Client) -> Result<(), BenchError> {
    worker.confirms().await?;
    worker.channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut requests = worker.channel.basic_consume(REQUESTS.into(), "".into(), options, FieldTable::default()).await?;
    while let Some(request) = requests.next().await {
        let request = request?;
        let status = Command::new("true").status().await?;
        let code = status.code().unwrap_or(-1).to_le_bytes();
        confirmed(worker.publish(RESULTS, &code).await?).await?;
        worker.channel.basic_ack(request.delivery_tag, BasicAckOptions::default()).await?;
    }
    Err(BenchError::Cancelled { queue: REQUESTS.to_owned() })
}

/// The client of the bare worker.
struct Asking<'a> {
    client: &'a Client,
    taker: &'a Client,
    results: &'a mut lapin::Consumer,
    window: usize,
}

impl Asking<'_> {
    async fn run(&mut self, jobs: u64) -> Result<Vec<Duration>, BenchError> {
        let (mut asked, mut confirms, mut sent) = (VecDeque::new(), VecDeque::new(), 0);
        let mut times = Vec::new();
        while (times.len() as u64) < jobs {
            while sent < jobs && asked.len() < self.window {
                asked.push_back(Instant::now());
                confirms.push_back(self.client.publish(REQUESTS, &sent.to_le_bytes()).await?);
                sent += 1;
            }
            let result = next(self.results, RESULTS).await?;
            self.taker.channel.basic_ack(result.delivery_tag, BasicAckOptions::default()).await?;
            let (expected, found) = (0, result.data.iter().map(|byte| u64::from(*byte)).sum());
            if found != expected {
                return Err(BenchError::Wrong { what: "the exit code of `true`", expected, found });
            }
            times.extend(asked.pop_front().map(|began| began.elapsed()));
            if confirms.len() >= self.window
                && let Some(oldest) = confirms.pop_front()
            {
                confirmed(oldest).await?;
            }
        }
        for confirm in confirms {
            confirmed(confirm).await?;
        }
        Ok(times)
    }
}
