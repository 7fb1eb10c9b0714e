//! What a synced commit costs in each engine, beside a bare log of the same bytes: measured by turns, in one process, so that
//! whatever else the machine does falls on all of them. It compares; it judges no figure and breaks nothing.
//!
//! **The reference** is the bare log over a file that grows: one thread, as a journal has; a queue of the same length in front of it;
//! everything that waits is written with one call, CRC32C before each record, and synced with one `fdatasync`; buffers are used again,
//! nothing is allocated for a commit but its body and its answer. It keeps no index, no totals and no mark. The other one
//! writes over zeros that were there before the clock ran, which no log has that goes on.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use journal::{Engine, Journal, Opening, WriteAhead, put_app};
use messages::{EndpointId, Incarnation};
use tokio::sync::oneshot;

use super::usage;

/// Bytes of a commit.
pub const COMMIT_BYTES: usize = 1_024;

/// Commits that wait for the bare log at most, as many as for a journal.
const QUEUE_MAX: usize = 1_024;

/// Bytes of the zeros that the other bare log is written over. When they are used up it begins again at the front.
const ZEROS_BYTES: u64 = 64 * 1024 * 1024;

/// Who takes commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A file that grows: a checksum for each record, one write and one sync for all that wait. What the others are measured by.
    Bare,
    /// The same over zeros that were written and synced before.
    BareOverZeros,
    /// A journal kept by segments.
    Segments,
    /// A journal kept by sled.
    Sled,
}

impl Subject {
    /// The journal of that engine.
    #[must_use]
    pub const fn of(engine: Engine) -> Self {
        match engine {
            Engine::Segments => Self::Segments,
            Engine::Sled => Self::Sled,
        }
    }

    /// All of them, the one that the others are measured by first.
    pub const ALL: [Self; 4] = [Self::Bare, Self::BareOverZeros, Self::Segments, Self::Sled];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare log",
            Self::BareOverZeros => "bare log over zeros",
            Self::Segments => "journal, segments",
            Self::Sled => "journal, sled",
        }
    }
}

/// Why it cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum CommitsError {
    /// A journal cannot be opened.
    #[error("a journal cannot be opened")]
    Open(#[from] journal::OpenError),
    /// A journal does not take a commit.
    #[error("a journal does not take a commit")]
    Commit(#[from] journal::CommitError),
    /// The bare log failed, or the system refused something else.
    #[error("the operating system refused")]
    Io(#[from] std::io::Error),
}

/// One subject in one round.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Rate {
    /// Who.
    pub subject: Subject,
    /// Tasks that commit, each one after the other.
    pub tasks: usize,
    /// Commits a second.
    pub per_second: f64,
    /// Commits in all.
    pub commits: u64,
    /// How long it was.
    pub time: Duration,
    /// Time on the processors of the whole process meanwhile: those who commit and the log.
    pub cpu: Duration,
    /// Bytes handed to the disk meanwhile.
    pub written: u64,
}

impl Rate {
    /// Time on the processors for one commit.
    #[must_use]
    pub fn cpu_per_commit(&self) -> Duration {
        self.cpu.div_f64(self.commits.max(1) as f64)
    }
}

/// What a pair is measured with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where to put log and journal, in folders that are made and removed; the disk is what is measured.
    pub dir: PathBuf,
    /// The journal's engine.
    pub engine: Engine,
    /// Tasks that commit, each one after the other.
    pub tasks: usize,
    /// How long each has its turn.
    pub turn: Duration,
}

/// One turn of each, right after the other.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Pair {
    /// The journal.
    pub ours: Rate,
    /// The bare log that grows.
    pub reference: Rate,
}

/// Lets a new journal and a new bare log take commits, one after the other.
///
/// # Errors
/// [`CommitsError`]
pub fn pair(setup: &Setup) -> Result<Pair, CommitsError> {
    let reference = one(setup, Subject::Bare)?;
    Ok(Pair { ours: one(setup, Subject::of(setup.engine))?, reference })
}

/// Lets one of them take commits, in a folder of its own.
///
/// # Errors
/// [`CommitsError`]
pub fn one(setup: &Setup, subject: Subject) -> Result<Rate, CommitsError> {
    let dir = tempfile::tempdir_in(&setup.dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let log = Log::open(&dir.path().join(subject.name()), subject)?;
    runtime.block_on(rate(&log, subject, setup.tasks, setup.turn))
}

/// Lets every subject take commits by turns, for that long each, that many rounds for each number of tasks.
///
/// # Errors
/// [`CommitsError`]
pub fn measure(
    dir: &Path,
    tasks: &[usize],
    rounds: usize,
    each: Duration,
    say: &mut dyn FnMut(Rate),
) -> Result<(), CommitsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for tasks in tasks.iter().copied() {
        let logs = Subject::ALL.map(|subject| Log::open(&dir.join(format!("{tasks}-{}", subject.name())), subject));
        for _ in 0..rounds {
            for (subject, log) in Subject::ALL.into_iter().zip(&logs) {
                let log = log.as_ref().map_err(|error| std::io::Error::other(error.to_string()))?;
                say(runtime.block_on(rate(log, subject, tasks, each))?);
            }
        }
    }
    Ok(())
}

