//! `longshore job cancel` and `longshore job resolve`: what a person wants of a job that is not over. The server journals it, and
//! the agent's answer comes when it can be reached.

use clap::{Args, ValueEnum};
use messages::{AgentId, Decision, StepId};
use server::api::JobPrefix;
use server::views::{CancelJob, JobView, ResolveJob, StepState};

use super::job::{path, short};
use super::job_show;
use crate::args::Global;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Printer, clean};

/// Arguments of `longshore job cancel`.
#[derive(Debug, Args)]
pub(crate) struct JobCancelArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: JobPrefix,
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Arguments of `longshore job resolve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Whatever is decided, the agent first ends all processes of the step that still run: if they are to finish, wait until they \
                        have. The decision reaches the agent whenever it can be reached. --give-up ends the run at the server at once; \
                        what the agent says of it later is kept beside it, and what it still does of it is ended then."
)]
pub(crate) struct JobResolveArgs {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: JobPrefix,
    /// The agent whose run is meant; may be left out when only one waits
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentId>,
    /// The step that is meant; may be left out
    #[arg(long, value_name = "ID")]
    step: Option<StepId>,
    /// What became of the step
    #[arg(long = "as", value_enum, value_name = "DECISION")]
    decision: Word,
    /// How you know, for whoever looks later
    #[arg(long, value_name = "TEXT")]
    note: String,
    /// End the run at the server, without asking its agent
    #[arg(long)]
    give_up: bool,
}

/// What can be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Word {
    /// It took effect: go on after it
    Done,
    /// It did not take effect: run it again
    Retry,
    /// Give it up: the run fails
    Fail,
}

/// Ends a job.
pub(crate) fn cancel(args: &JobCancelArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let order = CancelJob { reason: args.reason.clone() };
    let (_, job): (_, JobView) = Client::new(global)?.post(&format!("{}/cancel", path(&args.job)), &order)?;
    job_show::print(&job, printer)?;
    if !printer.for_people() {
        return Ok(Exit::Ok);
    }
    let id = short(job.id);
    let retry = format!("`longshore job retry {id}` starts it again");
    let open: Vec<&str> = job.runs.iter().filter(|run| !run.state.is_over()).map(|run| run.agent.as_str()).collect();
    if open.is_empty() {
        printer.note(&retry);
    } else {
        printer
            .note(&format!("on its way to {}; `longshore job show {id}` says when it is ended there", open.join(", ")));
        printer.note(&format!("then {retry}"));
    }
    Ok(Exit::Ok)
}

/// Carries out a decision.
pub(crate) fn resolve(args: &JobResolveArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let client = Client::new(global)?;
    let before: JobView = client.get(&path(&args.job))?;
    let (mut waits, mut open) = (false, false);
    for run in before.runs.iter().filter(|run| args.agent.as_ref().is_none_or(|agent| *agent == run.agent)) {
        open |= !run.state.is_over();
        for step in run.steps.iter().filter(|step| step.state == StepState::NeedsDecision) {
            waits = true;
            let evidence = step.detail.as_deref().map_or_else(String::new, |detail| format!(": {}", clean(detail)));
            printer.note(&format!("{} {} attempt {}{evidence}", run.agent, step.id, step.attempt));
        }
    }
    // Said before it is asked for: what was only thought to be over may be at work.
    if args.give_up && open {
        printer.note("what its agent still does of the run is ended when it can be reached, with all processes");
    } else if waits {
        printer.note("processes of the step that still run are ended first");
    }
    let order = ResolveJob {
        agent: args.agent.clone(),
        step: args.step.clone(),
        decision: match args.decision {
            Word::Done => Decision::Done,
            Word::Retry => Decision::Retry,
            Word::Fail => Decision::Fail,
        },
        note: args.note.clone(),
        give_up: args.give_up,
    };
    let (_, job): (_, JobView) = client.post(&format!("{}/resolve", path(&args.job)), &order)?;
    job_show::print(&job, printer)?;
    Ok(Exit::Ok)
}
