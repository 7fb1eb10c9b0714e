//! A store in memory whose sync can be held up, whose calls are counted, and that fails or panics when told to.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use journal::{Batch, MemoryStore, Store, StoreError, Visit};

/// What the next calls do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Work,
    /// Syncs do not return until the mode changes.
    HoldSync,
    FailSync,
    FailApply,
    PanicInApply,
    PanicInSync,
}

#[derive(Debug, Default)]
struct Seen {
    mode: Mode,
    applies: u64,
    syncs: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    inner: MemoryStore,
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.seen().mode = mode;
        self.changed.notify_all();
    }

    /// Syncs begun so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.seen().syncs
    }

    /// Batches applied so far, failed ones included.
    pub(crate) fn applies(&self) -> u64 {
        self.seen().applies
    }

    /// Returns once that many syncs have begun.
    pub(crate) fn wait_for_sync(&self, number: u64) {
        let seen = self.changed.wait_while(self.seen(), |seen| seen.syncs < number).unwrap();
        drop(seen);
    }
}

fn refused(operation: &'static str) -> StoreError {
    StoreError::Io { operation, source: std::io::Error::other("no space left") }
}

impl Store for Gate {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mode = {
            let mut seen = self.seen();
            seen.applies += 1;
            seen.mode
        };
        match mode {
            Mode::FailApply => Err(refused("writing")),
            Mode::PanicInApply => panic!("the engine gives up"),
            Mode::Work | Mode::HoldSync | Mode::FailSync | Mode::PanicInSync => self.inner.apply(batch),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut seen = self.seen();
        seen.syncs += 1;
        self.changed.notify_all();
        let seen = self.changed.wait_while(seen, |seen| seen.mode == Mode::HoldSync).unwrap();
        let mode = seen.mode;
        drop(seen);
        match mode {
            Mode::FailSync => Err(refused("syncing")),
            Mode::PanicInSync => panic!("the engine gives up"),
            Mode::Work | Mode::HoldSync | Mode::FailApply | Mode::PanicInApply => self.inner.sync(),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.inner.scan(from, to, visit)
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.inner.size()
    }
}
