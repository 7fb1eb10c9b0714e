//! Following one job as server-sent events. `job` events carry the whole view and, as their id, the revision they show and the
//! process that counted it, so a client that lost the stream and comes back with `Last-Event-ID` misses nothing. `log` events (with `?logs=1`) carry output
//! with its offset; a client that comes back drops what it has by the offset. `complete` says that the job is settled and all its
//! output was sent. The stream never ends a job and never holds one up.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use messages::{LogKey, LogStream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

use super::answer::Refused;
use super::desk::{Desk, JobPrefix, LogPiece};
use super::handlers::{PathText, asked, find};
use super::{KEEP_ALIVE, Shared};
use crate::views::{Answer, JobView, LogView, Schema};

/// Bytes of output in one event.
const LOG_EVENT_BYTES_MAX: usize = 16 * 1024;
/// Attempts of a step whose output is followed, counted from the latest. The logs endpoint has the older ones.
const ATTEMPTS_MAX: u32 = 8;
/// Time between two looks at a job that changes all the time. A person does not see more.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    #[serde(default)]
    logs: u8,
}

pub(super) async fn events<D: Desk>(
    State(shared): State<Shared<D>>,
    path: PathText,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let query = asked(query, "logs=0|1")?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let mut changes = shared.desk.changes();
    let revision = *changes.borrow_and_update();
    let job = find(&shared.desk, path).await?;
    let mut follow = Follow {
        prefix: JobPrefix::from(job.id),
        desk: shared.desk,
        changes,
        stopping: shared.stopping,
        pending: VecDeque::new(),
        sent: None,
        logs: (query.logs != 0).then(BTreeMap::new),
        completed: false,
        catching_up: false,
        ended: false,
        instance: shared.instance,
    };
    if seen == Some(event_id(follow.instance, revision).as_str()) {
        follow.sent = Some(job.clone());
    }
    follow.look(revision, job).await;
    let events = stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok::<Event, Infallible>(event), follow))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// How much of a log was sent.
#[derive(Debug, Default, Clone, Copy)]
struct Cursor {
    offset: u64,
    complete: bool,
}

/// One client that follows one job.
struct Follow<D> {
    desk: D,
    prefix: JobPrefix,
    changes: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    /// Events not handed over yet: at most one view, one piece of each open log, and the end.
    pending: VecDeque<Event>,
    /// What the client has seen last.
    sent: Option<JobView>,
    /// How much of each log was sent, when logs were asked for.
    logs: Option<BTreeMap<LogKey, Cursor>>,
    completed: bool,
    /// Whether there is more output than one piece of each log.
    catching_up: bool,
    ended: bool,
    instance: u64,
}

/// Names a revision. Another process may count the same number for another state, so the number alone would not do.
fn event_id(instance: u64, revision: u64) -> String {
    format!("{instance:016x}.{revision}")
}

impl<D: Desk> Follow<D> {
    /// The next event, or nothing at the end. Cancel safe: an event is taken from `pending` only to be handed over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if self.catching_up {
                if *self.stopping.borrow() {
                    return None;
                }
            } else {
                tokio::select! {
                    stop = self.stopping.wait_for(|stop| *stop) => {
                        drop(stop);
                        return None;
                    }
                    change = self.changes.changed() => change.ok()?,
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            let revision = *self.changes.borrow_and_update();
            // A desk that cannot answer is on its way down: the client comes back and finds out more.
            let job = self.desk.job(&self.prefix).await.ok()?;
            self.look(revision, job).await;
            self.desk.kept().await.ok()?;
        }
    }

    /// Makes events of what is new. Output goes before the view, so that a settled job comes after what it said.
    async fn look(&mut self, revision: u64, job: JobView) {
        let more = self.read_logs(&job).await;
        self.catching_up = more;
        let whole = self.logs.as_ref().is_none_or(|logs| logs.values().all(|cursor| cursor.complete));
        let settled = job.state.is_settled();
        if self.sent.as_ref() != Some(&job) && !(more && settled) {
            self.push("job", Some(revision), &job);
            self.sent = Some(job);
        }
        if settled && whole && !more && !self.completed {
            self.completed = true;
            self.pending.push_back(Event::default().event("complete").data("{}"));
        }
        self.completed &= settled;
    }

    /// Queues one piece of each open log. Answers whether there is more to read at once.
    async fn read_logs(&mut self, job: &JobView) -> bool {
        let Some(mut logs) = self.logs.take() else { return false };
        let mut more = false;
        for key in keys(job) {
            let cursor = logs.entry(key.clone()).or_default();
            if cursor.complete {
                continue;
            }
            match self.desk.read_log(&key, cursor.offset, LOG_EVENT_BYTES_MAX).await {
                Ok(piece) => more |= self.queue_log(key, cursor, piece),
                Err(error) => warn!(%error, run = %key.run, step = %key.step, "A log that is followed cannot be read."),
            }
        }
        self.logs = Some(logs);
        more
    }

    fn queue_log(&mut self, key: LogKey, cursor: &mut Cursor, piece: LogPiece) -> bool {
        let read_all = cursor.offset.saturating_add(piece.bytes.len() as u64) >= piece.size;
        let last = piece.complete && read_all;
        let length = if last { piece.bytes.len() } else { whole_characters(&piece.bytes) };
        cursor.complete = last;
        if length == 0 {
            return false;
        }
        let log = LogView {
            run: key.run,
            step: key.step,
            attempt: key.attempt,
            stream: key.stream,
            offset: cursor.offset,
            bytes: length as u64,
            text: String::from_utf8_lossy(&piece.bytes[..length]).into_owned(),
        };
        cursor.offset += length as u64;
        self.push("log", None, &log);
        !read_all
    }

    fn push<T: Schema + Serialize + Clone>(&mut self, name: &str, id: Option<u64>, view: &T) {
        match Event::default().event(name).json_data(Answer::new(view.clone())) {
            Ok(event) => self.pending.push_back(match id {
                Some(id) => event.id(event_id(self.instance, id)),
                None => event,
            }),
            Err(error) => {
                warn!(%error, name, "An event cannot be written; its stream ends.");
                self.ended = true;
            }
        }
    }
}

/// The logs that a job has so far.
fn keys(job: &JobView) -> impl Iterator<Item = LogKey> + '_ {
    job.runs.iter().flat_map(|run| {
        run.steps.iter().flat_map(move |step| {
            (step.attempt.saturating_sub(ATTEMPTS_MAX) + 1..=step.attempt).flat_map(move |attempt| {
                let key = move |stream| LogKey { run: run.id, step: step.id.clone(), attempt, stream };
                [key(LogStream::Stdout), key(LogStream::Stderr)]
            })
        })
    })
}

/// How many of the bytes are whole characters: a character cut in two must not become two replacement marks. What is not UTF-8
/// at all counts as whole.
fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let length = match bytes[at] {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            _ => 1,
        };
        return if length > back { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_cut_in_two() {
        let text = "aé€😀";
        for cut in 0..=text.len() {
            let whole = whole_characters(&text.as_bytes()[..cut]);
            assert!(text.is_char_boundary(whole) && cut - whole < 4, "{cut} {whole}");
        }
        assert_eq!(whole_characters(&[0xFF, 0xFE]), 2);
        assert_eq!(whole_characters(&[0x80; 8]), 8);
        assert_eq!(whole_characters(&[]), 0);
    }
}