async fn rate(log: &Log, subject: Subject, tasks: usize, each: Duration) -> Result<Rate, CommitsError> {
    let (cpu, written) = (usage::cpu()?, usage::written_bytes()?);
    let began = Instant::now();
    let done = join_all((0..tasks).map(|_| async move {
        let mut commits = 0_u64;
        while began.elapsed() < each {
            log.commit().await?;
            commits += 1;
        }
        Ok::<_, CommitsError>(commits)
    }));
    let commits = done.await.into_iter().sum::<Result<u64, _>>()?;
    let time = began.elapsed();
    let (cpu, written) = (usage::cpu()?.saturating_sub(cpu), usage::written_bytes()? - written);
    Ok(Rate { subject, tasks, per_second: commits as f64 / time.as_secs_f64(), commits, time, cpu, written })
}

/// What takes commits, the number of the next, and what is in each of them.
struct Log {
    next: AtomicU64,
    body: Vec<u8>,
    kind: LogKind,
}

enum LogKind {
    Bare(BareLog),
    Journal(Journal),
}

impl Log {
    fn open(dir: &Path, subject: Subject) -> Result<Self, CommitsError> {
        let opening = Opening { endpoint: EndpointId::Server, incarnation: Incarnation::from_u128(1), now_ms: 0 };
        let journal = |engine| Ok::<_, CommitsError>(LogKind::Journal(Journal::open_as(dir, &opening, engine)?.0));
        let kind = match subject {
            Subject::Bare => LogKind::Bare(BareLog::open(dir, 0)?),
            Subject::BareOverZeros => LogKind::Bare(BareLog::open(dir, ZEROS_BYTES)?),
            Subject::Segments => journal(Engine::Segments)?,
            Subject::Sled => journal(Engine::Sled)?,
        };
        // Bytes that no engine can make shorter.
        let mixed = |place: u64| place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let body = (0..COMMIT_BYTES as u64 / 8).flat_map(mixed).collect();
        Ok(Self { next: AtomicU64::new(0), body, kind })
    }

    async fn commit(&self) -> Result<(), CommitsError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut body = self.body.clone();
        body[..8].copy_from_slice(&number.to_le_bytes());
        match &self.kind {
            LogKind::Bare(log) => Ok(log.commit(number, body).await?),
            LogKind::Journal(journal) => {
                let write = WriteAhead::new(vec![put_app(number.to_be_bytes().to_vec(), body)], ());
                Ok(journal.commit(write).await?)
            }
        }
    }
}

struct Job {
    number: u64,
    body: Vec<u8>,
    done: oneshot::Sender<std::io::Result<()>>,
}

/// The least that a log can do: a thread that writes whatever waits with one call and syncs it.
struct BareLog {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl BareLog {
    fn open(path: &Path, zeros: u64) -> std::io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let piece = vec![0; 1024 * 1024];
        for at in (0..zeros).step_by(piece.len()) {
            file.write_all_at(&piece, at)?;
        }
        file.sync_all()?;
        let (jobs, queue) = mpsc::sync_channel(QUEUE_MAX);
        let thread =
            std::thread::Builder::new().name("bare log".to_owned()).spawn(move || work(&file, zeros, &queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    fn commit(&self, number: u64, body: Vec<u8>) -> impl Future<Output = std::io::Result<()>> {
        let (done, answer) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            // Whose thread is gone has its answer dropped, which says so.
            let _ = jobs.send(Job { number, body, done });
        }
        async move { answer.await.map_err(|_| std::io::Error::other("the log's thread is gone"))? }
    }
}

impl Drop for BareLog {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            crate::out::note("The thread of a bare log panicked.\n");
        }
    }
}

fn work(file: &File, zeros: u64, queue: &mpsc::Receiver<Job>) {
    let mut at = 0;
    let (mut bytes, mut waiting) = (Vec::new(), Vec::new());
    while let Ok(first) = queue.recv() {
        bytes.clear();
        for job in std::iter::once(first).chain(queue.try_iter()) {
            let number = job.number.to_be_bytes();
            let crc = crc32c::crc32c_append(crc32c::crc32c(&number), &job.body);
            bytes.extend_from_slice(&crc.to_le_bytes());
            bytes.extend_from_slice(&(job.body.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&number);
            bytes.extend_from_slice(&job.body);
            waiting.push(job.done);
        }
        if zeros > 0 && at + bytes.len() as u64 > zeros {
            at = 0;
        }
        let written = file.write_all_at(&bytes, at).and_then(|()| file.sync_data());
        at += bytes.len() as u64;
        for done in waiting.drain(..) {
            let answer = match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(error.kind().into()),
            };
            // Who does not wait any more needs no answer.
            let _ = done.send(answer);
        }
    }
}
