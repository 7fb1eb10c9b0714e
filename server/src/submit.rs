//! Taking jobs in: the job, its runs and the messages to those agents that can have them at once are one transaction.

use journal::put_app;
use link::session::{TransactError, Transaction};
use link::{SubmitError as LinkSubmitError, wall_ms};
use messages::{AgentId, EndpointId, JobId, MessageId, RunId};
use uuid::Uuid;

use crate::api::{DeskError, Submission, SubmitError, Submitted};
use crate::clock::Since;
use crate::core::Core;
use crate::dispatch::Given;
use crate::job_file::{Concurrency, OnConflict, Target, Who};
use crate::kept::Ahead;
use crate::records::{JobRow, Policy, RunRow, StepRow};
use crate::schedule;

/// A job that is to be taken.
pub(crate) struct Entry {
    /// The job.
    pub(crate) row: JobRow,
    /// Its runs that are certain from the beginning.
    pub(crate) runs: Vec<RunRow>,
    /// Runs of other jobs that it does again, as they are then.
    pub(crate) retried: Vec<RunRow>,
}

impl Core {
    /// Takes a job in. Must be run to its end: what is journaled halfway would be sent, but not known here.
    pub(crate) async fn take_job(self, submission: Submission) -> Result<Submitted, SubmitError> {
        let id = submission.id;
        let _alone = self.submitting().alone(id).await;
        let known = self.books().job(id).cloned();
        if let Some(known) = known {
            let same = known.definition == submission.definition && known.params == submission.params;
            if !same || known.retry.is_some() {
                return Err(SubmitError::IdTaken { id });
            }
            return self.submitted(id, false).await;
        }
        self.admits()?;
        // From looking at the group to being a member of it: of two that come at once, one finds the other.
        let turn = self.turn().await;
        let older = self.older_of_group(submission.plan.concurrency.as_ref())?;
        let (row, runs) = self.rows(submission)?;
        self.take_entry(Entry { row, runs, retried: Vec::new() }, older, turn).await
    }

