//! The second reference of the job benchmarks: a server and a worker that keep what Longshore promises about a job, in the cheapest way
//! there is. What its two ends do is in `durable_ends`. It has no API, and makes up its jobs by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use uuid::Uuid;

use super::durable_ends::{Ends, Server, request};
use super::jobs::Bare;
use super::messages::runtime;
use super::{BenchError, Figures, Latency, Meter};

/// What every job runs.
const PROGRAM: &str = r#"["true"]"#;

/// Has as many jobs done as the bare worker does. Each end has two threads, as server and agent have.
pub(super) fn measure(order: &Bare) -> Result<Figures, BenchError> {
    runtime()?.block_on(run(order))
}

async fn run(order: &Bare) -> Result<Figures, BenchError> {
    let ends = Ends::start(order, &order.dir, None).await?;
    let (server, pids) = (Arc::clone(&ends.server), ends.pids.clone());
    ends.during(async {
        ask(&server, 0..order.warm_up, order.window).await?;
        let meter = Meter::begin(&pids, Some(order.broker.pid))?;
        let times = ask(&server, order.warm_up..order.warm_up + order.jobs, order.window).await?;
        let latency = if order.window == 1 { Latency::of(times) } else { None };
        Ok(Figures { latency, ..Figures::of(order.jobs, meter.end()?) })
    })
    .await
}

/// Has the jobs of these numbers done, so many at a time.
async fn ask(server: &Arc<Server>, mut jobs: std::ops::Range<u64>, window: usize) -> Result<Vec<Duration>, BenchError> {
    let (mut times, mut under_way) = (Vec::new(), JoinSet::new());
    loop {
        while under_way.len() < window
            && let Some(job) = jobs.next()
        {
            under_way.spawn(one(Arc::clone(server), Uuid::from_u128(job.into())));
        }
        let Some(done) = under_way.join_next().await else { return Ok(times) };
        times.push(done.expect("it does not panic")?);
    }
}

/// Has one job done: it is kept before it is published, and its end before it counts.
async fn one(server: Arc<Server>, job: Uuid) -> Result<Duration, BenchError> {
    let began = Instant::now();
    let request = request(job, PROGRAM);
    server.keep(&request).await?;
    let kept = server.done(job, &request).await?;
    let took = began.elapsed();
    server.settle(kept).await?;
    Ok(took)
}
