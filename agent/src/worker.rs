//! The agent at work: takes runs, executes as many at once as it has slots, first come first served, and goes on after a
//! restart where it was. It decides nothing about which agent does what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use journal::Journal;
use link::session::{Rewound, Transaction};
use link::{Endpoint, SubmitError, Work, WorkItem, wall_ms};
use messages::{AgentId, Body, EndpointId, MessageId, Presence, RefusalCode, RunId, StepId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::attempt::{BootId, ShimCommand};
use crate::execute::{ExecuteError, execute};
use crate::records::{ResumeError, RunRecord};
use crate::ship::Ship;

/// Runs that wait for a slot or are under way. More are refused with a reason.
const RUNS_OPEN_MAX: usize = 1_000;
/// Runs that have ended and are kept with their folders. The oldest beyond that are removed.
const RUNS_ENDED_MAX: usize = 200;

/// The agent at work. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Worker(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    agent: AgentId,
    dir: PathBuf,
    shim: ShimCommand,
    boot: BootId,
    ship: Ship,
    journal: Journal,
    slots: Arc<Semaphore>,
    slot_count: u16,
    runs: Mutex<Runs>,
}

/// The runs that the journal holds.
#[derive(Default)]
struct Runs {
    open: BTreeSet<RunId>,
    /// Ended, by the place of the message that started them.
    ended: BTreeMap<(u64, RunId), bool>,
}

/// What the worker is made of.
pub(crate) struct WorkerParts {
    pub(crate) endpoint: Endpoint,
    pub(crate) agent: AgentId,
    pub(crate) dir: PathBuf,
    pub(crate) shim: ShimCommand,
    pub(crate) boot: BootId,
    pub(crate) ship: Ship,
    pub(crate) journal: Journal,
    pub(crate) slots: u16,
}

impl Worker {
    pub(crate) fn new(parts: WorkerParts) -> Self {
        let WorkerParts { endpoint, agent, dir, shim, boot, ship, journal, slots } = parts;
        let slot_count = slots.max(1);
        let slots = Arc::new(Semaphore::new(usize::from(slot_count)));
        let runs = Mutex::default();
        Self(Arc::new(Inner { endpoint, agent, dir, shim, boot, ship, journal, slots, slot_count, runs }))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.0.journal
    }

    pub(crate) fn agent(&self) -> &AgentId {
        &self.0.agent
    }

    pub(crate) fn shim(&self) -> &ShimCommand {
        &self.0.shim
    }

    pub(crate) fn boot(&self) -> BootId {
        self.0.boot
    }

    pub(crate) fn ship(&self) -> &Ship {
        &self.0.ship
    }

    pub(crate) fn server(&self) -> EndpointId {
        EndpointId::Server
    }

    pub(crate) fn message_id(&self) -> MessageId {
        MessageId::new(Uuid::now_v7())
    }

    pub(crate) fn run_dir(&self, run: RunId) -> PathBuf {
        self.0.dir.join("runs").join(run.to_string())
    }

    pub(crate) fn work_dir(&self, run: RunId) -> PathBuf {
        self.run_dir(run).join("work")
    }

