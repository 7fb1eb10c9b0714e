//! One function for each path: the question is read and bounded here, the desk answers it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use messages::{AgentId, JobId, LogKey, LogStream, RunId, StepId};
use serde::Deserialize;

use super::answer::{Refused, answer};
use super::desk::{Desk, JobFilter, JobPrefix, Submission};
use super::{JOBS_LIMIT_MAX, LOG_ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, Shared};
use crate::job_file::{JobFile, Plan, Problem, Target};
use crate::views::{AgentsView, JobState, JobView, SubmitJob};

/// Jobs in a list when the question does not say.
const JOBS_LIMIT_DEFAULT: usize = 20;
/// How long a question about a job may wait for it to be settled. Less than [`super::REQUEST_TIME_MAX`] by more than an answer takes.
const JOB_WAIT_MAX: Duration = Duration::from_secs(25);
/// Bytes of a job file up to which checking it takes some tens of microseconds.
const QUICK_BYTES_MAX: usize = 4 * 1024;
/// Between two looks at a job that is waited for, while the server changes all the time.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// Bytes of the log that the server has.
const LOG_SIZE: HeaderName = HeaderName::from_static("x-longshore-size");
/// Whether that is all of it: `true` or `false`.
const LOG_COMPLETE: HeaderName = HeaderName::from_static("x-longshore-complete");
/// Bytes of the output beyond its limit, which nobody kept.
const LOG_CUT: HeaderName = HeaderName::from_static("x-longshore-cut");

pub(super) type PathText = Result<Path<String>, PathRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn status<D: Desk>(State(shared): State<Shared<D>>) -> Result<Response, Refused> {
    Ok(answer(shared.desk.status().await?))
}

pub(super) async fn submit<D: Desk>(
    State(shared): State<Shared<D>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let body = body.map_err(|rejection| {
        let status = rejection.status();
        let error = match status {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the request is larger than {REQUEST_BYTES_MAX} bytes"),
            _ => rejection.body_text(),
        };
        Refused::new(status, error, "no job was made", "shorten the job file, or move scripts into files on the agents")
    })?;
    let job: SubmitJob = serde_json::from_slice(&body).map_err(|error| {
        Refused::bad_request(format!("the request is not a job to submit: {error}"), "send {id, definition, params}")
    })?;
    let SubmitJob { id, definition, params } = job;
    let (checked, definition, params) = match is_quick(&definition) {
        true => (check(&definition, &params), definition, params),
        false => {
            let work = tokio::task::spawn_blocking(move || (check(&definition, &params), definition, params));
            work.await.map_err(|_| {
                let (error, next) = ("the job file could not be checked", "report this with the job file");
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error, "no job was made", next)
            })?
        }
    };
    let (target, plan) = checked.map_err(|problems| Refused::problems(problems, &definition))?;
    let submitted = shared.desk.submit(Submission { id, definition, params, target, plan }).await?;
    let status = if submitted.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, answer(submitted.job)).into_response())
}

/// Whether checking it takes less than handing it to a thread would. Compiling patterns can take a good part of a second. None is without that
/// word, unless the word is written with escapes.
fn is_quick(definition: &str) -> bool {
    definition.len() <= QUICK_BYTES_MAX && !definition.contains("pattern") && !definition.contains('\\')
}

