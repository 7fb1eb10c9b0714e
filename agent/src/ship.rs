//! Shipping logs to the server: pieces of the attempts' output files, outside the journaled stream. The server says how much
//! it has; whatever it says is where this goes on. Nothing here is durable: the files are, and the server's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use link::Endpoint;
use messages::{
    AgentId, Digest, EndpointId, Hasher, LogChunk, LogDatagram, LogEnd, LogKey, LogMark, LogStream, RunId, StepId,
};
use tokio::sync::{Notify, watch};

use crate::attempt::{Attempt, AttemptState, BootId, Exit, StreamEnd};

/// Bytes of one piece. Well under an envelope.
const PIECE_BYTES: usize = 48 * 1024;
/// Bytes under way that the server has not said it has, for one log.
const WINDOW_BYTES: u64 = 8 * PIECE_BYTES as u64;
/// How often growing files are looked at. A reader sees output at most about that much later.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long to wait for word from the server before sending again what it may not have.
const RESEND_AFTER: Duration = Duration::from_secs(3);

/// How a log ended, when its attempt is over.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// As the shim recorded it.
    Recorded(Box<(StreamEnd, StreamEnd)>),
    /// Without a record: the log is what the file holds.
    Unrecorded,
}

impl Ending {
    pub(crate) fn recorded(exit: &Exit) -> Self {
        Self::Recorded(Box::new((exit.stdout.clone(), exit.stderr.clone())))
    }

    pub(crate) const fn unrecorded() -> Self {
        Self::Unrecorded
    }
}

/// Ships logs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ship {
    logs: Arc<Mutex<BTreeMap<LogKey, Log>>>,
    wake: Arc<Notify>,
    /// Changes when a log is complete.
    completed: watch::Sender<u64>,
}

/// One log on its way.
struct Log {
    path: PathBuf,
    /// What the server said it has.
    have: u64,
    /// Sent up to here.
    sent: u64,
    /// The server said what it has, so that what an earlier process sent is known.
    known: bool,
    /// When the server last had more than before, or this was last sent anew.
    moved: Instant,
    /// The log does not grow any more, and this is what it amounts to.
    end: Option<LogEnd>,
    /// The end was sent since the server last said something.
    end_sent: bool,
}

impl Ship {
    pub(crate) fn new() -> Self {
        Self { logs: Arc::default(), wake: Arc::default(), completed: watch::channel(0).0 }
    }

