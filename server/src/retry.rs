//! Starting again what failed: a new job that goes on, at each agent, from the step that failed there. It is one transaction of the
//! new job and of the runs that it does again, each of which can be done again only once. It never runs a `once` step that took
//! effect, and leaves one of which nobody knows to a person.

use std::collections::{BTreeMap, BTreeSet};

use link::wall_ms;
use messages::limits::EARLIER_RUNS_MAX;
use messages::{Body, Earlier, Effect, JobId, Keep, RunId, RunStart, StepId, StepSpec, When};
use uuid::Uuid;

use crate::api::{Retry, RetryError, Submitted};
use crate::books::Books;
use crate::clock::Since;
use crate::core::Core;
use crate::job_file::{Pick, Plan, Target, Who};
use crate::records::{JobRow, Policy, RetryOf, RunRow, StepRow};
use crate::submit::{Entry, message_id};
use crate::views::{RunState, StepState};

impl Core {
    /// Takes a job that does again what another one did not. Must be run to its end, like the taking of any job.
    pub(crate) async fn retry_job(self, retry: Retry) -> Result<Submitted, RetryError> {
        let (id, asked) = (retry.id, RetryOf { job: retry.job, agents: retry.agents, from: retry.from });
        let _alone = self.submitting().alone(id).await;
        let known = self.books().job(id).map(|job| job.retry.clone());
        if let Some(known) = known {
            if known.as_ref() != Some(&asked) {
                return Err(RetryError::IdTaken { id });
            }
            return Ok(self.submitted(id, false).await?);
        }
        self.admits()?;
        // From looking at the runs to having said that they are done again, nobody else may change them.
        let turn = self.turn().await;
        let older = {
            let books = self.books();
            let row = books.job(asked.job).ok_or(RetryError::NotFound)?;
            let concurrency = row.policy.as_ref().and_then(|policy| policy.concurrency.clone());
            drop(books);
            self.older_of_group(concurrency.as_ref())?
        };
        let entry = self.again(id, asked)?;
        Ok(self.take_entry(entry, older, turn).await?)
    }

    /// The rows of the new job and its runs, and the runs that it does again.
    fn again(&self, id: JobId, asked: RetryOf) -> Result<Entry, RetryError> {
        let books = self.books();
        let old = books.job(asked.job).cloned().ok_or(RetryError::NotFound)?;
        let policy = old.policy.clone().filter(|_| !old.definition.is_empty()).ok_or(RetryError::FileLost)?;
        let plan = self.dispatching().plan(&old).map_err(|reason| RetryError::Unreadable { reason })?;
        let meant = meant(&books, &asked)?;
        let mut entry = Entry { row: new_row(id, &old, policy, asked), runs: Vec::new(), retried: Vec::new() };
        for run in meant {
            let agent = &run.agent;
            if !self.known_agents().contains(agent) {
                return Err(RetryError::AgentGone { agent: agent.clone() });
            }
            let (steps, earlier) = go_on(run, &plan, entry.row.retry.as_ref().and_then(|asked| asked.from.as_ref()))?;
            let new = RunRow::waiting(RunId::new(Uuid::now_v7()), id, agent.clone(), message_id(), steps);
            let new = RunRow { earlier, ..new };
            measure(&plan, &new)?;
            entry.runs.push(new);
            entry.retried.push(RunRow { retried: Some(id), ..run.clone() });
        }
        if let Some(policy) = entry.row.policy.as_mut().filter(|_| !entry.runs.is_empty()) {
            let agents = entry.runs.iter().map(|run| run.agent.clone()).collect();
            policy.target =
                Target { who: Who::Agents(agents), pick: Pick::All, sticky: false, ..policy.target.clone() };
            entry.row.unassigned = false;
        }
        drop(books);
        self.dispatching().remember(id, Plan::clone(&plan));
        Ok(entry)
    }
}

