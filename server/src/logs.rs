//! Logs at the server: files that agents' pieces are put together in. The length of the file is the authority on the offset:
//! a piece that does not continue it is answered with the length, and the agent goes on from there. A log is complete when its
//! size and SHA-256 are what the agent's record says; only then the agent is told that it need not keep it. It never holds more of
//! a log in memory than the pieces that just came, and no log waits for another one's sync.

mod finishing;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use link::Endpoint;
use messages::limits::{LOG_BYTES_MAX, LOG_CHUNK_BYTES_MAX};
use messages::{Digest, EndpointId, Hasher, LogChunk, LogDatagram, LogEnd, LogKey, LogMark, RunId};
use serde::{Deserialize, Serialize};

use self::finishing::Finishing;
use crate::api::LogPiece;

/// Pieces that are taken in at a time. One word to their agents answers all of a log, and must not be long in coming: until
/// then they send nothing more.
const PIECES_AT_ONCE: usize = 64;
/// Logs whose digest is kept while they grow, about 300 bytes each. Of others the file is read again when it is whole.
const DIGESTS_MAX: usize = 1_024;
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
    digests: Arc<Mutex<Digests>>,
}

/// The digests of logs that grow, so that what was just written need not be read again.
#[derive(Debug, Default)]
struct Digests {
    growing: BTreeMap<LogKey, Growing>,
    /// Counts, so that the one that has not grown for longest makes room.
    turn: u64,
}

#[derive(Debug)]
struct Growing {
    hasher: Hasher,
    bytes: u64,
    turn: u64,
}

impl Digests {
    /// Takes in what was written at that offset. What does not continue what is known is forgotten.
    fn wrote(&mut self, key: &LogKey, offset: u64, bytes: &[u8]) {
        self.turn += 1;
        if offset == 0 {
            let fresh = Growing { hasher: Hasher::default(), bytes: 0, turn: self.turn };
            self.growing.insert(key.clone(), fresh);
        }
        match self.growing.get_mut(key) {
            Some(growing) if growing.bytes == offset => {
                growing.hasher.update(bytes);
                growing.bytes += bytes.len() as u64;
                growing.turn = self.turn;
            }
            Some(_) => drop(self.growing.remove(key)),
            None => {}
        }
        if self.growing.len() > DIGESTS_MAX {
            let oldest = self.growing.iter().min_by_key(|(_, growing)| growing.turn).map(|(key, _)| key.clone());
            oldest.map(|key| self.growing.remove(&key));
        }
    }

    /// The digest of a log of that size, if it is known.
    fn take(&mut self, key: &LogKey, size: u64) -> Option<Digest> {
        self.growing.remove(key).filter(|growing| growing.bytes == size).map(|growing| growing.hasher.finish())
    }
}

