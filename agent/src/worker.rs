//! The agent at work: takes runs, executes as many at once as it has slots, first come first served, and goes on after a
//! restart where it was. It decides nothing about which agent does what.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::Journal;
use link::session::{Rewound, Transaction};
use link::{Endpoint, SubmitError};
use messages::{AgentFacts, AgentId, EndpointId, MessageId, Presence, RunId, StepId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::attempt::{BootId, Shims};
use crate::control::Control;
use crate::disk::Disk;
use crate::execute::{ExecuteError, Place, execute};
use crate::facts::facts;
use crate::folders::EndedRuns;
use crate::host::Host;
use crate::orders::{Standing, Taken};
use crate::records::{ResumeError, RunRecord};
use crate::service::DiskLimits;
use crate::ship::Ship;
use crate::slots::{Slots, Ticket};

pub(crate) use crate::folders::make_folder;

/// How often the disk is looked at. A disk that has room again is noticed at most that much later.
const DISK_LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long an agent that is to end waits for its server to take the last logs and reports, once nothing runs any more. What is not
/// taken by then stays in the journal for the next process.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);
/// The same while there is no connection to the broker: nobody can take them then.
const LEAVE_ALONE_LIMIT: Duration = Duration::from_secs(5);

/// The agent at work. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Worker(Arc<Inner>);

struct Inner {
    parts: WorkerParts,
    slots: Slots,
    host: Host,
    disk: Disk,
    standing: Mutex<Standing>,
    runs: Mutex<Runs>,
    /// Says that a run is over.
    closed: watch::Sender<()>,
    presented: Mutex<Option<Presence>>,
}

/// The runs that the journal holds.
#[derive(Default)]
pub(crate) struct Runs {
    /// Those that are not over, or whose logs are still under way.
    pub(crate) open: BTreeMap<RunId, Control>,
    /// Those that ended and are kept.
    pub(crate) ended: EndedRuns,
}

/// What the worker is made of.
pub(crate) struct WorkerParts {
    pub(crate) endpoint: Endpoint,
    pub(crate) agent: AgentId,
    pub(crate) dir: PathBuf,
    pub(crate) shims: Shims,
    pub(crate) boot: BootId,
    pub(crate) ship: Ship,
    pub(crate) journal: Journal,
    pub(crate) slots: u16,
    pub(crate) drain: watch::Receiver<bool>,
    pub(crate) once: bool,
    pub(crate) pool: Option<String>,
    pub(crate) labels: watch::Receiver<BTreeMap<String, String>>,
    pub(crate) disk: DiskLimits,
}

/// Why the worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    /// The endpoint has stopped, or something failed and is in the log.
    Stopped,
    /// It was to end once its work is done, and it is.
    Left,
}

impl Worker {
    pub(crate) fn new(parts: WorkerParts) -> Self {
        Self(Arc::new(Inner {
            slots: Slots::new(parts.slots.max(1)),
            host: Host::new(),
            disk: Disk::new(parts.dir.clone(), parts.disk),
            standing: Mutex::default(),
            runs: Mutex::default(),
            closed: watch::Sender::new(()),
            presented: Mutex::default(),
            parts,
        }))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.parts.endpoint
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.0.parts.journal
    }

    pub(crate) fn agent(&self) -> &AgentId {
        &self.0.parts.agent
    }

    pub(crate) fn shims(&self) -> &Shims {
        &self.0.parts.shims
    }

    pub(crate) fn boot(&self) -> BootId {
        self.0.parts.boot
    }

    pub(crate) fn ship(&self) -> &Ship {
        &self.0.parts.ship
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.0.slots
    }

    pub(crate) fn host(&self) -> &Host {
        &self.0.host
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.0.disk
    }

    pub(crate) fn limits(&self) -> &DiskLimits {
        &self.0.parts.disk
    }

    /// Whether this agent does one run in its life.
    pub(crate) fn once(&self) -> bool {
        self.0.parts.once
    }

    /// Whether it is to end once its work is done.
    pub(crate) fn leaving(&self) -> bool {
        *self.0.parts.drain.borrow()
    }

