//! The writer thread: the one place where the journal is written. Commits that arrive while one sync runs are written
//! together and share the next. Effects are handed out in the order of the commits, each after the sync that covers it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use messages::EndpointId;

use crate::commit::{Answer, Answers, CommitError};
use crate::high_water::HighWater;
use crate::incoming::Incoming;
use crate::row::{Outgoing, Row};
use crate::seam::{BeforeMark, Seams};
use crate::state::State;
use crate::store::{Batch, Store, StoreError};
use crate::tail_mark::TailMark;
use crate::write_ahead::Change;

/// Commits that wait for the writer at most; the next one blocks its caller. The driver keeps far fewer in flight.
pub(crate) const QUEUE_MAX: usize = 1_024;

/// Bytes of changes that one sync covers at most, so that a burst does not make the first commit wait for the last.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Syncs after which the high-water file is written even when commits never cease. Writing it costs about three syncs, so this
/// is 2 % under full load; and a journal that commits twice a second has a mark no older than a minute.
const MARK_EVERY_SYNCS: u64 = 128;

/// How long after the last commit the high-water file is brought up to date.
const MARK_WHEN_IDLE: Duration = Duration::from_secs(1);

/// How long the writer waits for a commit between two parts of what a store does while it rests. One part takes some milliseconds.
const REST_PAUSE: Duration = Duration::from_millis(50);

/// A commit on its way to the writer.
pub(crate) struct Job {
    pub(crate) changes: Vec<Change>,
    pub(crate) done: Answer,
}

pub(crate) struct Writer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) state: State,
    /// Where the high-water file is; nothing for a store in memory.
    pub(crate) mark_dir: Option<PathBuf>,
    /// Asked before each step of writing it.
    pub(crate) before_mark: Arc<BeforeMark>,
    /// Written after each sync; nothing where the high-water file is not, and once it could not be written.
    pub(crate) tail: Option<TailMark>,
    /// Syncs since the mark was written.
    pub(crate) unmarked: u64,
    gathered: Gathered,
    /// The commits of the batch that is being written.
    waiting: Vec<Job>,
    answers: Answers,
}

/// What the next batch holds so far.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    /// The rows of streams, which nearly every commit of a batch writes over: only the last one of each is encoded.
    outgoing: BTreeMap<EndpointId, Outgoing>,
    incoming: BTreeMap<EndpointId, Incoming>,
}

impl Gathered {
    /// Takes in a change that the fold has taken, and leaves something of the same kind behind. Returns its bytes.
    fn take(&mut self, change: &mut Change) -> usize {
        match change {
            Change::Put(Row::Outgoing(peer, row)) => take_last(&mut self.outgoing, peer, row),
            Change::Put(Row::Incoming(peer, row)) => take_last(&mut self.incoming, peer, row),
            Change::Put(
                row @ (Row::Meta(_) | Row::Header(..) | Row::Body(..) | Row::Work(..) | Row::Totals(_) | Row::App(..)),
            ) => return row.put_into(&mut self.batch),
            Change::DeleteApp(_) | Change::DeleteWork(..) | Change::DropBodies(..) | Change::DropHeaders(..) => {
                change.each_removed(&mut |key| self.batch.delete_key(key));
            }
        }
        0
    }

    /// The batch, complete but for the totals.
    fn batch(&mut self) -> &mut Batch {
        for (peer, row) in std::mem::take(&mut self.outgoing) {
            Row::Outgoing(peer, row).put_into(&mut self.batch);
        }
        for (peer, row) in std::mem::take(&mut self.incoming) {
            Row::Incoming(peer, row).put_into(&mut self.batch);
        }
        &mut self.batch
    }
}

/// Takes the last row of a stream, and leaves the one before it.
fn take_last<T: Clone>(rows: &mut BTreeMap<EndpointId, T>, peer: &EndpointId, row: &mut T) {
    match rows.get_mut(peer) {
        Some(before) => std::mem::swap(before, row),
        None => drop(rows.insert(peer.clone(), row.clone())),
    }
}

impl Writer {
    /// A writer that marks nothing outside the store.
    pub(crate) fn new(store: Arc<dyn Store>, state: State) -> Self {
        let before_mark = Seams::default().mark;
        let (gathered, waiting, answers) = Default::default();
        Self { store, state, mark_dir: None, before_mark, tail: None, unmarked: 1, gathered, waiting, answers }
    }