    fn logs(&self) -> std::sync::MutexGuard<'_, BTreeMap<LogKey, Log>> {
        // What a panic could leave half-changed is only a cursor, which the server corrects.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to ship both outputs of an attempt.
    pub(crate) fn track(&self, run: RunId, step: &StepId, attempt: u32, files: &Attempt) {
        let mut logs = self.logs();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let key = LogKey { run, step: step.clone(), attempt, stream };
            let path = files.output(stream);
            let moved = Instant::now();
            logs.entry(key).or_insert(Log { path, have: 0, sent: 0, known: false, moved, end: None, end_sent: false });
        }
        drop(logs);
        self.wake.notify_one();
    }

    /// Says that an attempt is over.
    pub(crate) fn ended(&self, run: RunId, step: &StepId, attempt: u32, ending: Ending) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let key = LogKey { run, step: step.clone(), attempt, stream };
            let end = match (&ending, stream) {
                (Ending::Recorded(ends), LogStream::Stdout) => Some(log_end(&ends.0)),
                (Ending::Recorded(ends), LogStream::Stderr) => Some(log_end(&ends.1)),
                (Ending::Unrecorded, _) => None,
            };
            let path = self.logs().get(&key).map(|log| log.path.clone());
            let end = end.or_else(|| path.map(|path| measure(&path)));
            if let Some(log) = self.logs().get_mut(&key) {
                log.end = end;
            }
        }
        self.wake.notify_one();
    }

    /// Goes on with an attempt of an earlier process that is over.
    pub(crate) fn resume(&self, run: RunId, step: &StepId, attempt: u32, dir: &Path, boot: BootId) {
        let Ok(files) = Attempt::open(dir) else { return };
        let ending = match files.state(boot) {
            Ok(AttemptState::Ended(exit)) => Ending::recorded(&exit),
            Ok(AttemptState::Interrupted(_) | AttemptState::Unreadable { .. } | AttemptState::Running { .. })
            | Err(_) => Ending::unrecorded(),
            // It never ran: there is no output.
            Ok(AttemptState::NotPrepared | AttemptState::NotStarted) => return,
        };
        self.track(run, step, attempt, &files);
        self.ended(run, step, attempt, ending);
    }

    /// Returns when the server has every log of the run.
    pub(crate) async fn all_shipped(&self, run: RunId) {
        let mut completed = self.completed.subscribe();
        loop {
            completed.borrow_and_update();
            // A log without an end belongs to an attempt that never began.
            self.logs().retain(|key, log| key.run != run || log.end.is_some());
            if !self.logs().keys().any(|key| key.run == run) {
                return;
            }
            if completed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ships until the endpoint stops.
    pub(crate) async fn run(self, endpoint: Endpoint, agent: AgentId) {
        let connected = endpoint.connected();
        loop {
            let busy = !self.logs().is_empty();
            tokio::select! {
                next = endpoint.next_log() => match next {
                    Ok(LogDatagram::Mark(mark)) => self.mark(mark),
                    Ok(LogDatagram::Chunk(_)) => continue,
                    Err(_) => return,
                },
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY), if busy => {}
            }
            if !*connected.borrow() {
                continue;
            }
            let ship = self.clone();
            let from = EndpointId::Agent(agent.clone());
            let Ok(chunks) = tokio::task::spawn_blocking(move || ship.chunks(&from)).await else { return };
            for chunk in chunks {
                if endpoint.send_log(EndpointId::Server, LogDatagram::Chunk(chunk)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Takes in what the server says it has.
    fn mark(&self, mark: LogMark) {
        let mut logs = self.logs();
        if mark.complete {
            logs.remove(&mark.key);
            drop(logs);
            self.completed.send_modify(|count| *count += 1);
            return;
        }
        let Some(log) = logs.get_mut(&mark.key) else { return };
        // A server that refuses each piece, since one before it is missing, speaks of it as often as the step writes. That is no
        // progress, and must not put off what brings the missing one.
        if mark.have != log.have || log.sent == log.have {
            log.moved = Instant::now();
        }
        // The server's word counts: if it has less than was thought, this goes back. Its first word tells what an earlier process
        // had sent.
        if !log.known || mark.have < log.have || mark.have > log.sent || log.end_sent {
            log.sent = mark.have;
        }
        log.known = true;
        log.have = mark.have;
        log.end_sent = false;
    }

    /// The pieces that may go out now.
    fn chunks(&self, from: &EndpointId) -> Vec<LogChunk> {
        let mut chunks = Vec::new();
        let keys: Vec<LogKey> = self.logs().keys().cloned().collect();
        for key in keys {
            let mut logs = self.logs();
            let Some(log) = logs.get_mut(&key) else { continue };
            if log.moved.elapsed() > RESEND_AFTER && (log.sent > log.have || log.end_sent) {
                (log.sent, log.end_sent, log.moved) = (log.have, false, Instant::now());
            }
            while !log.end_sent && log.sent < log.have + WINDOW_BYTES {
                let bytes = match read_piece(&log.path, log.sent, log.end.as_ref()) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        tracing::warn!(run = %key.run, step = %key.step, %error, "A log cannot be read.");
                        break;
                    }
                };
                if bytes.is_empty() && log.end.as_ref().is_some_and(|end| log.sent < end.size) {
                    // The file is shorter than it was when the step ended. What is left of it is the log; the rest was cut.
                    let (whole, left) = (log.end.as_ref().map_or(0, |end| end.size + end.cut), measure(&log.path));
                    tracing::warn!(run = %key.run, step = %key.step, "A log was cut after its step had ended.");
                    (log.sent, log.end) = (0, Some(LogEnd { cut: whole.saturating_sub(left.size), ..left }));
                    continue;
                }
                let after = log.sent + bytes.len() as u64;
                let end = log.end.clone().filter(|end| end.size <= after);
                if bytes.is_empty() && end.is_none() {
                    break;
                }
                if log.sent == log.have {
                    log.moved = Instant::now();
                }
                let offset = log.sent;
                log.sent = after;
                log.end_sent = end.is_some();
                let crc32c = crc32c::crc32c(&bytes);
                chunks.push(LogChunk { from: from.clone(), key: key.clone(), offset, bytes, crc32c, end });
            }
        }
        chunks
    }
}

fn log_end(end: &StreamEnd) -> LogEnd {
    LogEnd { size: end.bytes, sha256: end.sha256, cut: end.cut_bytes }
}

/// What a file holds whose attempt left no record.
fn measure(path: &Path) -> LogEnd {
    let read = || -> io::Result<(u64, Digest)> {
        let mut file = File::open(path)?;
        let (mut hasher, mut size, mut buffer) = (Hasher::default(), 0, vec![0; 64 * 1024]);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok((size, hasher.finish()));
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
    };
    // A file that is gone or unreadable is an empty log.
    let (size, sha256) = read().unwrap_or_else(|_| (0, Digest::of(&[])));
    LogEnd { size, sha256, cut: 0 }
}

fn read_piece(path: &Path, offset: u64, end: Option<&LogEnd>) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Not made yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset))?;
    // What a process left behind writes after the end is not part of the log.
    let left = end.map_or(u64::MAX, |end| end.size.saturating_sub(offset));
    let mut bytes = Vec::new();
    file.take(left.min(PIECE_BYTES as u64)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A log of one attempt, and the file that it is read from.
    fn tracked() -> (tempfile::TempDir, Ship, LogKey, File) {
        let dir = tempfile::tempdir().unwrap();
        let files = Attempt::open(dir.path()).unwrap();
        let (ship, step) = (Ship::new(), "one".parse::<StepId>().unwrap());
        let run = RunId::new(uuid::Uuid::from_u128(7));
        ship.track(run, &step, 1, &files);
        let file = File::create(files.output(LogStream::Stdout)).unwrap();
        (dir, ship, LogKey { run, step, attempt: 1, stream: LogStream::Stdout }, file)
    }

    fn offsets(ship: &Ship) -> Vec<(u64, usize)> {
        let from = EndpointId::Agent("a1".parse().unwrap());
        ship.chunks(&from).iter().map(|chunk| (chunk.offset, chunk.bytes.len())).collect()
    }

    fn told(ship: &Ship, key: &LogKey, have: u64) {
        ship.mark(LogMark { key: key.clone(), have, complete: false });
    }

    #[test]
    fn a_log_goes_on_where_the_server_is_although_an_earlier_process_sent_the_beginning() {
        let (_dir, ship, key, mut file) = tracked();
        file.write_all(b"0123456789").unwrap();
        // This process knows of nothing and begins at the beginning; the server has four bytes already.
        assert_eq!(offsets(&ship), [(0, 10)]);
        told(&ship, &key, 4);
        assert_eq!(offsets(&ship), [(4, 6)]);
        told(&ship, &key, 10);
        file.write_all(b"ab").unwrap();
        assert_eq!(offsets(&ship), [(10, 2)]);
    }

    #[test]
    fn a_lost_piece_is_sent_again_however_often_the_server_refuses_those_behind_it() {
        let (_dir, ship, key, mut file) = tracked();
        file.write_all(b"0123").unwrap();
        assert_eq!(offsets(&ship), [(0, 4)]);
        told(&ship, &key, 4);
        file.write_all(b"lost").unwrap();
        assert_eq!(offsets(&ship), [(4, 4)]);
        let early = Instant::now().checked_sub(RESEND_AFTER * 2).unwrap();
        ship.logs().get_mut(&key).unwrap().moved = early;
        // The server has not got further: what it says now is about a later piece.
        told(&ship, &key, 4);
        file.write_all(b"more").unwrap();
        assert_eq!(offsets(&ship), [(4, 8)]);
    }
}