    pub(crate) fn facts(&self) -> AgentFacts {
        let WorkerParts { pool, labels, once, .. } = &self.0.parts;
        facts(pool.as_ref(), &labels.borrow(), self.0.slots.count(), *once)
    }

    pub(crate) fn standing_cell(&self) -> &Mutex<Standing> {
        &self.0.standing
    }

    pub(crate) fn server(&self) -> EndpointId {
        EndpointId::Server
    }

    pub(crate) fn message_id(&self) -> MessageId {
        MessageId::new(Uuid::now_v7())
    }

    /// The agent's own folder: absolute.
    pub(crate) fn dir(&self) -> PathBuf {
        self.0.parts.dir.clone()
    }

    /// Where the folders of all runs are. Its own name is on stable storage.
    pub(crate) fn runs_dir(&self) -> PathBuf {
        self.0.parts.dir.join("runs")
    }

    pub(crate) fn run_dir(&self, run: RunId) -> PathBuf {
        self.runs_dir().join(run.to_string())
    }

    pub(crate) fn work_dir(&self, run: RunId) -> PathBuf {
        self.run_dir(run).join("work")
    }

    /// What the names of an attempt's files begin with. They lie beside the run's working folder, whose name has no dot.
    pub(crate) fn attempt_stem(&self, run: RunId, step: &StepId, attempt: u32) -> PathBuf {
        self.run_dir(run).join(format!("{step}.{attempt}"))
    }

    pub(crate) fn runs(&self) -> MutexGuard<'_, Runs> {
        // Each change of the sets is one call that does not panic halfway.
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees each run that is over.
    pub(crate) fn closed(&self) -> watch::Receiver<()> {
        self.0.closed.subscribe()
    }

    /// Takes up what an earlier process left, then takes new runs until the endpoint stops or there is nothing left to do for an
    /// agent that is to end then. Steps live on under their shims; the next process takes them up.
    pub(crate) async fn work(self, resumed: Vec<Taken>) -> WorkerEnd {
        let mut tasks = JoinSet::new();
        let end = self.take_and_do(&mut tasks, resumed).await.unwrap_or(WorkerEnd::Stopped);
        tasks.shutdown().await;
        end
    }

