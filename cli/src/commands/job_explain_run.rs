//! `longshore job explain JOB`: why a job stands where it does, run by run, in words. What it says is what the server knows.

use serde::Serialize;
use server::api::JobPrefix;
use server::views::{AgentState, AgentView, JobState, JobView, RunState, RunView, Schema, StepState};

use super::job::path;
use crate::args::Global;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Printer, Table, clean, state_style};

/// Why a job stands where it does.
#[derive(Debug, Clone, Serialize)]
struct ExplainJobView {
    job: String,
    name: String,
    state: JobState,
    words: &'static str,
    runs: Vec<RunExplained>,
}

impl Schema for ExplainJobView {
    const SCHEMA: &'static str = "longshore.explain-job/1";
}

/// Why a run stands where it does.
#[derive(Debug, Clone, Serialize)]
struct RunExplained {
    agent: String,
    state: RunState,
    words: String,
}

/// Explains the job whose id begins so.
pub(super) fn explain(prefix: &JobPrefix, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let client = Client::new(global)?;
    let job: JobView = client.get(&path(prefix))?;
    let mut runs = Vec::with_capacity(job.runs.len());
    for run in &job.runs {
        // What an agent is doing matters only while something is expected of it.
        let agent = match run.state.is_settled() {
            true => None,
            false => client.get::<AgentView>(&format!("/v1/agents/{}", run.agent)).ok(),
        };
        runs.push(RunExplained { agent: run.agent.to_string(), state: run.state, words: words(run, agent.as_ref()) });
    }
    let view = ExplainJobView {
        job: job.id.to_string(),
        name: job.name.clone(),
        state: job.state,
        words: of_job(job.state),
        runs,
    };
    let style = state_style(view.state.as_str());
    let waiting = job.waiting.as_ref().map(|why| format!("it waits: {}\n", clean(why))).unwrap_or_default();
    let (id, name) = (&view.job, clean(&view.name));
    let text = format!("job {id} · {name} · {style}{}{style:#}: {}\n{waiting}", view.state, view.words);
    let mut table = Table::new([Column::new("AGENT"), Column::new("STATE"), Column::new("WHY")]);
    for run in &view.runs {
        table.row([Cell::new(&run.agent), Cell::new(run.state), Cell::new(&run.words)]);
    }
    printer.one(&view, &text, &table)?;
    Ok(Exit::Ok)
}

const fn of_job(state: JobState) -> &'static str {
    match state {
        JobState::Waiting => "nothing of it is under way; what it waits for is said below",
        JobState::Running => "at least one run has not ended",
        JobState::Succeeded => "every run succeeded",
        JobState::Failed => {
            "every run ended, and at least one did not succeed; `longshore job retry` goes on from the step that failed"
        }
        JobState::Cancelled => {
            "it was cancelled, and nothing of it runs any more; `longshore job retry` starts it again"
        }
        JobState::NeedsDecision => {
            "a step took effect or did not, nobody knows, and a person must say: `longshore job resolve`"
        }
    }
}

fn words(run: &RunView, agent: Option<&AgentView>) -> String {
    let at = |state| run.steps.iter().find(|step| step.state == state);
    let mut words = match run.state {
        RunState::Waiting => "the server has it and has given it to no agent yet".to_owned(),
        RunState::Sent => "it is on its way; the agent has not said that it has it".to_owned(),
        RunState::Accepted => "the agent has it on its disk and has not begun it".to_owned(),
        RunState::Running => match at(StepState::Running) {
            Some(step) => format!("step {} runs, attempt {}", step.id, step.attempt),
            None => "the agent is between two steps, or waits to try one again".to_owned(),
        },
        RunState::NeedsDecision => match at(StepState::NeedsDecision) {
            Some(step) => {
                let evidence = step.detail.as_deref().unwrap_or("nothing more is known");
                format!("nobody knows whether step {} took effect ({evidence})", step.id)
            }
            None => run.reason.clone().unwrap_or_else(|| "nobody knows what became of it".to_owned()),
        },
        RunState::Succeeded => "every step succeeded or was not needed".to_owned(),
        RunState::Failed => match at(StepState::Failed).or_else(|| at(StepState::TimedOut)) {
            Some(step) => format!("step {} failed: {}", step.id, step.detail.as_deref().unwrap_or("no detail")),
            None => "a step failed".to_owned(),
        },
        RunState::Cancelled => "it was cancelled".to_owned(),
        RunState::TimedOut => "its time limit ended it".to_owned(),
        RunState::Expired => "no agent took it in time".to_owned(),
        RunState::Refused => "the agent refused it".to_owned(),
    };
    let told = run.reason.as_ref().filter(|reason| !words.contains(reason.as_str()));
    if let Some(reason) = told.filter(|_| !matches!(run.state, RunState::Failed | RunState::NeedsDecision)) {
        words.push_str(&format!(": {reason}"));
    }
    if let Some(agent) = agent {
        words.push_str(of_agent(agent));
    }
    words
}

/// What the state of its agent means for a run that is not over.
const fn of_agent(agent: &AgentView) -> &'static str {
    match agent.state {
        AgentState::Online if agent.draining => "; the agent takes no new work",
        AgentState::Online => "",
        AgentState::Unreachable => "; the agent is out of reach and goes on with what it has",
        AgentState::NeverSeen => "; the agent was never heard from: it begins when it comes",
        AgentState::Frozen => "; its streams are stopped: see `longshore fleet show`",
    }
}
