//! The server's HTTP API: who may ask, how a question is read, and how an answer or a refusal is written. It decides nothing
//! about work; that is the [`Desk`]'s. It listens on loopback unless told otherwise, and answers nobody without the token.

mod access;
mod answer;
mod desk;
mod events;
mod guard;
mod handlers;
mod listen;
mod orders;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};

pub use access::{Access, AccessError, Token, TokenError};
pub use desk::{
    AgentOrder, Desk, DeskError, JobFilter, JobPrefix, LogPiece, LogReadError, LookupError, OrderError, PrefixError,
    Resolution, Retry, RetryError, Submission, SubmitError, Submitted,
};
pub use listen::{Api, ApiConfig, BindError};

/// Bytes of a request's body. A job file of 192 KiB fits, as JSON text, unless it is all quotes and line ends.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Connections at once. An operator's machine has a handful; each costs a task and two buffers.
pub const CONNECTIONS_MAX: usize = 256;
/// Questions about jobs that may wait for an answer at once: half of the connections, so that others get through. More are answered at
/// once.
pub const WAITING_MAX: usize = CONNECTIONS_MAX / 2;
/// How long a request may take until its answer begins. Long enough for a job to be written to a slow disk.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// How often an event stream that has nothing to say says so, to let either side notice that the other is gone.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Bytes of a log in one answer.
pub const LOG_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Jobs in one list.
pub const JOBS_LIMIT_MAX: usize = 1_000;

/// What every handler has at hand.
#[derive(Clone)]
struct Shared<D> {
    desk: D,
    guard: Arc<guard::Guard>,
    /// Tells this process's event ids from those of an earlier one.
    instance: u64,
    /// Places for questions that wait.
    waiting: Arc<Semaphore>,
    /// Becomes true when the server stops: streams end then, which would otherwise never end.
    stopping: watch::Receiver<bool>,
}

fn router<D: Desk>(shared: Shared<D>) -> Router {
    let (guard, desk) = (Arc::clone(&shared.guard), shared.desk.clone());
    Router::new()
        .route("/healthz", get(handlers::healthz))
        .route("/v1/status", get(handlers::status::<D>))
        .route("/v1/jobs", get(handlers::jobs::<D>).post(handlers::submit::<D>))
        .route("/v1/jobs/{id}", get(handlers::job::<D>))
        .route("/v1/jobs/{id}/retry", post(orders::retry::<D>))
        .route("/v1/jobs/{id}/cancel", post(orders::cancel::<D>))
        .route("/v1/jobs/{id}/resolve", post(orders::resolve::<D>))
        .route("/v1/agents/{name}/orders", post(orders::order::<D>))
        .route("/v1/jobs/{id}/events", get(events::events::<D>))
        .route("/v1/jobs/{id}/logs", get(handlers::logs::<D>))
        .route("/v1/agents", get(handlers::agents::<D>))
        .route("/v1/agents/{name}", get(handlers::agent::<D>))
        .route("/v1/agents/{name}/link", get(handlers::link::<D>))
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
        .with_state(shared)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(middleware::from_fn_with_state(desk, guard::keep::<D>))
        .layer(middleware::from_fn(guard::within_time))
        .layer(middleware::from_fn_with_state(guard, guard::admit))
}
