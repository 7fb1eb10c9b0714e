//! The two ends of the references that are as durable, each a process: one has jobs done, the other does them. Two logs, four records of a job in
//! them, supervising processes that are ready before it comes, and three messages. They read no record again, survive nothing, and have no
//! identities and nothing of Longshore's code.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::{Consumer, PublisherConfirm};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::jobs::{BENCHMARK, Bare, Order};
use super::log::Log;
use super::messages::runtime;
use super::raw::{Client, confirmed, next, within};
use super::supervisor::{Helper, Steps, Supervise};
use super::{BenchError, BrokerAt};

/// Their queues.
const REQUESTS: &str = "bench.raw.durable.jobs";
const REPORTS: &str = "bench.raw.durable.reports";

/// Both ends, at work.
pub(super) struct Ends {
    /// Who has jobs done, in this process.
    pub(super) server: Arc<Server>,
    /// This process, that of who does them, and the supervising ones.
    pub(super) pids: Vec<u32>,
    worker: Helper,
    tasks: JoinSet<Result<(), BenchError>>,
}

/// What the process of who does jobs is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Work {
    broker: BrokerAt,
    dir: PathBuf,
    /// Places of work.
    at_once: u64,
    /// What each step has besides its program.
    steps: Option<Steps>,
}

impl Ends {
    /// Starts both, with as many places of work as that says, and what they keep in that folder. What each step has besides its program is said last.
    pub(super) async fn start(order: &Bare, dir: &Path, steps: Option<Steps>) -> Result<Self, BenchError> {
        let client = Client::connect(&order.broker).await?;
        let server = Arc::new(Server { client, log: Log::new(dir)?, waiting: Mutex::default() });
        for queue in [REQUESTS, REPORTS] {
            server.client.queue(queue, order.broker.queue_type).await?;
        }
        server.client.confirms().await?;
        let reports = server.client.consume(REPORTS).await?;
        let (broker, at_once) = (order.broker.clone(), order.at_once);
        let work = Work { broker, dir: dir.to_owned(), at_once, steps };
        let mut worker = Helper::start(BENCHMARK.id, &Order::Work(work)).await?;
        let theirs = within("a worker to be ready", worker.said()).await??.unwrap_or_default();
        let theirs: Vec<u32> = serde_json::from_str(&theirs)?;
        let pids = [std::process::id()].into_iter().chain(theirs).collect();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&server).take(reports));
        Ok(Self { server, pids, worker, tasks })
    }

    /// Ends both when that is done, or when one of them cannot go on.
    pub(super) async fn during<T>(
        mut self,
        done: impl Future<Output = Result<T, BenchError>>,
    ) -> Result<T, BenchError> {
        let done = tokio::select! {
            done = done => done?,
            Some(ended) = self.tasks.join_next() => {
                ended.expect("it does not panic")?;
                return Err(BenchError::Cancelled { queue: REPORTS.to_owned() });
            }
            // It says nothing more while it works.
            _ = self.worker.said() => return Err(BenchError::Cancelled { queue: REQUESTS.to_owned() }),
        };
        drop(self.worker);
        self.tasks.shutdown().await;
        for queue in [REQUESTS, REPORTS] {
            self.server.client.delete(queue).await?;
        }
        Ok(done)
    }
}

/// Acknowledges one delivery and no other.
async fn acknowledge(client: &Client, delivery: &Delivery) -> Result<(), BenchError> {
    Ok(client.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?)
}

/// A job on its way to the worker: its id, and its program with the arguments as JSON, which the server knows and the worker hands on.
pub(super) fn request(job: Uuid, program: &str) -> Vec<u8> {
    [job.as_bytes(), program.as_bytes()].concat()
}

fn job_of(message: &[u8]) -> Option<(Uuid, &[u8])> {
    message.split_first_chunk().map(|(job, rest)| (Uuid::from_bytes(*job), rest))
}

/// Who has jobs done.
pub(super) struct Server {
    client: Client,
    log: Log,
    /// Who waits for the end of which job.
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<Delivery>>>,
}

/// The end of a job, which is kept. What is left to be said to the broker.
pub(super) struct Kept {
    end: Delivery,
    asked: PublisherConfirm,
}

