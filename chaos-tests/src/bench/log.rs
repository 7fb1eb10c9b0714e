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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_written_over_from_the_front() {
        let dir = tempfile::tempdir().unwrap();
        let mut zeros = Zeros::new(dir.path()).unwrap();
        let read = |zeros: &Zeros, at| {
            let mut bytes = [0; 3];
            zeros.file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        let half = usize::try_from(LOG_BYTES / 2).unwrap();
        zeros.write(&vec![1; half]).unwrap();
        zeros.write(&[2; 3]).unwrap();
        assert_eq!([read(&zeros, 0), read(&zeros, LOG_BYTES / 2)], [[1; 3], [2; 3]]);
        zeros.write(&vec![3; half]).unwrap();
        assert_eq!([read(&zeros, 0), read(&zeros, LOG_BYTES / 2)], [[3; 3], [2; 3]]);
    }

    #[tokio::test]
    async fn what_waits_is_in_the_file_once_for_each_when_it_returns() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path()).unwrap();
        let keep = |number: u8| {
            let log = &log;
            async move { log.keep(&[number; 2]).await }
        };
        futures_util::future::try_join_all((1..=100).map(keep)).await.unwrap();
        let synced = log.synced.lock().await;
        let mut bytes = vec![0; 200];
        synced.zeros.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes.sort_unstable();
        assert_eq!(bytes, (1..=100).flat_map(|number| [number; 2]).collect::<Vec<u8>>());
    }
}
