//! Logs at the server: files that agents' pieces are put together in. The length of the file is the authority on the offset:
//! a piece that does not continue it is answered with the length, and the agent goes on from there. A log is complete when its
//! size and SHA-256 are what the agent's record says; only then the agent is told that it need not keep it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use link::Endpoint;
use messages::limits::LOG_CHUNK_BYTES_MAX;
use messages::{Digest, EndpointId, LogChunk, LogDatagram, LogKey, LogMark, RunId};
use serde::{Deserialize, Serialize};

use crate::api::LogPiece;

/// Bytes of one log. An agent keeps less of each output.
pub(crate) const LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Bytes of the note that a log is complete.
const NOTE_BYTES_MAX: u64 = 4_096;

/// How often a log is fetched anew because it is not what its agent recorded. Then it is kept as it is, and marked: the file at
/// the agent was changed or cut, and fetching it for ever mends nothing.
const FETCHES_MAX: u32 = 3;

/// The folder of logs.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    dir: PathBuf,
    /// Logs that were not what their agent recorded, and how often. Forgotten at a restart, which only tries again.
    mismatches: Arc<Mutex<BTreeMap<LogKey, u32>>>,
}

/// Written beside a log when it is complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    size: u64,
    sha256: String,
    cut: u64,
    /// The content is not what the agent recorded at the end of the step.
    #[serde(default)]
    altered: bool,
}

impl Logs {
    /// The logs under that folder, which is made if need be.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: dir.to_owned(), mismatches: Arc::default() })
    }

    fn run_dir(&self, run: RunId) -> PathBuf {
        self.dir.join(run.to_string())
    }

    fn path(&self, key: &LogKey) -> PathBuf {
        self.run_dir(key.run).join(format!("{}.{}.{}", key.step, key.attempt, key.stream))
    }

    fn note_path(&self, key: &LogKey) -> PathBuf {
        self.run_dir(key.run).join(format!("{}.{}.{}.end", key.step, key.attempt, key.stream))
    }

    /// At most `max` bytes from an offset. A log that is not there is empty and not complete.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn read(&self, key: &LogKey, offset: u64, max: usize) -> io::Result<LogPiece> {
        // The note first: when it is there, the file no longer grows.
        let complete = self.note(key)?.is_some();
        let mut file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LogPiece { complete, ..LogPiece::default() });
            }
            Err(error) => return Err(error),
        };
        let size = file.metadata()?.len();
        let mut bytes = Vec::new();
        if offset < size {
            file.seek(SeekFrom::Start(offset))?;
            file.take(max as u64).read_to_end(&mut bytes)?;
        }
        Ok(LogPiece { bytes, size, complete })
    }

    fn note(&self, key: &LogKey) -> io::Result<Option<Note>> {
        match File::open(self.note_path(key)) {
            Ok(file) => {
                let mut text = Vec::new();
                file.take(NOTE_BYTES_MAX).read_to_end(&mut text)?;
                Ok(serde_json::from_slice(&text).ok())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a piece in, and says how much of the log is there now.
    fn take(&self, chunk: &LogChunk) -> io::Result<LogMark> {
        let key = chunk.key.clone();
        if let Some(note) = self.note(&key)? {
            return Ok(LogMark { key, have: note.size, complete: true });
        }
        let path = self.path(&key);
        DirBuilder::new().recursive(true).mode(0o700).create(self.run_dir(key.run))?;
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let mut have = file.metadata()?.len();
        let fits = chunk.offset == have && have + chunk.bytes.len() as u64 <= LOG_BYTES_MAX;
        if fits && crc32c::crc32c(&chunk.bytes) == chunk.crc32c {
            file.write_all(&chunk.bytes)?;
            have += chunk.bytes.len() as u64;
        }
        let Some(end) = chunk.end.as_ref().filter(|end| end.size <= have) else {
            return Ok(LogMark { key, have, complete: false });
        };
        file.sync_all()?;
        let sha256 = digest(&path)?;
        let as_recorded = have == end.size && sha256 == end.sha256;
        if !as_recorded && self.mismatch(&key) < FETCHES_MAX {
            file.set_len(0)?;
            return Ok(LogMark { key, have: 0, complete: false });
        }
        if !as_recorded {
            tracing::warn!(run = %key.run, step = %key.step, "A log is not what its agent recorded; it is kept as it came, and marked.");
        }
        self.note_end(&key, &Note { size: have, sha256: sha256.to_string(), cut: end.cut, altered: !as_recorded })?;
        Ok(LogMark { key, have, complete: true })
    }

    /// Counts that a log is not what its agent recorded.
    fn mismatch(&self, key: &LogKey) -> u32 {
        let mut mismatches = self.mismatches.lock().unwrap_or_else(PoisonError::into_inner);
        let count = mismatches.entry(key.clone()).or_insert(0);
        *count += 1;
        *count
    }

    fn note_end(&self, key: &LogKey, note: &Note) -> io::Result<()> {
        self.mismatches.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let path = self.note_path(key);
        let fresh = path.with_extension("end.new");
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(note)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(self.run_dir(key.run))?.sync_all()
    }

    /// Removes a run's logs.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn forget(&self, run: RunId) -> io::Result<()> {
        match fs::remove_dir_all(self.run_dir(run)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn digest(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = messages::Hasher::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..read]);
    }
}

/// What has to be known of logs beside the files.
pub(crate) trait About: Send + 'static {
    /// Whether a piece is of a run of that agent.
    fn knows(&self, from: &EndpointId, key: &LogKey) -> bool;
    /// Whether what is left of the disk is for the journal.
    fn is_tight(&self) -> bool;
    /// There is more to read.
    fn grown(&self);
}

