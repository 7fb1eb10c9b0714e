//! Answers and refusals as HTTP. Every refusal is an [`ErrorView`], also those of the framework below.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use messages::JobId;
use serde::Serialize;

use super::desk::{DeskError, LogReadError, LookupError, OrderError, PrefixError, RetryError, SubmitError};
use crate::job_file::{self, Problem};
use crate::views::{Answer, ErrorView, ProblemView, Schema};

const NOTHING_CHANGED: &str = "nothing was changed";

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    view: ErrorView,
}

impl Refused {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, state: &str, next: impl Into<String>) -> Self {
        let view = ErrorView { error: error.into(), state: state.to_owned(), next: next.into(), problems: Vec::new() };
        Self { status, view }
    }

    /// The question itself is wrong.
    pub(super) fn bad_request(error: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, NOTHING_CHANGED, next)
    }

    /// The job file, or a value for it, is wrong.
    pub(super) fn problems(problems: Vec<Problem>, definition: &str) -> Self {
        let count = problems.len();
        let error = format!("the job cannot be taken: {count} problem{}", if count == 1 { "" } else { "s" });
        let next = "mend that and submit again; `longshore job lint` checks without a server";
        let mut refused = Self::new(StatusCode::UNPROCESSABLE_ENTITY, error, "no job was made", next);
        refused.view.problems = problems.into_iter().map(|problem| ProblemView::new(problem, definition)).collect();
        refused
    }

    /// There is no such thing.
    pub(super) fn lookup(error: LookupError, what: &str, name: &str, next: &str) -> Self {
        match error {
            LookupError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, format!("there is no {what} `{name}`"), NOTHING_CHANGED, next)
            }
            LookupError::Ambiguous { candidates } => {
                let list = candidates.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let error = format!("more than one {what} begins with `{name}`");
                Self::new(StatusCode::CONFLICT, error, NOTHING_CHANGED, format!("give more of the id: {list}"))
            }
            LookupError::Desk(error) => error.into(),
        }
    }
}

impl Refused {
    /// A job is not started again.
    pub(super) fn retry(error: RetryError, job: JobId) -> Self {
        let what = error.to_string();
        let anew = "submit the job anew with `longshore job run`".to_owned();
        let (status, next) = match error {
            RetryError::NotFound => (StatusCode::NOT_FOUND, "`longshore job list` shows the jobs".to_owned()),
            RetryError::IdTaken { .. } => (StatusCode::CONFLICT, "give a fresh id".to_owned()),
            RetryError::NotOver { .. } => (
                StatusCode::CONFLICT,
                format!("wait for it, end it with `longshore job cancel {job}`, or name with --run where it is over"),
            ),
            RetryError::Undecided { agent } => (
                StatusCode::CONFLICT,
                format!("decide first: longshore job resolve {job} --agent {agent} --as done|retry|fail --note WHY"),
            ),
            RetryError::Succeeded => (StatusCode::CONFLICT, anew),
            RetryError::Retried { by, .. } => (
                StatusCode::CONFLICT,
                format!("`longshore job show {by}` shows what came of it; if that failed, start that one again"),
            ),
            RetryError::NoRun { agents, .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, format!("it has one on: {}", list(&agents)))
            }
            RetryError::AgentGone { .. } => (
                StatusCode::CONFLICT,
                "name it in the server's configuration again, or leave it out with --run".to_owned(),
            ),
            RetryError::UnknownStep { steps, .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, format!("its steps are: {}", list(&steps)))
            }
            RetryError::Skips { step, .. } => {
                (StatusCode::CONFLICT, format!("begin with it, or with an earlier one: --from {step}"))
            }
            RetryError::OnceDone { .. } => {
                (StatusCode::CONFLICT, format!("leave --from out to begin with the step that failed, or {anew}"))
            }
            RetryError::NotHeardOf { agent } => (
                StatusCode::CONFLICT,
                format!("wait until it was heard (`longshore fleet show {agent}`); if it never comes back, {anew}"),
            ),
            RetryError::NoFolder { first, .. } => {
                (StatusCode::CONFLICT, format!("begin with the first step, in a new folder: --from {first}"))
            }
            RetryError::TooLarge { .. } | RetryError::FileLost | RetryError::Unreadable { .. } => {
                (StatusCode::CONFLICT, anew)
            }
            RetryError::Submit(error) => return error.into(),
        };
        Self::new(status, what, NOTHING_CHANGED, next)
    }
}

fn list<T: ToString>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(Answer::new(self.view))).into_response()
    }
}

