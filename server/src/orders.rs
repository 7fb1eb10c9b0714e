//! What people order: ending a job, deciding about a step that nobody knows about, giving an agent nothing more. Each is one
//! transaction of the rows that it changes and the messages that it sends; the agent's answer comes as a report.

use std::collections::BTreeSet;

use journal::{Change, put_app};
use link::session::{Outbound, TransactError, Transaction};
use link::{SubmitError as LinkSubmitError, outbound, wall_ms};
use messages::{AgentDrain, AgentId, Body, Decision, JobId, RunCancel, RunDecide};

use crate::api::{AgentOrder, DeskError, OrderError, Resolution};
use crate::books::Books;
use crate::clock::{Since, duration_words};
use crate::core::Core;
use crate::kept::Ahead;
use crate::records::{AgentRow, Decided, JobRow, RunRow};
use crate::schedule::{self, Fleet};
use crate::submit::{endpoint_of, message_id};
use crate::tally::Stage;
use crate::views::{AgentView, JobView, RunState, StepState};

/// Milliseconds beyond a run's time limit before the server does something: its agent keeps the limit, and may be slow to say so.
const GRACE_MS: u64 = 60_000;
/// Milliseconds after which a run without a limit of its own waits for a person, if its agent cannot be reached.
const UNREACHABLE_MS: u64 = 7 * 24 * 3_600_000;

/// What changes, collected before it is done as one.
struct Changes {
    /// The agents that can be told something.
    known: BTreeSet<AgentId>,
    rows: Vec<Change>,
    send: Vec<Outbound>,
}

impl Changes {
    const fn for_agents(known: BTreeSet<AgentId>) -> Self {
        Self { known, rows: Vec::new(), send: Vec::new() }
    }

    fn run(&mut self, books: &mut Books, run: RunRow) {
        self.rows.push(put_app(RunRow::key(run.id), run.encode()));
        books.replace(run);
    }

    /// One order that cannot be sent would have all of them refused, when the books have changed already: so it is found out before.
    fn tell(&mut self, agent: &AgentId, body: &Body) -> Result<(), TransactError> {
        let peer = endpoint_of(agent);
        if !self.known.contains(agent) {
            return Err(TransactError::UnknownPeer { peer });
        }
        self.send.push(outbound(peer, message_id(), body, None)?);
        Ok(())
    }

    /// Tells an agent to end a run, once. A run of an agent that is not known any more stays as it is: nobody can be told.
    fn cancel(&mut self, books: &mut Books, run: RunRow, reason: &str) -> Result<(), TransactError> {
        if run.cancelling.is_none() && self.known.contains(&run.agent) {
            self.tell(&run.agent, &Body::RunCancel(RunCancel { run: run.id, reason: reason.to_owned() }))?;
            self.run(books, RunRow { cancelling: Some(reason.to_owned()), ..run });
        }
        Ok(())
    }
}