fn new_row(id: JobId, old: &JobRow, policy: Policy, asked: RetryOf) -> JobRow {
    JobRow {
        id,
        name: old.name.clone(),
        definition: old.definition.clone(),
        params: old.params.clone(),
        created_ms: wall_ms(),
        policy: Some(policy),
        since: Some(Since::now()),
        // Until it has runs: the old one may have ended before an agent was found for it.
        unassigned: true,
        cancelled: None,
        retry: Some(asked),
    }
}

/// The runs that are to be done again.
fn meant<'a>(books: &'a Books, asked: &RetryOf) -> Result<Vec<&'a RunRow>, RetryError> {
    let job = asked.job;
    let all: Vec<&RunRow> = books.runs_of(job).collect();
    if let Some(agent) = asked.agents.iter().find(|agent| !all.iter().any(|run| run.agent == **agent)) {
        return Err(RetryError::NoRun {
            agent: agent.clone(),
            agents: all.iter().map(|run| run.agent.clone()).collect(),
        });
    }
    let named = |run: &&&RunRow| asked.agents.is_empty() || asked.agents.contains(&run.agent);
    let mut found = Vec::new();
    let mut retried = None;
    for run in all.iter().filter(named) {
        if run.state == RunState::NeedsDecision {
            return Err(RetryError::Undecided { agent: run.agent.clone() });
        }
        if !run.state.is_over() {
            return Err(RetryError::NotOver { agent: Some(run.agent.clone()) });
        }
        match (run.state, run.retried) {
            (RunState::Succeeded, _) if asked.agents.is_empty() => {}
            (RunState::Succeeded, _) => return Err(RetryError::Succeeded),
            (_, Some(by)) if asked.agents.is_empty() => retried = Some((run.agent.clone(), by)),
            (_, Some(by)) => return Err(RetryError::Retried { agent: Some(run.agent.clone()), by }),
            (_, None) => found.push(*run),
        }
    }
    match (found.is_empty(), retried) {
        (false, _) => Ok(found),
        (true, Some((agent, by))) => Err(RetryError::Retried { agent: Some(agent), by }),
        // It ended before an agent was found for it: nothing of it was done, and it is done as a whole.
        (true, None) if all.is_empty() && books.is_over(job) => match books.retries(job).next() {
            Some(by) => Err(RetryError::Retried { agent: None, by }),
            None => Ok(found),
        },
        (true, None) if all.is_empty() => Err(RetryError::NotOver { agent: None }),
        (true, None) => Err(RetryError::Succeeded),
    }
}

/// The steps of a run that goes on from that one, and what its agent has to know of what was done; nothing if that is nothing.
fn go_on(run: &RunRow, plan: &Plan, from: Option<&StepId>) -> Result<(Vec<StepRow>, Option<Earlier>), RetryError> {
    let agent = || run.agent.clone();
    if run.given_up && run.late.is_none() && run.since.is_some() {
        return Err(RetryError::NotHeardOf { agent: agent() });
    }
    let specs: BTreeMap<&StepId, &StepSpec> = plan.steps.iter().map(|spec| (&spec.id, spec)).collect();
    let steps: Vec<(&StepRow, &StepSpec)> =
        run.steps.iter().filter_map(|row| Some((row, *specs.get(&row.id)?))).collect();
    let failed = first_open(&steps);
    let from = match from {
        None => failed,
        Some(step) => steps.iter().position(|(row, _)| row.id == *step).ok_or_else(|| RetryError::UnknownStep {
            step: step.clone(),
            steps: steps.iter().map(|(row, _)| row.id.clone()).collect(),
        })?,
    };
    if from > failed {
        return Err(RetryError::Skips { agent: agent(), step: steps[failed].0.id.clone() });
    }
    let once_and_done = |(row, spec): &&(&StepRow, &StepSpec)| row.is_done() && matches!(spec.effect, Effect::Once);
    if let Some((row, _)) = steps[from..failed].iter().find(once_and_done) {
        return Err(RetryError::OnceDone { agent: agent(), step: row.id.clone() });
    }
    let folder = steps[..from].iter().any(|(row, _)| row.is_done());
    if folder && plan.keep == Keep::Never {
        return Err(RetryError::NoFolder { agent: agent(), first: steps[0].0.id.clone() });
    }
    let mut done = BTreeSet::new();
    let mut unknown = BTreeMap::new();
    let mut rows = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let (row, spec) = step;
        // One behind the failed step was for that case, and took effect.
        if at < from || once_and_done(&step) {
            done.insert(row.id.clone());
            rows.push(carried(row, run));
            continue;
        }
        let known = doubt(row, spec);
        // Should this run not come to it either, the next one still has to ask.
        rows.push(StepRow { unknown: known.is_some(), detail: known.clone(), ..StepRow::new(spec) });
        unknown.extend(known.map(|known| (row.id.clone(), known)));
    }
    let runs = std::iter::once(run.id).chain(run.earlier.iter().flat_map(|earlier| earlier.runs.iter().copied()));
    let runs = runs.take(EARLIER_RUNS_MAX).collect();
    let nothing = done.is_empty() && unknown.is_empty();
    let earlier = Earlier { runs, done, outputs: BTreeMap::new(), unknown, folder };
    Ok((rows, Some(earlier).filter(|_| !nothing)))
}

