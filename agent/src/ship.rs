//! Shipping logs to the server: pieces of the attempts' output files, outside the journaled stream. The server says how much
//! it has; whatever it says is where this goes on. Nothing here is durable: the files are, and the server's.

mod log;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use link::Endpoint;
use messages::{AgentId, EndpointId, LogChunk, LogDatagram, LogEnd, LogKey, LogMark, LogStream, RunId, StepId};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::attempt::{Attempt, AttemptState, BootId, Exit, StreamEnd};
use log::{End, Log};

/// Bytes under way that the server has not said it has, for all logs of this agent together: what it spends on them in memory, and
/// what of them may wait at the broker, however many steps write at once. A fast network is filled by it all the same.
const WINDOW_BYTES_ALL: u64 = 4 * 1024 * 1024;
/// Bytes of stack for the thread that reads pieces. They are on the heap.
const STACK_BYTES: usize = 256 * 1024;
/// Words of the server that are taken in before pieces are sent again.
const MARKS_AT_ONCE: usize = 64;
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
    logs: Arc<Mutex<Logs>>,
    wake: Arc<Notify>,
    /// Changes when a log is complete.
    completed: watch::Sender<u64>,
}

/// The logs on their way.
#[derive(Default)]
struct Logs {
    all: BTreeMap<LogKey, Log>,
    /// The log of which the last piece went out: the next turn begins behind it.
    last: Option<LogKey>,
}

impl Ship {
    pub(crate) fn new() -> Self {
        Self { logs: Arc::default(), wake: Arc::default(), completed: watch::channel(0).0 }
    }