    pub(crate) fn attempt_dir(&self, run: RunId, step: &StepId, attempt: u32) -> PathBuf {
        self.run_dir(run).join("steps").join(step.as_str()).join(attempt.to_string())
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, Runs> {
        // Each change of the sets is one call that does not panic halfway.
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what an earlier process left, then takes new runs until the endpoint stops.
    pub(crate) async fn work(self, resumed: Vec<RunRecord>) {
        let mut tasks = JoinSet::new();
        let mut waiting = self.take_up(&mut tasks, resumed);
        self.present().await;
        // An earlier process may have ended before it could.
        if self.recall().await.is_err() {
            return;
        }
        let mut heard = self.endpoint().heard();
        // After a start of the machine the disk may be an old copy: what it says was not begun may have been.
        let mut cleared = self.knows_boot();
        loop {
            tokio::select! {
                stopped = async { heard.wait_for(|heard| *heard).await.is_err() }, if !cleared => {
                    if stopped || self.note_boot().await.is_err() {
                        break;
                    }
                    cleared = true;
                }
                slot = Arc::clone(&self.0.slots).acquire_owned(), if cleared && !waiting.is_empty() => {
                    if let Some(record) = waiting.pop_front() {
                        self.spawn(&mut tasks, record, slot.ok());
                        self.present().await;
                    }
                }
                work = self.endpoint().next_work() => {
                    let Ok(work) = work else { break };
                    match self.take(work).await {
                        Ok(records) => waiting.extend(records),
                        Err(SubmitError::Stopped | SubmitError::Journal(_)) => break,
                        Err(error @ SubmitError::Refused(_)) => {
                            tracing::error!(%error, "A batch of messages was not taken in.");
                            break;
                        }
                    }
                }
                rewound = self.endpoint().next_rewound() => {
                    let Ok(rewound) = rewound else { break };
                    if rewound.contains(&Rewound::Own(self.server())) {
                        // What the runs' tasks know is from before. Steps live on under their shims.
                        tasks.shutdown().await;
                        match self.reconsider().await {
                            Ok(resumed) => waiting = self.take_up(&mut tasks, resumed),
                            Err(error) => {
                                tracing::error!(%error, "The runs cannot be read again; the agent must be started anew.");
                                break;
                            }
                        }
                    }
                    if rewound.contains(&Rewound::Peers(self.server())) && self.recall().await.is_err() {
                        break;
                    }
                    self.present().await;
                }
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "A run's task ended badly; the run goes on when the agent starts again.");
                    }
                    self.clean().await;
                    self.present().await;
                }
            }
        }
        // Steps live on under their shims; the next process takes them up.
        tasks.shutdown().await;
    }

    /// Goes on with what the journal holds. Only what is to be executed waits for a slot, in the order in which it came.
    fn take_up(&self, tasks: &mut JoinSet<()>, records: Vec<RunRecord>) -> VecDeque<RunRecord> {
        let (waiting, ended): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.progress.end.is_none());
        ended.into_iter().for_each(|record| self.spawn(tasks, record, None));
        VecDeque::from(waiting)
    }

    /// Reads the runs from the journal: those to go on with, in the order in which they came.
    pub(crate) fn resume(&self) -> Result<Vec<RunRecord>, ResumeError> {
        let mut open = RunRecord::load(&self.0.journal)?;
        let mut runs = self.runs();
        *runs = Runs::default();
        for record in &open {
            if record.progress.end.is_some() && record.progress.logs_done {
                runs.ended.insert((record.progress.seq.value(), record.start.run), true);
            } else {
                runs.open.insert(record.start.run);
            }
        }
        open.retain(|record| record.progress.end.is_none() || !record.progress.logs_done);
        Ok(open)
    }

    fn spawn(&self, tasks: &mut JoinSet<()>, record: RunRecord, slot: Option<OwnedSemaphorePermit>) {
        let worker = self.clone();
        tasks.spawn(async move {
            let run = record.start.run;
            match worker.carry_out(record, slot).await {
                Ok(()) => {}
                Err(ExecuteError::Submit(SubmitError::Stopped | SubmitError::Journal(_))) => {}
                Err(error) => {
                    tracing::error!(%run, %error, "A run cannot go on; it is taken up again when the agent starts again.");
                }
            }
        });
    }

    async fn carry_out(&self, mut record: RunRecord, slot: Option<OwnedSemaphorePermit>) -> Result<(), ExecuteError> {
        self.ship_earlier(&record);
        if record.progress.end.is_none() {
            record = execute(self, record).await?;
        }
        if record.progress.end.is_none() {
            // It waits for a person, without a slot.
            return Ok(());
        }
        if slot.is_some() {
            drop(slot);
            self.present().await;
        }
        // A job's end never waits for its logs; the run's folder does.
        self.ship().all_shipped(record.start.run).await;
        record.progress.logs_done = true;
        let rows = vec![record.progress_row()];
        self.endpoint().transact(Transaction { rows, ..Transaction::default() }).await?;
        let mut runs = self.runs();
        runs.open.remove(&record.start.run);
        runs.ended.insert((record.progress.seq.value(), record.start.run), true);
        Ok(())
    }

    /// Goes on shipping the logs of attempts that an earlier process began.
    fn ship_earlier(&self, record: &RunRecord) {
        let under_way =
            record.spec().map(|spec| (spec.id.clone(), record.attempt())).filter(|_| record.progress.end.is_none());
        for (step, attempt) in record.begun() {
            if under_way.as_ref() != Some(&(step.id.clone(), attempt)) {
                let dir = self.attempt_dir(record.start.run, &step.id, attempt);
                self.ship().resume(record.start.run, &step.id, attempt, &dir, self.boot());
            }
        }
    }

    /// Takes a batch of messages in: as one transaction, the runs it starts are the journal's.
    async fn take(&self, work: Work) -> Result<Vec<RunRecord>, SubmitError> {
        let mut transaction = Transaction::default();
        let mut records: Vec<RunRecord> = Vec::new();
        for item in &work.items {
            match self.understand(&work.peer, item, &records) {
                Ok(Some(record)) => {
                    transaction.apply.push(item.hold());
                    transaction.rows.extend(record.rows());
                    records.push(record);
                }
                Ok(None) => transaction.apply.push(item.settle()),
                Err((code, reason)) => {
                    tracing::warn!(peer = %work.peer, seq = %item.seq, %reason, "A message was refused.");
                    let (applied, refusal) = item.refuse(self.message_id(), code, &reason);
                    transaction.apply.push(applied);
                    transaction.send.extend(refusal);
                }
            }
        }
        self.endpoint().transact(transaction).await?;
        self.runs().open.extend(records.iter().map(|record| record.start.run));
        Ok(records)
    }

    /// What a message means: a run to begin, nothing, or the reason to refuse it.
    fn understand(
        &self,
        peer: &EndpointId,
        item: &WorkItem,
        taken: &[RunRecord],
    ) -> Result<Option<RunRecord>, (RefusalCode, String)> {
        let body = item.body.as_ref().map_err(|error| (RefusalCode::Message, error.to_string()))?;
        match body {
            Body::RunStart(start) if *peer == EndpointId::Server => {
                let runs = self.runs();
                let known = runs.open.contains(&start.run) || runs.ended.keys().any(|(_, run)| *run == start.run);
                if known || taken.iter().any(|record| record.start.run == start.run) {
                    return Err((RefusalCode::Message, "this agent has that run already".to_owned()));
                }
                if runs.open.len() + taken.len() >= RUNS_OPEN_MAX {
                    let reason =
                        format!("this agent has {RUNS_OPEN_MAX} runs already; it takes no more until some end");
                    return Err((RefusalCode::Full, reason));
                }
                let mut record = RunRecord::new(start.clone(), item.seq, item.message.header.id, wall_ms());
                record.progress.doubtful = item.doubtful;
                record.progress.losses = item.losses;
                Ok(Some(record))
            }
            Body::RunStart(_)
            | Body::RunCancel(_)
            | Body::RunDecide(_)
            | Body::AgentDrain(_)
            | Body::StepChanged(_)
            | Body::RunFinished(_)
            | Body::RunRecalled(_)
            | Body::AgentFacts(_) => {
                Err((RefusalCode::Message, "an agent takes only runs, and only from the server".to_owned()))
            }
            Body::Refusal(refusal) => {
                tracing::error!(message = %refusal.message, reason = %refusal.reason, "The server refused a report.");
                Ok(None)
            }
        }
    }

    /// Removes the oldest ended runs beyond the limit, rows and folders.
    async fn clean(&self) {
        loop {
            let oldest = {
                let runs = self.runs();
                let excess = runs.ended.len() > RUNS_ENDED_MAX;
                runs.ended.keys().next().copied().filter(|_| excess)
            };
            let Some((seq, run)) = oldest else { return };
            self.remove_folder(run).await;
            let rows = RunRecord::delete(run).to_vec();
            if self.endpoint().transact(Transaction { rows, ..Transaction::default() }).await.is_err() {
                return;
            }
            self.runs().ended.remove(&(seq, run));
        }
    }

    pub(crate) async fn remove_folder(&self, run: RunId) {
        let dir = self.run_dir(run);
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%run, %error, "The folder of an old run could not be removed.");
        }
    }

    async fn present(&self) {
        let free = u16::try_from(self.0.slots.available_permits()).unwrap_or(u16::MAX);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let presence =
            Presence { slots_free: free, slots: self.0.slot_count, draining: false, version, refusing: None };
        // An endpoint that has stopped ends the work anyway.
        let _stopped = self.endpoint().present(presence).await;
    }
}

/// Makes a folder and those above it, for the agent's user alone.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
