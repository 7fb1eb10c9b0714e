//! The server behind its API: takes jobs, sends each agent its run, and answers what is known. Its only truth is the journal;
//! the books are its rows in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use journal::{Change, put_app};
use link::session::{TransactError, Transaction};
use link::{Endpoint, Stopped, SubmitError as LinkSubmitError, outbound, wall_ms};
use messages::{AgentId, Body, EndpointId, JobId, LogKey, MessageId, RunId};
use tokio::sync::watch;
use uuid::Uuid;

use crate::api::{
    Desk, DeskError, JobFilter, JobPrefix, LogPiece, LogReadError, LookupError, Submission, SubmitError, Submitted,
};
use crate::books::Books;
use crate::fleet;
use crate::job_file::{Target, Who};
use crate::logs::Logs;
use crate::records::{JobRow, RunRow, StepRow};
use crate::views::{
    AgentCounts, AgentView, BrokerView, JobCounts, JobState, JobView, JobsView, LinkView, RunState, ServerView,
};

/// The server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Core(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    books: Mutex<Books>,
    /// One submission at a time, so that an id is taken once.
    submitting: tokio::sync::Mutex<()>,
    logs: Logs,
    agents: BTreeSet<AgentId>,
    broker_url: String,
    revision: watch::Sender<u64>,
    started: Instant,
}

/// What the server is made of.
pub(crate) struct CoreParts {
    /// The handle on its endpoint.
    pub endpoint: Endpoint,
    /// What its journal holds of jobs.
    pub books: Books,
    /// Its folder of logs.
    pub logs: Logs,
    /// The agents that it knows.
    pub agents: BTreeSet<AgentId>,
    /// The broker's address, without user and password.
    pub broker_url: String,
    /// A number that grows with every start of the server.
    pub epoch: u64,
}

