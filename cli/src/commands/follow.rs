//! Watching a job until it ends. A thread reads the event stream and comes back after every loss; this side prints, and never
//! touches the job: Ctrl-C only stops watching.

use std::thread;
use std::time::Duration;

use messages::{AgentId, JobId, LogStream, StepId};
use serde::Serialize;
use server::views::{Answer, JobState, JobView, LogView, Schema};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::follow_lines::Lines;
use super::job::short;
use crate::args::{Format, Global};
use crate::client::{Client, ClientError, Event};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;

/// Events between the reader and the printer. A full channel makes the reader wait, and through it the server.
const EVENTS_MAX: usize = 64;
/// Time between two tries to come back to the server.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the last output is waited for when the job has ended. A job's end never waits for its logs; a watcher may a little.
const LOGS_GRACE: Duration = Duration::from_secs(5);
/// A wait without limit, as a limit: a century.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How to watch.
#[derive(Debug, Clone)]
pub(super) struct FollowOptions {
    /// Whether to show what the steps write.
    pub(super) logs: bool,
    /// Of what to show it.
    pub(super) only: Only,
    /// How long to watch.
    pub(super) timeout: Option<Duration>,
}

/// Whose output is shown: with nothing said, everybody's.
#[derive(Debug, Clone, Default)]
pub(super) struct Only {
    /// Of this agent.
    pub(super) agent: Option<AgentId>,
    /// Of this step.
    pub(super) step: Option<StepId>,
    /// This output.
    pub(super) stream: Option<LogStream>,
}

impl Only {
    fn wants(&self, job: Option<&JobView>, log: &LogView) -> bool {
        let of = |agent: &AgentId| {
            job.is_some_and(|job| job.runs.iter().any(|run| run.id == log.run && run.agent == *agent))
        };
        self.agent.as_ref().is_none_or(of)
            && self.step.as_ref().is_none_or(|step| *step == log.step)
            && self.stream.is_none_or(|stream| stream == log.stream)
    }
}

/// Why watching cannot go on. The job can.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    /// The system gives no way to wait.
    #[error("cannot wait for events")]
    Runtime(#[source] std::io::Error),
    /// The reader's thread is gone.
    #[error("the event stream ended for good")]
    Ended,
    /// An event is not what it says it is.
    #[error("the server sent an event that this version does not understand")]
    Event(#[source] serde_json::Error),
}

/// What the reader has to say.
enum News {
    Event(Event),
    /// The server is away, for this reason; the reader tries to come back.
    Lost(String),
    /// The reader has given up.
    Over(ClientError),
}

/// Watches a job.
pub(super) fn follow(
    client: Client,
    global: &Global,
    job: JobId,
    options: FollowOptions,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let (sender, news) = mpsc::channel(EVENTS_MAX);
    // What was written before comes before the first view. Without this nobody could tell whose it is; the stream says why it cannot be had.
    let known = client.get::<JobView>(&format!("/v1/jobs/{job}")).ok();
    let global = global.clone();
    let logs = options.logs;
    thread::spawn(move || read(client, &global, job, logs, &sender));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&FollowError::Runtime(error), job))?;
    let lines = Lines::new(printer);
    runtime.block_on(Watch { job, options, printer, lines, known, latest: None, away: false }.run(news))
}

/// Reads the event stream, and comes back after every loss, until nobody listens any more.
fn read(mut client: Client, global: &Global, job: JobId, logs: bool, news: &mpsc::Sender<News>) {
    let path = format!("/v1/jobs/{job}/events?logs={}", u8::from(logs));
    let mut seen: Option<String> = None;
    loop {
        let lost = match client.events(&path, seen.as_deref()) {
            Ok(mut events) => loop {
                match events.next() {
                    Ok(event) => {
                        seen = event.id.clone().or(seen);
                        if news.blocking_send(News::Event(event)).is_err() {
                            return;
                        }
                    }
                    Err(error) => break error.to_string(),
                }
            },
            Err(error) if error.is_passing() => error.to_string(),
            // A restarted server may have a fresh token, which a look at its file shows.
            Err(error @ ClientError::Refused { status: 401, .. }) => match Client::new(global) {
                Ok(fresh) if !fresh.is_same(&client) => {
                    client = fresh;
                    continue;
                }
                Ok(_) | Err(_) => return drop(news.blocking_send(News::Over(error))),
            },
            Err(error) => return drop(news.blocking_send(News::Over(error))),
        };
        if news.blocking_send(News::Lost(lost)).is_err() {
            return;
        }
        thread::sleep(PAUSE);
        client = Client::new(global).unwrap_or(client);
    }
}

/// The printing side.
struct Watch<'a> {
    job: JobId,
    options: FollowOptions,
    printer: &'a Printer,
    lines: Lines<'a>,
    /// The job as it was before the first event.
    known: Option<JobView>,
    latest: Option<JobView>,
    away: bool,
}

