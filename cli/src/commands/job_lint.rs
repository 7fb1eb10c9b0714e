//! `longshore job lint`: checks job files without a server. What it finds is its result, so it goes to standard output.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use server::job_file::{JobFile, Problem, Who};
use server::views::{ProblemView, Schema};

use super::job::{Param, params, read};
use crate::args::Format;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Printer, Table, clean, render_problems};

/// Arguments of `longshore job lint`.
#[derive(Debug, Args)]
pub(crate) struct JobLintArgs {
    /// The job files, or - for standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A value for a parameter; with any, the values are checked as well. May be given more than once
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    params: Vec<Param>,
}

/// What was found in all files.
#[derive(Debug, Clone, Serialize)]
struct LintView {
    ok: bool,
    files: Vec<FileView>,
}

impl Schema for LintView {
    const SCHEMA: &'static str = "longshore.lint/1";
}

/// What was found in one file.
#[derive(Debug, Clone, Serialize)]
struct FileView {
    file: String,
    ok: bool,
    problems: Vec<ProblemView>,
}

/// Checks the files and prints what was found.
pub(crate) fn run(args: &JobLintArgs, printer: &Printer) -> Result<Exit, Failure> {
    let values = params(&args.params)?;
    let mut files = Vec::new();
    let mut people = String::new();
    for path in &args.files {
        let text = read(path)?;
        let name = if path.as_os_str() == "-" { "standard input".into() } else { clean(&path.display().to_string()) };
        let checked = JobFile::parse(&text).and_then(|file| match values.is_empty() {
            true => Ok(file),
            false => file.plan(&values).map(|_| file),
        });
        let problems: Vec<Problem> = match checked {
            Ok(file) => {
                people.push_str(&format!("{name}: ok, {}\n", summary(&file)));
                Vec::new()
            }
            Err(problems) => problems,
        };
        let problems: Vec<_> = problems.into_iter().map(|problem| ProblemView::new(problem, &text)).collect();
        if !problems.is_empty() {
            people.push_str(&render_problems(&problems, &name, &text));
            people.push_str(&format!("{name}: {}\n", count(problems.len(), "problem")));
        }
        files.push(FileView { file: name, ok: problems.is_empty(), problems });
    }
    let view = LintView { ok: files.iter().all(|file| file.ok), files };
    match printer.format() {
        Format::Table | Format::Wide => printer.text(&people)?,
        Format::Json | Format::Ndjson | Format::Csv | Format::Name => {
            printer.list(&view, &view.files, &table(&view))?
        }
    }
    Ok(if view.ok { Exit::Ok } else { Exit::Failed })
}

fn summary(file: &JobFile) -> String {
    let agents = match &file.target().who {
        Who::Agents(agents) => count(agents.len(), "agent"),
        who @ (Who::All | Who::Matching { .. }) => who.to_string(),
    };
    let params: Vec<&str> = file.param_names().collect();
    let params = if params.is_empty() { String::new() } else { format!(", takes {}", params.join(", ")) };
    format!("{} for {agents}{params}", count(file.step_ids().len(), "step"))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// One row for each problem.
fn table(view: &LintView) -> Table {
    let mut table = Table::new([
        Column::new("FILE"),
        Column::number("LINE"),
        Column::number("COLUMN"),
        Column::new("PROBLEM"),
        Column::new("HINT"),
    ]);
    for file in &view.files {
        for found in &file.problems {
            table.row([
                Cell::new(&file.file),
                found.position.map_or_else(Cell::none, |place| Cell::new(place.line)),
                found.position.map_or_else(Cell::none, |place| Cell::new(place.column)),
                Cell::new(&found.problem.what),
                found.problem.hint.as_ref().map_or_else(Cell::none, Cell::new),
            ]);
        }
    }
    table
}
