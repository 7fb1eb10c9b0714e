//! `longshore job`: submitting jobs, and seeing what becomes of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use messages::JobId;
use server::api::JobPrefix;
use server::job_file::FILE_BYTES_MAX;

use super::{job_explain, job_lint, job_logs, job_orders, job_retry, job_run, job_schema, job_show};
use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;

/// Commands about jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Submit a job file
    Run(job_run::JobRunArgs),
    /// The latest jobs
    List(job_show::JobListArgs),
    /// One job with its runs and steps
    Show(job_show::JobShowArgs),
    /// What the steps of a job wrote
    Logs(job_logs::JobLogsArgs),
    /// Start again what failed, from the step that failed
    Retry(job_retry::JobRetryArgs),
    /// End a job: what no agent has at once, the rest with all its processes as soon as its agents can be reached
    Cancel(job_orders::JobCancelArgs),
    /// Decide about a step of which nobody knows whether it took effect
    Resolve(job_orders::JobResolveArgs),
    /// Check job files without a server; exit code 1 when one has problems
    Lint(job_lint::JobLintArgs),
    /// What an outage would do to each step of a job file, or why a job stands where it does
    Explain(job_explain::JobExplainArgs),
    /// The JSON Schema of a job file, for editors
    Schema,
}

/// Does what was asked for.
pub(crate) fn run(command: &JobCommand, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    match command {
        JobCommand::Run(args) => job_run::run(args, global, printer),
        JobCommand::List(args) => job_show::list(args, global, printer),
        JobCommand::Show(args) => job_show::show(args, global, printer),
        JobCommand::Logs(args) => job_logs::run(args, global, printer),
        JobCommand::Retry(args) => job_retry::run(args, global, printer),
        JobCommand::Cancel(args) => job_orders::cancel(args, global, printer),
        JobCommand::Resolve(args) => job_orders::resolve(args, global, printer),
        JobCommand::Lint(args) => job_lint::run(args, printer),
        JobCommand::Explain(args) => job_explain::run(args, global, printer),
        JobCommand::Schema => job_schema::run(printer),
    }
}

/// A value for a parameter, as `NAME=VALUE`.
#[derive(Debug, Clone)]
pub(super) struct Param {
    name: String,
    value: String,
}

impl std::str::FromStr for Param {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// The values, each given once.
pub(super) fn params(given: &[Param]) -> Result<BTreeMap<String, String>, Failure> {
    let mut params = BTreeMap::new();
    for Param { name, value } in given {
        if params.insert(name.clone(), value.clone()).is_some() {
            let error = format!("the parameter `{}` is given twice", crate::output::clean(name));
            return Err(Failure::words(Exit::Usage, error, "no job was made", "give it once"));
        }
    }
    Ok(params)
}

/// Why a job file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The system refuses.
    #[error("cannot read the job file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too large to be one.
    #[error("{} is larger than a job file may be, {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::new(Exit::Usage, &error, "no job was made", "name a readable job file in UTF-8, or - for standard input")
    }
}

/// Reads a job file, or standard input for `-`.
pub(super) fn read(path: &Path) -> Result<String, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        Some(_) | None => Box::new(File::open(path).map_err(failed)?),
    };
    source.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > FILE_BYTES_MAX {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// A job's id in as few characters as tell jobs apart that were not submitted in the same millisecond: the time in it.
pub(super) fn short(id: JobId) -> String {
    id.to_string().chars().take(13).collect()
}

/// The path of a job in the API.
pub(super) fn path(prefix: &JobPrefix) -> String {
    format!("/v1/jobs/{prefix}")
}