impl Server {
    /// Returns when these bytes are on stable storage.
    pub(super) async fn keep(&self, bytes: &[u8]) -> Result<(), BenchError> {
        Ok(self.log.keep(bytes).await?)
    }

    /// Has a job done that is kept, and keeps its end.
    pub(super) async fn done(&self, job: Uuid, request: &[u8]) -> Result<Kept, BenchError> {
        let (end, told) = oneshot::channel();
        self.waiting.lock().expect("nobody panics while it is held").insert(job, end);
        let asked = self.client.publish(REQUESTS, request).await?;
        let cancelled = |_| BenchError::Cancelled { queue: REPORTS.to_owned() };
        let end = within("the end of a job", told).await?.map_err(cancelled)?;
        self.keep(&end.data).await?;
        Ok(Kept { end, asked })
    }

    /// Tells the broker that it need not remember it.
    pub(super) async fn settle(&self, kept: Kept) -> Result<(), BenchError> {
        acknowledge(&self.client, &kept.end).await?;
        confirmed(kept.asked).await
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
fn ended(report: &[u8]) -> Result<Option<Uuid>, BenchError> {
    let Some((job, code)) = job_of(report) else { return Ok(None) };
    let Some(code) = code.first_chunk() else { return Ok(None) };
    let (expected, found) = (0, u64::from(i32::from_le_bytes(*code).unsigned_abs()));
    let what = "the exit code of `true`";
    if found == expected { Ok(Some(job)) } else { Err(BenchError::Wrong { what, expected, found }) }
}

/// Who does them.
struct Worker {
    client: Client,
    log: Log,
    /// Where a supervising process is put back.
    free: mpsc::UnboundedSender<Helper>,
    /// Those that have nothing to do.
    places: tokio::sync::Mutex<mpsc::UnboundedReceiver<Helper>>,
}

/// Does what the process of who does jobs does, until it is ended or cannot go on. Two threads, as an agent has.
pub(super) fn work(order: &Work) -> Result<(), BenchError> {
    runtime()?.block_on(async {
        let (worker, pids) = Worker::start(order).await?;
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&pids)?)?;
        Arc::new(worker).work().await
    })
}

impl Worker {
    /// With the supervising processes, which are ready then. Their ids and its own.
    async fn start(order: &Work) -> Result<(Self, Vec<u32>), BenchError> {
        let Work { broker, dir, at_once, steps } = order;
        let (free, places) = mpsc::unbounded_channel();
        let mut pids = vec![std::process::id()];
        for place in 0..*at_once {
            let supervise = Supervise { dir: dir.join(format!("place-{place}")), steps: steps.clone() };
            let supervisor = Helper::start(BENCHMARK.id, &Order::Supervise(supervise)).await?;
            pids.extend(supervisor.pid());
            // Its receiver is here.
            let _ = free.send(supervisor);
        }
        let (client, log) = (Client::connect(broker).await?, Log::new(dir)?);
        client.confirms().await?;
        Ok((Self { client, log, free, places: tokio::sync::Mutex::new(places) }, pids))
    }

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
        let (job, program) = job_of(&request.data).unwrap_or_default();
        supervisor.begin(job, &String::from_utf8_lossy(program)).await?;
        let begun = self.client.publish(REPORTS, job.as_bytes()).await?;
        let code = supervisor.ended().await?;
        // Its receiver is here.
        let _ = self.free.send(supervisor);
        let end = [job.as_bytes(), &code.to_le_bytes()[..]].concat();
        self.log.keep(&end).await?;
        let ended = self.client.publish(REPORTS, &end).await?;
        confirmed(begun).await?;
        confirmed(ended).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_no_end_and_an_end_is_one_only_if_all_went_well() {
        let job = Uuid::from_u128(7);
        assert_eq!(job_of(&request(job, r#"["true"]"#)), Some((job, &br#"["true"]"#[..])));
        assert_eq!(ended(job.as_bytes()).unwrap(), None);
        let end = |code: i32| [job.as_bytes(), &code.to_le_bytes()[..]].concat();
        assert_eq!(ended(&end(0)).unwrap(), Some(job));
        assert!(matches!(ended(&end(-1)), Err(BenchError::Wrong { found: 1, .. })));
    }
}
