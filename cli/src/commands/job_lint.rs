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
use crate::output::{Cell, Column, Printer, Severity, Table, clean, render_problems};

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
    /// What is allowed and yet probably not meant. Never makes a file bad.
    warnings: Vec<ProblemView>,
}

/// Checks the files and prints what was found.
pub(crate) fn run(args: &JobLintArgs, printer: &Printer) -> Result<Exit, Failure> {
    let values = params(&args.params)?;
    let mut files = Vec::new();
    let mut people = String::new();
    let mut unread = false;
    for path in &args.files {
        let name = if path.as_os_str() == "-" { "standard input".into() } else { clean(&path.display().to_string()) };
        let text = match read(path) {
            Ok(text) => text,
            Err(error) => {
                // The other files are looked at all the same.
                let what = clean(&Failure::from(error).view.error);
                people.push_str(&format!("{name}: {what}\n"));
                let problem = Problem { span: None, what, hint: None };
                files.push(FileView {
                    file: name,
                    ok: false,
                    problems: vec![ProblemView::new(problem, "")],
                    warnings: Vec::new(),
                });
                unread = true;
                continue;
            }
        };
        let checked = JobFile::parse(&text).and_then(|file| match values.is_empty() {
            true => Ok(file),
            false => file.plan(&values).map(|_| file),
        });
        let (problems, warnings): (Vec<Problem>, Vec<Problem>) = match &checked {
            Ok(file) => (Vec::new(), file.warnings().to_vec()),
            Err(problems) => (problems.clone(), Vec::new()),
        };
        let views = |found: Vec<Problem>| found.into_iter().map(|problem| ProblemView::new(problem, &text)).collect();
        let (problems, warnings): (Vec<ProblemView>, Vec<ProblemView>) = (views(problems), views(warnings));
        people.push_str(&render_problems(&problems, Severity::Error, &name, &text));
        people.push_str(&render_problems(&warnings, Severity::Warning, &name, &text));
        people.push_str(&match &checked {
            Ok(file) if warnings.is_empty() => format!("{name}: ok, {}\n", summary(file)),
            Ok(file) => format!("{name}: ok, {}; {}\n", summary(file), count(warnings.len(), "warning")),
            Err(_) => format!("{name}: {}\n", count(problems.len(), "problem")),
        });
        files.push(FileView { file: name, ok: problems.is_empty(), problems, warnings });
    }
    let view = LintView { ok: files.iter().all(|file| file.ok), files };
    match printer.format() {
        Format::Table | Format::Wide => printer.text(&people)?,
        Format::Json | Format::Ndjson | Format::Csv | Format::Name => {
            printer.list(&view, &view.files, &table(&view))?
        }
    }
    Ok(match (unread, view.ok) {
        (true, _) => Exit::Usage,
        (false, true) => Exit::Ok,
        (false, false) => Exit::Failed,
    })
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

/// One row for each problem and each warning.
fn table(view: &LintView) -> Table {
    let mut table = Table::new([
        Column::new("FILE"),
        Column::number("LINE"),
        Column::number("COLUMN"),
        Column::new("SEVERITY"),
        Column::new("PROBLEM"),
        Column::new("HINT"),
    ]);
    for file in &view.files {
        let errors = file.problems.iter().map(|found| ("error", found));
        for (severity, found) in errors.chain(file.warnings.iter().map(|found| ("warning", found))) {
            table.row([
                Cell::new(&file.file),
                found.position.map_or_else(Cell::none, |place| Cell::new(place.line)),
                found.position.map_or_else(Cell::none, |place| Cell::new(place.column)),
                Cell::new(severity),
                Cell::new(&found.problem.what),
                found.problem.hint.as_ref().map_or_else(Cell::none, Cell::new),
            ]);
        }
    }
    table
}