impl Core {
    /// A server over these parts.
    #[must_use]
    pub(crate) fn new(parts: CoreParts) -> Self {
        let CoreParts { endpoint, books, logs, agents, broker_url, epoch } = parts;
        // Revisions of a later start are higher than all of an earlier one, which has fewer than 2^40 changes.
        let (revision, _) = watch::channel(epoch << 40);
        let submitting = tokio::sync::Mutex::new(());
        let books = Mutex::new(books);
        let started = Instant::now();
        Self(Arc::new(Inner { endpoint, books, submitting, logs, agents, broker_url, revision, started }))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        // Each change of the books is one call that does not panic halfway.
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that there is something new to see.
    pub(crate) fn notice(&self) {
        self.0.revision.send_modify(|revision| *revision += 1);
    }

    /// Says that reports were taken in, and forgets the oldest jobs beyond the limit.
    pub(crate) async fn taken_in(&self) {
        self.notice();
        let excess = self.books().to_forget();
        for (job, runs) in excess {
            let mut rows = vec![Change::DeleteApp(JobRow::key(job))];
            rows.extend(runs.iter().map(|run| Change::DeleteApp(RunRow::key(*run))));
            if self.endpoint().transact(Transaction { rows, ..Transaction::default() }).await.is_err() {
                return;
            }
            self.books().forget(job);
            for run in runs {
                if let Err(error) = self.0.logs.forget(run) {
                    tracing::warn!(%run, %error, "The logs of a forgotten run could not be removed.");
                }
            }
        }
    }

    /// Whether a piece of a log is of a run of that agent.
    pub(crate) fn knows_log(&self, from: &EndpointId, key: &LogKey) -> bool {
        let books = self.books();
        books.run(key.run).is_some_and(|run| {
            from.agent() == Some(&run.agent) && run.steps.iter().any(|step| step.id == key.step) && key.attempt >= 1
        })
    }

    fn targets(&self, target: &Target) -> Result<Vec<AgentId>, SubmitError> {
        match &target.who {
            Who::All if self.0.agents.is_empty() => Err(SubmitError::NoAgents),
            Who::All => Ok(self.0.agents.iter().cloned().collect()),
            Who::Agents(agents) => match agents.iter().find(|agent| !self.0.agents.contains(*agent)) {
                Some(unknown) => Err(SubmitError::UnknownAgent {
                    agent: unknown.clone(),
                    known: self.0.agents.iter().cloned().collect(),
                }),
                None => Ok(agents.iter().cloned().collect()),
            },
            // What agents are is not known here yet, so none of them matches.
            Who::Matching { .. } => Err(SubmitError::NoAgents),
        }
    }

    /// Which agents have received everything that was sent to them.
    async fn received(&self, agents: BTreeSet<AgentId>) -> Result<BTreeMap<AgentId, bool>, DeskError> {
        let mut received = BTreeMap::new();
        for agent in agents {
            let view = self.endpoint().view(EndpointId::Agent(agent.clone())).await.map_err(stopping)?;
            let all = view.is_some_and(|view| view.streams.outgoing.received >= view.streams.outgoing.last);
            received.insert(agent, all);
        }
        Ok(received)
    }

    async fn view(&self, id: JobId) -> Result<Option<JobView>, DeskError> {
        let agents: BTreeSet<AgentId> = match self.books().view(id, &BTreeMap::new()) {
            Some(view) => {
                view.runs.into_iter().filter(|run| run.state == RunState::Sent).map(|run| run.agent).collect()
            }
            None => return Ok(None),
        };
        let received = self.received(agents).await?;
        Ok(self.books().view(id, &received))
    }
}

fn stopping(_: Stopped) -> DeskError {
    DeskError::Stopping
}

impl Core {
    /// Takes a job in. Must be run to its end: what is journaled halfway would be sent, but not known here.
    async fn take_job(self, submission: Submission) -> Result<Submitted, SubmitError> {
        let _one_at_a_time = self.0.submitting.lock().await;
        let id = submission.id;
        let known = self.books().job(id).map(|job| (job.definition.clone(), job.params.clone()));
        if let Some((definition, params)) = known {
            if definition != submission.definition || params != submission.params {
                return Err(SubmitError::IdTaken { id });
            }
            let job = self.view(id).await?.ok_or(DeskError::Stopping)?;
            return Ok(Submitted { created: false, job });
        }
        let row = JobRow {
            id,
            name: submission.plan.name.clone(),
            definition: submission.definition,
            params: submission.params,
            created_ms: wall_ms(),
        };
        let mut transaction = Transaction { admission: true, ..Transaction::default() };
        transaction.rows.push(put_app(JobRow::key(id), row.encode()));
        let mut runs = Vec::new();
        for agent in self.targets(&submission.target)? {
            let run = RunRow {
                id: RunId::new(Uuid::now_v7()),
                job: id,
                agent: agent.clone(),
                message: MessageId::new(Uuid::now_v7()),
                state: RunState::Sent,
                reason: None,
                steps: submission.plan.steps.iter().map(StepRow::new).collect(),
                ended_ms: None,
            };
            let body = Body::RunStart(submission.plan.run_start(run.id, id));
            let message = outbound(EndpointId::Agent(agent), run.message, &body, None).map_err(refused)?;
            transaction.send.push(message);
            transaction.rows.push(put_app(RunRow::key(run.id), run.encode()));
            runs.push(run);
        }
        self.books().expect(row, runs);
        if let Err(error) = self.endpoint().transact(transaction).await {
            self.books().withdraw(id);
            return Err(match error {
                LinkSubmitError::Refused(error) => refused(error),
                LinkSubmitError::Journal(error) => DeskError::Journal { reason: error.to_string() }.into(),
                LinkSubmitError::Stopped => DeskError::Stopping.into(),
            });
        }
        self.books().confirm(id);
        self.notice();
        let job = self.view(id).await?.ok_or(DeskError::Stopping)?;
        Ok(Submitted { created: true, job })
    }
}

impl Desk for Core {
    async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        // A task of its own: a caller that hangs up drops this future, and must not stop what is half done.
        let taking = tokio::spawn(self.clone().take_job(submission));
        taking.await.unwrap_or(Err(SubmitError::Desk(DeskError::Stopping)))
    }

    async fn jobs(&self, filter: JobFilter) -> Result<JobsView, DeskError> {
        let books = self.books();
        let wanted = |id: &JobId| filter.state.is_none_or(|state| books.state(*id) == Some(state));
        let mut found = books.latest().filter(wanted);
        let chosen: Vec<JobId> = found.by_ref().take(filter.limit).collect();
        let more = found.next().is_some();
        let nothing = BTreeMap::new();
        let jobs = chosen.into_iter().filter_map(|id| books.view(id, &nothing)).map(|job| job.summary());
        Ok(JobsView { jobs: jobs.collect(), more })
    }

    async fn job(&self, prefix: &JobPrefix) -> Result<JobView, LookupError> {
        let candidates: Vec<JobId> = self.books().ids().filter(|id| prefix.matches(*id)).take(10).collect();
        match candidates.as_slice() {
            [] => Err(LookupError::NotFound),
            [id] => self.view(*id).await?.ok_or(LookupError::NotFound),
            [_, ..] => Err(LookupError::Ambiguous { candidates }),
        }
    }

