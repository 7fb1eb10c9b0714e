//! The matrix as a table for people. Judges nothing.

use std::fmt;

use super::table::Outcome;
use super::{Judged, Report};

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folders: Vec<&str> = self.recorded.iter().map(|ended| if *ended { "ended" } else { "open" }).collect();
        let step = if self.job == self.step { self.step.clone() } else { format!("{}/{}", self.job, self.step) };
        f.pad(&format!("{step} {}/{} [{}]", self.executions, self.completions, folders.join(" ")))
    }
}

impl fmt::Display for Report {
    /// A line for each phase, victim and effect. An outcome is the states of job and step, how often the program began and how often it
    /// came through, and for each attempt whether its end is recorded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["PHASE", "KILLED", "EFFECT", "TABLE", "EXPECTED", "FOUND", "OK"].map(str::to_owned);
        let rows: Vec<[String; 7]> = std::iter::once(header).chain(self.cells.iter().map(row)).collect();
        let mut widths = [0; 7];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        let wrong = self.cells.iter().filter(|cell| !cell.ok).count();
        writeln!(f, "{} cells, {wrong} wrong", self.cells.len())
    }
}

fn row(cell: &Judged) -> [String; 7] {
    [
        cell.phase.as_str().to_owned(),
        cell.victim.as_str().to_owned(),
        cell.effect.as_str().to_owned(),
        cell.decision.map_or_else(|| cell.fate.as_str().to_owned(), |said| format!("then {}", said.as_str())),
        cell.expected.to_string(),
        cell.found.to_string(),
        if cell.ok { "yes".to_owned() } else { format!("NO, job {}", cell.job) },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::table::{Effect, Fate, Phase, Victim, expected};
    use super::*;

    #[test]
    fn a_wrong_cell_is_counted_and_named_and_no_cell_is_not_right() {
        let (phase, fate) = (Phase::Running, Fate::PersonDecides);
        let wanted = expected(phase, fate);
        let found = Outcome { executions: 2, ..wanted.clone() };
        let (victim, effect, job) = (Victim::Shim, Effect::Once, "j1".to_owned());
        let cell = Judged { phase, victim, effect, fate, decision: None, expected: wanted, found, ok: false, job };
        let report = Report { cells: vec![cell] };
        assert!(!report.is_right() && !Report { cells: Vec::new() }.is_right());
        let text = report.to_string();
        assert!(text.contains("needs-decision 1/0 [open]  needs-decision 2/0 [open]  NO, job j1"), "{text}");
        assert!(text.contains("1 cells, 1 wrong"), "{text}");
    }
}