    /// Takes a job in whose rows are made, and ends the older ones that have to make room for it.
    pub(crate) async fn take_entry(
        &self,
        entry: Entry,
        older: Vec<JobId>,
        turn: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Submitted, SubmitError> {
        let id = entry.row.id;
        let before: Vec<RunRow> = {
            let books = self.books();
            entry.retried.iter().filter_map(|run| books.run(run.id).cloned()).collect()
        };
        // Nobody is shown the job itself before it is kept; runs of others that it does again are.
        let ahead = (!before.is_empty()).then(|| self.kept_books().ahead());
        let (transaction, given) = self.enter(entry);
        let begun = match self.endpoint().begin_checked(transaction).await {
            Ok(begun) => begun,
            Err(error) => {
                let mut books = self.books();
                given.into_iter().for_each(|given| given.undo(&mut books));
                books.withdraw(id);
                before.into_iter().for_each(|run| books.replace(run));
                if let (LinkSubmitError::Refused(_), Some(ahead)) = (&error, ahead) {
                    ahead.undone();
                }
                return Err(not_taken(error));
            }
        };
        // Its place is settled: the books of others may change while it is synced.
        drop(turn);
        begun.done().await.map_err(not_taken)?;
        ahead.into_iter().for_each(Ahead::kept);
        self.books().confirm(id);
        for older in older {
            let reason = format!("job {id} of the same group took its place");
            if let Err(error) = self.clone().cancel_job(older, reason).await {
                tracing::warn!(job = %older, %error, "An older job of the group could not be cancelled; the new one waits for it.");
            }
        }
        self.notice();
        self.wake();
        self.submitted(id, true).await
    }

    /// Whether new jobs are taken.
    pub(crate) fn admits(&self) -> Result<(), SubmitError> {
        self.short().map_or(Ok(()), |reason| Err(SubmitError::Disk { reason }))
    }

    /// The jobs that have to make room for this one, or the reason why it is not taken.
    pub(crate) fn older_of_group(&self, concurrency: Option<&Concurrency>) -> Result<Vec<JobId>, SubmitError> {
        let Some(concurrency) = concurrency else { return Ok(Vec::new()) };
        let books = self.books();
        let older: Vec<JobId> = books.tally().members(&concurrency.group).collect();
        match (concurrency.on_conflict, older.first()) {
            (OnConflict::Queue, _) | (_, None) => Ok(Vec::new()),
            (OnConflict::Reject, Some(holder)) => {
                Err(SubmitError::GroupHeld { group: concurrency.group.clone(), holder: *holder })
            }
            (OnConflict::CancelOlder, Some(_)) => Ok(older),
        }
    }

    /// The rows of a job and of the runs that are certain from the beginning.
    fn rows(&self, submission: Submission) -> Result<(JobRow, Vec<RunRow>), SubmitError> {
        let Submission { id, definition, params, target, plan } = submission;
        let policy = Policy { target, concurrency: plan.concurrency.clone(), timeout_ms: plan.timeout_ms };
        let targets = self.targets(&policy.target)?;
        let unassigned = policy.is_for_one();
        let steps: Vec<StepRow> = plan.steps.iter().map(StepRow::new).collect();
        let name = plan.name.clone();
        self.dispatching().remember(id, plan);
        let since = Some(Since::now());
        let row = JobRow {
            id,
            name,
            definition,
            params,
            created_ms: wall_ms(),
            policy: Some(policy),
            since,
            unassigned,
            cancelled: None,
            retry: None,
        };
        let targets = if unassigned { Vec::new() } else { targets };
        let run = |agent| RunRow::waiting(RunId::new(Uuid::now_v7()), id, agent, message_id(), steps.clone());
        Ok((row, targets.into_iter().map(run).collect()))
    }

    /// Takes the rows into the books, and gives out what can be given at once.
    fn enter(&self, entry: Entry) -> (Transaction, Vec<Given>) {
        let Entry { row, runs, retried } = entry;
        let (id, waiting) = (row.id, runs.iter().map(|run| run.id).collect::<Vec<_>>());
        let fleet = self.dispatching().fleet();
        let mut books = self.books();
        books.expect(row, runs);
        let mut given = Vec::new();
        for run in waiting {
            given.extend(self.give_now(&mut books, &fleet, id, Some(run)));
        }
        if books.job(id).is_some_and(|row| row.unassigned) {
            given.extend(self.give_now(&mut books, &fleet, id, None));
        }
        let mut transaction = Transaction { admission: true, ..Transaction::default() };
        let row = books.job(id).map(|row| put_app(JobRow::key(id), row.encode()));
        transaction.rows.extend(row);
        transaction.rows.extend(books.runs_of(id).map(|run| put_app(RunRow::key(run.id), run.encode())));
        for run in retried {
            transaction.rows.push(put_app(RunRow::key(run.id), run.encode()));
            books.replace(run);
        }
        for given in &given {
            transaction.rows.extend(given.agent_row(&books));
            transaction.send.push(given.message.clone());
        }
        (transaction, given)
    }

    fn targets(&self, target: &Target) -> Result<Vec<AgentId>, SubmitError> {
        let all = self.known_agents();
        if let Who::Agents(named) = &target.who
            && let Some(unknown) = named.iter().find(|agent| !all.contains(*agent))
        {
            return Err(SubmitError::UnknownAgent { agent: unknown.clone(), known: all.iter().cloned().collect() });
        }
        if all.is_empty() {
            return Err(SubmitError::NoAgents);
        }
        let fleet = self.dispatching().fleet();
        let books = self.books();
        let facts = |agent: &AgentId| books.agent(agent).and_then(|row| row.facts.as_ref());
        let there = |agent: &AgentId| !target.skip_offline || fleet.get(agent).is_some_and(|agent| agent.online);
        let matching = all.iter().filter(|agent| schedule::matches(target, agent, facts(agent)));
        let found: Vec<AgentId> = matching.filter(|agent| there(agent)).cloned().collect();
        if found.is_empty() && target.pick == crate::job_file::Pick::All {
            return Err(SubmitError::NoMatch { of: all.len() });
        }
        Ok(found)
    }
}

/// An id for a message.
pub(crate) fn message_id() -> MessageId {
    MessageId::new(Uuid::now_v7())
}

/// The endpoint of an agent.
pub(crate) fn endpoint_of(agent: &AgentId) -> EndpointId {
    EndpointId::Agent(agent.clone())
}

fn not_taken(error: LinkSubmitError) -> SubmitError {
    match error {
        LinkSubmitError::Refused(error) => refused(error),
        LinkSubmitError::Journal(error) => DeskError::Journal { reason: error.to_string() }.into(),
        LinkSubmitError::Stopped => DeskError::Stopping.into(),
    }
}

fn refused(error: TransactError) -> SubmitError {
    let reason = match &error {
        TransactError::Encode(source) => format!("{error}: {source}"),
        TransactError::OutboxFull { .. }
        | TransactError::UnknownPeer { .. }
        | TransactError::OutOfOrder { .. }
        | TransactError::NotHeld { .. } => error.to_string(),
    };
    SubmitError::Full { reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::Desk as _;
    use crate::books::Books;
    use crate::core::CoreParts;
    use crate::job_file::JobFile;
    use crate::logs::Logs;
    use crate::views::RunState;
    use futures_util::FutureExt as _;
    use journal::{Room, RoomLimits};
    use link::session::Config;
    use link::{Service, ServiceConfig};
    use tokio::sync::watch;

    pub(crate) fn submission() -> Submission {
        let definition = "name = \"n\"\ntarget = { all = true }\n[[step]]\nid = \"s\"\nrun = \"true\"\n";
        let file = JobFile::parse(definition).unwrap();
        let plan = file.plan(&BTreeMap::new()).unwrap();
        let (target, params) = (file.target().clone(), BTreeMap::new());
        Submission { id: JobId::from_u128(7), definition: definition.to_owned(), params, target, plan }
    }

    /// A server over a journal in that folder, whose broker never answers. It lives as long as what comes with it.
    pub(crate) async fn server(dir: &std::path::Path) -> (Core, Service, watch::Sender<bool>) {
        server_that_knows(dir, &["a1"]).await
    }

    /// The same, with those agents. Its endpoint knows `a1` alone, whatever the server believes.
    pub(crate) async fn server_that_knows(
        dir: &std::path::Path,
        agents: &[&str],
    ) -> (Core, Service, watch::Sender<bool>) {
        let (stop, shutdown) = watch::channel(false);
        let agent: AgentId = "a1".parse().unwrap();
        let config = ServiceConfig {
            dir: dir.join("server"),
            endpoint: EndpointId::Server,
            peers: vec![EndpointId::Agent(agent)],
            session: Config::default(),
            engine: None,
        };
        // A transport that never connects, but is there.
        let transport = |end, _| {
            tokio::spawn(async move {
                let _end = end;
                std::future::pending().await
            })
        };
        let service = Service::start(config, transport, shutdown).await.unwrap();
        let core = Core::new(CoreParts {
            endpoint: service.endpoint.clone(),
            books: Books::default(),
            logs: Logs::open(&dir.join("logs")).unwrap(),
            // The machine that tests run on may have little room.
            room: Room::new(dir.to_owned(), RoomLimits { free_bytes_min: 0, free_percent_min: 0, reserve_bytes: 0 }),
            agents: agents.iter().map(|name| name.parse().unwrap()).collect(),
            broker_url: String::new(),
            epoch: 1,
        });
        (core, service, stop)
    }

    #[tokio::test]
    async fn a_caller_that_hangs_up_while_its_job_is_journaled_finds_the_same_job_when_it_asks_again() {
        let dir = tempfile::tempdir().unwrap();
        let (core, _service, _stop) = server(dir.path()).await;
        // Looked at once, which is enough to hand the job to the journal, and dropped.
        assert!(core.submit(submission()).now_or_never().is_none());
        let again = core.submit(submission()).await.unwrap();
        assert!(!again.created, "the job was made twice");
        assert_eq!(again.job.runs.len(), 1);
        assert_eq!(core.books().ids().count(), 1);
    }

    /// Rows that were handed to the journal in another order than the books changed would bring an older one back after a restart.
    #[tokio::test]
    async fn nobody_changes_the_books_while_another_change_is_on_its_way_to_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let (core, service, _stop) = server(dir.path()).await;
        let job = core.submit(submission()).await.unwrap().job.id;
        let turn = core.turn().await;
        let mut cancelling = Box::pin(core.clone().cancel_job(job, "wrong".to_owned()));
        assert!((&mut cancelling).now_or_never().is_none());
        assert_eq!(core.books().job(job).unwrap().cancelled, None, "it did not wait for its turn");
        drop(turn);
        cancelling.await.unwrap();
        // What the journal has is what the books show.
        let written = Books::load(&service.journal).unwrap();
        assert_eq!(written.job(job), core.books().job(job));
        assert!(written.job(job).unwrap().cancelled.is_some());
        assert!(written.runs_of(job).eq(core.books().runs_of(job)));
    }

    /// Whoever asks meanwhile finds the order in the books, and is not told of it before it is kept.
    #[tokio::test]
    async fn an_order_is_shown_to_nobody_before_it_is_on_stable_storage() {
        let dir = tempfile::tempdir().unwrap();
        let (core, _service, _stop) = server(dir.path()).await;
        let job = core.submit(submission()).await.unwrap().job.id;
        assert_eq!(core.kept().now_or_never().map(|kept| kept.is_ok()), Some(true));
        let mut cancelling = Box::pin(core.clone().cancel_job(job, "wrong".to_owned()));
        assert!((&mut cancelling).now_or_never().is_none());
        assert!(core.books().job(job).unwrap().cancelled.is_some());
        assert!(core.kept().now_or_never().is_none(), "an answer said what was not kept");
        cancelling.await.unwrap();
        core.kept().await.unwrap();
        assert!(core.clone().cancel_job(job, "again".to_owned()).await.is_err());
        core.kept().await.unwrap();
    }

    /// Looks that find nothing to do leave nothing open either, and answers go on.
    #[tokio::test]
    async fn what_changes_nothing_holds_no_answer_up() {
        let dir = tempfile::tempdir().unwrap();
        let (core, _service, _stop) = server(dir.path()).await;
        core.submit(submission()).await.unwrap();
        core.keep_time().await.unwrap();
        core.forget_oldest().await;
        core.kept().await.unwrap();
    }

    /// One order that could not be sent would have all others of its transaction refused, when the books show them already.
    #[tokio::test]
    async fn an_order_reaches_the_agents_that_are_known_and_says_nothing_false_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (core, _service, _stop) = server(dir.path()).await;
        let job = core.submit(submission()).await.unwrap().job.id;
        let known = core.books().runs_of(job).next().unwrap().clone();
        let known = RunRow { state: RunState::Running, ..known };
        // The configuration named it once.
        let lost = RunRow { id: RunId::from_u128(99), agent: "gone".parse().unwrap(), ..known.clone() };
        core.books().replace(known.clone());
        core.books().replace(lost.clone());
        let cancelling = |run: RunId| core.books().run(run).unwrap().cancelling.clone();
        core.clone().cancel_job(job, "enough".to_owned()).await.unwrap();
        assert_eq!((cancelling(known.id).as_deref(), cancelling(lost.id)), (Some("enough"), None));

        let other = core.submit(Submission { id: JobId::from_u128(8), ..submission() }).await.unwrap().job.id;
        let run = core.books().runs_of(other).next().unwrap().clone();
        let lost = RunRow { agent: "gone".parse().unwrap(), state: RunState::Running, ..run };
        core.books().replace(lost.clone());
        let refused = core.clone().cancel_job(other, "enough".to_owned()).await.unwrap_err();
        assert!(refused.to_string().contains("gone is not known here"), "{refused}");
        let cancelled = core.books().job(other).unwrap().cancelled.clone();
        assert_eq!((cancelled, cancelling(lost.id)), (None, None));
    }
}
