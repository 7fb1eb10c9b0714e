//! The table of a run: faults down, verdicts across. It counts; it judges nothing.

use std::fmt::Write;

use super::plan::Fault;
use super::run::{Options, Outcome};
use super::verdict::Verdict;

/// The table, and below it every failure with the command that runs it alone.
#[must_use]
pub fn report(options: &Options, outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let shown: Vec<Verdict> = Verdict::ALL
        .into_iter()
        .filter(|verdict| *verdict != Verdict::Skipped || outcomes.iter().any(|o| o.judgement.verdict == *verdict))
        .collect();
    let mut line = |name: &str, cells: &mut dyn Iterator<Item = String>| {
        let mut row = format!("{name:<28}");
        for (cell, verdict) in cells.zip(&shown) {
            let width = verdict.to_string().len();
            row.push_str(&format!("  {cell:>width$}"));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line("FAULT", &mut shown.iter().map(|verdict| verdict.to_string().to_uppercase()));
    let count = |fault: Option<Fault>, verdict: Verdict| {
        let of = |outcome: &&Outcome| fault.is_none_or(|fault| fault == outcome.trial.fault);
        let count = outcomes.iter().filter(of).filter(|outcome| outcome.judgement.verdict == verdict).count();
        if count == 0 { "-".to_owned() } else { count.to_string() }
    };
    for fault in Fault::ALL {
        if outcomes.iter().any(|outcome| outcome.trial.fault == fault) {
            line(&fault.to_string(), &mut shown.iter().map(|verdict| count(Some(fault), *verdict)));
        }
    }
    line("all", &mut shown.iter().map(|verdict| count(None, *verdict)));
    let failures: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.judgement.verdict.is_failure()).collect();
    let panics: u64 = outcomes.iter().map(|outcome| outcome.panics).sum();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} trials of {} with seed {}; the engine panicked inside {panics} times",
        outcomes.len(),
        options.engine,
        options.seed
    );
    if let Some(outcome) = outcomes.iter().find(|outcome| outcome.judgement.verdict == Verdict::Skipped) {
        let _ = writeln!(text, "skipped: {}", outcome.judgement.detail);
    }
    for outcome in &failures {
        let Outcome { trial, injected, judgement, .. } = outcome;
        let _ = writeln!(text, "\ntrial {}: {}: {injected}", trial.number, trial.fault);
        let _ =
            writeln!(text, "  {} steps, {:?}; {}: {}", trial.steps, trial.ending, judgement.verdict, judgement.detail);
        let _ = writeln!(
            text,
            "  alone: longshore-chaos damage --engine {} --seed {} --only {} --dir <folder>",
            options.engine, options.seed, trial.number
        );
    }
    let _ = writeln!(text, "{}", if failures.is_empty() { "PASS" } else { "FAIL" });
    text
}
