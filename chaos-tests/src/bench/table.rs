//! The table of a benchmark, for a terminal and for a page. Leaves nothing out that the other one has.

use std::fmt::Write as _;

use broker_config::node::{default_cache, locate};

use super::figures::short;
use super::outcome::FOREIGN_MAX;
use super::{Against, CaseOutcome, Outcome, Side, Spread, Verdict};

/// Heads of the columns.
const HEADS: [&str; 10] = [
    "CASE",
    "MEASURE",
    "LONGSHORE",
    "REFERENCE",
    "RATIO",
    "LEAST TO MOST",
    "GOAL",
    "OUTCOME",
    "CPU US EACH, CLIENT + BROKER",
    "PEAK MIB",
];

/// Columns of text; the others hold figures and stand on the right.
const LEFT: [usize; 4] = [0, 1, 6, 7];

type Row = [String; HEADS.len()];

fn rows(outcome: &Outcome) -> Vec<Row> {
    let of_case = |case: &CaseOutcome| {
        let verdicts = case.verdicts.iter().enumerate();
        verdicts.map(|(number, verdict)| row(case, verdict, number == 0)).collect::<Vec<_>>()
    };
    outcome.cases.iter().flat_map(of_case).collect()
}

fn row(case: &CaseOutcome, verdict: &Verdict, first: bool) -> Row {
    let figure = |spread: Option<Spread>| spread.map_or("-".to_owned(), |spread| short(spread.median));
    let ratio = match verdict.against {
        Against::Reference | Against::Floor => figure(verdict.value),
        Against::Nothing => "-".to_owned(),
    };
    let [cpu, peak] = if first { [cpu(case), peak(case)] } else { [String::new(), String::new()] };
    [
        if first { case.name.clone() } else { String::new() },
        verdict.measure.to_owned(),
        figure(verdict.ours),
        figure(verdict.reference),
        ratio,
        // Where there is nothing to compare with, the spread is that of the figures themselves.
        verdict.value.or(verdict.ours).map_or("-".to_owned(), |spread| spread.to_string()),
        verdict.bound.map_or(String::new(), |bound| bound.to_string()),
        verdict.reached.to_string(),
        cpu,
        peak,
    ]
}

/// Both sides' figure, ours first; one of them where the other has none.
fn both(case: &CaseOutcome, of: impl Fn(Side) -> Option<String>) -> String {
    let sides = if case.pairs.iter().any(|pair| pair.reference.is_some()) {
        vec![of(Side::Ours), of(Side::Reference)]
    } else {
        vec![of(Side::Ours)]
    };
    sides.into_iter().map(|side| side.unwrap_or("-".to_owned())).collect::<Vec<_>>().join(" / ")
}

fn cpu(case: &CaseOutcome) -> String {
    both(case, |side| {
        let (clients, broker) = case.cpu_us_each(side)?;
        Some(format!("{} + {}", short(clients), short(broker)))
    })
}

fn peak(case: &CaseOutcome) -> String {
    both(case, |side| Some(short(case.peak_kib(side)? / 1_024.0)))
}

/// How it was measured, and how noisy it was.
fn circumstances(outcome: &Outcome) -> String {
    let pairs = outcome.cases.iter().map(|case| case.pairs.len());
    let (least, most) = (pairs.clone().min().unwrap_or(0), pairs.max().unwrap_or(0));
    let pairs = if least == most { least.to_string() } else { format!("{least} to {most}") };
    let noisy: usize = outcome.cases.iter().map(|case| case.noisy_runs).sum();
    let foreign = outcome.cases.iter().map(|case| case.foreign_most).fold(0.0, f64::max);
    let mut text = format!("Pairs of each case: {pairs}. Queues: {}.", outcome.queue_type);
    if outcome.percent != 100 {
        let _ = write!(text, " {} % of the usual amount was done.", outcome.percent);
    }
    let limit = FOREIGN_MAX * 100.0;
    let _ = match noisy {
        0 => write!(text, " Others had at most {:.0} % of the machine.", foreign * 100.0),
        _ => write!(
            text,
            " Noisy: in {noisy} runs others had more than {limit:.0} % of the machine, at most {:.0} %.",
            foreign * 100.0
        ),
    };
    text
}

/// The table for a terminal.
#[must_use]
pub fn text(outcome: &Outcome) -> String {
    let mut lines = vec![HEADS.map(str::to_owned)];
    lines.extend(rows(outcome));
    let width = |column: usize| lines.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    let mut text = format!("{}  {}\n{}\n{}\n", outcome.id, outcome.what, outcome.how, circumstances(outcome));
    for row in lines {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if LEFT.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The table for a page.
pub(super) fn markdown(outcome: &Outcome) -> String {
    let heads = [
        "",
        "Measure",
        "Longshore",
        "Reference",
        "Ratio",
        "Least to most",
        "Goal",
        "Outcome",
        "CPU µs each, client + broker",
        "Peak MiB",
    ];
    let mut text = format!("| {} |\n|", heads.join(" | "));
    for column in 0..HEADS.len() {
        text += if LEFT.contains(&column) { "---|" } else { "---:|" };
    }
    text.push('\n');
    for row in rows(outcome) {
        let _ = writeln!(text, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    format!("{}\n\n{text}\n{}\n", outcome.how, circumstances(outcome))
}

/// What it was measured on, in a sentence. Unknown parts are left out.
#[must_use]
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut parts = vec![format!("{cores} cores")];
    parts.extend(field(&read("/proc/cpuinfo"), "model name"));
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    parts.extend(memory.map(|kib| format!("{:.0} GiB of memory", kib / (1_024.0 * 1_024.0))));
    parts.push(format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()));
    let rabbitmq = locate(&default_cache()).and_then(|installation| installation.version);
    parts.extend(rabbitmq.map(|version| format!("RabbitMQ {version}")));
    format!("Measured on {}.", parts.join(", "))
}
