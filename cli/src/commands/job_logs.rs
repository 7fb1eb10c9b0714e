//! `longshore job logs`: what the steps of a job wrote. One log is printed as the bytes it is; several get a heading each. On a
//! terminal, control characters other than tabs and line ends are replaced. With `--follow` it is the rest of the job, as `job run`
//! shows it.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use messages::{AgentId, LogStream, StepId};
use serde::Serialize;
use server::api::JobPrefix;
use server::views::{JobView, LogView, RunView, Schema, StepView};

use super::follow::{self, FollowOptions, Only};
use super::job::path;
use crate::args::{Format, Global, wait, whole};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Printer, Table, clean};

/// Arguments of `longshore job logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "A log is printed as it is, or as JSON with -o json or ndjson. With --follow, -o means what it means to `job run --follow`."
)]
pub(crate) struct JobLogsArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: JobPrefix,
    /// Only of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentId>,
    /// Only of this step
    #[arg(long, value_name = "STEP")]
    step: Option<StepId>,
    /// Only this output: stdout or stderr
    #[arg(long, value_name = "STREAM", value_parser = stream)]
    stream: Option<LogStream>,
    /// This attempt at each step [default: the latest]
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1..=u64::from(u32::MAX)), conflicts_with = "follow")]
    attempt: Option<u32>,
    /// Watch the job until it ends, as `job run --follow` does, with the same exit codes
    #[arg(short, long)]
    follow: bool,
    /// Stop watching after this time, for example 10m, with exit code 124; the job goes on
    #[arg(long, value_name = "TIME", requires = "follow", value_parser = wait)]
    timeout: Option<Duration>,
}

fn stream(text: &str) -> Result<LogStream, &'static str> {
    [LogStream::Stdout, LogStream::Stderr]
        .into_iter()
        .find(|stream| stream.as_str() == text)
        .ok_or("expected stdout or stderr")
}

/// Prints the logs.
pub(crate) fn run(args: &JobLogsArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let client = Client::new(global)?;
    let job: JobView = client.get(&path(&args.job))?;
    if args.follow {
        let only = Only { agent: args.agent.clone(), step: args.step.clone(), stream: args.stream };
        let options = FollowOptions { logs: true, only, timeout: args.timeout };
        return match unknown(args, &job) {
            Some(error) => Err(nothing(error, &job)),
            None => follow::follow(client, global, job.id, options, printer),
        };
    }
    let wanted = wanted(args, &job);
    if wanted.is_empty() {
        let begun = || "no step that was asked for has begun, or not in that many attempts".to_owned();
        return Err(nothing(unknown(args, &job).unwrap_or_else(begun), &job));
    }
    match printer.format() {
        Format::Json | Format::Ndjson => return for_programs(args, &job, &wanted, &client, printer),
        Format::Table | Format::Wide | Format::Csv | Format::Name => {}
    }
    let several = wanted.len() > 1;
    let mut size = 0;
    for (run, step, stream) in wanted {
        size += print(&Log { args, job: &job, run, step, stream, heading: several }, &client, printer)?;
    }
    if size == 0 {
        printer.note("nothing was written so far");
    }
    Ok(Exit::Ok)
}

fn wanted<'a>(args: &JobLogsArgs, job: &'a JobView) -> Vec<(&'a RunView, &'a StepView, LogStream)> {
    let mut wanted = Vec::new();
    for run in job.runs.iter().filter(|run| args.agent.as_ref().is_none_or(|agent| *agent == run.agent)) {
        for step in run.steps.iter().filter(|step| step.attempt >= args.attempt.unwrap_or(1)) {
            if args.step.as_ref().is_some_and(|id| *id != step.id) {
                continue;
            }
            let streams = [LogStream::Stdout, LogStream::Stderr];
            let streams = streams.into_iter().filter(|stream| args.stream.is_none_or(|only| only == *stream));
            wanted.extend(streams.map(|stream| (run, step, stream)));
        }
    }
    wanted
}

