//! The server behind its API: what it is made of, and what it answers. Its only truth is the journal; the books are its rows in
//! memory. Taking jobs is in `submit`, giving out their runs in `dispatch`, what people order in `orders`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::{Room, Short};
use link::{Endpoint, Lately, Stopped, wall_ms};
use messages::{AgentId, EndpointId, JobId, LogKey};
use tokio::sync::{Notify, watch};

use crate::api::{
    AgentOrder, Desk, DeskError, JobFilter, JobPrefix, LogPiece, LogReadError, LookupError, OrderError, Resolution,
    Retry, RetryError, Submission, SubmitError, Submitted,
};
use crate::books::Books;
use crate::dispatch::Dispatch;
use crate::fleet;
use crate::kept::Kept;
use crate::logs::{About, Logs};
use crate::pace::Pace;
use crate::schedule::Fleet;
use crate::submitting::Submitting;
use crate::views::{AgentCounts, AgentView, BrokerView, JobState, JobView, JobsView, LinkView, RunState, ServerView};

/// How long an answer about the room for new work holds. Less than a disk with room for it takes to fill up.
const ROOM_HOLDS: Duration = Duration::from_millis(10);

/// The server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Core(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    books: Mutex<Books>,
    /// How far the books are ahead of the disk.
    kept: Kept,
    submitting: Submitting,
    dispatch: Dispatch,
    pace: Pace,
    /// Held from a change of the books until its rows are handed to the journal: else an older row could be written over a newer one.
    turn: tokio::sync::Mutex<()>,
    /// Says that there may be something to give out.
    wake: Notify,
    logs: Logs,
    room: Room,
    short: Lately<Option<Short>>,
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
    /// The room on its disk.
    pub room: Room,
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
        let CoreParts { endpoint, books, logs, room, agents, broker_url, epoch } = parts;
        // Revisions of a later start are higher than all of an earlier one, which has fewer than 2^40 changes.
        let (revision, _) = watch::channel(epoch << 40);
        let submitting = Submitting::default();
        let books = Mutex::new(books);
        let started = Instant::now();
        let (dispatch, wake) = (Dispatch::default(), Notify::new());
        let turn = tokio::sync::Mutex::new(());
        let inner = Inner {
            endpoint,
            books,
            kept: Kept::default(),
            submitting,
            dispatch,
            pace: Pace::default(),
            turn,
            wake,
            logs,
            room,
            short: Lately::new(ROOM_HOLDS),
            agents,
            broker_url,
            revision,
            started,
        };
        Self(Arc::new(inner))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        // Each change of the books is one call that does not panic halfway.
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kept_books(&self) -> &Kept {
        &self.0.kept
    }

    /// Says that there is something new to see.
    pub(crate) fn notice(&self) {
        self.0.revision.send_modify(|revision| *revision += 1);
    }

    /// Says that there may be something to give out.
    pub(crate) fn wake(&self) {
        self.0.wake.notify_one();
    }

    pub(crate) fn wake_up(&self) -> &Notify {
        &self.0.wake
    }

    pub(crate) fn dispatching(&self) -> &Dispatch {
        &self.0.dispatch
    }

    /// How fast the agents end runs.
    pub(crate) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    pub(crate) fn known_agents(&self) -> &BTreeSet<AgentId> {
        &self.0.agents
    }

    /// Why the disk is too full for new work, if it was a moment ago. What was taken goes on.
    pub(crate) fn short(&self) -> Option<String> {
        match self.0.short.get(|| self.0.room.short()) {
            Ok(short) => short.map(|Short { free, wanted }| {
                format!("the server's disk has {free} bytes free, and {wanted} are to be for new work")
            }),
            // Work that cannot be kept must not be taken.
            Err(error) => Some(format!("the server's disk cannot be asked for its free space: {error}")),
        }
    }

    /// Sets space aside again, if that is not done and there is enough.
    pub(crate) async fn set_aside(&self) {
        let room = self.0.room.clone();
        match tokio::task::spawn_blocking(move || room.set_aside()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "No space could be set aside for outcomes; it is tried again."),
            Err(error) => tracing::error!(%error, "Setting space aside ended badly."),
        }
    }

    /// Whoever changes rows that others change, too, has the turn until they are handed to the journal; whoever may have to take the
    /// change back keeps it until they are written.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    pub(crate) fn submitting(&self) -> &Submitting {
        &self.0.submitting
    }

    fn fleet(&self) -> Arc<Fleet> {
        self.0.dispatch.fleet()
    }

    /// Says that reports were taken in, and forgets the oldest jobs beyond the limit.
    pub(crate) async fn taken_in(&self) {
        self.notice();
        self.wake();
        self.forget_oldest().await;
    }

    pub(crate) fn logs(&self) -> &Logs {
        &self.0.logs
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

    pub(crate) async fn view(&self, id: JobId) -> Result<Option<JobView>, DeskError> {
        let fleet = self.fleet();
        let agents: BTreeSet<AgentId> = match self.books().view(id, &BTreeMap::new(), &fleet) {
            Some(view) => {
                view.runs.into_iter().filter(|run| run.state == RunState::Sent).map(|run| run.agent).collect()
            }
            None => return Ok(None),
        };
        let received = self.received(agents).await?;
        Ok(self.books().view(id, &received, &fleet))
    }
}

