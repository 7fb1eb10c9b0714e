//! `longshore job list` and `longshore job show`.

use clap::Args;
use messages::StepId;
use server::api::{JOBS_LIMIT_MAX, JobPrefix};
use server::views::{JobLink, JobState, JobView, JobsView, RunView, StepView};

use super::job::{path, short};
use crate::args::{Format, Global, whole};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Printer, Table, clean, now_ms, state_style, took};

/// What a decision does besides deciding.
pub(super) const ENDED_FIRST: &str = "and ends the processes of the step that still run";

/// Arguments of `longshore job list`.
#[derive(Debug, Args)]
pub(crate) struct JobListArgs {
    /// At most so many, the latest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = whole::<u64>(1..=JOBS_LIMIT_MAX as u64))]
    limit: u64,
    /// Only jobs in this state: waiting, running, succeeded, failed, cancelled, needs-decision
    #[arg(long, value_name = "STATE")]
    state: Option<JobState>,
}

/// Arguments of `longshore job show`.
#[derive(Debug, Args)]
pub(crate) struct JobShowArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: JobPrefix,
}

/// Prints the latest jobs.
pub(crate) fn list(args: &JobListArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let state = args.state.map(|state| format!("&state={state}")).unwrap_or_default();
    let view: JobsView = Client::new(global)?.get(&format!("/v1/jobs?limit={}{state}", args.limit))?;
    let clock = &printer.clock;
    let mut table = Table::new([
        Column::new("JOB"),
        Column::new("NAME"),
        Column::new("STATE"),
        Column::number("AGENTS"),
        Column::number("STEPS"),
        Column::new("STOPPED AT").raw("stopped_at"),
        Column::new(clock.heading("AGE", "CREATED")).raw("created_ms"),
        Column::new("TOOK").raw("took_ms"),
        Column::new("ID").wide(),
    ]);
    for job in &view.jobs {
        table.row([
            Cell::both(short(job.id), job.id),
            Cell::new(&job.name),
            Cell::new(job.state),
            Cell::new(job.agents),
            Cell::new(format!("{}/{}", job.steps_passed, job.steps)),
            stopped(&job.stopped_at),
            Cell::both(clock.show(job.created_ms), job.created_ms),
            span(Some(job.created_ms), job.ended_ms),
            Cell::new(job.id),
        ]);
    }
    printer.list(&view, &view.jobs, &table)?;
    if printer.for_people() && view.jobs.is_empty() {
        printer.note("no jobs");
    }
    if printer.for_people() && view.more {
        printer.note("there are more; give -n N for more of them");
    }
    Ok(Exit::Ok)
}

/// The steps at which a job stopped. With many agents it may be many.
fn stopped(steps: &[StepId]) -> Cell {
    let steps: Vec<&str> = steps.iter().map(StepId::as_str).collect();
    match steps.as_slice() {
        [] => Cell::none(),
        [first, second, _, ..] => Cell::both(format!("{first} {second} +{}", steps.len() - 2), steps.join(" ")),
        [_] | [_, _] => Cell::new(steps.join(" ")),
    }
}

/// Prints one job.
pub(crate) fn show(args: &JobShowArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let view: JobView = Client::new(global)?.get(&path(&args.job))?;
    print(&view, printer)?;
    if printer.for_people() {
        if let Some(hint) = super::job_retry::hint(&view) {
            printer.note(&hint);
        }
        if view.state == JobState::NeedsDecision {
            let id = short(view.id);
            printer
                .note(&format!("`longshore job resolve {id} --as done|retry|fail --note WHY` decides, {ENDED_FIRST}"));
        }
    }
    Ok(Exit::Ok)
}

/// Prints a job with its runs and steps.
pub(super) fn print(job: &JobView, printer: &Printer) -> Result<(), Failure> {
    if printer.format() == Format::Name {
        return Ok(printer.text(&format!("{}\n", job.id))?);
    }
    let clock = &printer.clock;
    let end = job.ended_ms.unwrap_or_else(now_ms);
    let style = state_style(job.state.as_str());
    let mut text = format!(
        "job {} · {} · {style}{}{style:#} · created {} · {}\n",
        job.id,
        clean(&job.name),
        job.state,
        clock.absolute(job.created_ms),
        took(end.saturating_sub(job.created_ms)),
    );
    let waiting = job.waiting.as_ref().map(|why| format!("  waiting: {}\n", clean(why)));
    let cancelled = job.cancelled.as_ref().map(|why| format!("  cancelled: {}\n", clean(why)));
    text.extend(waiting.into_iter().chain(cancelled));
    text.push_str(&chain(job));
    for run in &job.runs {
        text.push_str(&run_line(run));
    }
    text.push('\n');
    let mut table = Table::new([
        Column::new("AGENT"),
        Column::new("STEP"),
        Column::new("STATE"),
        Column::new("EFFECT"),
        Column::number("ATTEMPT"),
        Column::new("TOOK").raw("took_ms"),
        Column::new("DETAIL"),
        Column::new("RUN").wide(),
    ]);
    for (run, step) in job.runs.iter().flat_map(|run| run.steps.iter().map(move |step| (run, step))) {
        table.row([
            Cell::new(&run.agent),
            Cell::new(&step.id),
            Cell::new(step.state),
            Cell::new(&step.effect),
            if step.attempt == 0 { Cell::none() } else { Cell::new(step.attempt) },
            span(step.started_ms, step.ended_ms),
            detail(step),
            Cell::new(run.id),
        ]);
    }
    Ok(printer.one(job, &text, &table)?)
}

/// The jobs that this one does again, and those that do it again.
fn chain(job: &JobView) -> String {
    if job.chain.is_empty() {
        return String::new();
    }
    let link = |link: &JobLink| {
        let style = state_style(link.state.as_str());
        let here = if link.id == job.id { " (this one)" } else { "" };
        format!("{} {style}{}{style:#}{here}", short(link.id), link.state)
    };
    format!("  retries: {}\n", job.chain.iter().map(link).collect::<Vec<_>>().join(" → "))
}

/// What is to be said of a step, with what its agent could not do as it wants it.
fn detail(step: &StepView) -> Cell {
    let said: Vec<&str> = step.detail.iter().chain(&step.note).map(String::as_str).collect();
    if said.is_empty() { Cell::none() } else { Cell::new(said.join("; ")) }
}

fn run_line(run: &RunView) -> String {
    let style = state_style(run.state.as_str());
    let passed = run.steps.iter().filter(|step| step.state.is_passed()).count();
    let stopped = run.stopped_at().map(|step| format!(" at {step}")).unwrap_or_default();
    let reason = run.reason.as_ref().map(|reason| format!(" · {}", clean(reason))).unwrap_or_default();
    let retried = run.retried.map(|by| format!(" · started again as {}", short(by))).unwrap_or_default();
    let (agent, state, steps) = (&run.agent, run.state, run.steps.len());
    format!("  {agent} {style}{state}{style:#}{stopped} · {passed}/{steps} steps{reason}{retried}\n")
}

fn span(from_ms: Option<u64>, to_ms: Option<u64>) -> Cell {
    match (from_ms, to_ms) {
        (Some(from), Some(to)) => Cell::both(took(to.saturating_sub(from)), to.saturating_sub(from)),
        _ => Cell::none(),
    }
}
