//! A disk: what an engine behind [`Store`] may do to a journal. A batch is atomic, as the trait promises; what was not synced may
//! be missing after a loss of power, with everything after it. It decides nothing by chance: the world tells it what fails.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use journal::{Batch, Store, StoreError, Visit};

/// All rows, as bytes.
pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What goes wrong with the next write or sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskFault {
    /// There is no room: nothing is written, until room is made.
    Full,
    /// The sync fails, once. What was written may or may not be there after the next start.
    SyncFails,
    /// Nothing can be written or read any more, until the disk is replaced by a copy of itself.
    Dead,
    /// The power goes after the write and before the sync.
    PowerLost,
}

/// What a batch replaced: each key with its value before, if it had one.
type Replaced = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Debug, Default)]
struct Inner {
    rows: Rows,
    /// For each batch that was not synced, what it replaced. Oldest first.
    unsynced: Vec<Replaced>,
    fault: Option<DiskFault>,
    /// A planted fault: syncing does nothing.
    forgets_to_sync: bool,
}

/// One disk.
#[derive(Debug, Default)]
pub(crate) struct SimDisk(Mutex<Inner>);

impl SimDisk {
    /// A disk that holds these rows.
    pub(crate) fn of(rows: Rows) -> Self {
        Self(Mutex::new(Inner { rows, ..Inner::default() }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // One thread uses a world; a panic in it ends the run.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next write or sync go wrong.
    pub(crate) fn break_with(&self, fault: DiskFault) {
        self.inner().fault = Some(fault);
    }

    /// What is wrong with it.
    pub(crate) fn fault(&self) -> Option<DiskFault> {
        self.inner().fault
    }

    /// Makes room, or puts a copy of the disk in its place.
    pub(crate) fn mend(&self) {
        self.inner().fault = None;
    }

    /// From now on a sync does nothing: for a planted fault.
    pub(crate) fn forget_to_sync(&self) {
        self.inner().forgets_to_sync = true;
    }

    /// Batches that are not on stable storage.
    pub(crate) fn unsynced(&self) -> usize {
        self.inner().unsynced.len()
    }

    /// The power goes: of the batches that were not synced, the first `kept` are there afterwards.
    pub(crate) fn lose_power(&self, kept: usize) {
        let mut inner = self.inner();
        while inner.unsynced.len() > kept {
            for (key, old) in inner.unsynced.pop().unwrap_or_default() {
                match old {
                    Some(old) => inner.rows.insert(key, old),
                    None => inner.rows.remove(&key),
                };
            }
        }
        inner.unsynced.clear();
    }

    /// A copy of all rows.
    pub(crate) fn copy(&self) -> Rows {
        self.inner().rows.clone()
    }

    /// Puts other rows in place of all.
    pub(crate) fn replace(&self, rows: Rows) {
        let mut inner = self.inner();
        inner.rows = rows;
        inner.unsynced.clear();
    }

    /// Bytes of all rows.
    pub(crate) fn bytes(&self) -> usize {
        self.inner().rows.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

fn refused(operation: &'static str, kind: io::ErrorKind) -> StoreError {
    StoreError::Io { operation, source: io::Error::from(kind) }
}

impl Store for SimDisk {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut inner = self.inner();
        match inner.fault {
            Some(DiskFault::Full) => return Err(refused("writing", io::ErrorKind::StorageFull)),
            Some(DiskFault::Dead) => return Err(refused("writing", io::ErrorKind::Other)),
            Some(DiskFault::SyncFails | DiskFault::PowerLost) | None => {}
        }
        let mut replaced = Vec::new();
        for (key, value) in batch.iter() {
            let old = match value {
                Some(value) => inner.rows.insert(key.to_vec(), value.to_vec()),
                None => inner.rows.remove(key),
            };
            replaced.push((key.to_vec(), old));
        }
        inner.unsynced.push(replaced);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut inner = self.inner();
        match inner.fault {
            Some(DiskFault::SyncFails | DiskFault::PowerLost) => {
                inner.fault = None;
                Err(refused("syncing", io::ErrorKind::Other))
            }
            Some(DiskFault::Dead) => Err(refused("syncing", io::ErrorKind::Other)),
            Some(DiskFault::Full) | None => {
                if !inner.forgets_to_sync {
                    inner.unsynced.clear();
                }
                Ok(())
            }
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let inner = self.inner();
        if inner.fault == Some(DiskFault::Dead) {
            return Err(refused("reading", io::ErrorKind::Other));
        }
        if from >= to {
            return Ok(());
        }
        for (key, value) in inner.rows.range(from.to_vec()..to.to_vec()) {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, StoreError> {
        Ok(self.bytes() as u64)
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let inner = self.inner();
        if inner.fault == Some(DiskFault::Dead) {
            return Err(refused("reading", io::ErrorKind::Other));
        }
        Ok(inner.rows.get(key).cloned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn batch(key: u8, value: u8) -> Batch {
        let mut batch = Batch::default();
        batch.put(vec![key], vec![value]);
        batch
    }

    #[test]
    fn a_loss_of_power_takes_the_last_batches_that_were_not_synced_and_nothing_else() {
        let disk = SimDisk::default();
        disk.apply(&batch(1, 1)).unwrap();
        disk.sync().unwrap();
        for value in 2..5 {
            disk.apply(&batch(1, value)).unwrap();
        }
        disk.lose_power(1);
        assert_eq!(disk.value(&[1]).unwrap(), Some(vec![2]));
        assert_eq!(disk.unsynced(), 0);
    }

    #[test]
    fn a_full_disk_takes_nothing_and_a_failed_sync_fails_once() {
        let disk = SimDisk::default();
        disk.break_with(DiskFault::Full);
        assert!(disk.apply(&batch(1, 1)).is_err() && disk.copy().is_empty());
        disk.break_with(DiskFault::SyncFails);
        disk.apply(&batch(1, 1)).unwrap();
        assert!(disk.sync().is_err());
        assert!(disk.sync().is_ok());
    }
}