    /// Works until every sender is gone, then brings the mark up to date.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        let (mut failed, mut resting): (Option<CommitError>, _) = (None, false);
        loop {
            let first = match jobs.recv_timeout(if resting { REST_PAUSE } else { MARK_WHEN_IDLE }) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    if failed.is_none() {
                        self.mark();
                        (resting, failed) = match self.rest() {
                            Ok(resting) => (resting, None),
                            Err(error) => (false, Some(CommitError::Store(Arc::new(error)))),
                        };
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            resting = false;
            if let Some(error) = &failed {
                first.done.give(Err(error.clone()));
                continue;
            }
            failed = self.turn(first, &mut || jobs.try_recv().ok()).err();
            if failed.is_none() && self.unmarked >= MARK_EVERY_SYNCS {
                self.mark();
            }
        }
        if failed.is_none() {
            self.mark();
        }
    }

    /// Writes the first job and whatever else waits, syncs once, and answers all of them.
    pub(crate) fn turn(&mut self, first: Job, more: &mut dyn FnMut() -> Option<Job>) -> Result<(), CommitError> {
        let mut bytes = 0;
        let mut next = Some(first);
        let mut illegal = None;
        while let Some(mut job) = next.take() {
            match self.collect(&mut job.changes) {
                Ok(added) => {
                    bytes += added;
                    self.waiting.push(job);
                }
                Err(error) => {
                    illegal = Some((job.done, error));
                    break;
                }
            }
            if bytes < BATCH_BYTES_MAX {
                next = more();
            }
        }
        let written = self.write().map_err(|error| CommitError::Store(Arc::new(error)));
        for Job { changes, done } in self.waiting.drain(..) {
            self.answers.add(done, written.clone(), changes);
        }
        self.answers.wake();
        match (written, illegal) {
            (Err(error), refused) => {
                if let Some((done, _)) = refused {
                    done.give(Err(error.clone()));
                }
                Err(error)
            }
            (Ok(()), Some((done, error))) => {
                done.give(Err(error.clone()));
                Err(error)
            }
            (Ok(()), None) => Ok(()),
        }
    }

    /// Adds one job's changes to the batch, once the fold has taken all of them: a job that turns out to be illegal halfway leaves
    /// nothing in the batch. The fold has then taken half of it, but an illegal job closes the journal for good. Returns their bytes.
    fn collect(&mut self, changes: &mut [Change]) -> Result<usize, CommitError> {
        for change in &*changes {
            self.state.apply(change).map_err(CommitError::Illegal)?;
        }
        Ok(changes.iter_mut().map(|change| self.gathered.take(change)).sum())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let batch = self.gathered.batch();
        if batch.is_empty() {
            return Ok(());
        }
        self.unmarked += 1;
        let written = guarded(|| {
            self.state.totals.seal(self.store.as_ref(), batch)?;
            self.store.apply(batch)?;
            self.store.sync()
        });
        batch.clear();
        written?;
        self.mark_tail();
        Ok(())
    }

    /// Lets the store give space back. A failure ends it as one of a commit does.
    fn rest(&mut self) -> Result<bool, StoreError> {
        guarded(|| self.store.rest())
    }

    /// Notes how many batches are on stable storage. Only after a sync.
    pub(crate) fn mark_tail(&mut self) {
        if let Some(tail) = &self.tail
            && let Err(error) = tail.write(self.state.totals.batches)
        {
            // An older mark claims less than it could, and nothing that is not so.
            tracing::warn!(%error, "The tail mark could not be written; it stays as it is until the next opening.");
            self.tail = None;
        }
    }

    /// Brings the high-water file up to date. What it says is on stable storage already, so a failure loses nothing but
    /// sharpness: it is reported and tried again.
    fn mark(&mut self) {
        let (Some(dir), true) = (&self.mark_dir, self.unmarked > 0) else { return };
        let Some(mark) = HighWater::of(&self.state) else { return };
        match mark.write_in_steps(dir, self.before_mark.as_ref()) {
            Ok(()) => self.unmarked = 0,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "The high-water file could not be written; tried again later.")
            }
        }
    }
}

/// Calls the engine. A panic here would take the thread down and have every commit answered with "nothing was written".
fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let gave_up = || StoreError::Damaged { operation: "writing", detail: "the engine panicked".to_owned() };
    std::panic::catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(gave_up()))
}
