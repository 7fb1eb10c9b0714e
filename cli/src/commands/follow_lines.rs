//! A job that is being watched, as lines: one for each step that ended, one for each line that a step wrote, one at the end.
//! Output that a stream repeats after a loss is recognised by its offset and dropped.

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use messages::{LogKey, RunId};
use server::views::{JobState, JobView, LogView, RunState, RunView, StepState, StepView, counted};

use super::job::short;
use super::job_show::ENDED_FIRST;
use crate::failure::Failure;
use crate::output::{OutputError, Printer, clean, now_ms, state_style, took};

const DIM: Style = Style::new().dimmed();
const WARN: Style = AnsiColor::Yellow.on_default();
/// Bytes of a line that is not finished. A step that writes more without a line end gets it broken here.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// What one log has shown.
#[derive(Debug, Default)]
struct Shown {
    offset: u64,
    open_line: String,
}

/// Prints lines.
pub(super) struct Lines<'a> {
    printer: &'a Printer,
    logs: BTreeMap<LogKey, Shown>,
    /// The first line is there.
    headed: bool,
}

impl<'a> Lines<'a> {
    /// Lines on that printer.
    pub(super) const fn new(printer: &'a Printer) -> Self {
        Self { printer, logs: BTreeMap::new(), headed: false }
    }

    /// What is new between two views of the job.
    pub(super) fn job(&mut self, before: Option<&JobView>, job: &JobView) -> Result<(), OutputError> {
        self.head(job)?;
        let mut text = String::new();
        for run in &job.runs {
            let known = before.and_then(|job| job.runs.iter().find(|known| known.id == run.id));
            text.push_str(&run_lines(known, run));
        }
        if self.printer.progress() { self.printer.text(&text) } else { Ok(()) }
    }

    /// Which job it is, and whose, once.
    pub(super) fn head(&mut self, job: &JobView) -> Result<(), OutputError> {
        if std::mem::replace(&mut self.headed, true) || !self.printer.progress() {
            return Ok(());
        }
        let agents: Vec<&str> = job.runs.iter().map(|run| run.agent.as_str()).collect();
        self.printer.text(&format!("job {} {} → {}\n", short(job.id), clean(&job.name), agents.join(", ")))
    }

    /// The part of a piece of output that was not shown yet.
    pub(super) fn fresh(&mut self, log: &LogView) -> Option<String> {
        let shown = self.logs.entry(key(log)).or_default();
        let end = log.offset.saturating_add(log.bytes);
        if end <= shown.offset {
            return None;
        }
        let skip = usize::try_from(shown.offset.saturating_sub(log.offset)).unwrap_or(usize::MAX);
        shown.offset = end;
        // Pieces can be cut anew after a loss. Replaced bytes make offsets in the text inexact, and then a few may repeat.
        Some(log.text.get(skip..).unwrap_or(&log.text).to_owned())
    }

    /// Lines that a step wrote. The unfinished last one waits for its end.
    pub(super) fn log(&mut self, job: Option<&JobView>, log: &LogView, text: &str) -> Result<(), OutputError> {
        let shown = self.logs.entry(key(log)).or_default();
        shown.open_line.push_str(text);
        let name = prefix(job, log.run, log.step.as_str());
        let mut out = String::new();
        if let Some(end) = shown.open_line.rfind('\n') {
            let rest = shown.open_line.split_off(end + 1);
            for line in std::mem::replace(&mut shown.open_line, rest).lines() {
                out.push_str(&format!("{DIM}{name} │{DIM:#} {}\n", clean(line)));
            }
        }
        if shown.open_line.len() > LINE_BYTES_MAX {
            out.push_str(&format!("{DIM}{name} │{DIM:#} {}\n", clean(&std::mem::take(&mut shown.open_line))));
        }
        // What a step wrote is what is asked for, and no progress: whoever does not want it says --no-logs.
        self.printer.text(&out)
    }

