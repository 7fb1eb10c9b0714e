//! sled alone: the engine under a journal and nothing of the journal. No headers, no checksums, no totals, no marks. What is kept by sled cannot
//! cost less than this, so it says which goals sled allows. It must never be more than the least.

use std::fs::File;
use std::io;
use std::path::Path;

/// Bytes of sled's page cache, as `journal/src/sled_store.rs` has it.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// A store of sled in a folder of its own: bytes by number.
pub(super) struct SledAlone {
    db: sled::Db,
    /// sled's one data file, opened once more to sync it.
    file: File,
}

impl SledAlone {
    /// Opens it, and makes it if it is not there. Configured as a journal's is: what is not set there, as the size of a segment, is not set here.
    ///
    /// # Errors
    /// sled's.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let db = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
        Ok(Self { db, file: File::open(dir.join("db"))? })
    }

    /// Keeps these bytes.
    ///
    /// # Errors
    /// sled's.
    pub(super) fn insert(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        self.db.insert(number.to_be_bytes(), bytes)?;
        Ok(())
    }

    /// Keeps them no longer.
    ///
    /// # Errors
    /// sled's.
    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        self.db.remove(number.to_be_bytes())?;
        Ok(())
    }

    /// Has all that was done so far on stable storage. sled's own `flush` is no sync, so the file is synced as well, as a journal does.
    ///
    /// # Errors
    /// sled's, and the system's.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.db.flush()?;
        self.file.sync_data()
    }

    /// Reads every row once. Returns how many there are, and the bytes of their keys and values.
    ///
    /// # Errors
    /// sled's.
    pub(super) fn read(&self) -> io::Result<(u64, u64)> {
        let (mut rows, mut bytes) = (0, 0);
        for row in self.db.iter() {
            let (key, value) = row?;
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        Ok((rows, bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_and_not_removed_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let alone = SledAlone::open(dir.path()).unwrap();
        for number in 0..100 {
            alone.insert(number, &[7; 1_024]).unwrap();
        }
        (0..60).try_for_each(|number| alone.remove(number)).unwrap();
        alone.sync().unwrap();
        assert_eq!(alone.read().unwrap(), (40, 40 * 1_032));
    }
}