/// What was asked for that the job does not have, in words.
fn unknown(args: &JobLogsArgs, job: &JobView) -> Option<String> {
    match (&args.agent, &args.step) {
        (Some(agent), _) if job.runs.iter().all(|run| run.agent != *agent) => {
            Some(format!("the job does not run on `{agent}`"))
        }
        (_, Some(step)) if job.runs.iter().flat_map(|run| &run.steps).all(|known| known.id != *step) => {
            Some(format!("the job has no step `{step}`"))
        }
        _ => None,
    }
}

fn nothing(error: String, job: &JobView) -> Failure {
    let next = format!("`longshore job show {}` shows agents, steps and attempts", job.id);
    Failure::words(Exit::Usage, error, "nothing was changed", next)
}

/// One log to print.
struct Log<'a> {
    args: &'a JobLogsArgs,
    job: &'a JobView,
    run: &'a RunView,
    step: &'a StepView,
    stream: LogStream,
    heading: bool,
}

/// Logs as JSON.
#[derive(Debug, Clone, Serialize)]
struct LogsView {
    /// Their pieces, each at most a mebibyte, in order.
    pieces: Vec<LogView>,
    /// Whether all of them are whole.
    complete: bool,
}

impl Schema for LogsView {
    const SCHEMA: &'static str = "longshore.logs/1";
}

/// Prints logs as JSON: one value, or a piece in each line. What is not UTF-8 is replaced.
fn for_programs(
    args: &JobLogsArgs,
    job: &JobView,
    wanted: &[(&RunView, &StepView, LogStream)],
    client: &Client,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let mut view = LogsView { pieces: Vec::new(), complete: true };
    for (run, step, stream) in wanted {
        let attempt = args.attempt.unwrap_or(step.attempt);
        let query = format!("run={}&step={}&stream={stream}&attempt={attempt}", run.id, step.id);
        let mut offset: u64 = 0;
        loop {
            let piece = client.log(&format!("/v1/jobs/{}/logs?{query}&offset={offset}", job.id))?;
            let (bytes, text) = (piece.bytes.len() as u64, String::from_utf8_lossy(&piece.bytes).into_owned());
            let found = LogView { run: run.id, step: step.id.clone(), attempt, stream: *stream, offset, bytes, text };
            offset += bytes;
            let last = bytes == 0 || offset >= piece.size;
            view.complete &= piece.complete || !last;
            if bytes > 0 {
                view.pieces.push(found);
            }
            if printer.format() == Format::Ndjson {
                printer.list(&view, &view.pieces, &Table::default())?;
                view.pieces.clear();
            }
            if last {
                break;
            }
        }
    }
    if printer.format() == Format::Json {
        printer.list(&view, &view.pieces, &Table::default())?;
    }
    Ok(Exit::Ok)
}

/// Prints one log, and answers its size.
fn print(log: &Log<'_>, client: &Client, printer: &Printer) -> Result<u64, Failure> {
    let Log { run, step, stream, .. } = log;
    let attempt = log.args.attempt.unwrap_or(step.attempt);
    let terminal = std::io::stdout().is_terminal();
    let query = format!("run={}&step={}&stream={stream}&attempt={attempt}", run.id, step.id);
    let mut offset: u64 = 0;
    loop {
        let piece = client.log(&format!("/v1/jobs/{}/logs?{query}&offset={offset}", log.job.id))?;
        if offset == 0 && log.heading && piece.size > 0 {
            printer.text(&format!("==> {} {} {stream}, attempt {attempt} <==\n", run.agent, step.id))?;
        }
        if terminal {
            let text = String::from_utf8_lossy(&piece.bytes);
            let lines: Vec<String> = text.split('\n').map(clean).collect();
            printer.text(&lines.join("\n"))?;
        } else {
            printer.bytes(&piece.bytes)?;
        }
        offset += piece.bytes.len() as u64;
        if piece.bytes.is_empty() || offset >= piece.size {
            if !piece.complete && log.job.state.is_settled() {
                printer.note(&format!("{} {} {stream}: not all of it has arrived yet", run.agent, step.id));
            }
            if piece.cut > 0 {
                let cut = piece.cut;
                printer
                    .note(&format!("{} {} {stream}: {cut} bytes beyond its limit were not kept", run.agent, step.id));
            }
            return Ok(piece.size);
        }
    }
}
