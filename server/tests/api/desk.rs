//! A small desk: jobs, logs and a revision, all in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use messages::{AgentId, JobId, LogKey, RunId};
use server::api::{
    AgentOrder, Desk, DeskError, JobFilter, JobPrefix, LogPiece, LogReadError, LookupError, OrderError, Resolution,
    Retry, RetryError, Submission, SubmitError, Submitted,
};
use server::job_file::Who;
use server::views::{
    AgentCounts, AgentState, AgentView, BrokerView, DirectionView, JobCounts, JobState, JobView, JobsView, LinkView,
    RunState, RunView, ServerView, StepState, StepView,
};
use tokio::sync::watch;

#[derive(Clone)]
pub struct TestDesk {
    pub books: Arc<Mutex<Books>>,
    pub revision: Arc<watch::Sender<u64>>,
    /// Whether all of it is on stable storage.
    pub kept: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
pub struct Books {
    pub jobs: BTreeMap<JobId, (String, JobView)>,
    pub logs: BTreeMap<LogKey, (Vec<u8>, bool)>,
}

impl TestDesk {
    pub fn new() -> Self {
        Self {
            books: Arc::default(),
            revision: Arc::new(watch::channel(100).0),
            kept: Arc::new(watch::channel(true).0),
        }
    }

    pub fn change<T>(&self, how: impl FnOnce(&mut Books) -> T) -> T {
        let result = how(&mut self.books.lock().unwrap());
        self.revision.send_modify(|revision| *revision += 1);
        result
    }

    pub fn agents() -> Vec<AgentView> {
        let agent = |name: &str, state| AgentView {
            name: name.parse().unwrap(),
            state,
            slots: 2,
            slots_free: 1,
            draining: false,
            version: "0.1.0".into(),
            seen_ms: Some(1),
            runs_active: 1,
            lag: 0,
            frozen_reason: None,
            frozen_advice: None,
            paused: None,
            refusing: None,
            pool: None,
            labels: BTreeMap::new(),
        };
        vec![agent("a1", AgentState::Online), agent("a2", AgentState::Unreachable)]
    }
}

impl Desk for TestDesk {
    async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        let Who::Agents(agents) = &submission.target.who else { return Err(SubmitError::NoAgents) };
        let known: Vec<AgentId> = Self::agents().into_iter().map(|agent| agent.name).collect();
        if let Some(agent) = agents.iter().find(|agent| !known.contains(agent)) {
            return Err(SubmitError::UnknownAgent { agent: agent.clone(), known });
        }
        self.change(|books| {
            if let Some((definition, job)) = books.jobs.get(&submission.id) {
                return match *definition == submission.definition {
                    true => Ok(Submitted { created: false, job: job.clone() }),
                    false => Err(SubmitError::IdTaken { id: submission.id }),
                };
            }
            let steps = submission.plan.steps.iter().map(|step| StepView {
                id: step.id.clone(),
                effect: "once".into(),
                state: StepState::Pending,
                attempt: 0,
                detail: None,
                started_ms: None,
                ended_ms: None,
                usage: None,
                outputs: BTreeMap::new(),
                note: None,
                earlier: None,
            });
            let run = RunView {
                id: RunId::from_u128(submission.id.uuid().as_u128() + 1),
                agent: "a1".parse().unwrap(),
                state: RunState::Sent,
                reason: None,
                retried: None,
                steps: steps.collect(),
            };
            let name = submission.plan.name.clone();
            let job = JobView {
                id: submission.id,
                name,
                state: JobState::Running,
                created_ms: 5,
                ended_ms: None,
                waiting: None,
                cancelled: None,
                retry_of: None,
                chain: Vec::new(),
                runs: vec![run],
            };
            books.jobs.insert(job.id, (submission.definition, job.clone()));
            Ok(Submitted { created: true, job })
        })
    }

    async fn retry(&self, retry: Retry) -> Result<Submitted, RetryError> {
        self.change(|books| {
            let (definition, old) = books.jobs.get(&retry.job).cloned().ok_or(RetryError::NotFound)?;
            if let Some((_, job)) = books.jobs.get(&retry.id) {
                return Ok(Submitted { created: false, job: job.clone() });
            }
            if let Some(step) = retry.from {
                return Err(RetryError::OnceDone { agent: "a1".parse().unwrap(), step });
            }
            let job = JobView { id: retry.id, retry_of: Some(old.id), ..old };
            books.jobs.insert(job.id, (definition, job.clone()));
            Ok(Submitted { created: true, job })
        })
    }