/// The step that a run has to go on from: the first that went wrong, or else the first that was to be run and was not.
fn first_open(steps: &[(&StepRow, &StepSpec)]) -> usize {
    let wrong = |(row, _): &(&StepRow, &StepSpec)| match row.state {
        StepState::Failed | StepState::TimedOut | StepState::Cancelled | StepState::NeedsDecision => true,
        StepState::Running => true,
        // It was begun, and then the run was given up.
        StepState::Pending | StepState::NotRun => row.unknown && row.attempt > 0,
        StepState::Succeeded | StepState::AlreadyDone | StepState::Skipped => false,
    };
    let open = |(row, spec): &(&StepRow, &StepSpec)| {
        matches!(row.state, StepState::Pending | StepState::NotRun) && spec.when != When::Failure
    };
    steps.iter().position(wrong).or_else(|| steps.iter().position(open)).unwrap_or(0)
}

/// What speaks against simply running a step again, if something does: then its check is asked, or a person.
fn doubt(row: &StepRow, spec: &StepSpec) -> Option<String> {
    let known = || row.detail.clone().unwrap_or_else(|| "its run was given up while it was under way".to_owned());
    match spec.effect {
        Effect::ReadOnly | Effect::Idempotent => None,
        Effect::Once => row.unknown.then(known),
        Effect::Guarded(_) if row.is_done() => Some("it succeeded".to_owned()),
        Effect::Guarded(_) => row.unknown.then(known),
    }
}

/// A step that is not run, because an earlier run did it or did not want it.
fn carried(row: &StepRow, run: &RunRow) -> StepRow {
    let earlier = row.earlier.or(row.is_done().then_some(run.id));
    // People know jobs, not runs. If it was done even earlier, its detail says so already.
    let detail = match row.earlier {
        Some(_) => row.detail.clone(),
        None => earlier.map(|_| format!("done in job {:.13}", run.job.to_string())),
    };
    let (attempt, note, usage, silent) = (0, None, None, BTreeSet::new());
    StepRow { attempt, detail, started_ms: None, ended_ms: None, usage, note, silent, earlier, ..row.clone() }
}

/// Whether it fits one message, with what the earlier steps handed on.
fn measure(plan: &Plan, run: &RunRow) -> Result<(), RetryError> {
    let start = RunStart { earlier: run.told_earlier(), ..plan.run_start(run.id, run.job) };
    let encoded = Body::RunRetry(start).encode().map(|(_, bytes)| bytes.len());
    match encoded {
        Ok(bytes) if bytes <= messages::limits::BODY_BYTES_MAX => Ok(()),
        Ok(bytes) => Err(RetryError::TooLarge { agent: run.agent.clone(), bytes }),
        Err(error) => Err(RetryError::Unreadable { reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests;
