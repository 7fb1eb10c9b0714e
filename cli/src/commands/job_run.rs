//! `longshore job run`: submits a job, and watches it if asked to. The id is chosen here, so that asking again after a lost answer
//! is the same job.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use messages::JobId;
use serde::Serialize;
use server::job_file::{JobFile, Plan, Problem};
use server::views::{JobView, ProblemView, SubmitJob};
use ureq::http::StatusCode;

use super::follow::{self, FollowOptions, Only};
use super::job::{Param, params, read, short};
use super::job_dry_run;
use crate::args::{Global, wait};
use crate::client::{Client, ClientError};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Printer, clean};

/// How often a submission is tried when the way to the server fails in the middle.
const ATTEMPTS_MAX: u32 = 5;
/// How long to wait before the second try; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(250);

/// Arguments of `longshore job run`.
#[derive(Debug, Args)]
pub(crate) struct JobRunArgs {
    /// The job file, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A value for a parameter; may be given more than once
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    params: Vec<Param>,
    #[command(flatten)]
    watch: WatchArgs,
    /// Only show what would be done
    #[arg(short = 'n', long, conflicts_with = "follow")]
    dry_run: bool,
    /// The job's id, a UUID: submitting again with the same id is the same job [default: a fresh one]
    #[arg(long, value_name = "UUID")]
    id: Option<JobId>,
}

/// Whether and how to watch a job that was just taken.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Watch the job until it ends: exit code 0 when it succeeds, 1 when it fails, 75 when it needs a decision
    #[arg(short, long)]
    follow: bool,
    /// Do not show what the steps write
    #[arg(long, requires = "follow")]
    no_logs: bool,
    /// Stop watching after this time, for example 10m, with exit code 124; the job goes on
    #[arg(long, value_name = "TIME", requires = "follow", value_parser = wait)]
    timeout: Option<Duration>,
}

/// Submits the job.
pub(crate) fn run(args: &JobRunArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let definition = read(&args.file)?;
    let values = params(&args.params)?;
    // The server checks again; checking here saves the way there, and draws the problems into the file.
    let (file, plan) = check(&definition, &values).map_err(|problems| refused(args, &definition, problems))?;
    if args.dry_run {
        return job_dry_run::run(&file, &plan, global, printer);
    }
    let client = Client::new(global)?;
    let id = args.id.unwrap_or_else(|| JobId::new(uuid::Uuid::now_v7()));
    let text = definition.clone();
    let body = SubmitJob { id, definition, params: values };
    let (job, new) = post(&client, "/v1/jobs", id, &body).map_err(|mut failure| {
        if !failure.view.problems.is_empty() {
            // A server of another version found what this one did not.
            failure.source = Some(Box::new(("the job file".to_owned(), text)));
        }
        failure
    })?;
    let said = match new {
        true => format!("job {} submitted: {} on {}\n", job.id, clean(&job.name), agents(&job)),
        false => format!("job {} was submitted before and is {}; nothing is run again\n", job.id, job.state),
    };
    taken(client, job, &said, &args.watch, global, printer)
}

/// Says that a job was taken, or watches it if asked to.
pub(super) fn taken(
    client: Client,
    job: JobView,
    said: &str,
    watch: &WatchArgs,
    global: &Global,
    printer: &Printer,
) -> Result<Exit, Failure> {
    if watch.follow {
        let options = FollowOptions { logs: !watch.no_logs, only: Only::default(), timeout: watch.timeout };
        return follow::follow(client, global, job.id, options, printer);
    }
    if printer.for_people() {
        printer.text(said)?;
        printer.note(&format!("watch it with `longshore job logs -f {}`", short(job.id)));
    } else {
        super::job_show::print(&job, printer)?;
    }
    Ok(Exit::Ok)
}

fn check(definition: &str, values: &BTreeMap<String, String>) -> Result<(JobFile, Plan), Vec<Problem>> {
    let file = JobFile::parse(definition)?;
    let plan = file.plan(values)?;
    Ok((file, plan))
}

fn refused(args: &JobRunArgs, definition: &str, problems: Vec<Problem>) -> Failure {
    let name = clean(&args.file.display().to_string());
    let count = problems.len();
    let error = format!("{name} cannot be run: {count} problem{}", if count == 1 { "" } else { "s" });
    let problems = problems.into_iter().map(|problem| ProblemView::new(problem, definition)).collect();
    Failure::words(Exit::Usage, error, "no job was made", "mend that, then run it again")
        .with_problems(problems, &name, definition)
}

/// Sends what makes a job, and again when the answer was lost: the same id is the same job. Whether this made it, as far as can be known.
pub(super) fn post<B: Serialize>(client: &Client, path: &str, id: JobId, body: &B) -> Result<(JobView, bool), Failure> {
    let mut attempt = 1;
    let mut may_have_arrived = false;
    loop {
        match client.post::<_, JobView>(path, body) {
            Ok((status, view)) => return Ok((view, may_have_arrived || status == StatusCode::CREATED)),
            Err(error) if error.is_passing() && attempt < ATTEMPTS_MAX => {
                may_have_arrived |= !error.never_arrived();
                thread::sleep(PAUSE * 2_u32.pow(attempt - 1));
                attempt += 1;
            }
            Err(error) => {
                may_have_arrived |= !error.never_arrived();
                let lost = may_have_arrived && matches!(error, ClientError::Unreachable { .. });
                let mut failure = Failure::from(error);
                if !may_have_arrived {
                    "nobody listens there; no job was made".clone_into(&mut failure.view.state);
                }
                if lost {
                    failure.view.state =
                        format!("it is not known whether job {id} was taken: it was if the server got the request");
                    failure.view.next =
                        format!("{}; then run the same command with --id {id}: it is the same job", failure.view.next);
                }
                return Err(failure);
            }
        }
    }
}

pub(super) fn agents(job: &JobView) -> String {
    job.runs.iter().map(|run| run.agent.as_str()).collect::<Vec<_>>().join(", ")
}
