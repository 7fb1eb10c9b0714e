//! The log of references: what is least to have something on stable storage. It is written over zeros that are there, and synced; whoever
//! waits meanwhile shares the next sync. It is never read again, and costs what a log must cost at least that could be.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tokio::sync::Mutex;

/// Bytes of the file, which is written over and over.
const LOG_BYTES: u64 = 4 << 20;

/// See the file.
pub(super) struct Log {
    waiting: std::sync::Mutex<Waiting>,
    synced: Mutex<Synced>,
}

/// What nobody has written yet.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Records that were ever handed in.
    records: u64,
}

/// The file, and how much of what was handed in is in it.
struct Synced {
    zeros: Zeros,
    records: u64,
}

/// A file of zeros that is written over and over, for one writer.
pub(super) struct Zeros {
    file: File,
    at: u64,
}

impl Log {
    /// A log of its own in a file without a name.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let synced = Mutex::new(Synced { zeros: Zeros::new(dir)?, records: 0 });
        Ok(Self { waiting: std::sync::Mutex::default(), synced })
    }

    /// Returns when these bytes are on stable storage. An error ends the run: who waits for the same sync may not hear of it.
    pub(super) async fn keep(&self, bytes: &[u8]) -> io::Result<()> {
        let own = {
            let mut waiting = self.waiting.lock().expect("nobody panics while it is held");
            waiting.bytes.extend_from_slice(bytes);
            waiting.records += 1;
            waiting.records
        };
        let mut synced = self.synced.lock().await;
        if synced.records >= own {
            return Ok(());
        }
        let (bytes, records) = {
            let mut waiting = self.waiting.lock().expect("nobody panics while it is held");
            (std::mem::take(&mut waiting.bytes), waiting.records)
        };
        synced.zeros.write(&bytes)?;
        synced.records = records;
        Ok(())
    }
}

impl Zeros {
    /// A new one without a name.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let mut file = tempfile::tempfile_in(dir)?;
        file.write_all(&vec![0; LOG_BYTES as usize])?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    /// Has these bytes on stable storage when it returns. When the file is full it begins again at the front.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u64;
        self.at = if self.at + len > LOG_BYTES { 0 } else { self.at };
        self.file.write_all_at(bytes, self.at)?;
        self.at += len;
        self.file.sync_data()
    }
}