fn check(definition: &str, params: &BTreeMap<String, String>) -> Result<(Target, Plan), Vec<Problem>> {
    let file = JobFile::parse(definition)?;
    let plan = file.plan(params)?;
    Ok((file.target().clone(), plan))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobsQuery {
    limit: Option<usize>,
    state: Option<JobState>,
}

pub(super) async fn jobs<D: Desk>(
    State(shared): State<Shared<D>>,
    query: Asked<JobsQuery>,
) -> Result<Response, Refused> {
    let query = asked(query, "limit=1..1000, state=waiting|running|succeeded|failed|cancelled|needs-decision")?;
    let limit = query.limit.unwrap_or(JOBS_LIMIT_DEFAULT);
    if !(1..=JOBS_LIMIT_MAX).contains(&limit) {
        return Err(Refused::bad_request("the limit is out of range", format!("give 1 to {JOBS_LIMIT_MAX}")));
    }
    Ok(answer(shared.desk.jobs(JobFilter { limit, state: query.state }).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobQuery {
    #[serde(default)]
    wait_ms: u64,
}

/// The job; with `wait_ms` once it is settled, or after that time as it stands then. With very many such questions at once as it stands now.
pub(super) async fn job<D: Desk>(
    State(shared): State<Shared<D>>,
    path: PathText,
    query: Asked<JobQuery>,
) -> Result<Response, Refused> {
    let wait = Duration::from_millis(asked(query, "wait_ms=0..25000")?.wait_ms);
    if wait > JOB_WAIT_MAX {
        let error = "the time to wait is out of range";
        return Err(Refused::bad_request(error, format!("give 0 to {}", JOB_WAIT_MAX.as_millis())));
    }
    let Shared { desk, mut stopping, waiting, .. } = shared;
    let mut changes = desk.changes();
    let job = find(&desk, path).await?;
    let place = waiting.try_acquire();
    if job.state.is_settled() || wait.is_zero() || place.is_err() {
        return Ok(answer(job));
    }
    let settled = async {
        // It is there, so only a journal that forgets ends this otherwise.
        while desk.job_state(job.id).is_some_and(|state| !state.is_settled()) && changes.changed().await.is_ok() {
            if desk.job_state(job.id).is_some_and(|state| !state.is_settled()) {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = settled => {}
        () = tokio::time::sleep(wait) => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    Ok(answer(find(&desk, Ok(Path(job.id.to_string()))).await?))
}

/// The job that a path speaks of.
pub(super) async fn find<D: Desk>(desk: &D, path: PathText) -> Result<JobView, Refused> {
    let prefix: JobPrefix = text(path)?.parse()?;
    let next = "`longshore job list` shows the jobs";
    desk.job(&prefix).await.map_err(|error| Refused::lookup(error, "job", prefix.as_str(), next))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    run: RunId,
    step: StepId,
    stream: LogStream,
    attempt: Option<u32>,
    #[serde(default)]
    offset: u64,
}

pub(super) async fn logs<D: Desk>(
    State(shared): State<Shared<D>>,
    path: PathText,
    query: Asked<LogsQuery>,
) -> Result<Response, Refused> {
    let query = asked(query, "run=ID, step=ID, stream=stdout|stderr, attempt=1.., offset=0..")?;
    let job = find(&shared.desk, path).await?;
    let attempts = attempts(&job, &query)?;
    // Before the first attempt the log is empty, which is an answer and not an error.
    let attempt = query.attempt.unwrap_or(attempts).max(1);
    if attempt > attempts.max(1) {
        let error = format!("step `{}` has had {attempts} attempts", query.step);
        return Err(Refused::new(StatusCode::NOT_FOUND, error, "nothing was changed", "leave `attempt` out"));
    }
    let key = LogKey { run: query.run, step: query.step, attempt, stream: query.stream };
    let piece = shared.desk.read_log(&key, query.offset, LOG_ANSWER_BYTES_MAX).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (LOG_SIZE, piece.size.to_string()),
        (LOG_COMPLETE, piece.complete.to_string()),
        (LOG_CUT, piece.cut.to_string()),
    ];
    Ok((headers, piece.bytes).into_response())
}

fn attempts(job: &JobView, query: &LogsQuery) -> Result<u32, Refused> {
    let missing = |what: &str, name: String, id: JobId| {
        let next = format!("`longshore job show {id}` shows what it has");
        Refused::new(StatusCode::NOT_FOUND, format!("the job has no {what} `{name}`"), "nothing was changed", next)
    };
    let run = job.runs.iter().find(|run| run.id == query.run);
    let run = run.ok_or_else(|| missing("run", query.run.to_string(), job.id))?;
    let step = run.steps.iter().find(|step| step.id == query.step);
    Ok(step.ok_or_else(|| missing("step", query.step.to_string(), job.id))?.attempt)
}

pub(super) async fn agents<D: Desk>(State(shared): State<Shared<D>>) -> Result<Response, Refused> {
    Ok(answer(AgentsView { agents: shared.desk.agents().await? }))
}

pub(super) async fn agent<D: Desk>(State(shared): State<Shared<D>>, path: PathText) -> Result<Response, Refused> {
    let name = agent_name(path)?;
    shared.desk.agent(&name).await.map(answer).map_err(|error| no_agent(error, &name))
}

pub(super) async fn link<D: Desk>(State(shared): State<Shared<D>>, path: PathText) -> Result<Response, Refused> {
    let name = agent_name(path)?;
    shared.desk.link(&name).await.map(answer).map_err(|error| no_agent(error, &name))
}

pub(super) fn no_agent(error: super::LookupError, name: &AgentId) -> Refused {
    Refused::lookup(error, "agent", name.as_str(), "`longshore fleet list` shows the agents")
}

pub(super) fn agent_name(path: PathText) -> Result<AgentId, Refused> {
    let name = text(path)?.parse::<AgentId>();
    name.map_err(|error| Refused::bad_request(error.to_string(), "`longshore fleet list` shows the agents"))
}

fn text(path: PathText) -> Result<String, Refused> {
    path.map(|Path(text)| text).map_err(|error| Refused::bad_request(error.body_text(), "write the path in UTF-8"))
}

pub(super) fn asked<T>(query: Asked<T>, known: &str) -> Result<T, Refused> {
    query.map(|Query(query)| query).map_err(|error| Refused::bad_request(error.body_text(), format!("give {known}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_file_that_may_have_a_pattern_is_not_checked_in_passing() {
        let job = "[[step]]\nid = \"a\"\nexec = [\"true\"]\n";
        assert!(is_quick(job));
        for param in ["pattern = \"a\"", "\"p\\u0061ttern\" = \"a\""] {
            assert!(!is_quick(&format!("[params.a]\n{param}\n{job}")), "{param}");
        }
        assert!(!is_quick(&job.repeat(QUICK_BYTES_MAX)));
    }
}
