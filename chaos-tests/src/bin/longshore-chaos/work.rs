//! `longshore-chaos work`: prints the matrix of what is killed, when, and what becomes of a step. Decides nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use chaos_tests::work::{self, Options, Report, Victim};

use crate::Format;

/// What to kill, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kill only these, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = victim, value_name = "worker|monitor|both|server|broker|shim|machine")]
    victim: Vec<Victim>,
    /// Where to keep everything, an empty folder; it is left there. Without it a temporary folder, removed at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How to print the matrix
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

fn victim(word: &str) -> Result<Victim, String> {
    Victim::of(word).ok_or_else(|| format!("{word} cannot be killed here"))
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match carry_out(args) {
        Ok(report) if report.is_right() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            note!("The matrix could not be carried out: {}", crate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: &Args) -> Result<Report, Box<dyn std::error::Error>> {
    crate::end_in_order()?;
    let temporary;
    let dir = match &args.dir {
        Some(dir) => empty(dir)?,
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path()
        }
    };
    let victims = if args.victim.is_empty() { Victim::ALL.to_vec() } else { args.victim.clone() };
    let began = Instant::now();
    let report = work::run(&Options { dir: dir.to_owned(), victims }, &mut |line| {
        note!("  {:5.1} s  {line}", began.elapsed().as_secs_f64());
    })?;
    match args.output {
        Format::Table => {
            chaos_tests::out::print(&report);
            say!("{}", if report.is_right() { "PASS" } else { "FAIL" });
        }
        Format::Json => say!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report)
}

pub(crate) fn empty(dir: &Path) -> std::io::Result<&Path> {
    std::fs::create_dir_all(dir)?;
    if std::fs::read_dir(dir)?.next().is_some() {
        return Err(std::io::Error::other(format!("{} is not empty; give another with --dir", dir.display())));
    }
    Ok(dir)
}
