//! The second reference of the job benchmarks: a server and a worker that keep what Longshore promises about a job, in the cheapest way
//! there is. Two logs, four records of a job in them, supervising processes that are ready before it comes, and three messages. It can do nothing
//! else: it reads no record again, survives nothing, and has no API, no identities and nothing of Longshore's code.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lapin::Consumer;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::jobs::{BENCHMARK, Bare, Order};
use super::log::Log;
use super::raw::{Client, confirmed, next, within};
use super::supervisor::Supervisor;
use super::{BenchError, CPU_US, Figures, Goal, Latency, Measure, Meter, P50_US, PER_SECOND};

/// Its queues.
const REQUESTS: &str = "bench.raw.durable.jobs";
const REPORTS: &str = "bench.raw.durable.reports";

const RATE: &str = "a second, beside a worker that is as durable";
const RATE_FLOOR: &str = "a second, a worker that is as durable over the bare one";
const TIME: &str = "p50, us, beside a worker that is as durable";
const TIME_FLOOR: &str = "p50, us, a worker that is as durable over the bare one";
const CPU: &str = "CPU in all, us each, beside a worker that is as durable";

/// What is compared, by which name, and by which name it is set over the bare worker's.
const COMPARED: [(Measure, &str, Option<&str>); 3] =
    [(PER_SECOND, RATE, Some(RATE_FLOOR)), (P50_US, TIME, Some(TIME_FLOOR)), (CPU_US, CPU, None)];

/// What is shown where as many jobs are done as go.
pub(super) const SHOWN_OF_MANY: [Goal; 3] = [
    Goal::shown(Measure { name: RATE, of: |figures| figures.other.get(RATE).copied() }),
    Goal::floor(Measure { name: RATE_FLOOR, of: |figures| figures.other.get(RATE_FLOOR).copied() }),
    Goal::shown(Measure { name: CPU, of: |figures| figures.other.get(CPU).copied() }),
];

/// What is shown where they are done one at a time.
pub(super) const SHOWN_OF_ONE: [Goal; 2] = [
    Goal::shown(Measure { name: TIME, of: |figures| figures.other.get(TIME).copied() }),
    Goal::floor(Measure { name: TIME_FLOOR, of: |figures| figures.other.get(TIME_FLOOR).copied() }),
];

/// Our own figures, by the names by which they are set beside this reference.
pub(super) fn compared(ours: Figures) -> Figures {
    COMPARED.iter().fold(ours, |ours, (measure, name, _)| match (measure.of)(&ours) {
        Some(figure) => ours.with(name, figure),
        None => ours,
    })
}

/// The bare worker's figures, with those of this reference beside them.
pub(super) fn beside(bare: Figures, durable: &Figures) -> Figures {
    COMPARED.iter().fold(bare, |bare, (measure, name, floor)| {
        let (Some(under), Some(figure)) = ((measure.of)(&bare), (measure.of)(durable)) else { return bare };
        let bare = bare.with(name, figure);
        floor.map_or(bare.clone(), |floor| bare.with(floor, figure / under))
    })
}

/// Has as many jobs done as the bare worker does. Each end has two threads, as server and agent have.
pub(super) fn measure(order: &Bare) -> Result<Figures, BenchError> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?.block_on(run(order))
}

async fn run(order: &Bare) -> Result<Figures, BenchError> {
    let server = Arc::new(Server {
        client: Client::connect(&order.broker).await?,
        log: Log::new(&order.dir)?,
        waiting: Mutex::default(),
    });
    for queue in [REQUESTS, REPORTS] {
        server.client.queue(queue, order.broker.queue_type).await?;
    }
    server.client.confirms().await?;
    let reports = server.client.consume(REPORTS).await?;
    let (free, places) = mpsc::unbounded_channel();
    let mut pids = vec![std::process::id()];
    for place in 0..order.at_once {
        let supervise = Order::Supervise(order.dir.join(format!("place-{place}")));
        let supervisor = Supervisor::start(BENCHMARK.id, &supervise).await?;
        pids.extend(supervisor.pid());
        // Its receiver is here.
        let _ = free.send(supervisor);
    }
    let worker = Arc::new(Worker {
        client: Client::connect(&order.broker).await?,
        log: Log::new(&order.dir)?,
        free,
        places: tokio::sync::Mutex::new(places),
    });
    worker.client.confirms().await?;
    let mut ends = JoinSet::new();
    ends.spawn(Arc::clone(&server).take(reports));
    ends.spawn(worker.work());
    let measured = async {
        server.ask(0..order.warm_up, order.window).await?;
        let meter = Meter::begin(&pids, Some(order.broker.pid))?;
        let times = server.ask(order.warm_up..order.warm_up + order.jobs, order.window).await?;
        let latency = if order.window == 1 { Latency::of(times) } else { None };
        Ok::<_, BenchError>(Figures { latency, ..Figures::of(order.jobs, meter.end()?) })
    };
    let figures = tokio::select! {
        figures = measured => figures?,
        Some(ended) = ends.join_next() => {
            ended.expect("it does not panic")?;
            return Err(BenchError::Cancelled { queue: REQUESTS.to_owned() });
        }
    };
    ends.shutdown().await;
    for queue in [REQUESTS, REPORTS] {
        server.client.delete(queue).await?;
    }
    Ok(figures)
}