    /// Nothing when the endpoint has stopped.
    async fn take_and_do(&self, tasks: &mut JoinSet<()>, resumed: Vec<Taken>) -> Option<WorkerEnd> {
        resumed.into_iter().for_each(|taken| self.spawn(tasks, taken));
        self.present().await;
        // An earlier process may have ended before it could.
        self.recall().await.ok()?;
        self.tell_facts(false).await.ok()?;
        let mut heard = self.endpoint().heard();
        // After a start of the machine the disk may be an old copy: what it says was not begun may have been.
        let mut cleared = self.knows_boot();
        if cleared {
            self.slots().open();
        }
        let (mut drain, mut labels) = (self.0.parts.drain.clone(), self.0.parts.labels.clone());
        let mut changes = self.endpoint().changes();
        let mut looks = tokio::time::interval(DISK_LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_since = None;
        loop {
            if self.may_end(&mut idle_since).await {
                return Some(WorkerEnd::Left);
            }
            tokio::select! {
                stopped = async { heard.wait_for(|heard| *heard).await.is_err() }, if !cleared => {
                    if stopped {
                        return None;
                    }
                    self.note_boot().await.ok()?;
                    self.slots().open();
                    cleared = true;
                }
                work = self.endpoint().next_work() => match self.take(work.ok()?).await {
                    Ok(taken) => taken.into_iter().for_each(|taken| self.spawn(tasks, taken)),
                    Err(error @ SubmitError::Refused(_)) => {
                        tracing::error!(%error, "A batch of messages was not taken in.");
                        return None;
                    }
                    Err(SubmitError::Stopped | SubmitError::Journal(_)) => return None,
                },
                rewound = self.endpoint().next_rewound() => self.rewind(tasks, &rewound.ok()?).await?,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "A run's task ended badly; the run goes on when the agent starts again.");
                    }
                    self.clean().await;
                }
                () = changed(&mut labels) => self.tell_facts(false).await.ok()?,
                _ = looks.tick() => self.look().await,
                () = self.slots().changed() => {}
                () = changed(&mut drain) => {}
                () = changed(&mut changes), if self.leaving() || self.once() => {}
                () = until(idle_since, self.leave_limit()), if idle_since.is_some() => {}
            }
            self.present().await;
        }
    }

    /// A journal was found lost or restored: this one, or the server's.
    async fn rewind(&self, tasks: &mut JoinSet<()>, rewound: &[Rewound]) -> Option<()> {
        if rewound.contains(&Rewound::Own(self.server())) {
            // What the runs' tasks know is from before. Steps live on under their shims.
            tasks.shutdown().await;
            // What was handed over before this is in the journal after it, and is read.
            self.endpoint().transact(Transaction::default()).await.ok()?;
            match self.reconsider().await {
                Ok(resumed) => resumed.into_iter().for_each(|taken| self.spawn(tasks, taken)),
                Err(error) => {
                    tracing::error!(%error, "The runs cannot be read again; the agent must be started anew.");
                    return None;
                }
            }
        }
        if rewound.contains(&Rewound::Peers(self.server())) {
            self.recall().await.ok()?;
        }
        Some(())
    }

    /// Whether an agent that is to end may: nothing runs any more, and the server has everything or was given the time for it. One
    /// that does a single run waits for the server as long as it takes.
    async fn may_end(&self, idle_since: &mut Option<Instant>) -> bool {
        let done = self.once() && self.standing().only.is_some() && self.runs().open.is_empty();
        let may = done || (self.leaving() && self.slots().idle());
        if !may {
            *idle_since = None;
            return false;
        }
        let shipping = self.runs().open.values().any(Control::is_closed);
        if !shipping && self.reported().await {
            return true;
        }
        self.leaving() && idle_since.get_or_insert_with(Instant::now).elapsed() >= self.leave_limit()
    }

    fn leave_limit(&self) -> Duration {
        if *self.endpoint().connected().borrow() { LEAVE_LIMIT } else { LEAVE_ALONE_LIMIT }
    }

    /// Whether the server has every message of this agent.
    async fn reported(&self) -> bool {
        match self.endpoint().view(self.server()).await {
            Ok(Some(view)) => view.streams.outgoing.received >= view.streams.outgoing.last,
            Ok(None) => true,
            Err(link::Stopped) => false,
        }
    }

    /// Reads the runs from the journal: those to go on with, in the order in which they came.
    pub(crate) fn resume(&self) -> Result<Vec<Taken>, ResumeError> {
        *self.standing() = Standing::load(self.journal())?;
        let records = RunRecord::load(self.journal())?;
        let mut runs = self.runs();
        *runs = Runs::default();
        let mut open = Vec::new();
        for record in records {
            let (run, progress) = (record.start.run, &record.progress);
            if progress.end.is_some() && progress.logs_done {
                runs.ended.insert(progress.seq.value(), run, progress.folder_bytes);
                continue;
            }
            let step = record.spec().filter(|_| progress.undecided.is_some()).map(|spec| spec.id.clone());
            let undecided = step.map(|step| (step, record.attempt()));
            let control = Control::new(record.orders.clone(), undecided, progress.end.is_some());
            runs.open.insert(run, control.clone());
            open.push(Taken { record, control, begun: None });
        }
        Ok(open)
    }

    fn spawn(&self, tasks: &mut JoinSet<()>, taken: Taken) {
        let (worker, progress) = (self.clone(), &taken.record.progress);
        // Taken here, so that the row is in the order of the runs. One that waits for something else asks for a slot later.
        let waits = progress.undecided.is_some() || progress.at.retry_in_ms.is_some();
        let waits = waits || self.is_after_open(&taken.record.start);
        let ticket = progress.end.is_none() && taken.begun.is_none() && !waits;
        let ticket = ticket.then(|| self.slots().ticket());
        tasks.spawn(async move {
            let run = taken.record.start.run;
            match worker.carry_out(taken, ticket).await {
                Ok(()) => {}
                Err(ExecuteError::Submit(SubmitError::Stopped | SubmitError::Journal(_))) => {}
                Err(error @ (ExecuteError::Submit(SubmitError::Refused(_)) | ExecuteError::Report(_))) => {
                    tracing::error!(%run, %error, "A run cannot go on; it is taken up again when the agent starts again.");
                }
            }
        });
    }

    async fn carry_out(&self, taken: Taken, ticket: Option<Ticket>) -> Result<(), ExecuteError> {
        let Taken { mut record, control, begun } = taken;
        let run = record.start.run;
        self.ship_earlier(&record);
        if record.progress.end.is_none() {
            self.earlier_over(&record.start).await;
            let place = match begun {
                Some((slot, done)) => Place::Begun(slot, done),
                None => Place::Waits(ticket),
            };
            record = execute(self, record, control, place).await?;
        }
        // A job's end never waits for its logs; the run's folder does.
        self.ship().all_shipped(run).await;
        record.progress.folder_bytes = self.tidy(&record).await;
        record.progress.logs_done = true;
        let rows = vec![record.progress_row()];
        // Another process would tidy up once more.
        self.endpoint().transact(Transaction { rows, unhurried: true, ..Transaction::default() }).await?;
        let mut runs = self.runs();
        runs.open.remove(&run);
        runs.ended.insert(record.progress.seq.value(), run, record.progress.folder_bytes);
        drop(runs);
        self.0.closed.send_replace(());
        Ok(())
    }

    /// Goes on shipping the logs of attempts that an earlier process began.
    fn ship_earlier(&self, record: &RunRecord) {
        let progress = &record.progress;
        // The one that is looked after ships its own; one of which nothing more comes does not.
        let attended = progress.end.is_none() && progress.undecided.is_none() && progress.at.retry_in_ms.is_none();
        let under_way = record.spec().map(|spec| (spec.id.clone(), record.attempt())).filter(|_| attended);
        for (step, attempt) in record.begun() {
            if under_way.as_ref() != Some(&(step.id.clone(), attempt)) {
                let stem = self.attempt_stem(record.start.run, &step.id, attempt);
                self.ship().resume(record.start.run, &step.id, attempt, &stem, self.boot());
            }
        }
    }

    /// Looks at the disk, and removes groups of steps of which nothing is left.
    pub(crate) async fn look(&self) {
        let (disk, groups) = (self.disk().clone(), self.host().groups().clone());
        let look = move || {
            disk.look();
            groups.sweep();
        };
        // It reports what fails by itself, and is not needed for anything else to go on.
        let _looked = tokio::task::spawn_blocking(look).await;
    }

    /// Tells what there is to tell of this agent with every status, if that changed.
    async fn present(&self) {
        let standing = self.standing().clone();
        let refusing = self.refusing(&standing);
        let presence = Presence {
            slots_free: self.slots().free(),
            slots: self.slots().count(),
            draining: self.leaving() || standing.drained(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            refusing: refusing.as_ref().map(|(code, _)| *code),
        };
        let earlier = self.0.presented.lock().unwrap_or_else(PoisonError::into_inner).replace(presence.clone());
        if earlier.as_ref() != Some(&presence) {
            let was = earlier.and_then(|earlier| earlier.refusing);
            match refusing {
                Some((code, reason)) if was != Some(code) => tracing::warn!(%reason, "No new runs are taken."),
                None if was.is_some() => tracing::info!("New runs are taken again."),
                Some(_) | None => {}
            }
            // An endpoint that has stopped ends the work anyway.
            let _stopped = self.endpoint().present(presence).await;
        }
    }
}

/// Returns when it changed. Never, once nobody is left who could change it.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Returns when the time to leave is over.
async fn until(idle_since: Option<Instant>, limit: Duration) {
    match idle_since {
        Some(since) => tokio::time::sleep_until((since + limit).into()).await,
        None => std::future::pending().await,
    }
}
