//! Giving out runs: carries out what the scheduler names, and keeps time limits. Each batch is one transaction: what the books
//! show of it is taken back when the journal refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use journal::{Change, put_app};
use link::session::{Outbound, TransactError, Transaction};
use link::{SubmitError, outbound};
use messages::{AgentId, Body, EndpointId, JobId, RefusalCode, RunId, RunStart};
use uuid::Uuid;

use crate::books::Books;
use crate::clock::Since;
use crate::core::Core;
use crate::fleet;
use crate::job_file::{JobFile, Plan};
use crate::pace::EndedLately;
use crate::records::{AgentRow, JobRow, RunRow, StepRow};
use crate::schedule::{self, Assignment, Fleet};
use crate::submit::{endpoint_of, message_id};
use crate::views::RunState;

/// Runs given out in one transaction.
const BATCH: usize = 64;
/// Plans that are remembered; others are read again from their job's file.
const PLANS_MAX: usize = 1_000;
/// How often time limits are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often, at most, it is asked how the agents are.
const LOOK: Duration = Duration::from_millis(100);
/// How often space is set aside on the disk, if it is not and there is enough.
const SET_ASIDE_EVERY: Duration = Duration::from_secs(10);
/// For how long nothing is given to an agent that refused for a reason that passes.
const COOLING: Duration = Duration::from_secs(5);

/// What the dispatcher remembers.
#[derive(Debug, Default)]
pub(crate) struct Dispatch {
    fleet: Mutex<Arc<Fleet>>,
    plans: Mutex<BTreeMap<JobId, Arc<Plan>>>,
    cooling: Mutex<BTreeMap<AgentId, (Instant, RefusalCode)>>,
}

impl Dispatch {
    /// What was last known of the agents.
    #[must_use]
    pub(crate) fn fleet(&self) -> Arc<Fleet> {
        // Nothing that holds these locks can panic halfway.
        Arc::clone(&self.fleet.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers what a job is to do.
    pub(crate) fn remember(&self, job: JobId, plan: Plan) -> Arc<Plan> {
        let plan = Arc::new(plan);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= PLANS_MAX {
            plans.pop_first();
        }
        plans.insert(job, Arc::clone(&plan));
        plan
    }

    /// What a job is to do, from its file if need be.
    ///
    /// # Errors
    /// Why its file cannot be read.
    pub(crate) fn plan(&self, row: &JobRow) -> Result<Arc<Plan>, String> {
        if let Some(plan) = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&row.id) {
            return Ok(Arc::clone(plan));
        }
        let planned = JobFile::parse(&row.definition).and_then(|file| file.plan(&row.params));
        let plan = planned.map_err(|problems| {
            let what = problems.into_iter().next().map(|problem| problem.what).unwrap_or_default();
            format!("this version of the server cannot read its job file: {what}")
        })?;
        Ok(self.remember(row.id, plan))
    }

    /// Gives an agent nothing for a while.
    pub(crate) fn cool(&self, agent: &AgentId, code: RefusalCode) {
        let mut cooling = self.cooling.lock().unwrap_or_else(PoisonError::into_inner);
        cooling.insert(agent.clone(), (Instant::now() + COOLING, code));
        drop(cooling);
        let mut fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = Arc::make_mut(&mut fleet).get_mut(agent) {
            now.refusing = Some(code);
        }
    }

    /// Notes whether the server's disk is too full to give out anything. Whether it was.
    fn note_room(&self, short: bool) -> bool {
        let mut fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        let was_short = fleet.values().any(|agent| agent.server_short);
        if was_short != short {
            Arc::make_mut(&mut fleet).values_mut().for_each(|agent| agent.server_short = short);
        }
        was_short
    }

    /// Notes how many runs agents ended lately.
    fn note_pace(&self, lately: Vec<(AgentId, EndedLately)>) {
        let mut fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        for (agent, ended) in lately {
            if fleet.get(&agent).is_some_and(|now| now.lately != ended)
                && let Some(now) = Arc::make_mut(&mut fleet).get_mut(&agent)
            {
                now.lately = ended;
            }
        }
    }

    fn set_fleet(&self, mut fleet: Fleet) {
        let mut cooling = self.cooling.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        cooling.retain(|_, (until, _)| *until > now);
        for (agent, (_, code)) in cooling.iter() {
            if let Some(agent) = fleet.get_mut(agent) {
                agent.refusing = agent.refusing.or(Some(*code));
            }
        }
        let mut known = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        if known.values().any(|agent| agent.server_short) {
            fleet.values_mut().for_each(|agent| agent.server_short = true);
        }
        for (agent, before) in known.iter().filter(|(_, now)| !now.lately.is_empty()) {
            if let Some(now) = fleet.get_mut(agent) {
                now.lately.clone_from(&before.lately);
            }
        }
        *known = Arc::new(fleet);
    }
}

/// A run that was given out in the books, and how to take that back.
#[derive(Debug)]
pub(crate) struct Given {
    job: JobId,
    run: RunId,
    agent: AgentId,
    /// How the run was before; nothing if it was made for this.
    before: Option<RunRow>,
    once: bool,
    pub(crate) message: Outbound,
}

impl Given {
    /// The rows that this changes, as the books have them now.
    fn rows(&self, books: &Books) -> Vec<Change> {
        let run = books.run(self.run).map(|run| put_app(RunRow::key(run.id), run.encode()));
        let job = books.job(self.job).filter(|_| self.before.is_none());
        let job = job.map(|job| put_app(JobRow::key(job.id), job.encode()));
        run.into_iter().chain(job).chain(self.agent_row(books)).collect()
    }