    /// The unfinished lines, and how it all ended.
    pub(super) fn end(mut self, job: &JobView) -> Result<(), Failure> {
        let mut text = String::new();
        for (key, shown) in std::mem::take(&mut self.logs) {
            if !shown.open_line.is_empty() {
                let name = prefix(Some(job), key.run, key.step.as_str());
                text.push_str(&format!("{DIM}{name} │{DIM:#} {}\n", clean(&shown.open_line)));
            }
        }
        let style = state_style(job.state.as_str());
        let end = job.ended_ms.unwrap_or_else(now_ms);
        let spent = took(end.saturating_sub(job.created_ms));
        let ok = job.runs.iter().filter(|run| run.state == RunState::Succeeded).count();
        text.push_str(&format!(
            "job {} {style}{}{style:#} in {spent} · {ok} of {} ok\n",
            short(job.id),
            job.state,
            counted(job.runs.len(), "agent")
        ));
        if let Some(hint) = super::job_retry::hint(job) {
            text.push_str(&format!("{hint}\n"));
        }
        if job.state == JobState::NeedsDecision {
            let (id, how) = (short(job.id), "--as done|retry|fail --note WHY");
            text.push_str(&format!(
                "a step's outcome is unknown and it must not run twice: find out what became of it, then\n\
                 longshore job resolve {id} {how}\n\
                 decides, {ENDED_FIRST}\n"
            ));
        }
        Ok(self.printer.text(&text)?)
    }
}

fn key(log: &LogView) -> LogKey {
    LogKey { run: log.run, step: log.step.clone(), attempt: log.attempt, stream: log.stream }
}

fn prefix(job: Option<&JobView>, run: RunId, step: &str) -> String {
    let agent = job.and_then(|job| job.runs.iter().find(|known| known.id == run)).map(|run| run.agent.as_str());
    format!("{} {step}", agent.unwrap_or("?"))
}

fn run_lines(before: Option<&RunView>, run: &RunView) -> String {
    let mut text = String::new();
    for (at, step) in run.steps.iter().enumerate() {
        let known = before.and_then(|run| run.steps.get(at)).map(|step| step.state);
        let news = known != Some(step.state) && step.earlier.is_none();
        if news && step.state.is_dealt_with() {
            text.push_str(&step_line(run, step));
        }
    }
    if before.map(|run| run.state) != Some(run.state) {
        let reason = run.reason.as_deref().map(|reason| format!(": {}", clean(reason))).unwrap_or_default();
        match run.state {
            RunState::Refused => text.push_str(&format!("{} {WARN}✗ refused{WARN:#}{reason}\n", run.agent)),
            RunState::NeedsDecision => {
                text.push_str(&format!("{} {WARN}⚠ needs a decision{WARN:#}{reason}\n", run.agent));
            }
            RunState::Cancelled | RunState::TimedOut | RunState::Expired => {
                text.push_str(&format!("{} {WARN}✗ {}{WARN:#}{reason}\n", run.agent, run.state));
            }
            RunState::Waiting | RunState::Sent | RunState::Accepted | RunState::Running => {}
            RunState::Succeeded | RunState::Failed => {}
        }
    }
    text
}

fn step_line(run: &RunView, step: &StepView) -> String {
    let mark = match step.state {
        StepState::Succeeded | StepState::AlreadyDone => "✓",
        StepState::NeedsDecision => "⚠",
        StepState::Failed | StepState::TimedOut | StepState::Cancelled => "✗",
        StepState::Pending | StepState::Running | StepState::Skipped | StepState::NotRun => "·",
    };
    let style = state_style(step.state.as_str());
    let word = if step.state == StepState::Succeeded { String::new() } else { format!(" {}", step.state) };
    let spent = match (step.started_ms, step.ended_ms) {
        (Some(from), Some(to)) => format!(" {}", took(to.saturating_sub(from))),
        _ => String::new(),
    };
    let again = if step.attempt > 1 { format!(" (attempt {})", step.attempt) } else { String::new() };
    let detail = match (&step.detail, step.state) {
        (Some(detail), state) if state != StepState::Succeeded => format!(": {}", clean(detail)),
        _ => String::new(),
    };
    format!("{} {} {style}{mark}{word}{style:#}{spent}{again}{detail}\n", run.agent, step.id)
}