    fn logs(&self) -> std::sync::MutexGuard<'_, Logs> {
        // What a panic could leave half-changed is only a cursor, which the server corrects.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to ship both outputs of an attempt. The first look at them is a moment later, since most steps say nothing at once.
    pub(crate) fn track(&self, run: RunId, step: &StepId, attempt: u32, files: &Attempt) {
        let mut logs = self.logs();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let key = LogKey { run, step: step.clone(), attempt, stream };
            let (path, moved) = (files.output(stream), Instant::now());
            let (have, sent, known, end, end_sent) = (0, 0, false, End::Open, false);
            let (due, unreadable) = (false, false);
            logs.all.entry(key).or_insert(Log { path, have, sent, known, moved, end, end_sent, due, unreadable });
        }
        drop(logs);
        self.wake.notify_one();
    }

    /// Says that an attempt is over. Reads no file, however long the log is.
    pub(crate) fn ended(&self, run: RunId, step: &StepId, attempt: u32, ending: Ending) {
        let (stdout, stderr) = match ending {
            Ending::Recorded(ends) => (End::Known(log_end(&ends.0)), End::Known(log_end(&ends.1))),
            Ending::Unrecorded => (End::File, End::File),
        };
        for (stream, end) in [(LogStream::Stdout, stdout), (LogStream::Stderr, stderr)] {
            let key = LogKey { run, step: step.clone(), attempt, stream };
            if let Some(log) = self.logs().all.get_mut(&key) {
                (log.end, log.due) = (end, true);
            }
        }
        self.wake.notify_one();
    }

    /// Says that nothing came on either output of an attempt that is over. Its report tells the server so, and there is nothing to ship.
    pub(crate) fn silent(&self, run: RunId, step: &StepId, attempt: u32) {
        let mut logs = self.logs();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            logs.all.remove(&LogKey { run, step: step.clone(), attempt, stream });
        }
        drop(logs);
        self.completed.send_modify(|count| *count += 1);
    }

    /// Goes on with an attempt of an earlier process that is over.
    pub(crate) fn resume(&self, run: RunId, step: &StepId, attempt: u32, stem: &Path, boot: BootId) {
        let Ok(files) = Attempt::open(stem) else { return };
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
            self.logs().all.retain(|key, log| key.run != run || !matches!(log.end, End::Open));
            if !self.logs().all.keys().any(|key| key.run == run) {
                return;
            }
            if completed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ships until the endpoint stops.
    pub(crate) async fn run(self, endpoint: Endpoint, agent: AgentId) {
        let Some(reader) = Reader::start(self.clone(), EndpointId::Agent(agent)) else { return };
        let connected = endpoint.connected();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_busy = false;
        loop {
            let busy = !self.logs().all.is_empty();
            if busy && !was_busy {
                looks.reset();
            }
            was_busy = busy;
            tokio::select! {
                next = endpoint.next_logs(MARKS_AT_ONCE) => match next {
                    Ok(said) => said.into_iter().for_each(|said| self.hear(said)),
                    Err(_) => return,
                },
                () = self.wake.notified() => {}
                _ = looks.tick(), if busy => self.look(),
            }
            if !*connected.borrow() || !self.is_any_due() {
                continue;
            }
            let Some(chunks) = reader.chunks().await else { return };
            for chunk in chunks {
                if endpoint.send_log(EndpointId::Server, LogDatagram::Chunk(chunk)).await.is_err() {
                    return;
                }
            }
        }
    }

    fn hear(&self, said: LogDatagram) {
        match said {
            LogDatagram::Mark(mark) => self.mark(mark),
            // Only a server is sent pieces.
            LogDatagram::Chunk(_) => {}
        }
    }

    /// Takes in what the server says it has.
    fn mark(&self, mark: LogMark) {
        let mut logs = self.logs();
        if mark.complete {
            logs.all.remove(&mark.key);
            drop(logs);
            self.completed.send_modify(|count| *count += 1);
            return;
        }
        let Some(log) = logs.all.get_mut(&mark.key) else { return };
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
        (log.known, log.have, log.end_sent, log.due) = (true, mark.have, false, true);
    }

    /// Looks at every log again: it may have grown, or what was sent of it may be lost.
    fn look(&self) {
        for log in self.logs().all.values_mut() {
            log.due = true;
            if log.moved.elapsed() > RESEND_AFTER && (log.sent > log.have || log.end_sent) {
                (log.sent, log.end_sent, log.moved) = (log.have, false, Instant::now());
            }
        }
    }

    fn is_any_due(&self) -> bool {
        self.logs().all.values().any(|log| log.due)
    }

    /// The pieces that may go out now: of each log one in turn, until the windows are full.
    fn chunks(&self, from: &EndpointId) -> Vec<LogChunk> {
        let (mut keys, mut room) = {
            let logs = self.logs();
            let due = |range: (Bound<&LogKey>, Bound<&LogKey>)| {
                logs.all.range::<LogKey, _>(range).filter(|(_, log)| log.due).map(|(key, _)| key.clone())
            };
            let (behind, before) = match &logs.last {
                Some(last) => ((Excluded(last), Unbounded), (Unbounded, Included(last))),
                None => ((Unbounded, Unbounded), (Unbounded, Unbounded)),
            };
            let mut keys: VecDeque<LogKey> = due(behind).collect();
            if logs.last.is_some() {
                keys.extend(due(before));
            }
            (keys, WINDOW_BYTES_ALL.saturating_sub(logs.all.values().map(Log::under_way).sum()))
        };
        let mut chunks = Vec::new();
        while room > 0
            && let Some(key) = keys.pop_front()
        {
            let mut logs = self.logs();
            let Some(log) = logs.all.get_mut(&key) else { continue };
            match log.next(&key, from) {
                Some(chunk) => {
                    room = room.saturating_sub(chunk.bytes.len() as u64);
                    chunks.push(chunk);
                    logs.last = Some(key.clone());
                    keys.push_back(key);
                }
                None => log.due = false,
            }
        }
        chunks
    }
}

/// One thread that reads pieces for as long as the agent runs. On whichever thread of a pool is free, the memory of the pieces would be
/// spread over as many heaps as there are threads, each as large as it ever was.
struct Reader(mpsc::Sender<oneshot::Sender<Vec<LogChunk>>>);

impl Reader {
    fn start(ship: Ship, from: EndpointId) -> Option<Self> {
        let (asking, asked) = mpsc::channel::<oneshot::Sender<Vec<LogChunk>>>();
        let reading = move || {
            while let Ok(answer) = asked.recv() {
                // Nobody waits any more when the agent ends.
                let _ = answer.send(ship.chunks(&from));
            }
        };
        match thread::Builder::new().name("ship".to_owned()).stack_size(STACK_BYTES).spawn(reading) {
            Ok(_) => Some(Self(asking)),
            Err(error) => {
                tracing::error!(%error, "There is no thread to read logs; the agent must be started anew.");
                None
            }
        }
    }

    /// Nothing when the thread is gone, which only a defect can be the reason of.
    async fn chunks(&self) -> Option<Vec<LogChunk>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).ok()?;
        answered.await.ok()
    }
}