    /// The row of the agent, if this changes it.
    pub(crate) fn agent_row(&self, books: &Books) -> Option<Change> {
        let row = books.agent(&self.agent).filter(|_| self.once)?;
        Some(put_app(AgentRow::key(&self.agent), row.encode()))
    }

    /// Takes it back.
    pub(crate) fn undo(self, books: &mut Books) {
        match self.before {
            Some(before) => books.replace(before),
            None => {
                books.remove_run(self.run);
                if let Some(job) = books.job(self.job).cloned() {
                    books.put_job(JobRow { unassigned: true, ..job });
                }
            }
        }
        if self.once
            && let Some(row) = books.agent(&self.agent).cloned()
        {
            books.put_agent(self.agent, AgentRow { once: None, ..row });
        }
    }
}

impl Core {
    /// Gives out runs until the endpoint stops.
    pub(crate) async fn dispatch(self) {
        let mut changes = self.endpoint().changes();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asides = tokio::time::interval(SET_ASIDE_EVERY);
        asides.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut stale, mut looked) = (true, tokio::time::Instant::now());
        if self.look().await.is_err() {
            return;
        }
        self.count_anew().await;
        loop {
            let mut ticked = false;
            tokio::select! {
                () = self.wake_up().notified() => {}
                changed = changes.changed() => match changed {
                    Ok(()) => stale = true,
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(looked + LOOK), if stale => {}
                _ = tick.tick() => (stale, ticked) = (true, true),
                _ = asides.tick() => self.set_aside().await,
            }
            if stale && looked.elapsed() >= LOOK {
                if self.look().await.is_err() {
                    return;
                }
                (stale, looked) = (false, tokio::time::Instant::now());
            }
            let kept = if ticked { self.keep_time().await } else { Ok(()) };
            let done = match kept {
                Ok(()) => self.give_out().await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => {}
                Err(SubmitError::Stopped | SubmitError::Journal(_)) => return,
                Err(error @ SubmitError::Refused(_)) => {
                    tracing::warn!(%error, "Some work could not be given out; it waits.")
                }
            }
        }
    }

    /// Asks how the agents are.
    async fn look(&self) -> Result<(), link::Stopped> {
        let views = self.endpoint().views().await?;
        let mut known: Fleet = self.known_agents().iter().map(|agent| (agent.clone(), Default::default())).collect();
        for view in views {
            if let EndpointId::Agent(agent) = &view.streams.peer
                && let Some(now) = known.get_mut(agent)
            {
                *now = fleet::agent_now(&view.streams);
            }
        }
        self.dispatching().set_fleet(known);
        Ok(())
    }

    /// Holds everything back while the disk is too full.
    fn note_room(&self) {
        let short = self.short();
        let was_short = self.dispatching().note_room(short.is_some());
        match short {
            Some(reason) if !was_short => {
                tracing::warn!(%reason, "No new jobs are taken, and no more work is given out.")
            }
            None if was_short => tracing::info!("There is room on the disk: new jobs are taken again."),
            Some(_) | None => {}
        }
    }