/// What taking a piece in came to.
enum Taken {
    /// This is there now.
    Mark(LogMark),
    /// Everything is there: it is to be synced and compared with the agent's record.
    Whole(LogEnd),
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
        Ok(Self { dir: dir.to_owned(), mismatches: Arc::default(), digests: Arc::default() })
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
        let note = self.note(key)?;
        let (complete, cut) = (note.is_some(), note.map_or(0, |note| note.cut));
        let mut file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LogPiece { complete, cut, ..LogPiece::default() });
            }
            Err(error) => return Err(error),
        };
        let size = file.metadata()?.len();
        let mut bytes = Vec::new();
        if offset < size {
            file.seek(SeekFrom::Start(offset))?;
            file.take(max as u64).read_to_end(&mut bytes)?;
        }
        Ok(LogPiece { bytes, size, complete, cut })
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

    /// Takes a piece in.
    fn take(&self, chunk: &LogChunk) -> io::Result<Taken> {
        let key = chunk.key.clone();
        if let Some(note) = self.note(&key)? {
            return Ok(Taken::Mark(LogMark { key, have: note.size, complete: true }));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(self.run_dir(key.run))?;
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.path(&key))?;
        let mut have = file.metadata()?.len();
        let fits = chunk.offset == have && have + chunk.bytes.len() as u64 <= LOG_BYTES_MAX;
        if fits && crc32c::crc32c(&chunk.bytes) == chunk.crc32c {
            file.write_all(&chunk.bytes)?;
            self.digests().wrote(&key, have, &chunk.bytes);
            have += chunk.bytes.len() as u64;
        }
        Ok(match &chunk.end {
            Some(end) if end.size <= have => Taken::Whole(end.clone()),
            Some(_) | None => Taken::Mark(LogMark { key, have, complete: false }),
        })
    }

    fn digests(&self) -> std::sync::MutexGuard<'_, Digests> {
        // A panic in the middle of a change leaves at worst a digest that does not fit, and then the log is fetched again.
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a log durable that is all there, and compares it with what its agent recorded. Takes as long as the disk does.
    fn finish(&self, key: &LogKey, end: &LogEnd) -> io::Result<LogMark> {
        let key = key.clone();
        let path = self.path(&key);
        let file = OpenOptions::new().append(true).open(&path)?;
        let have = file.metadata()?.len();
        if have > 0 {
            file.sync_all()?;
        }
        let known = self.digests().take(&key, have);
        let sha256 = known.map_or_else(|| digest(&path), Ok)?;
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
        File::open(self.run_dir(key.run))?.sync_all()?;
        // The folder's own name, too, before its agent is told that it need not keep the log.
        File::open(&self.dir)?.sync_all()
    }

    /// Removes a run's logs, and what is known of them.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn forget(&self, run: RunId) -> io::Result<()> {
        self.mismatches.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| key.run != run);
        self.digests().growing.retain(|key, _| key.run != run);
        match fs::remove_dir_all(self.run_dir(run)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn digest(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::default();
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
    let mut finishing = Finishing::default();
    let mut tight = false;
    loop {
        let marks = tokio::select! {
            said = endpoint.next_logs(PIECES_AT_ONCE) => match said {
                Ok(said) => take_all(&logs, said, &core, &mut tight, &mut finishing).await,
                Err(_) => return,
            },
            Some(done) = finishing.tasks.join_next_with_id(), if !finishing.tasks.is_empty() => finishing.done(done),
        };
        finishing.begin(&logs);
        if !marks.is_empty() {
            core.grown();
        }
        for ((agent, _), mark) in marks {
            if endpoint.send_log(agent, LogDatagram::Mark(mark)).await.is_err() {
                return;
            }
        }
    }
}

/// What is to be said of each log, to whom.
type Marks = BTreeMap<(EndpointId, LogKey), LogMark>;

/// Takes pieces in, and makes one word of each log out of them.
async fn take_all(
    logs: &Logs,
    said: Vec<LogDatagram>,
    core: &impl About,
    tight: &mut bool,
    finishing: &mut Finishing,
) -> Marks {
    let mut marks = Marks::new();
    let mut pieces = Vec::new();
    for said in said {
        // Only an agent is sent marks.
        let LogDatagram::Chunk(chunk) = said else { continue };
        if chunk.bytes.len() > LOG_CHUNK_BYTES_MAX {
            tracing::warn!(from = %chunk.from, run = %chunk.key.run, "A piece of a log is too large; it was dropped.");
        } else if !core.knows(&chunk.from, &chunk.key) {
            // The job was forgotten: nobody will ask for the log, so its agent need not keep it.
            tracing::debug!(from = %chunk.from, run = %chunk.key.run, "A piece of a log is of no run known here.");
            let mark = LogMark { key: chunk.key.clone(), have: 0, complete: true };
            marks.insert((chunk.from, chunk.key), mark);
        } else if !finishing.whole.contains_key(&chunk.key) {
            // A log that is being finished is all there: what comes of it now is a repetition.
            pieces.push(chunk);
        }
    }
    if core.is_tight() {
        // Without a mark the agents keep their logs, and send them when there is room.
        if !pieces.is_empty() && !std::mem::replace(tight, true) {
            tracing::warn!("The disk is nearly full: logs stay at their agents until there is room.");
        }
        return marks;
    }
    *tight = false;
    let writer = logs.clone();
    let writing = move || {
        let take = |chunk: LogChunk| (writer.take(&chunk), chunk.from, chunk.key);
        pieces.into_iter().map(take).collect::<Vec<_>>()
    };
    let taken = match tokio::task::spawn_blocking(writing).await {
        Ok(taken) => taken,
        Err(error) => {
            tracing::error!(%error, "Writing logs ended badly.");
            return marks;
        }
    };
    for (taken, from, key) in taken {
        match taken {
            Ok(Taken::Mark(mark)) => drop(marks.insert((from, key), mark)),
            Ok(Taken::Whole(end)) => finishing.want(from, key, end),
            // Without a mark the agent keeps the piece and sends it again later.
            Err(error) => {
                tracing::warn!(%error, run = %key.run, step = %key.step, "A log cannot be written; it is fetched again later.");
            }
        }
    }
    marks
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

    /// Takes a piece in, and finishes the log when it is all there.
    fn take(logs: &Logs, chunk: &LogChunk) -> LogMark {
        match logs.take(chunk).unwrap() {
            Taken::Mark(mark) => mark,
            Taken::Whole(end) => logs.finish(&chunk.key, &end).unwrap(),
        }
    }

    #[test]
    fn a_log_is_complete_only_when_it_is_what_its_agent_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path()).unwrap();
        assert_eq!(take(&logs, &chunk(0, b"hello ", None)).have, 6);
        // A piece that does not continue the log, and one that was damaged on the way, change nothing.
        assert_eq!(take(&logs, &chunk(9, b"x", None)).have, 6);
        assert_eq!(take(&logs, &LogChunk { crc32c: 1, ..chunk(6, b"world", None) }).have, 6);
        let done = take(&logs, &chunk(6, b"world", end(11, Digest::of(b"hello world"))));
        assert_eq!((done.have, done.complete), (11, true));
        assert_eq!(logs.read(&key(), 0, 100).unwrap().bytes, b"hello world");
        assert!(logs.read(&key(), 0, 100).unwrap().complete);
    }

    #[test]
    fn a_log_goes_on_after_a_restart_and_is_compared_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        take(&Logs::open(dir.path()).unwrap(), &chunk(0, b"hello ", None));
        // This one has not seen the beginning.
        let logs = Logs::open(dir.path()).unwrap();
        let done = take(&logs, &chunk(6, b"world", end(11, Digest::of(b"hello world"))));
        assert_eq!((done.have, done.complete), (11, true));
        assert!(!logs.note(&key()).unwrap().unwrap().altered);
    }

    #[test]
    fn a_log_that_is_never_what_was_recorded_is_kept_and_marked_instead_of_fetched_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path()).unwrap();
        let altered = || chunk(0, b"altered", end(7, Digest::of(b"as it was")));
        for _ in 1..FETCHES_MAX {
            let again = take(&logs, &altered());
            assert_eq!((again.have, again.complete), (0, false));
        }
        assert!(take(&logs, &altered()).complete);
        assert!(logs.note(&key()).unwrap().unwrap().altered);
    }

    #[test]
    fn of_a_run_that_is_forgotten_nothing_is_kept_in_memory_either() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path()).unwrap();
        take(&logs, &chunk(0, b"altered", end(7, Digest::of(b"as it was"))));
        take(&logs, &chunk(0, b"again", None));
        let known = || (logs.mismatches.lock().unwrap().len(), logs.digests().growing.len());
        assert_eq!(known(), (1, 1));
        logs.forget(RunId::from_u128(2)).unwrap();
        assert_eq!(known(), (1, 1), "another run's were forgotten");
        logs.forget(key().run).unwrap();
        assert_eq!(known(), (0, 0));
    }

    #[test]
    fn the_digests_of_growing_logs_are_bounded_and_right() {
        let mut digests = Digests::default();
        let key = |attempt| LogKey { attempt, ..key() };
        for attempt in 0..=DIGESTS_MAX as u32 {
            digests.wrote(&key(attempt), 0, b"ab");
        }
        assert_eq!(digests.growing.len(), DIGESTS_MAX);
        assert_eq!(digests.take(&key(0), 2), None);
        digests.wrote(&key(1), 2, b"c");
        assert_eq!(digests.take(&key(1), 3), Some(Digest::of(b"abc")));
        // A gap, and a size that is not what was written: nothing is known then.
        digests.wrote(&key(2), 9, b"c");
        assert_eq!((digests.take(&key(2), 10), digests.take(&key(3), 1)), (None, None));
    }
}
