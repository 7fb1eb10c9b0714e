//! `longshore job explain`: what an outage would do to each step of a job file, or why a job stands where it does. Changes
//! nothing, and asks a server only about a job.

use std::path::{Path, PathBuf};

use clap::Args;
use messages::{Retry, StepId, When};
use serde::Serialize;
use server::api::JobPrefix;
use server::job_file::{JobFile, StepOutline};
use server::outage::{EffectKind, Fate, Lost, Phase, fate};
use server::views::{ProblemView, Schema};

use super::job::read;
use super::job_explain_run;
use crate::args::{Format, Global};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Printer, Table, clean, took};

/// Arguments of `longshore job explain`.
#[derive(Debug, Args)]
pub(crate) struct JobExplainArgs {
    /// A job file, - for standard input, or the id of a job or the beginning of it
    #[arg(value_name = "FILE|JOB")]
    what: PathBuf,
}

/// What outages would do to a job file.
#[derive(Debug, Clone, Serialize)]
struct ExplainView {
    file: String,
    target: String,
    steps: Vec<StepExplained>,
}

impl Schema for ExplainView {
    const SCHEMA: &'static str = "longshore.explain/1";
}

/// What outages would do to a step.
#[derive(Debug, Clone, Serialize)]
struct StepExplained {
    step: StepId,
    effect: EffectKind,
    /// Its rules, in words.
    rules: Vec<String>,
    outages: Vec<OutageExplained>,
}

/// What one outage would do to a step.
#[derive(Debug, Clone, Copy, Serialize)]
struct OutageExplained {
    phase: Phase,
    lost: Lost,
    fate: Fate,
    words: &'static str,
    may_run_twice: bool,
}

/// Explains a file or a job.
pub(crate) fn run(args: &JobExplainArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let is_file = args.what.as_os_str() == "-" || args.what.exists();
    match args.what.to_str().map(str::parse::<JobPrefix>) {
        Some(Ok(prefix)) if !is_file => job_explain_run::explain(&prefix, global, printer),
        Some(_) | None => explain(&args.what, printer),
    }
}

fn explain(path: &Path, printer: &Printer) -> Result<Exit, Failure> {
    let text = read(path)?;
    let name = if path.as_os_str() == "-" { "standard input".into() } else { clean(&path.display().to_string()) };
    let file = JobFile::parse(&text).map_err(|problems| {
        let error = format!("{name} is not a job file: problems in it");
        let problems = problems.into_iter().map(|problem| ProblemView::new(problem, &text)).collect();
        Failure::words(
            Exit::Usage,
            error,
            "nothing was changed",
            "mend the file; `longshore job lint` shows what is wrong with it, too",
        )
        .with_problems(problems, &name, &text)
    })?;
    let steps = file.outline().map(|step| explained(&step)).collect();
    let view = ExplainView { file: name, target: file.target().who.to_string(), steps };
    match printer.format() {
        Format::Table | Format::Wide => printer.text(&people(&view, printer.format()))?,
        Format::Json | Format::Ndjson | Format::Csv | Format::Name => printer.list(&view, &view.steps, &rows(&view))?,
    }
    Ok(Exit::Ok)
}

fn explained(step: &StepOutline<'_>) -> StepExplained {
    let outages = Phase::ALL.into_iter().flat_map(|phase| {
        Lost::ALL.into_iter().map(move |lost| {
            let fate = fate(step.effect, phase, lost);
            OutageExplained { phase, lost, fate, words: fate.words(), may_run_twice: fate.may_run_twice() }
        })
    });
    StepExplained { step: step.id.clone(), effect: step.effect, rules: rules(step), outages: outages.collect() }
}

/// What else decides about a step, in words.
fn rules(step: &StepOutline<'_>) -> Vec<String> {
    let mut rules = Vec::new();
    rules.push(match step.effect {
        EffectKind::ReadOnly => "It changes nothing, so an unknown outcome means: run it again.".to_owned(),
        EffectKind::Idempotent => "Twice is as good as once, so an unknown outcome means: run it again.".to_owned(),
        EffectKind::Guarded => {
            "When its outcome is unknown its check is run. Exit code 0: it is done. 126, 127 or none: a \
            person decides. Any other: it is run again."
                .to_owned()
        }
        EffectKind::Once => {
            "It is never run again by itself when its outcome is unknown: its run waits for a person, who is \
            shown the evidence."
                .to_owned()
        }
    });
    match step.when {
        When::Success => {}
        When::Failure => rules.push("It runs only after a step failed or the run was cancelled.".to_owned()),
        When::Always => rules.push("It runs after success, failure and cancellation alike.".to_owned()),
    }
    rules.push(match step.retry {
        None => "A known failure is not tried again.".to_owned(),
        Some(retry) => retried(retry),
    });
    if let Some(ms) = step.timeout_ms {
        let limit = took(ms);
        rules.push(format!("After {limit} its supervisor ends it, during an outage too; that is a known failure."));
    }
    rules
}

fn retried(retry: &Retry) -> String {
    let Retry { limit, on_exit, first_ms, max_ms } = retry;
    let of = match on_exit.as_slice() {
        [] => "A known failure".to_owned(),
        [code] => format!("A failure with exit code {code}"),
        codes => {
            let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
            format!("A failure with exit code {}", codes.join(" or "))
        }
    };
    let waits = match first_ms == max_ms {
        true => format!("{} apart", took(*first_ms)),
        false => format!("first after {}, at last {} apart", took(*first_ms), took(*max_ms)),
    };
    let times = if *limit == 1 { "once".to_owned() } else { format!("up to {limit} times") };
    format!("{of} is tried again {times}, {waits}. An unknown outcome is not a failure: there the effect decides.")
}

fn people(view: &ExplainView, format: Format) -> String {
    let mut text =
        format!("{} for {}. What becomes of a step when something is lost:\n", view.file, clean(&view.target));
    for step in &view.steps {
        text.push_str(&format!("\nstep {} · {}\n", step.step, step.effect.as_str()));
        for rule in &step.rules {
            text.push_str(&format!("  {rule}\n"));
        }
        let mut table = Table::new([
            Column::new("WHEN THE STEP IS"),
            Column::new("BROKER, NETWORK OR SERVER"),
            Column::new("AGENT'S PROCESS"),
            Column::new("MACHINE OR SUPERVISOR"),
        ]);
        for phase in Phase::ALL {
            let cell = |lost| Cell::new(fate(step.effect, phase, lost));
            table.row([Cell::new(phase.words()), cell(Lost::Link), cell(Lost::Agent), cell(Lost::Machine)]);
        }
        text.push_str(&table.render(format));
    }
    text
}

/// One row for each step, phase and loss.
fn rows(view: &ExplainView) -> Table {
    let mut table = Table::new([
        Column::new("STEP"),
        Column::new("EFFECT"),
        Column::new("PHASE"),
        Column::new("LOST"),
        Column::new("FATE"),
    ]);
    for (step, outage) in view.steps.iter().flat_map(|step| step.outages.iter().map(move |outage| (step, outage))) {
        table.row([
            Cell::new(&step.step),
            Cell::new(step.effect.as_str()),
            Cell::new(outage.phase.as_str()),
            Cell::new(outage.lost.as_str()),
            Cell::new(outage.fate.as_str()),
        ]);
    }
    table
}