    /// Gives out what can be given out.
    async fn give_out(&self) -> Result<(), SubmitError> {
        self.note_room();
        self.dispatching().note_pace(self.pace().lately(Instant::now()));
        let fleet = self.dispatching().fleet();
        let mut open: BTreeSet<AgentId> = fleet.keys().cloned().collect();
        loop {
            let turn = self.turn().await;
            let ahead = self.kept_books().ahead();
            let (transaction, given) = self.batch(&fleet, &mut open);
            if given.is_empty() && transaction.rows.is_empty() {
                ahead.undone();
                return Ok(());
            }
            let begun = match self.endpoint().begin_checked(transaction).await {
                Ok(begun) => begun,
                Err(error) => {
                    let mut books = self.books();
                    given.into_iter().rev().for_each(|given| given.undo(&mut books));
                    drop(books);
                    if let SubmitError::Refused(_) = &error {
                        ahead.undone();
                    }
                    if let SubmitError::Refused(TransactError::OutboxFull { peer, .. }) = &error
                        && let Some(agent) = peer.agent()
                    {
                        self.dispatching().cool(agent, RefusalCode::Full);
                    }
                    return Err(error);
                }
            };
            // The order is settled; others need not wait for the sync, and share it.
            drop(turn);
            begun.done().await?;
            ahead.kept();
            self.notice();
        }
    }

    /// The next batch, given out in the books already.
    fn batch(&self, fleet: &Fleet, open: &mut BTreeSet<AgentId>) -> (Transaction, Vec<Given>) {
        let mut books = self.books();
        let (mut given, mut transaction) = (Vec::new(), Transaction { admission: true, ..Transaction::default() });
        while given.len() < BATCH {
            let Some(assignment) = schedule::next(&books, fleet, open) else { break };
            match self.give(&mut books, &assignment) {
                Ok(one) => given.push(one),
                Err(reason) => transaction.rows.extend(self.drop_unreadable(&mut books, &assignment, &reason)),
            }
        }
        for one in &given {
            transaction.rows.extend(one.rows(&books));
            transaction.send.push(one.message.clone());
        }
        (transaction, given)
    }

    /// Gives out one run of a job that was just taken, if nobody waits before it.
    pub(crate) fn give_now(&self, books: &mut Books, fleet: &Fleet, job: JobId, run: Option<RunId>) -> Option<Given> {
        schedule::job_hold(books, job).is_none().then_some(())?;
        let agent = match run {
            Some(run) => {
                let (agent, name) = (books.run(run)?.agent.clone(), &books.job(job)?.name);
                let alone = books
                    .tally()
                    .queue(&agent)
                    .is_some_and(|queue| queue.values().map(BTreeSet::len).sum::<usize>() == 1);
                (alone && schedule::bound_hold(books, fleet, &agent, name).is_none()).then_some(agent)?
            }
            None => schedule::least_busy(books, fleet, job)?,
        };
        self.give(books, &Assignment { job, run, agent }).ok()
    }

    /// Gives out a run in the books.
    fn give(&self, books: &mut Books, assignment: &Assignment) -> Result<Given, String> {
        let Assignment { job, run, agent } = assignment;
        let row = books.job(*job).cloned().ok_or("its job is not known")?;
        let plan = self.dispatching().plan(&row)?;
        let before = run.and_then(|run| books.run(run)).cloned();
        let run = match &before {
            Some(run) => RunRow { message: message_id(), ..run.clone() },
            None => {
                let steps = plan.steps.iter().map(StepRow::new).collect();
                RunRow::waiting(RunId::new(Uuid::now_v7()), *job, agent.clone(), message_id(), steps)
            }
        };
        let run = RunRow { state: RunState::Sent, reason: None, since: Some(Since::now()), ..run };
        let start = plan.run_start(run.id, *job);
        let body = match run.told_earlier() {
            None => Body::RunStart(start),
            Some(earlier) => Body::RunRetry(RunStart { earlier: Some(earlier), ..start }),
        };
        let message = outbound(endpoint_of(agent), run.message, &body, None).map_err(|error| error.to_string())?;
        let agent_row = books.agent(agent).cloned().unwrap_or_default();
        let once = agent_row.facts.as_ref().is_some_and(|facts| facts.once);
        if once {
            books.put_agent(agent.clone(), AgentRow { once: Some(run.id), ..agent_row });
        }
        if row.unassigned && before.is_none() {
            books.put_job(JobRow { unassigned: false, ..row });
        }
        let id = run.id;
        books.replace(run);
        books.serve(*job);
        Ok(Given { job: *job, run: id, agent: agent.clone(), before, once, message })
    }