    async fn agents(&self) -> Result<Vec<AgentView>, DeskError> {
        let mut views = Vec::new();
        for agent in &self.0.agents {
            views.push(self.agent_view(agent).await?);
        }
        Ok(views)
    }

    async fn agent(&self, name: &AgentId) -> Result<AgentView, LookupError> {
        if !self.0.agents.contains(name) {
            return Err(LookupError::NotFound);
        }
        Ok(self.agent_view(name).await?)
    }

    async fn link(&self, name: &AgentId) -> Result<LinkView, LookupError> {
        let state = self.endpoint().link().await.map_err(stopping)?;
        let peer = EndpointId::Agent(name.clone());
        let view = self.endpoint().view(peer).await.map_err(stopping)?.ok_or(LookupError::NotFound)?;
        Ok(fleet::link_view(&view, &state, wall_ms()))
    }

    async fn status(&self) -> Result<ServerView, DeskError> {
        let state = self.endpoint().link().await.map_err(stopping)?;
        let agents = AgentCounts::of(&self.agents().await?);
        let mut jobs = JobCounts::default();
        {
            let books = self.books();
            for id in books.ids() {
                match books.state(id) {
                    Some(JobState::Running) => jobs.running += 1,
                    Some(JobState::Succeeded) => jobs.succeeded += 1,
                    Some(JobState::Failed) => jobs.failed += 1,
                    Some(JobState::Cancelled) => jobs.cancelled += 1,
                    Some(JobState::NeedsDecision) => jobs.needs_decision += 1,
                    None => {}
                }
            }
        }
        Ok(ServerView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.endpoint().local().to_string(),
            broker: BrokerView {
                connected: state.connected,
                url: self.0.broker_url.clone(),
                since_ms: Some(state.since_ms),
                detail: state.detail,
            },
            jobs,
            agents,
            uptime_ms: u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.revision.subscribe()
    }

    async fn read_log(&self, key: &LogKey, offset: u64, max: usize) -> Result<LogPiece, LogReadError> {
        let (logs, key) = (self.0.logs.clone(), key.clone());
        match tokio::task::spawn_blocking(move || logs.read(&key, offset, max)).await {
            Ok(read) => Ok(read?),
            Err(_) => Err(LogReadError::Desk(DeskError::Stopping)),
        }
    }
}

impl Core {
    async fn agent_view(&self, agent: &AgentId) -> Result<AgentView, DeskError> {
        let view = self.endpoint().view(EndpointId::Agent(agent.clone())).await.map_err(stopping)?;
        let active = self.books().active_runs(agent);
        Ok(fleet::agent_view(agent, view.as_ref(), active, wall_ms()))
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
mod tests {
    use super::*;
    use crate::job_file::JobFile;
    use futures_util::FutureExt as _;
    use link::session::Config;
    use link::{Service, ServiceConfig};

    fn submission() -> Submission {
        let definition = "name = \"n\"\ntarget = { all = true }\n[[step]]\nid = \"s\"\nrun = \"true\"\n";
        let file = JobFile::parse(definition).unwrap();
        let plan = file.plan(&BTreeMap::new()).unwrap();
        let (target, params) = (file.target().clone(), BTreeMap::new());
        Submission { id: JobId::from_u128(7), definition: definition.to_owned(), params, target, plan }
    }

    #[tokio::test]
    async fn a_caller_that_hangs_up_while_its_job_is_journaled_finds_the_same_job_when_it_asks_again() {
        let dir = tempfile::tempdir().unwrap();
        let (_stop, shutdown) = watch::channel(false);
        let agent: AgentId = "a1".parse().unwrap();
        let config = ServiceConfig {
            dir: dir.path().join("server"),
            endpoint: EndpointId::Server,
            peers: vec![EndpointId::Agent(agent.clone())],
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
            logs: Logs::open(&dir.path().join("logs")).unwrap(),
            agents: BTreeSet::from([agent]),
            broker_url: String::new(),
            epoch: 1,
        });
        // Looked at once, which is enough to hand the job to the journal, and dropped.
        assert!(core.submit(submission()).now_or_never().is_none());
        let again = core.submit(submission()).await.unwrap();
        assert!(!again.created, "the job was made twice");
        assert_eq!(again.job.runs.len(), 1);
        assert_eq!(core.books().ids().count(), 1);
    }
}