/// Acknowledges one delivery and no other.
async fn acknowledge(client: &Client, delivery: &Delivery) -> Result<(), BenchError> {
    Ok(client.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?)
}

/// Who has jobs done.
struct Server {
    client: Client,
    log: Log,
    /// Who waits for the end of which job.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Delivery>>>,
}

impl Server {
    /// Has the jobs of these numbers done, so many at a time.
    async fn ask(self: &Arc<Self>, mut jobs: std::ops::Range<u64>, window: usize) -> Result<Vec<Duration>, BenchError> {
        let (mut times, mut under_way) = (Vec::new(), JoinSet::new());
        loop {
            while under_way.len() < window
                && let Some(job) = jobs.next()
            {
                under_way.spawn(Arc::clone(self).one(job));
            }
            let Some(done) = under_way.join_next().await else { return Ok(times) };
            times.push(done.expect("it does not panic")?);
        }
    }

    /// Has one job done: it is kept before it is published, and its end before it counts.
    async fn one(self: Arc<Self>, job: u64) -> Result<Duration, BenchError> {
        let began = Instant::now();
        let (end, told) = oneshot::channel();
        self.waiting.lock().expect("nobody panics while it is held").insert(job, end);
        let request = job.to_le_bytes();
        self.log.keep(&request).await?;
        let confirm = self.client.publish(REQUESTS, &request).await?;
        let cancelled = |_| BenchError::Cancelled { queue: REPORTS.to_owned() };
        let end = within("the end of a job", told).await?.map_err(cancelled)?;
        self.log.keep(&end.data).await?;
        let took = began.elapsed();
        acknowledge(&self.client, &end).await?;
        confirmed(confirm).await?;
        Ok(took)
    }

    /// Takes what the worker says: that a job has begun, and how it ended.
    async fn take(self: Arc<Self>, mut reports: Consumer) -> Result<(), BenchError> {
        loop {
            let report = next(&mut reports, REPORTS).await?;
            let waiting = match ended(&report.data)? {
                Some(job) => self.waiting.lock().expect("nobody panics while it is held").remove(&job),
                None => None,
            };
            match waiting {
                // Who asked for it acknowledges it. It waits for nothing else.
                Some(waiting) => drop(waiting.send(report)),
                // A beginning; or an end for the second time, which a new queue may give out.
                None => acknowledge(&self.client, &report).await?,
            }
        }
    }
}

/// The job that has ended, if the report is one of an end.
fn ended(report: &[u8]) -> Result<Option<u64>, BenchError> {
    let Some((job, code)) = report.split_first_chunk() else { return Ok(None) };
    let Some(code) = code.first_chunk() else { return Ok(None) };
    let (expected, found) = (0, u64::from(i32::from_le_bytes(*code).unsigned_abs()));
    let what = "the exit code of `true`";
    if found == expected {
        Ok(Some(u64::from_le_bytes(*job)))
    } else {
        Err(BenchError::Wrong { what, expected, found })
    }
}

/// Who does them.
struct Worker {
    client: Client,
    log: Log,
    /// Where a supervising process is put back.
    free: mpsc::UnboundedSender<Supervisor>,
    /// Those that have nothing to do.
    places: tokio::sync::Mutex<mpsc::UnboundedReceiver<Supervisor>>,
}

impl Worker {
    async fn work(self: Arc<Self>) -> Result<(), BenchError> {
        let mut requests = self.client.consume(REQUESTS).await?;
        let mut jobs = JoinSet::new();
        loop {
            tokio::select! {
                request = next(&mut requests, REQUESTS) => drop(jobs.spawn(Arc::clone(&self).carry_out(request?))),
                Some(done) = jobs.join_next() => done.expect("it does not panic")?,
            }
        }
    }

    /// Does one job: it is kept before it begins, and its end before that is published.
    async fn carry_out(self: Arc<Self>, request: Delivery) -> Result<(), BenchError> {
        self.log.keep(&request.data).await?;
        acknowledge(&self.client, &request).await?;
        let place = self.places.lock().await.recv().await;
        let mut supervisor = place.expect("whoever would put one back is here");
        let job = request.data.first_chunk().copied().map_or(u64::MAX, u64::from_le_bytes);
        supervisor.begin(job).await?;
        let begun = self.client.publish(REPORTS, &request.data).await?;
        let code = supervisor.ended().await?;
        // Its receiver is here.
        let _ = self.free.send(supervisor);
        let end = [&request.data[..], &code.to_le_bytes()].concat();
        self.log.keep(&end).await?;
        let ended = self.client.publish(REPORTS, &end).await?;
        confirmed(begun).await?;
        confirmed(ended).await
    }
}