impl Watch<'_> {
    async fn run(mut self, mut news: mpsc::Receiver<News>) -> Result<Exit, Failure> {
        let start = Instant::now();
        let deadline = start + self.options.timeout.unwrap_or(FOREVER).min(FOREVER);
        let mut grace = start + FOREVER;
        // One listener for the whole time: one for each turn would miss what comes between two turns.
        let mut interrupts =
            signal(SignalKind::interrupt()).map_err(|error| failed(&FollowError::Runtime(error), self.job))?;
        if let (Some(known), Format::Table | Format::Wide) = (&self.known, self.printer.format()) {
            self.lines.head(known)?;
        }
        loop {
            tokio::select! {
                _ = interrupts.recv() => {
                    self.say(&format!("stopped watching; job {} goes on", short(self.job)));
                    return Ok(Exit::Interrupted);
                }
                () = sleep_until(deadline) => {
                    self.say(&format!("stopped watching after the time given; job {} goes on", short(self.job)));
                    return Ok(Exit::WaitTimedOut);
                }
                () = sleep_until(grace) => {
                    self.say("not all output has arrived yet; `longshore job logs` shows it when it has");
                    return self.end();
                }
                heard = news.recv() => {
                    let heard = heard.ok_or_else(|| failed(&FollowError::Ended, self.job))?;
                    if self.take(heard)? {
                        return self.end();
                    }
                    if self.latest.as_ref().is_some_and(|job| job.state.is_settled()) {
                        grace = grace.min(Instant::now() + LOGS_GRACE);
                    } else {
                        grace = start + FOREVER;
                    }
                }
            }
        }
    }

    /// Takes in news. Answers whether all was said.
    fn take(&mut self, news: News) -> Result<bool, Failure> {
        let event = match news {
            News::Event(event) => event,
            News::Lost(why) => {
                if !self.away {
                    self.away = true;
                    self.say(&format!(
                        "server unreachable ({}); the job goes on, this comes back by itself; Ctrl-C only stops watching",
                        crate::output::clean(&why)
                    ));
                }
                return Ok(false);
            }
            News::Over(error) => return Err(error.into()),
        };
        if std::mem::take(&mut self.away) {
            self.say("server back");
        }
        let malformed = |error| failed(&FollowError::Event(error), self.job);
        match event.name.as_str() {
            "job" => {
                let answer: Answer<JobView> = serde_json::from_str(&event.data).map_err(malformed)?;
                self.show_job(answer.view)?;
            }
            "log" => {
                let answer: Answer<LogView> = serde_json::from_str(&event.data).map_err(malformed)?;
                self.show_log(&answer.view)?;
            }
            "complete" => return Ok(true),
            // An event of a later version: the views say all that this version needs.
            _ => {}
        }
        // Without logs nothing is to come after a settled view.
        Ok(!self.options.logs && self.latest.as_ref().is_some_and(|job| job.state.is_settled()))
    }

    fn show_job(&mut self, job: JobView) -> Result<(), Failure> {
        match self.printer.format() {
            Format::Table | Format::Wide => self.lines.job(self.latest.as_ref(), &job)?,
            Format::Ndjson => self.json(&job)?,
            // Programs that want one value get the last.
            Format::Json | Format::Csv | Format::Name => {}
        }
        self.latest = Some(job);
        Ok(())
    }

    fn show_log(&mut self, log: &LogView) -> Result<(), Failure> {
        let job = self.latest.as_ref().or(self.known.as_ref());
        if !self.options.only.wants(job, log) {
            return Ok(());
        }
        match (self.lines.fresh(log), self.printer.format()) {
            (Some(text), Format::Table | Format::Wide) => self.lines.log(job, log, &text)?,
            (Some(_), Format::Ndjson) => self.json(log)?,
            (Some(_), Format::Json | Format::Csv | Format::Name) | (None, _) => {}
        }
        Ok(())
    }

    fn json<T: Schema + Serialize + Clone>(&self, view: &T) -> Result<(), Failure> {
        let empty = crate::output::Table::default();
        Ok(self.printer.one(view, "", &empty)?)
    }

    /// A note for people.
    fn say(&mut self, text: &str) {
        self.printer.note(text);
    }

    fn end(mut self) -> Result<Exit, Failure> {
        let Some(job) = self.latest.take() else { return Err(failed(&FollowError::Ended, self.job)) };
        match self.printer.format() {
            Format::Table | Format::Wide => self.lines.end(&job)?,
            Format::Ndjson => {}
            Format::Json | Format::Csv | Format::Name => super::job_show::print(&job, self.printer)?,
        }
        Ok(match job.state {
            JobState::Succeeded => Exit::Ok,
            JobState::Failed | JobState::Cancelled => Exit::Failed,
            JobState::NeedsDecision | JobState::Waiting | JobState::Running => Exit::Unknown,
        })
    }
}

fn failed(error: &FollowError, job: JobId) -> Failure {
    let next = format!("look again with `longshore job show {job}`");
    Failure::new(Exit::Unreachable, error, "the job goes on; only watching it ended", next)
}
