//! `longshore-chaos simulate`: runs seeds, prints what they came to, and says how to run again what failed. It prints; what is
//! right and wrong is decided in [`sim`](crate::sim).

use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::out;
use crate::sim::{Caught, Options, Outcome, Planted, Summary, hunt, run_with_twin, sweep};

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Broken promises that are listed; more are only counted.
const LISTED_MAX: usize = 20;

/// What to simulate.
#[derive(Debug, Args)]
pub struct Simulate {
    /// How many seeds to run; with --planted, how many to try for each fault
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this one seed
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// With --seed: print its timeline (virtual time, endpoint, event)
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plant known faults and show which checker finds each; with --seed, plant the one that --fault names
    #[arg(long)]
    planted: bool,
    /// The planted fault, by its name in the table
    #[arg(long, requires = "seed", requires = "planted")]
    fault: Option<String>,
    /// The form of what is printed
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// One JSON document
    Json,
}

impl Simulate {
    /// Runs it. Failure when a promise was broken, or when a planted fault was not found.
    #[must_use]
    pub fn execute(&self) -> ExitCode {
        let passed = match (self.seed, self.planted) {
            (Some(seed), _) => self.one(seed),
            (None, true) => self.table(),
            (None, false) => self.many(),
        };
        match passed {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(why) => {
                out::note(format_args!("{why}\n"));
                ExitCode::from(2)
            }
        }
    }

    fn one(&self, seed: u64) -> Result<bool, String> {
        let planted = match &self.fault {
            None if self.planted => {
                return Err("say with --fault which fault is to be planted into that seed".to_owned());
            }
            None => None,
            Some(name) => {
                let known = Planted::ALL.into_iter().find(|planted| planted.name() == name);
                Some(known.ok_or_else(|| format!("no planted fault is called {name}; see the table of --planted"))?)
            }
        };
        let options = Options { trace: self.trace, planted, ..Options::default() };
        let outcome = run_with_twin(seed, options);
        let command = command(seed, planted);
        match self.output {
            Form::Json => print_json(&one_json(&outcome, &command)),
            Form::Text => out::print(&One { outcome: &outcome, command: &command }),
        }
        Ok(outcome.violation.is_none())
    }

    fn many(&self) -> Result<bool, String> {
        let began = Instant::now();
        let shown = Mutex::new(began);
        let terminal = std::io::stderr().is_terminal();
        let progress = |done: u64, broken: u64| {
            let Ok(mut last) = shown.try_lock() else { return };
            if last.elapsed() >= PROGRESS_EVERY {
                *last = Instant::now();
                let end = if terminal { "\r" } else { "\n" };
                out::note(format_args!("{done} of {} seeds, {broken} failed{end}", self.seeds));
            }
        };
        let summary = sweep(self.from, self.seeds, Options::default(), &progress);
        match self.output {
            Form::Json => print_json(&summary_json(&summary, began.elapsed())),
            Form::Text => out::print(&Many { summary: &summary, took: began.elapsed() }),
        }
        Ok(summary.violations.is_empty())
    }

    fn table(&self) -> Result<bool, String> {
        quiet_panics();
        let table: Vec<Caught> = Planted::ALL.into_iter().map(|planted| hunt(planted, self.from, self.seeds)).collect();
        match self.output {
            Form::Json => print_json(&table_json(&table)),
            Form::Text => out::print(&Table { rows: &table, seeds: self.seeds }),
        }
        Ok(table.iter().all(|row| row.by.is_some()))
    }
}

/// A planted fault may well make something panic, which is a way of being found; its words are in the table.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

fn print_json(value: &serde_json::Value) {
    out::print(format_args!("{value:#}\n"));
}

/// The command that runs a seed again.
#[must_use]
pub fn command(seed: u64, planted: Option<Planted>) -> String {
    let planted = planted.map_or_else(String::new, |planted| format!(" --planted --fault {}", planted.name()));
    format!("cargo run -p chaos-tests --bin longshore-chaos -- simulate --seed {seed} --trace{planted}")
}

struct One<'a> {
    outcome: &'a Outcome,
    command: &'a str,
}

impl fmt::Display for One<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.outcome.lines {
            writeln!(f, "{line}")?;
        }
        let Outcome { seed, steps, passed_ms, messages, resent, executed, .. } = self.outcome;
        writeln!(
            f,
            "seed {seed}: {steps} steps in {} virtual seconds, {messages} messages, {resent} sent again, {executed} executions",
            passed_ms / 1_000
        )?;
        for (class, count) in &self.outcome.faults {
            writeln!(f, "  {count:>6} {class:?}")?;
        }
        match &self.outcome.violation {
            None => writeln!(f, "PASS"),
            Some(violation) => writeln!(f, "FAIL {violation}\n  again: {}", self.command),
        }
    }
}

