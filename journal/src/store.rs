//! The narrow trait behind which every engine hides: an atomic batch of puts and deletes, a range scan, a sync, a size.
//! What rows mean, checksums and marks are not an engine's business: they are above this line, so that safety does not
//! rest on any engine.

use std::ops::ControlFlow;

pub use crate::batch::Batch;

/// Bytes. The longest key that an engine must take: a table byte, an application prefix and a name or two.
pub const KEY_BYTES_MAX: usize = 512;

/// Why an engine could not do its work. Each of them is fatal for the store: it takes no more commits, and a new opening
/// must verify what is there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused a read, a write or a sync.
    #[error("{operation} failed")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The engine found its own files damaged.
    #[error("the engine found damage while {operation}: {detail}")]
    Damaged {
        /// What was attempted.
        operation: &'static str,
        /// The engine's words.
        detail: String,
    },
    /// Another process has the store open.
    #[error("another process has it open")]
    Locked,
}

/// What a scan calls with each key and value, lowest key first; it ends early when told to.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered map of bytes on stable storage. All methods may be called from several threads; batches come from one.
pub trait Store: Send + Sync + 'static {
    /// Makes a batch visible, atomically. It is on stable storage only after the next [`Self::sync`].
    ///
    /// # Errors
    /// [`StoreError`]; afterwards the batch may or may not be there, and nothing more may be applied.
    fn apply(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Returns when everything applied so far is on stable storage.
    ///
    /// # Errors
    /// [`StoreError`]; never to be tried again: the system may already have dropped the pages that it failed to write.
    fn sync(&self) -> Result<(), StoreError>;

    /// Visits all keys from `from` (included) up to `to` (excluded), in order.
    ///
    /// # Errors
    /// [`StoreError`]
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// As [`Self::scan`], for who knows that nobody writes meanwhile and does not call the store from `visit`. An engine that would
    /// note first what a scan is to show need not.
    ///
    /// # Errors
    /// [`StoreError`]
    fn scan_undisturbed(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.scan(from, to, visit)
    }

    /// Bytes taken on disk; 0 for a store in memory.
    ///
    /// # Errors
    /// [`StoreError`]
    fn size(&self) -> Result<u64, StoreError>;

    /// The value of one key. Engines with something faster than a scan say so here.
    ///
    /// # Errors
    /// [`StoreError`]
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut end = key.to_vec();
        end.push(0);
        let mut found = None;
        self.scan(key, &end, &mut |_, value| {
            found = Some(value.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Gives space back while nothing is written, a part of it with each call. Whether there was something to do, and so may be more.
    /// Called by who writes, between batches.
    ///
    /// # Errors
    /// [`StoreError`], as for [`Self::apply`].
    fn rest(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// CRC32C of the value of one key. Engines that know it without reading the value say so here.
    ///
    /// # Errors
    /// [`StoreError`]
    fn checksum(&self, key: &[u8]) -> Result<Option<u32>, StoreError> {
        Ok(self.value(key)?.map(|value| crc32c::crc32c(&value)))
    }

    /// Visits every key, in order, with the CRC32C of its value, without reading values: for an engine that read every byte when it
    /// was opened and noted them. Whether it did; one that did not visits nothing.
    fn checksums(&self, _visit: &mut dyn FnMut(&[u8], u32)) -> bool {
        false
    }
}