    async fn cancel(&self, job: JobId, reason: String) -> Result<JobView, OrderError> {
        self.change(|books| {
            let (_, job) = books.jobs.get_mut(&job).ok_or(OrderError::NotFound)?;
            if job.cancelled.is_some() {
                return Err(OrderError::Over { state: "cancelled".into() });
            }
            job.cancelled = Some(reason);
            Ok(job.clone())
        })
    }

    async fn resolve(&self, job: JobId, resolution: Resolution) -> Result<JobView, OrderError> {
        self.change(|books| {
            let (_, job) = books.jobs.get_mut(&job).ok_or(OrderError::NotFound)?;
            let run = job.runs.iter_mut().find(|run| run.state == RunState::NeedsDecision);
            let run = run.ok_or(OrderError::NothingToDecide)?;
            run.reason = Some(format!("{:?} {}", resolution.decision, resolution.note));
            Ok(job.clone())
        })
    }

    async fn order(&self, agent: &AgentId, order: AgentOrder) -> Result<AgentView, OrderError> {
        let view = Self::agents().into_iter().find(|view| view.name == *agent).ok_or(OrderError::NotFound)?;
        Ok(match order {
            AgentOrder::Pause { note } => AgentView { paused: Some(note), ..view },
            AgentOrder::Drain { note } => AgentView { paused: Some(note), draining: true, ..view },
            AgentOrder::Resume | AgentOrder::Undrain => view,
        })
    }

    async fn jobs(&self, filter: JobFilter) -> Result<JobsView, DeskError> {
        let books = self.books.lock().unwrap();
        let all = books.jobs.values().rev().map(|(_, job)| job.summary());
        let jobs: Vec<_> = all.filter(|job| filter.state.is_none_or(|state| job.state == state)).collect();
        Ok(JobsView { more: jobs.len() > filter.limit, jobs: jobs.into_iter().take(filter.limit).collect() })
    }

    async fn job(&self, prefix: &JobPrefix) -> Result<JobView, LookupError> {
        let books = self.books.lock().unwrap();
        let found: Vec<_> = books.jobs.values().filter(|(_, job)| prefix.matches(job.id)).collect();
        match found.as_slice() {
            [] => Err(LookupError::NotFound),
            [(_, job)] => Ok(job.clone()),
            more => Err(LookupError::Ambiguous { candidates: more.iter().map(|(_, job)| job.id).collect() }),
        }
    }

    fn job_state(&self, id: JobId) -> Option<JobState> {
        self.books.lock().unwrap().jobs.get(&id).map(|(_, job)| job.state)
    }

    async fn agents(&self) -> Result<Vec<AgentView>, DeskError> {
        Ok(Self::agents())
    }

    async fn agent(&self, name: &AgentId) -> Result<AgentView, LookupError> {
        Self::agents().into_iter().find(|agent| agent.name == *name).ok_or(LookupError::NotFound)
    }

    async fn link(&self, name: &AgentId) -> Result<LinkView, LookupError> {
        self.agent(name).await?;
        Ok(LinkView {
            peer: messages::EndpointId::Agent(name.clone()),
            outgoing: DirectionView { last_seq: 3, gaps: vec![(1, 2)], ..DirectionView::default() },
            incoming: DirectionView::default(),
            resent: 0,
            duplicates: 0,
            outages: vec![],
            frozen: None,
            advice: None,
            seen_ms: None,
            broker_connected: true,
        })
    }

    async fn status(&self) -> Result<ServerView, DeskError> {
        Ok(ServerView {
            version: "0.1.0".into(),
            name: "server".into(),
            broker: BrokerView { connected: true, url: "amqp://127.0.0.1:5672".into(), since_ms: None, detail: None },
            jobs: JobCounts::default(),
            agents: AgentCounts::of(&Self::agents()),
            refusing: None,
            uptime_ms: 1,
        })
    }

    async fn kept(&self) -> Result<(), DeskError> {
        self.kept.subscribe().wait_for(|kept| *kept).await.map(drop).map_err(|_| DeskError::Stopping)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    async fn read_log(&self, key: &LogKey, offset: u64, max: usize) -> Result<LogPiece, LogReadError> {
        let books = self.books.lock().unwrap();
        let Some((bytes, complete)) = books.logs.get(key) else { return Ok(LogPiece::default()) };
        let from = usize::try_from(offset).unwrap().min(bytes.len());
        let piece = bytes[from..].iter().copied().take(max).collect();
        Ok(LogPiece { bytes: piece, size: bytes.len() as u64, complete: *complete, cut: 0 })
    }
}
