//! What people order, read and bounded; the desk carries it out.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use messages::limits::TEXT_BYTES_MAX;
use serde::de::DeserializeOwned;

use super::Shared;
use super::answer::{Refused, answer};
use super::desk::{AgentOrder, Desk, LookupError, OrderError, Resolution, Retry};
use super::handlers::{PathText, agent_name, find, no_agent};
use crate::views::{AgentOrderWord, CancelJob, OrderAgent, ResolveJob, RetryJob};

pub(super) async fn retry<D: Desk>(
    State(shared): State<Shared<D>>,
    path: PathText,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let RetryJob { id, agents, from } = read(body, "send {id} and, if need be, agents and from")?;
    let job = find(&shared.desk, path).await?;
    let retried = shared.desk.retry(Retry { id, job: job.id, agents, from }).await;
    let submitted = retried.map_err(|error| Refused::retry(error, job.id))?;
    let status = if submitted.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, answer(submitted.job)).into_response())
}

pub(super) async fn cancel<D: Desk>(
    State(shared): State<Shared<D>>,
    path: PathText,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let CancelJob { reason } = read(body, "send {reason}")?;
    let reason = if reason.trim().is_empty() { "somebody cancelled it".to_owned() } else { words(reason)? };
    let job = find(&shared.desk, path).await?;
    Ok(answer(shared.desk.cancel(job.id, reason).await?))
}

pub(super) async fn resolve<D: Desk>(
    State(shared): State<Shared<D>>,
    path: PathText,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let known = "send {decision: done|retry|fail, note} and, if need be, agent, step and give_up";
    let ResolveJob { agent, step, decision, note, give_up } = read(body, known)?;
    if note.trim().is_empty() {
        let next = "say in the note how you know, for whoever looks later";
        return Err(Refused::bad_request("a decision has a reason, and none is given", next));
    }
    let job = find(&shared.desk, path).await?;
    if let Some(agent) = agent.as_ref().filter(|agent| job.runs.iter().all(|run| run.agent != **agent)) {
        let agents: Vec<&str> = job.runs.iter().map(|run| run.agent.as_str()).collect();
        let error = format!("the job has no run on {agent}");
        let next = format!("it has one on: {}", agents.join(", "));
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, error, "nothing was changed", next));
    }
    let resolution = Resolution { agent: agent.clone(), step, decision, note: words(note)?, give_up };
    match (shared.desk.resolve(job.id, resolution).await, agent) {
        (Err(OrderError::NothingToDecide), Some(agent)) => {
            let error = format!("nothing on {agent} waits for a decision");
            let next = format!("`longshore job show {}` shows what does", job.id);
            Err(Refused::new(StatusCode::CONFLICT, error, "nothing was changed", next))
        }
        (resolved, _) => Ok(answer(resolved?)),
    }
}

pub(super) async fn order<D: Desk>(
    State(shared): State<Shared<D>>,
    path: PathText,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let name = agent_name(path)?;
    let OrderAgent { order, note } = read(body, "send {order: pause|resume|drain|undrain, note}")?;
    let note = words(note)?;
    let order = match order {
        AgentOrderWord::Pause => AgentOrder::Pause { note },
        AgentOrderWord::Resume => AgentOrder::Resume,
        AgentOrderWord::Drain => AgentOrder::Drain { note },
        AgentOrderWord::Undrain => AgentOrder::Undrain,
    };
    match shared.desk.order(&name, order).await {
        Err(OrderError::NotFound) => Err(no_agent(LookupError::NotFound, &name)),
        ordered => Ok(answer(ordered?)),
    }
}

fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, known: &str) -> Result<T, Refused> {
    let body = body.map_err(|rejection| Refused::bad_request(rejection.body_text(), known))?;
    serde_json::from_slice(&body)
        .map_err(|error| Refused::bad_request(format!("the request is not an order: {error}"), known))
}

/// Words of a person: one line, bounded.
fn words(text: String) -> Result<String, Refused> {
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        let error = format!("a reason is one line of at most {TEXT_BYTES_MAX} bytes");
        return Err(Refused::bad_request(error, "shorten it"));
    }
    Ok(text)
}
