//! `longshore job retry`: starts again what failed, from the step that failed. The id is chosen here, so that asking again after a
//! lost answer is the same retry.

use clap::Args;
use messages::{AgentId, JobId, StepId};
use server::api::JobPrefix;
use server::views::{JobState, JobView, RetryJob, RunState, RunView};

use super::job::{path, short};
use super::job_run::{WatchArgs, agents, post, taken};
use crate::args::Global;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Printer, clean};

/// Arguments of `longshore job retry`.
#[derive(Debug, Args)]
#[command(
    after_help = "It is a new job, at the same agents, which goes on in the working folder and with the outputs of the steps before. A \
                        step with effect `once` that took effect is not run again; one of which nobody knows waits for a decision."
)]
pub(crate) struct JobRetryArgs {
    /// The id of the job that did not succeed, or the beginning of it
    #[arg(value_name = "JOB")]
    job: JobPrefix,
    /// Only at this agent; may be given more than once [default: wherever it did not succeed]
    #[arg(long = "run", value_name = "AGENT")]
    runs: Vec<AgentId>,
    /// The step to begin with [default: the step that failed]
    #[arg(long, value_name = "STEP")]
    from: Option<StepId>,
    /// The new job's id, a UUID: asking again with the same id is the same retry [default: a fresh one]
    #[arg(long, value_name = "UUID")]
    id: Option<JobId>,
    #[command(flatten)]
    watch: WatchArgs,
}

/// How to start a job again, if something of it can be.
pub(super) fn hint(job: &JobView) -> Option<String> {
    let again = match job.state {
        JobState::Failed | JobState::Cancelled => true,
        JobState::Waiting | JobState::Running | JobState::Succeeded | JobState::NeedsDecision => false,
    };
    let open = |run: &RunView| run.state != RunState::Succeeded && run.retried.is_none();
    // Without runs it ended before an agent was found for it. Then its chain tells whether it was started again.
    let left =
        job.runs.iter().any(open) || (job.runs.is_empty() && job.chain.last().is_none_or(|last| last.id == job.id));
    (again && left).then(|| format!("`longshore job retry {}` starts again what did not succeed", short(job.id)))
}

/// Starts a job again.
pub(crate) fn run(args: &JobRetryArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let client = Client::new(global)?;
    let id = args.id.unwrap_or_else(|| JobId::new(uuid::Uuid::now_v7()));
    let retry = RetryJob { id, agents: args.runs.iter().cloned().collect(), from: args.from.clone() };
    let (job, _) = post(&client, &format!("{}/retry", path(&args.job)), id, &retry)?;
    let said = format!("job {} goes on with {} on {}{}\n", job.id, clean(&job.name), agents(&job), from(&job));
    taken(client, job, &said, &args.watch, global, printer)
}

/// The steps that it begins with.
fn from(job: &JobView) -> String {
    let first = |steps: &[server::views::StepView]| {
        steps.iter().find(|step| step.earlier.is_none() && !step.state.is_settled()).map(|step| step.id.clone())
    };
    let mut steps: Vec<StepId> = job.runs.iter().filter_map(|run| first(&run.steps)).collect();
    steps.sort();
    steps.dedup();
    let steps: Vec<&str> = steps.iter().map(StepId::as_str).collect();
    if steps.is_empty() { String::new() } else { format!(", from step {}", steps.join(", ")) }
}