impl About for Core {
    fn knows(&self, from: &EndpointId, key: &LogKey) -> bool {
        let books = self.books();
        books.run(key.run).is_some_and(|run| {
            from.agent() == Some(&run.agent) && run.steps.iter().any(|step| step.id == key.step) && key.attempt >= 1
        })
    }

    fn is_tight(&self) -> bool {
        self.0.room.is_tight()
    }

    fn grown(&self) {
        self.notice();
    }
}

fn stopping(_: Stopped) -> DeskError {
    DeskError::Stopping
}

impl Desk for Core {
    async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        // A task of its own: a caller that hangs up drops this future, and must not stop what is half done.
        let taking = tokio::spawn(self.clone().take_job(submission));
        taking.await.unwrap_or(Err(SubmitError::Desk(DeskError::Stopping)))
    }

    async fn retry(&self, retry: Retry) -> Result<Submitted, RetryError> {
        let taking = tokio::spawn(self.clone().retry_job(retry));
        taking.await.unwrap_or(Err(RetryError::Submit(SubmitError::Desk(DeskError::Stopping))))
    }

    async fn cancel(&self, job: JobId, reason: String) -> Result<JobView, OrderError> {
        let cancelling = tokio::spawn(self.clone().cancel_job(job, reason));
        cancelling.await.unwrap_or(Err(OrderError::Desk(DeskError::Stopping)))
    }

    async fn resolve(&self, job: JobId, resolution: Resolution) -> Result<JobView, OrderError> {
        let resolving = tokio::spawn(self.clone().resolve_job(job, resolution));
        resolving.await.unwrap_or(Err(OrderError::Desk(DeskError::Stopping)))
    }

    async fn order(&self, agent: &AgentId, order: AgentOrder) -> Result<AgentView, OrderError> {
        let ordering = tokio::spawn(self.clone().order_agent(agent.clone(), order));
        ordering.await.unwrap_or(Err(OrderError::Desk(DeskError::Stopping)))
    }

    async fn jobs(&self, filter: JobFilter) -> Result<JobsView, DeskError> {
        let (fleet, books) = (self.fleet(), self.books());
        let wanted = |id: &JobId| filter.state.is_none_or(|state| books.state(*id) == Some(state));
        let mut found = books.latest().filter(wanted);
        let chosen: Vec<JobId> = found.by_ref().take(filter.limit).collect();
        let more = found.next().is_some();
        let nothing = BTreeMap::new();
        let jobs = chosen.into_iter().filter_map(|id| books.view(id, &nothing, &fleet)).map(|job| job.summary());
        Ok(JobsView { jobs: jobs.collect(), more })
    }

    async fn job(&self, prefix: &JobPrefix) -> Result<JobView, LookupError> {
        let least = prefix.least().ok_or(LookupError::NotFound)?;
        let candidates: Vec<JobId> =
            self.books().ids_from(least).take_while(|id| prefix.matches(*id)).take(10).collect();
        match candidates.as_slice() {
            [] => Err(LookupError::NotFound),
            [id] => self.view(*id).await?.ok_or(LookupError::NotFound),
            [_, ..] => Err(LookupError::Ambiguous { candidates }),
        }
    }

    fn job_state(&self, id: JobId) -> Option<JobState> {
        self.books().state(id)
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
        let jobs = self.books().states();
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
            refusing: self.short(),
            uptime_ms: u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.revision.subscribe()
    }

    async fn kept(&self) -> Result<(), DeskError> {
        self.0.kept.all().await.map_err(stopping)
    }

    async fn read_log(&self, key: &LogKey, offset: u64, max: usize) -> Result<LogPiece, LogReadError> {
        let silent = self.books().run(key.run).is_some_and(|run| run.is_silent(&key.step, key.attempt));
        let (logs, key) = (self.0.logs.clone(), key.clone());
        match tokio::task::spawn_blocking(move || logs.read(&key, offset, max)).await {
            Ok(read) => {
                let piece = read?;
                // A file says more than the word that there is none.
                let complete = piece.complete || (silent && piece.size == 0);
                Ok(LogPiece { complete, ..piece })
            }
            Err(_) => Err(LogReadError::Desk(DeskError::Stopping)),
        }
    }
}

impl Core {
    pub(crate) async fn agent_view(&self, agent: &AgentId) -> Result<AgentView, DeskError> {
        let view = self.endpoint().view(EndpointId::Agent(agent.clone())).await.map_err(stopping)?;
        let (active, row) = {
            let books = self.books();
            (books.active_runs(agent), books.agent(agent).cloned().unwrap_or_default())
        };
        Ok(fleet::agent_view(agent, view.as_ref(), active, &row, wall_ms()))
    }
}