struct Many<'a> {
    summary: &'a Summary,
    took: Duration,
}

impl fmt::Display for Many<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { seeds, steps, passed_ms, messages, resent, executed, stopped, faults, violations } = self.summary;
        let took = self.took.as_secs_f64();
        writeln!(f, "{seeds} seeds in {took:.1} s: {steps} steps, {} virtual days", passed_ms / 86_400_000)?;
        writeln!(
            f,
            "{messages} messages, {resent} sent again, {executed} executions, {stopped} streams stopped for a reason"
        )?;
        writeln!(f, "faults:")?;
        for (class, count) in faults {
            writeln!(f, "  {count:>9} {class:?}")?;
        }
        for (seed, violation) in violations.iter().take(LISTED_MAX) {
            writeln!(f, "FAIL seed {seed}: {violation}\n  again: {}", command(*seed, None))?;
        }
        if violations.len() > LISTED_MAX {
            writeln!(f, "and {} more", violations.len() - LISTED_MAX)?;
        }
        match violations.len() {
            0 => writeln!(f, "PASS"),
            broken => writeln!(f, "FAIL: {broken} of {seeds} seeds"),
        }
    }
}

struct Table<'a> {
    rows: &'a [Caught],
    seeds: u64,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<36} {:>5}  {:<7} {:<18} what it saw", "fault", "seed", "promise", "checker")?;
        for row in self.rows {
            match &row.by {
                Some((seed, violation)) => {
                    let promise = format!("{:?}", violation.promise);
                    let (name, checker) = (row.planted.name(), violation.checker);
                    writeln!(f, "{name:<36} {seed:>5}  {promise:<7} {checker:<18} {}", violation.what)?;
                }
                None => writeln!(f, "{:<36} ESCAPED {} seeds", row.planted.name(), self.seeds)?,
            }
        }
        let caught = self.rows.iter().filter(|row| row.by.is_some()).count();
        writeln!(f, "{caught} of {} found", self.rows.len())
    }
}

fn one_json(outcome: &Outcome, command: &str) -> serde_json::Value {
    let faults: Vec<_> =
        outcome.faults.iter().map(|(class, count)| json!({ "class": format!("{class:?}"), "count": count })).collect();
    json!({
        "seed": outcome.seed,
        "steps": outcome.steps,
        "virtual_ms": outcome.passed_ms,
        "messages": outcome.messages,
        "resent": outcome.resent,
        "executions": outcome.executed,
        "stopped": outcome.stopped,
        "faults": faults,
        "fingerprint": format!("{:016x}", outcome.fingerprint),
        "violation": outcome.violation.as_ref().map(|violation| violation_json(outcome.seed, violation)),
        "again": command,
        "trace": outcome.lines,
    })
}

fn violation_json(seed: u64, violation: &crate::sim::Violation) -> serde_json::Value {
    json!({
        "seed": seed,
        "promise": format!("{:?}", violation.promise),
        "checker": violation.checker,
        "virtual_ms": violation.at,
        "what": violation.what,
        "again": command(seed, None),
    })
}

fn summary_json(summary: &Summary, took: Duration) -> serde_json::Value {
    let faults: serde_json::Map<_, _> =
        summary.faults.iter().map(|(class, count)| (format!("{class:?}"), json!(count))).collect();
    let violations: Vec<_> =
        summary.violations.iter().map(|(seed, violation)| violation_json(*seed, violation)).collect();
    json!({
        "seeds": summary.seeds,
        "seconds": took.as_secs_f64(),
        "steps": summary.steps,
        "virtual_ms": summary.passed_ms,
        "messages": summary.messages,
        "resent": summary.resent,
        "executions": summary.executed,
        "stopped": summary.stopped,
        "faults": faults,
        "violations": violations,
        "passed": summary.violations.is_empty(),
    })
}

fn table_json(table: &[Caught]) -> serde_json::Value {
    let rows: Vec<_> = table
        .iter()
        .map(|row| {
            let by = row.by.as_ref();
            json!({
                "fault": row.planted.name(),
                "seed": by.map(|(seed, _)| seed),
                "promise": by.map(|(_, violation)| format!("{:?}", violation.promise)),
                "checker": by.map(|(_, violation)| violation.checker),
                "what": by.map(|(_, violation)| violation.what.clone()),
                "again": by.map(|(seed, _)| command(*seed, Some(row.planted))),
            })
        })
        .collect();
    json!({ "faults": rows, "passed": table.iter().all(|row| row.by.is_some()) })
}