    /// Ends what can never be given out.
    fn drop_unreadable(&self, books: &mut Books, assignment: &Assignment, reason: &str) -> Vec<Change> {
        tracing::error!(job = %assignment.job, %reason, "A job cannot be given out.");
        self.end_waiting(books, assignment.job, RunState::Refused, reason)
    }

    /// Ends the runs of a job that nobody has, for that reason. The rows that change.
    pub(crate) fn end_waiting(&self, books: &mut Books, job: JobId, state: RunState, reason: &str) -> Vec<Change> {
        let mut rows = Vec::new();
        let waiting: Vec<RunRow> = books.runs_of(job).filter(|run| run.state == RunState::Waiting).cloned().collect();
        for mut run in waiting {
            run.end(state, Some(reason.to_owned()), link::wall_ms());
            rows.push(put_app(RunRow::key(run.id), run.encode()));
            books.replace(run);
        }
        if let Some(row) = books.job(job).filter(|row| row.unassigned).cloned() {
            let row = JobRow {
                unassigned: false,
                cancelled: Some(row.cancelled.clone().unwrap_or(reason.to_owned())),
                ..row
            };
            rows.push(put_app(JobRow::key(job), row.encode()));
            books.put_job(row);
        }
        rows
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::api::Desk as _;
    use crate::submit::tests::{server, submission};

    /// How many commits the journal in that folder has synced.
    fn commits(dir: &std::path::Path) -> u64 {
        let mark = std::fs::read(dir.join("server/journal/tail")).unwrap();
        u64::from_le_bytes(mark[5..13].try_into().unwrap())
    }

    #[tokio::test]
    async fn what_an_agent_ended_lately_is_given_ahead_and_stays_known_when_agents_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let (core, _service, _stop) = server(dir.path()).await;
        core.look().await.unwrap();
        let agent: AgentId = "a1".parse().unwrap();
        for number in 0..12 {
            let id = JobId::from_u128(100 + number);
            core.submit(crate::api::Submission { id, ..submission() }).await.unwrap();
        }
        let given = || core.books().tally().load(&agent);
        core.give_out().await.unwrap();
        assert_eq!(given(), 2);
        // In an hour, so that they count however slow this machine is.
        let ended = |runs: usize| {
            let at = Instant::now() + Duration::from_secs(3_600);
            (0..runs).for_each(|_| core.pace().ended(&agent, "n", at));
        };
        ended(4);
        core.give_out().await.unwrap();
        assert_eq!(given(), 5);
        ended(2);
        core.dispatching().note_pace(core.pace().lately(Instant::now()));
        core.look().await.unwrap();
        assert_eq!(core.dispatching().fleet()[&agent].lately["n"], 6);
    }

    #[tokio::test]
    async fn a_run_that_was_given_out_is_shown_to_nobody_before_it_is_on_stable_storage() {
        let dir = tempfile::tempdir().unwrap();
        let (core, _service, _stop) = server(dir.path()).await;
        // Nothing is known of the agent yet, so it waits.
        let job = core.submit(submission()).await.unwrap().job.id;
        let state = || core.books().runs_of(job).next().unwrap().state;
        assert_eq!(state(), RunState::Waiting);
        core.look().await.unwrap();
        let before = commits(dir.path());
        let mut giving = Box::pin(core.give_out());
        let mut shown_too_early = 0;
        loop {
            // Nobody but this task hears of a sync, so one that is heard of below was done by now.
            let synced = commits(dir.path()) > before;
            let given = (&mut giving).now_or_never();
            let shown = state() == RunState::Sent && core.kept().now_or_never().is_some();
            shown_too_early += usize::from(shown && !synced);
            match given {
                Some(given) => break given.unwrap(),
                None => tokio::task::yield_now().await,
            }
        }
        assert_eq!((state(), shown_too_early), (RunState::Sent, 0));
        core.kept().await.unwrap();
    }
}