/// Puts logs together until the endpoint stops, with whatever the core has to say about them.
pub(crate) async fn receive(logs: Logs, endpoint: Endpoint, core: impl About) {
    let logs = Arc::new(logs);
    let mut tight = false;
    let mut marks: BTreeSet<(EndpointId, LogKey)> = BTreeSet::new();
    let mut latest = BTreeMap::new();
    loop {
        let next = tokio::select! {
            biased;
            next = endpoint.next_log() => next,
            // Only when nothing more waits: one mark answers a burst of pieces.
            () = std::future::ready(()), if !marks.is_empty() => {
                for (agent, key) in std::mem::take(&mut marks) {
                    if let Some(mark) = latest.remove(&key)
                        && endpoint.send_log(agent, LogDatagram::Mark(mark)).await.is_err()
                    {
                        return;
                    }
                }
                continue;
            }
        };
        let Ok(LogDatagram::Chunk(chunk)) = next else {
            if next.is_err() {
                return;
            }
            continue;
        };
        if chunk.bytes.len() > LOG_CHUNK_BYTES_MAX {
            tracing::warn!(from = %chunk.from, run = %chunk.key.run, "A piece of a log is too large; it was dropped.");
            continue;
        }
        if !core.knows(&chunk.from, &chunk.key) {
            // The job was forgotten: nobody will ask for the log, so its agent need not keep it.
            tracing::debug!(from = %chunk.from, run = %chunk.key.run, "A piece of a log is of no run known here.");
            latest.insert(chunk.key.clone(), LogMark { key: chunk.key.clone(), have: 0, complete: true });
            marks.insert((chunk.from, chunk.key));
            continue;
        }
        if core.is_tight() {
            // Without a mark the agent keeps the log, and sends it when there is room.
            if !std::mem::replace(&mut tight, true) {
                tracing::warn!("The disk is nearly full: logs stay at their agents until there is room.");
            }
            continue;
        }
        tight = false;
        let (from, key, writer) = (chunk.from.clone(), chunk.key.clone(), Arc::clone(&logs));
        match tokio::task::spawn_blocking(move || writer.take(&chunk)).await {
            Ok(Ok(mark)) => {
                latest.insert(key.clone(), mark);
                marks.insert((from, key));
                core.grown();
            }
            Ok(Err(error)) => {
                // Without a mark the agent keeps the piece and sends it again later.
                tracing::warn!(%error, run = %key.run, step = %key.step, "A log cannot be written; it is fetched again later.");
            }
            Err(error) => tracing::error!(%error, "Writing a log ended badly."),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use messages::{LogEnd, LogStream};

    use super::*;

    fn key() -> LogKey {
        LogKey { run: RunId::from_u128(1), step: "one".parse().unwrap(), attempt: 1, stream: LogStream::Stdout }
    }

    fn chunk(offset: u64, bytes: &[u8], end: Option<LogEnd>) -> LogChunk {
        let crc32c = crc32c::crc32c(bytes);
        LogChunk { from: "a1".parse().unwrap(), key: key(), offset, bytes: bytes.to_vec(), crc32c, end }
    }

    fn end(size: u64, sha256: Digest) -> Option<LogEnd> {
        Some(LogEnd { size, sha256, cut: 0 })
    }

    #[test]
    fn a_log_is_complete_only_when_it_is_what_its_agent_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path()).unwrap();
        assert_eq!(logs.take(&chunk(0, b"hello ", None)).unwrap().have, 6);
        // A piece that does not continue the log, and one that was damaged on the way, change nothing.
        assert_eq!(logs.take(&chunk(9, b"x", None)).unwrap().have, 6);
        assert_eq!(logs.take(&LogChunk { crc32c: 1, ..chunk(6, b"world", None) }).unwrap().have, 6);
        let done = logs.take(&chunk(6, b"world", end(11, Digest::of(b"hello world")))).unwrap();
        assert_eq!((done.have, done.complete), (11, true));
        assert_eq!(logs.read(&key(), 0, 100).unwrap().bytes, b"hello world");
        assert!(logs.read(&key(), 0, 100).unwrap().complete);
    }

    #[test]
    fn a_log_that_is_never_what_was_recorded_is_kept_and_marked_instead_of_fetched_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path()).unwrap();
        let altered = || chunk(0, b"altered", end(7, Digest::of(b"as it was")));
        for _ in 1..FETCHES_MAX {
            let again = logs.take(&altered()).unwrap();
            assert_eq!((again.have, again.complete), (0, false));
        }
        assert!(logs.take(&altered()).unwrap().complete);
        assert!(logs.note(&key()).unwrap().unwrap().altered);
    }
}