impl Core {
    /// `ahead` is from before anybody else could see the changes.
    async fn carry_out(&self, (changes, ahead): (Changes, Ahead<'_>)) -> Result<(), LinkSubmitError> {
        if changes.rows.is_empty() && changes.send.is_empty() {
            ahead.undone();
            return Ok(());
        }
        let Changes { rows, send, known: _ } = changes;
        // Not new work: an order is taken even by a full outbox.
        if let Err(error) = self.endpoint().transact(Transaction { rows, send, ..Transaction::default() }).await {
            if let LinkSubmitError::Refused(_) = &error {
                tracing::error!(%error, "An order was refused that the books show already, which is a defect. The server ends; started again, it shows what is kept.");
            }
            return Err(error);
        }
        ahead.kept();
        self.notice();
        self.wake();
        Ok(())
    }

    /// Ends a job: what nobody has at once, the rest when its agents have done so.
    pub(crate) async fn cancel_job(self, job: JobId, reason: String) -> Result<JobView, OrderError> {
        let _turn = self.turn().await;
        let changes = {
            let mut books = self.books();
            let row = books.job(job).cloned().ok_or(OrderError::NotFound)?;
            if books.is_over(job) {
                let state = books.state(job).map_or_else(String::new, |state| state.to_string());
                return Err(OrderError::Over { state });
            }
            let mut changes = Changes::for_agents(self.known_agents().clone());
            let open: Vec<RunRow> = books.runs_of(job).filter(|run| !run.state.is_over()).cloned().collect();
            let lost: BTreeSet<&AgentId> =
                open.iter().map(|run| &run.agent).filter(|of| !changes.known.contains(*of)).collect();
            if !open.is_empty() && open.iter().all(|run| lost.contains(&run.agent)) {
                return Err(unreachable_for_good(&lost));
            }
            let row = JobRow { cancelled: row.cancelled.clone().or(Some(reason.clone())), ..row };
            changes.rows.push(put_app(JobRow::key(job), row.encode()));
            books.put_job(row);
            changes.rows.extend(self.end_waiting(&mut books, job, RunState::Cancelled, &reason));
            let open: Vec<RunRow> = books.runs_of(job).filter(|run| !run.state.is_over()).cloned().collect();
            for run in open {
                changes.cancel(&mut books, run, &reason).map_err(unsendable)?;
            }
            (changes, self.kept_books().ahead())
        };
        self.carry_out(changes).await.map_err(failed)?;
        self.view(job).await?.ok_or(OrderError::NotFound)
    }

    /// Carries out what a person decided about a step.
    pub(crate) async fn resolve_job(self, job: JobId, resolution: Resolution) -> Result<JobView, OrderError> {
        let _turn = self.turn().await;
        let changes = {
            let mut books = self.books();
            let run = undecided(&books, job, &resolution)?;
            let mut changes = Changes::for_agents(self.known_agents().clone());
            let at = run.steps.iter().position(|step| step.state == StepState::NeedsDecision);
            match at.map(|at| &run.steps[at]) {
                Some(step) if !resolution.give_up => {
                    if resolution.step.as_ref().is_some_and(|wanted| *wanted != step.id) {
                        return Err(OrderError::OtherStep { step: step.id.clone() });
                    }
                    if run.decided.is_some() {
                        return Err(OrderError::AlreadyDecided { agent: run.agent });
                    }
                    let Resolution { decision, note, .. } = resolution;
                    let order = RunDecide {
                        run: run.id,
                        step: step.id.clone(),
                        attempt: step.attempt,
                        decision,
                        note: note.clone(),
                    };
                    changes.tell(&run.agent, &Body::RunDecide(order)).map_err(unsendable)?;
                    let decided = Some(Decided { step: step.id.clone(), decision, note });
                    changes.run(&mut books, RunRow { decided, ..run });
                }
                Some(_) | None => give_up(&mut books, &mut changes, run, &resolution)?,
            }
            (changes, self.kept_books().ahead())
        };
        self.carry_out(changes).await.map_err(failed)?;
        self.view(job).await?.ok_or(OrderError::NotFound)
    }

    /// Gives an agent nothing more, or something again. What is so already is neither written nor sent again.
    pub(crate) async fn order_agent(self, agent: AgentId, order: AgentOrder) -> Result<AgentView, OrderError> {
        if !self.known_agents().contains(&agent) {
            return Err(OrderError::NotFound);
        }
        let _turn = self.turn().await;
        let undrain = matches!(order, AgentOrder::Undrain);
        let says_draining = self.dispatching().fleet().get(&agent).is_some_and(|now| now.draining);
        let changes = {
            let mut books = self.books();
            let before = books.agent(&agent).cloned().unwrap_or_default();
            let mut row = before.clone();
            let mut changes = Changes::for_agents(self.known_agents().clone());
            let drain = |draining, note: &str| Body::AgentDrain(AgentDrain { draining, note: note.to_owned() });
            match order {
                AgentOrder::Pause { note } => row.paused = Some(latest(note, before.paused.as_ref())),
                AgentOrder::Resume => row.paused = None,
                AgentOrder::Drain { note } => row.draining = Some(latest(note, before.draining.as_ref())),
                AgentOrder::Undrain => row.draining = None,
            }
            match &row.draining {
                Some(note) if row.draining != before.draining => {
                    changes.tell(&agent, &drain(true, note)).map_err(unsendable)?;
                }
                // Also if only the agent knows of a drain: the books may have been lost since.
                None if undrain && (before.draining.is_some() || says_draining) => {
                    changes.tell(&agent, &drain(false, "")).map_err(unsendable)?;
                }
                Some(_) | None => {}
            }
            if row != before {
                changes.rows.push(put_app(AgentRow::key(&agent), row.encode()));
                books.put_agent(agent.clone(), row);
            }
            (changes, self.kept_books().ahead())
        };
        self.carry_out(changes).await.map_err(failed)?;
        Ok(self.agent_view(&agent).await?)
    }

    /// Ends what has waited or taken too long, or lets a person decide.
    pub(crate) async fn keep_time(&self) -> Result<(), LinkSubmitError> {
        let _turn = self.turn().await;
        let changes = {
            let fleet = self.dispatching().fleet();
            let mut books = self.books();
            let timed: Vec<JobId> = books.tally().timed().collect();
            let mut changes = Changes::for_agents(self.known_agents().clone());
            for job in timed {
                self.keep_time_of(&mut books, &fleet, job, &mut changes);
            }
            (changes, self.kept_books().ahead())
        };
        self.carry_out(changes).await
    }

    fn keep_time_of(&self, books: &mut Books, fleet: &Fleet, job: JobId, changes: &mut Changes) {
        let Some((row, policy)) = books.job(job).and_then(|row| Some((row, row.policy.as_ref()?))) else { return };
        let since = row.since.clone();
        let (expires, timeout) = (policy.target.expires_ms, policy.timeout_ms);
        if schedule::too_many_failed(policy, books.counts(job)) {
            let reason = "too many other runs of the job did not succeed";
            changes.rows.extend(self.end_waiting(books, job, RunState::Cancelled, reason));
        }
        if let (Some(limit), Some(since)) = (expires, since)
            && since.elapsed_ms() >= limit
        {
            let reason = format!("no agent took it within {}", duration_words(limit));
            changes.rows.extend(self.end_waiting(books, job, RunState::Expired, &reason));
        }
        let overdue = |run: &&RunRow| {
            let limit = timeout.map_or(UNREACHABLE_MS, |limit| limit.saturating_add(GRACE_MS));
            Stage::of(run.state) == Stage::Active && run.since.as_ref().is_some_and(|since| since.elapsed_ms() >= limit)
        };
        let runs: Vec<RunRow> = books.runs_of(job).filter(overdue).cloned().collect();
        for run in runs {
            let away = fleet.get(&run.agent).is_none_or(|agent| !agent.online);
            let reason = timeout.map_or_else(
                || "nothing was heard of it for a week".to_owned(),
                |limit| format!("its time limit of {} has passed", duration_words(limit)),
            );
            if timeout.is_some() && changes.cancel(books, run.clone(), &reason).is_err() {
                continue;
            }
            // The row may have changed just now.
            if let Some(run) = books.run(run.id).filter(|_| away).cloned() {
                let reason = Some(format!("{reason}, and its agent cannot be reached: wait, or give it up"));
                changes.run(books, RunRow { state: RunState::NeedsDecision, reason, ..run });
            }
        }
    }

    /// Begins to count anew what was counted in another boot of this machine.
    pub(crate) async fn count_anew(&self) {
        let _turn = self.turn().await;
        let rows = {
            let mut books = self.books();
            let old = |since: &Option<Since>| since.as_ref().is_some_and(Since::is_of_another_boot);
            let mut changes = Changes::for_agents(self.known_agents().clone());
            let jobs: Vec<JobId> = books.tally().timed().collect();
            for job in jobs {
                let runs: Vec<RunRow> = books.runs_of(job).filter(|run| old(&run.since)).cloned().collect();
                for run in runs.into_iter().filter(|run| !run.state.is_over()) {
                    changes.run(&mut books, RunRow { since: Some(Since::now()), ..run });
                }
                if let Some(row) = books.job(job).filter(|row| old(&row.since)).cloned() {
                    let row = JobRow { since: Some(Since::now()), ..row };
                    changes.rows.push(put_app(JobRow::key(job), row.encode()));
                    books.put_job(row);
                }
            }
            (changes, self.kept_books().ahead())
        };
        if let Err(error) = self.carry_out(rows).await {
            tracing::error!(%error, "Time limits could not be counted anew after a start of the machine.");
        }
    }
}

/// The reason that was given last. To ask again without one takes none away.
fn latest(given: String, before: Option<&String>) -> String {
    match before {
        Some(before) if given.is_empty() => before.clone(),
        Some(_) | None => given,
    }
}

/// The one run that a decision is about.
fn undecided(books: &Books, job: JobId, resolution: &Resolution) -> Result<RunRow, OrderError> {
    books.job(job).ok_or(OrderError::NotFound)?;
    let meant = |run: &&RunRow| {
        let agent = resolution.agent.as_ref().is_none_or(|agent| *agent == run.agent);
        agent && (run.state == RunState::NeedsDecision || (resolution.give_up && !run.state.is_over()))
    };
    let mut found = books.runs_of(job).filter(meant);
    match (found.next(), found.next()) {
        (None, _) => Err(OrderError::NothingToDecide),
        (Some(run), None) => Ok(run.clone()),
        (Some(first), Some(second)) => {
            let agents = [first, second].into_iter().chain(found).map(|run| run.agent.clone()).collect();
            Err(OrderError::WhichRun { agents })
        }
    }
}

/// Ends a run here without its agent. What the agent says of it later is kept beside it.
fn give_up(books: &mut Books, changes: &mut Changes, run: RunRow, resolution: &Resolution) -> Result<(), OrderError> {
    let (state, word) = match resolution.decision {
        Decision::Done => (RunState::Succeeded, "said that it is done"),
        Decision::Fail => (RunState::Failed, "gave it up"),
        Decision::Retry => return Err(OrderError::CannotRetry { agent: run.agent }),
    };
    let mut run = run;
    // Should the agent come back, it is to end what it still does of it.
    let reason = format!("a person {word} without its agent: {}", resolution.note);
    if run.cancelling.is_none() && run.state != RunState::Waiting && changes.known.contains(&run.agent) {
        let order = RunCancel { run: run.id, reason: reason.clone() };
        changes.tell(&run.agent, &Body::RunCancel(order)).map_err(unsendable)?;
    }
    // What its agent does of them meanwhile, if anything, it says later.
    for step in run.steps.iter_mut().filter(|step| matches!(step.state, StepState::Running | StepState::NeedsDecision))
    {
        step.unknown = true;
    }
    run.end(state, Some(reason), wall_ms());
    run.given_up = true;
    changes.run(books, run);
    Ok(())
}

fn unreachable_for_good(agents: &BTreeSet<&AgentId>) -> OrderError {
    let names: Vec<&str> = agents.iter().map(|agent| agent.as_str()).collect();
    let names = names.join(", ");
    OrderError::Refused {
        reason: format!(
            "{names} is not known here any more; name it in the configuration again, or give its run up (`job resolve JOB --give-up`)"
        ),
    }
}

fn unsendable(error: TransactError) -> OrderError {
    OrderError::Refused { reason: error.to_string() }
}

fn failed(error: LinkSubmitError) -> OrderError {
    match error {
        LinkSubmitError::Refused(error) => unsendable(error),
        LinkSubmitError::Journal(error) => DeskError::Journal { reason: error.to_string() }.into(),
        LinkSubmitError::Stopped => DeskError::Stopping.into(),
    }
}