impl From<DeskError> for Refused {
    fn from(error: DeskError) -> Self {
        let next = match &error {
            DeskError::Stopping => "ask again when the server is up",
            DeskError::Journal { .. } => "look at the server's log; check with `longshore journal verify`",
        };
        let state = "nothing was changed; jobs that were taken are safe in the journal";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), state, next)
    }
}

impl From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        let what = error.to_string();
        let (status, next) = match error {
            SubmitError::UnknownAgent { agent, known } => {
                let names: Vec<&str> = known.iter().map(messages::AgentId::as_str).collect();
                let next = match job_file::nearest(agent.as_str(), names.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`? `longshore fleet list` shows the agents"),
                    None if names.is_empty() => {
                        "the server knows no agents yet: name them in its configuration".to_owned()
                    }
                    None => "`longshore fleet list` shows the agents".to_owned(),
                };
                (StatusCode::UNPROCESSABLE_ENTITY, next)
            }
            SubmitError::NoAgents => {
                (StatusCode::UNPROCESSABLE_ENTITY, "name agents in the server's configuration first".to_owned())
            }
            SubmitError::NoMatch { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "`longshore fleet list -o wide` shows pools and labels; with pick = \"one\" a job waits for an agent that matches"
                    .to_owned(),
            ),
            SubmitError::GroupHeld { holder, .. } => (
                StatusCode::CONFLICT,
                format!("wait for it (`longshore job show {holder}`), or write on_conflict = \"queue\""),
            ),
            SubmitError::IdTaken { id } => (
                StatusCode::CONFLICT,
                format!("`longshore job show {id}` shows that one; if this is another job, submit it with a fresh id"),
            ),
            SubmitError::Forgotten { .. } => {
                let next = "submit it with a fresh id to have it done again";
                return Self::new(StatusCode::GONE, what, "nothing was changed by this request", next);
            }
            SubmitError::Full { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "wait until jobs have ended, then submit again with the same id".to_owned(),
            ),
            SubmitError::Disk { .. } => (
                StatusCode::INSUFFICIENT_STORAGE,
                "make room on the server's disk, then submit again with the same id; what was taken before goes on".to_owned(),
            ),
            SubmitError::Desk(error) => return error.into(),
        };
        Self::new(status, what, "no job was made", next)
    }
}

impl From<OrderError> for Refused {
    fn from(error: OrderError) -> Self {
        let what = error.to_string();
        let (status, next) = match error {
            OrderError::NotFound => {
                (StatusCode::NOT_FOUND, "`longshore job list` and `longshore fleet list` show what there is".to_owned())
            }
            OrderError::Over { .. } => (
                StatusCode::CONFLICT,
                "`longshore job retry` starts again what did not succeed, `longshore job run` all of it".to_owned(),
            ),
            OrderError::NothingToDecide => (
                StatusCode::CONFLICT,
                "`longshore job list --state needs-decision` shows what waits for one".to_owned(),
            ),
            OrderError::WhichRun { agents } => {
                let names: Vec<&str> = agents.iter().map(messages::AgentId::as_str).collect();
                (StatusCode::CONFLICT, format!("say which with --agent: {}", names.join(", ")))
            }
            OrderError::OtherStep { .. } => (StatusCode::CONFLICT, "look again with `longshore job show`".to_owned()),
            OrderError::AlreadyDecided { .. } => {
                (StatusCode::CONFLICT, "wait for the agent, or end the run without it: --give-up".to_owned())
            }
            OrderError::CannotRetry { .. } => {
                (StatusCode::CONFLICT, "wait for the agent, or give the run up and submit the job again".to_owned())
            }
            OrderError::Refused { .. } => (StatusCode::TOO_MANY_REQUESTS, "try again later".to_owned()),
            OrderError::Desk(error) => return error.into(),
        };
        Self::new(status, what, NOTHING_CHANGED, next)
    }
}

impl From<LogReadError> for Refused {
    fn from(error: LogReadError) -> Self {
        match error {
            LogReadError::Io(source) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the log cannot be read: {source}"),
                "the job is not concerned: its outcome does not depend on logs",
                "look at the server's log and its disk",
            ),
            LogReadError::Desk(error) => error.into(),
        }
    }
}

impl From<PrefixError> for Refused {
    fn from(error: PrefixError) -> Self {
        Self::bad_request(error.to_string(), "`longshore job list` shows the ids")
    }
}

/// A view as the whole of an answer.
pub(super) fn answer<T: Schema + Serialize>(view: T) -> Response {
    Json(Answer::new(view)).into_response()
}

pub(super) async fn no_such_path() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "there is no such path", NOTHING_CHANGED, "the API begins at /v1/status")
}

pub(super) async fn no_such_method() -> Refused {
    let error = "the path does not take this method";
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, error, NOTHING_CHANGED, "use GET, or POST /v1/jobs to submit")
}