fn log_end(end: &StreamEnd) -> LogEnd {
    LogEnd { size: end.bytes, sha256: end.sha256, cut: end.cut_bytes }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use messages::Digest;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::log::PIECE_BYTES;
    use super::*;

    /// A log of one attempt, and the file that it is read from.
    fn tracked() -> (tempfile::TempDir, Ship, LogKey, File) {
        let dir = tempfile::tempdir().unwrap();
        let files = Attempt::open(&dir.path().join("one.1")).unwrap();
        let (ship, step) = (Ship::new(), "one".parse::<StepId>().unwrap());
        let run = RunId::new(uuid::Uuid::from_u128(7));
        ship.track(run, &step, 1, &files);
        ship.look();
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
        ship.logs().all.get_mut(&key).unwrap().moved = early;
        // The server has not got further: what it says now is about a later piece.
        told(&ship, &key, 4);
        file.write_all(b"more").unwrap();
        ship.look();
        assert_eq!(offsets(&ship), [(4, 8)]);
    }

    #[test]
    fn many_loud_logs_share_one_window_in_turn() {
        let (_dir, ship, _, _) = tracked();
        let step = "loud".parse::<StepId>().unwrap();
        let loud: Vec<_> = (0..200u32)
            .map(|attempt| {
                let dir = tempfile::tempdir().unwrap();
                let files = Attempt::open(&dir.path().join("one.1")).unwrap();
                std::fs::write(files.output(LogStream::Stdout), vec![b'x'; PIECE_BYTES * 2]).unwrap();
                ship.track(RunId::new(uuid::Uuid::from_u128(8)), &step, attempt, &files);
                dir
            })
            .collect();
        ship.look();
        let from = EndpointId::Agent("a1".parse().unwrap());
        let (mut seen, mut rounds) = (BTreeMap::<LogKey, usize>::new(), 0);
        while seen.len() < loud.len() {
            let chunks = ship.chunks(&from);
            let bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
            assert!(bytes > 0 && bytes as u64 <= WINDOW_BYTES_ALL + PIECE_BYTES as u64, "{bytes} in round {rounds}");
            // Nothing more until the server has spoken.
            assert_eq!(ship.chunks(&from).len(), 0);
            for chunk in chunks {
                let pieces = seen.entry(chunk.key.clone()).or_default();
                *pieces += 1;
                let first = *pieces == 1;
                assert!(first || seen.len() == loud.len(), "somebody had a second turn before everybody had one");
                told(&ship, &chunk.key, chunk.offset + chunk.bytes.len() as u64);
            }
            rounds += 1;
        }
    }

    #[test]
    fn an_attempt_without_a_record_is_measured_only_when_all_of_it_was_sent() {
        let (_dir, ship, key, mut file) = tracked();
        file.write_all(b"0123").unwrap();
        ship.ended(key.run, &key.step, 1, Ending::unrecorded());
        // What it left behind still writes.
        file.write_all(b"45").unwrap();
        let from = EndpointId::Agent("a1".parse().unwrap());
        let chunks: Vec<LogChunk> = ship.chunks(&from).into_iter().filter(|chunk| chunk.key == key).collect();
        assert_eq!(
            chunks.iter().map(|chunk| (chunk.offset, chunk.end.is_some())).collect::<Vec<_>>(),
            [(0, false), (6, true)]
        );
        assert_eq!(chunks[1].end, Some(LogEnd { size: 6, sha256: Digest::of(b"012345"), cut: 0 }));
    }

    #[test]
    fn a_log_that_its_step_made_unreadable_ends_when_its_step_has_ended() {
        let pipe = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        for instead in [|path: &Path| std::fs::create_dir(path).unwrap(), pipe] {
            let (_dir, ship, key, mut file) = tracked();
            file.write_all(b"0123").unwrap();
            let path = ship.logs().all[&key].path.clone();
            std::fs::remove_file(&path).unwrap();
            instead(&path);
            assert_eq!(offsets(&ship), []);
            let end = StreamEnd { bytes: 4, cut_bytes: 1, ..StreamEnd::empty() };
            ship.ended(key.run, &key.step, 1, Ending::Recorded(Box::new((end, StreamEnd::empty()))));
            let from = EndpointId::Agent("a1".parse().unwrap());
            let ends: Vec<_> =
                ship.chunks(&from).into_iter().filter(|chunk| chunk.key == key).map(|chunk| chunk.end).collect();
            assert_eq!(ends, [Some(LogEnd { size: 0, sha256: Digest::of(b""), cut: 5 })]);
        }
    }
}
