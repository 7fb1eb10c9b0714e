//! A store that fails when it is told to: it stands between the journal and its engine. What it lets through it does not change.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::{Batch, MarkStep, Seams, Store, StoreError, Visit};

use super::plan::Fault;
use super::random::Random;

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Reading one value.
    Value,
    /// Reading many.
    Scan,
    /// Writing a batch.
    Apply,
    /// Writing a batch, after the engine has taken it.
    Applied,
    /// Syncing.
    Sync,
    /// A step of writing the high-water file.
    Mark(MarkStep),
}

/// Which call fails, and how.
#[derive(Debug)]
pub(super) struct Failing {
    call: Call,
    /// It is the first to fail.
    number: u64,
    for_ever: bool,
    errno: rustix::io::Errno,
    seen: AtomicU64,
}

impl Failing {
    /// What a trial lets fail.
    pub(super) fn of(fault: Fault, random: &mut Random) -> Self {
        const MARK: [MarkStep; 5] =
            [MarkStep::Create, MarkStep::Write, MarkStep::Sync, MarkStep::Rename, MarkStep::SyncFolder];
        let (call, most) = match (fault, random.below(10)) {
            (Fault::FullOnSync, _) => (Call::Sync, 40),
            (_, 0..=1) => (Call::Value, 200),
            (_, 2) => (Call::Scan, 4),
            (_, 3..=4) => (Call::Apply, 40),
            (_, 5) => (Call::Applied, 40),
            (_, 6..=7) => (Call::Sync, 40),
            _ => (Call::Mark(MARK[random.index(MARK.len())]), 1),
        };
        let errno = if fault == Fault::FullOnSync { rustix::io::Errno::NOSPC } else { rustix::io::Errno::IO };
        let for_ever = match fault {
            Fault::EioForEver => true,
            Fault::FullOnSync => random.below(2) == 0,
            _ => false,
        };
        Self { call, number: 1 + random.below(most), for_ever, errno, seen: AtomicU64::new(0) }
    }

    /// Counts the call, and fails it when it is its turn. For ever means every call from there on, of any kind.
    fn check(&self, call: Call) -> io::Result<()> {
        let counted = |seen: u64| (call == self.call && seen < self.number).then(|| seen + 1);
        let turn = match self.seen.fetch_update(Ordering::SeqCst, Ordering::SeqCst, counted) {
            Ok(before) => before + 1 == self.number,
            Err(seen) => self.for_ever && seen >= self.number,
        };
        if turn { Err(self.errno.into()) } else { Ok(()) }
    }
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.for_ever { "and all after it" } else { "alone" };
        write!(f, "{:?} call {} {how} with {}", self.call, self.number, io::Error::from(self.errno))
    }
}

/// Puts it between a journal and its disk.
pub(super) fn seams(failing: &Arc<Failing>) -> Seams {
    let (for_store, for_mark) = (Arc::clone(failing), Arc::clone(failing));
    Seams {
        store: Box::new(move |inner| Arc::new(FailingStore { inner, failing: for_store })),
        mark: Arc::new(move |step| for_mark.check(Call::Mark(step))),
        ..Seams::default()
    }
}

struct FailingStore {
    inner: Arc<dyn Store>,
    failing: Arc<Failing>,
}

impl FailingStore {
    fn check(&self, call: Call, operation: &'static str) -> Result<(), StoreError> {
        self.failing.check(call).map_err(|source| StoreError::Io { operation, source })
    }
}

impl Store for FailingStore {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.check(Call::Apply, "writing")?;
        self.inner.apply(batch)?;
        self.check(Call::Applied, "writing")
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.check(Call::Sync, "syncing")?;
        self.inner.sync()
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.check(Call::Scan, "reading")?;
        self.inner.scan(from, to, visit)
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.inner.size()
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.check(Call::Value, "reading")?;
        self.inner.value(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(call: Call, number: u64, for_ever: bool) -> Failing {
        Failing { call, number, for_ever, errno: rustix::io::Errno::IO, seen: AtomicU64::new(0) }
    }

    #[test]
    fn once_is_one_call_and_for_ever_is_every_call_from_there_on() {
        let calls = [Call::Sync, Call::Apply, Call::Sync, Call::Apply, Call::Sync, Call::Value];
        let fails = |failing: Failing| calls.map(|call| failing.check(call).is_err());
        assert_eq!(fails(failing(Call::Sync, 2, false)), [false, false, true, false, false, false]);
        assert_eq!(fails(failing(Call::Sync, 2, true)), [false, false, true, true, true, true]);
        assert_eq!(fails(failing(Call::Scan, 1, true)), [false; 6]);
    }
}
