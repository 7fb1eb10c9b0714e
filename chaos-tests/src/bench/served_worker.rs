//! The third reference of the job benchmarks: the ends of `durable_ends`, a control group for each step, and an API for clients, who are
//! those that ask Longshore. What is submitted is on stable storage before it is answered. It knows nobody's name, lists nothing,
//! and has nothing of Longshore's code.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{self, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::clients::Clients;
use super::control_group::Groups;
use super::durable_ends::{Ends, Server, request};
use super::jobs::{Bare, CLIENTS};
use super::messages::runtime;
use super::supervisor::Steps;
use super::{BenchError, Figures, Latency, Meter};
use crate::live::Api;

/// Has as many jobs done as the bare worker does; if it is to be `whole`, with a working folder and a process of its own kind for each. Nothing
/// where no control groups can be made: its case says why.
pub(super) fn measure(order: &Bare, whole: bool) -> Result<Option<Figures>, BenchError> {
    let Ok(groups) = Groups::make() else { return Ok(None) };
    let runtime = runtime()?;
    let figures = runtime.block_on(run(order, Steps { groups: groups.dir().to_owned(), whole }));
    // After a failure clients may still wait for an answer.
    runtime.shutdown_background();
    figures.map(Some)
}

async fn run(order: &Bare, steps: Steps) -> Result<Figures, BenchError> {
    let dir = order.dir.join(if steps.whole { "whole" } else { "served" });
    std::fs::create_dir(&dir)?;
    let ends = Ends::start(order, &dir, Some(steps)).await?;
    let (failed, mut failures) = mpsc::unbounded_channel();
    let server = Arc::clone(&ends.server);
    let desk = Arc::new(Desk { server, jobs: Mutex::default(), well: AtomicU64::new(0), failed });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let access = json!({ "url": format!("http://{}", listener.local_addr()?), "token": "nobody asks for it" });
    std::fs::write(dir.join("api.json"), access.to_string())?;
    let clients = Clients::of(Api::new(&dir));
    let (asked, pids) = (order.clone(), ends.pids.clone());
    let asking = tokio::task::spawn_blocking(move || ask(&clients, &asked, &pids));
    ends.during(async {
        tokio::select! {
            figures = asking => figures.expect("it does not panic"),
            Some(error) = failures.recv() => Err(error),
            ended = axum::serve(listener, router(desk)) => {
                ended?;
                Err(std::io::Error::other("the API of a reference has ended").into())
            }
        }
    })
    .await
}

/// What the clients do, in threads of their own.
fn ask(clients: &Clients, order: &Bare, pids: &[u32]) -> Result<Figures, BenchError> {
    let ask = |jobs: u64| match order.window {
        1 => (0..jobs).map(|_| clients.one()).collect(),
        _ => clients.saturate(jobs, CLIENTS).map(|()| Vec::new()),
    };
    ask(order.warm_up)?;
    let meter = Meter::begin(pids, Some(order.broker.pid))?;
    let times = ask(order.jobs)?;
    let spent = meter.end()?;
    Ok(Figures { latency: Latency::of(times), ..Figures::of(order.jobs, spent) })
}

/// What the API knows.
struct Desk {
    server: Arc<Server>,
    /// Every job, and whether it has ended well.
    jobs: Mutex<HashMap<Uuid, watch::Receiver<bool>>>,
    well: AtomicU64,
    /// Who is told that a job could not be done, which ends the run.
    failed: mpsc::UnboundedSender<BenchError>,
}

/// A job as it is submitted.
#[derive(Deserialize)]
struct Submitted {
    id: Uuid,
    definition: String,
}

#[derive(Deserialize)]
struct Definition {
    step: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    exec: Vec<String>,
}

#[derive(Deserialize)]
struct Wait {
    #[serde(default)]
    wait_ms: u64,
}

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1/jobs", post(submit))
        .route("/v1/jobs/{id}", get(job))
        .route("/v1/status", get(status))
        .with_state(desk)
}

/// The job, and what it runs with its arguments as JSON. Nothing if it is not one of one step.
fn understood(body: &[u8]) -> Option<(Uuid, String)> {
    let Submitted { id, definition } = serde_json::from_slice(body).ok()?;
    let Definition { step } = toml::from_str(&definition).ok()?;
    let [Step { exec }] = &step[..] else { return None };
    Some((id, serde_json::to_string(exec).ok()?))
}

/// Takes a job. It is kept when this is answered; what becomes of it goes on afterwards.
async fn submit(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let (id, program) = understood(&body).ok_or(StatusCode::BAD_REQUEST)?;
    let (settled, ended) = watch::channel(false);
    match desk.jobs.lock().expect("nobody panics while it is held").entry(id) {
        Entry::Occupied(_) => return Err(StatusCode::CONFLICT),
        Entry::Vacant(place) => place.insert(ended),
    };
    desk.server.keep(&body).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    tokio::spawn(async move {
        if let Err(error) = carry_out(&desk, id, &program, &settled).await {
            // Nobody listens only when the run is over.
            let _ = desk.failed.send(error);
        }
    });
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "state": "queued" }))))
}

async fn carry_out(desk: &Desk, id: Uuid, program: &str, settled: &watch::Sender<bool>) -> Result<(), BenchError> {
    let kept = desk.server.done(id, &request(id, program)).await?;
    desk.well.fetch_add(1, Ordering::Relaxed);
    settled.send_replace(true);
    desk.server.settle(kept).await
}

/// The state of a job, once it has ended or after the time that whoever asks has.
async fn job(
    State(desk): State<Arc<Desk>>,
    extract::Path(id): extract::Path<Uuid>,
    Query(wait): Query<Wait>,
) -> Result<Json<Value>, StatusCode> {
    let job = desk.jobs.lock().expect("nobody panics while it is held").get(&id).cloned();
    let mut ended = job.ok_or(StatusCode::NOT_FOUND)?;
    let waited = tokio::time::timeout(Duration::from_millis(wait.wait_ms), ended.wait_for(|ended| *ended)).await;
    let state = if matches!(waited, Ok(Ok(_))) { "succeeded" } else { "running" };
    Ok(Json(json!({ "id": id, "state": state })))
}

/// How many jobs have ended. One that ends badly ends the run.
async fn status(State(desk): State<Arc<Desk>>) -> Json<Value> {
    let well = desk.well.load(Ordering::Relaxed);
    Json(json!({ "jobs": { "succeeded": well, "failed": 0, "cancelled": 0, "needs_decision": 0 } }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_one_step_is_understood_and_nothing_else() {
        let body =
            |definition: &str| json!({ "id": Uuid::from_u128(7), "definition": definition, "params": {} }).to_string();
        let one = "name = \"a\"\n[[step]]\nid = \"b\"\nexec = [\"true\", \"now\"]\n";
        let program = r#"["true","now"]"#.to_owned();
        assert_eq!(understood(body(one).as_bytes()), Some((Uuid::from_u128(7), program)));
        assert_eq!(understood(body(&format!("{one}[[step]]\nexec = []\n")).as_bytes()), None);
        assert_eq!(understood(b"{}"), None);
    }
}
