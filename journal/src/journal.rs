//! Opening a journal, committing to it, reading from it. It never repairs: what it cannot trust it refuses to open, and says
//! why.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use messages::{DecodeError, EndpointId, Epoch, Incarnation, Message, Seq};

use crate::commit::{Commit, pair};
use crate::high_water::{self, HighWater, Shortfall};
use crate::row::{Direction, Key, MessageTable, Meta, Row, RowError, Table};
use crate::sled_store::SledStore;
use crate::state::{IllegalChange, State};
use crate::store::{Store, StoreError};
use crate::totals::Totals;
use crate::write_ahead::{Change, WriteAhead};
use crate::writer::{Job, QUEUE_MAX, Writer};

/// The name of the engine's directory within a journal's.
pub(crate) const STORE_DIR: &str = "store";
/// The name of the file that a running endpoint keeps locked; it holds its process id.
const LOCK_FILE: &str = "lock";

/// Who opens a journal, and what it needs from outside: the journal makes no random numbers and reads no clock.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Whose journal it is. One journal serves one endpoint for life.
    pub endpoint: EndpointId,
    /// 128 fresh random bits, used if the journal is new.
    pub incarnation: Incarnation,
    /// Milliseconds since 1970, noted if the journal is new. For people.
    pub now_ms: u64,
}

/// Why a journal cannot be opened. Nothing was committed and its epoch was not raised. But an engine that finds its files
/// damaged may cut off what it cannot read while it opens them, so copy the directory before trying anything with it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("{} cannot be used: {operation} failed", path.display())]
    Io {
        /// The directory or a file in it.
        path: PathBuf,
        /// What was attempted.
        operation: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The directory belongs to another user.
    #[error("{} belongs to user {owner}, this process runs as user {user}", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// This process's user id.
        user: u32,
    },
    /// Another process has it open.
    #[error("{} is in use by process {}", path.display(), pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, as it noted itself.
        pid: Option<u32>,
    },
    /// It is the journal of another endpoint.
    #[error("{} is the journal of {found}, not of {expected}", path.display())]
    Endpoint {
        /// The directory.
        path: PathBuf,
        /// The endpoint that wants to open it.
        expected: EndpointId,
        /// The endpoint that it belongs to.
        found: EndpointId,
    },
    /// The engine refused.
    #[error("the store in {} cannot be read", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// The engine's answer.
        source: StoreError,
    },
    /// A row is damaged.
    #[error("the journal in {} is damaged", path.display())]
    Row {
        /// The directory.
        path: PathBuf,
        /// The row.
        source: RowError,
    },
    /// The rows contradict each other.
    #[error("the journal in {} contradicts itself", path.display())]
    Illegal {
        /// The directory.
        path: PathBuf,
        /// The contradiction.
        source: IllegalChange,
    },
    /// The journal is shorter than it is known to have been.
    #[error("the journal in {} has lost something that was on stable storage: {}", path.display(), list(shortfalls))]
    Shorter {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        shortfalls: Vec<Shortfall>,
    },
    /// The high-water file cannot be trusted.
    #[error("the high-water file in {} cannot be trusted", path.display())]
    HighWater {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: high_water::ReadError,
    },
}

fn list(shortfalls: &[Shortfall]) -> String {
    shortfalls.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a row cannot be read from an open journal.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine refused.
    #[error("the journal's store cannot be read")]
    Store(#[from] StoreError),
    /// The row is damaged.
    #[error("the journal is damaged")]
    Row(#[from] RowError),
    /// The header and the body do not belong together.
    #[error("message {seq} cannot be put together again")]
    Message {
        /// The message.
        seq: Seq,
        /// What is wrong.
        source: DecodeError,
    },
}

/// An open journal. Cheap to clone; the last clone dropped closes it and waits for the writer.
#[derive(Clone)]
pub struct Journal(Arc<Open>);

struct Open {
    store: Arc<dyn Store>,
    meta: Meta,
    jobs: Option<mpsc::SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    /// Held for as long as the journal is open.
    _lock: Option<File>,
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("The journal's writer thread panicked.");
        }
    }
}

impl Journal {
    /// Opens the journal in that directory, or creates it, and raises its epoch. What the rows amount to comes with it.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was committed then.
    pub fn open(dir: &Path, opening: &Opening) -> Result<(Self, State), OpenError> {
        let lock = claim(dir)?;
        let store = SledStore::open(&dir.join(STORE_DIR))
            .map_err(|source| OpenError::Store { path: dir.to_owned(), source })?;
        // The name of the store's directory, too, before anything in it is called durable.
        sync_folder(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), operation: "syncing it", source })?;
        let (store, state): (Arc<dyn Store>, State) = (Arc::new(store), State::default());
        let state = replay(store.as_ref(), state, dir)?;
        let mark = HighWater::read(dir).map_err(|source| OpenError::HighWater { path: dir.to_owned(), source })?;
        let shortfalls = mark.map(|mark| mark.shortfalls(&state)).unwrap_or_default();
        if !shortfalls.is_empty() {
            return Err(OpenError::Shorter { path: dir.to_owned(), shortfalls });
        }
        Self::start(store, state, opening, dir, Some(lock))
    }

    /// Opens a journal over a store of the caller's: for simulation and tests. There is no high-water file then.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn over(store: Arc<dyn Store>, opening: &Opening) -> Result<(Self, State), OpenError> {
        let path = Path::new("(memory)");
        let state = replay(store.as_ref(), State::default(), path)?;
        Self::start(store, state, opening, path, None)
    }

    fn start(
        store: Arc<dyn Store>,
        mut state: State,
        opening: &Opening,
        dir: &Path,
        lock: Option<File>,
    ) -> Result<(Self, State), OpenError> {
        let meta = match &state.meta {
            Some(meta) if meta.endpoint != opening.endpoint => {
                let (expected, found) = (opening.endpoint.clone(), meta.endpoint.clone());
                return Err(OpenError::Endpoint { path: dir.to_owned(), expected, found });
            }
            Some(meta) => Meta { epoch: meta.epoch.next(), ..meta.clone() },
            None => Meta {
                endpoint: opening.endpoint.clone(),
                incarnation: opening.incarnation,
                epoch: Epoch::FIRST,
                created_ms: opening.now_ms,
            },
        };
        let row = Row::Meta(meta.clone());
        let store_error = |source| OpenError::Store { path: dir.to_owned(), source };
        let mut batch = crate::store::Batch::default();
        let (key, value) = row.encode();
        batch.put(key, value);
        state.totals.seal(store.as_ref(), &mut batch).map_err(store_error)?;
        store.apply(&batch).map_err(store_error)?;
        store.sync().map_err(store_error)?;
        state.put(&row).map_err(|source| OpenError::Illegal { path: dir.to_owned(), source })?;

        let (jobs, queue) = mpsc::sync_channel(QUEUE_MAX);
        let mark_dir = lock.is_some().then(|| dir.to_owned());
        let writer = Writer { store: Arc::clone(&store), state: state.clone(), mark_dir, unmarked: 1 };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(&queue)).map_err(
            |source| OpenError::Io { path: dir.to_owned(), operation: "starting the writer thread", source },
        )?;
        let open = Open { store, meta, jobs: Some(jobs), writer: Some(thread), _lock: lock };
        Ok((Self(Arc::new(open)), state))
    }

    /// What journal this is.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// Writes the changes, syncs, and only then hands out what was bound to them. Commits take effect in the order of the
    /// calls and share syncs. Blocks only while very many commits wait.
    pub fn commit<T: Send + 'static>(&self, write: WriteAhead<T>) -> Commit<T> {
        let (changes, then) = write.into_parts();
        let (answer, commit) = pair();
        let done = Box::new(move |result: Result<(), _>| answer.give(result.map(|()| then)));
        if let Some(jobs) = &self.0.jobs {
            // A writer that is gone drops the job, and with it the answer, which then says so.
            let _ = jobs.send(Job { changes, done });
        }
        commit
    }

    /// The messages of a stream from `from` to `to`, both included, that are still whole, lowest first; it stops early when
    /// `bytes_max` is reached, but returns at least one if there is any.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn messages(
        &self,
        direction: Direction,
        peer: &EndpointId,
        (from, to): (Seq, Seq),
        bytes_max: usize,
    ) -> Result<Vec<Message>, ReadError> {
        let table = match direction {
            Direction::Out => MessageTable::SentBody,
            Direction::In => MessageTable::InboxBody,
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        for seq in (from.value()..=to.value()).filter_map(Seq::new) {
            if bytes >= bytes_max {
                break;
            }
            let header = self.header(direction, peer, seq)?;
            let body = self.row(&Key::Message(table, peer.clone(), seq))?;
            if let (Some(header), Some(Row::Body(_, _, _, body))) = (header, body) {
                let message =
                    Message::restore(&header.header, &body).map_err(|source| ReadError::Message { seq, source })?;
                bytes += message.frame.bytes().len();
                found.push(message);
            }
        }
        Ok(found)
    }

    /// The header row of a message.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn header(
        &self,
        direction: Direction,
        peer: &EndpointId,
        seq: Seq,
    ) -> Result<Option<crate::HeaderRow>, ReadError> {
        let table = match direction {
            Direction::Out => MessageTable::SentHeader,
            Direction::In => MessageTable::InboxHeader,
        };
        match self.row(&Key::Message(table, peer.clone(), seq))? {
            Some(Row::Header(_, _, _, row)) => Ok(Some(row)),
            Some(_) | None => Ok(None),
        }
    }

    fn row(&self, key: &Key) -> Result<Option<Row>, ReadError> {
        let key = key.bytes();
        let value = self.0.store.value(&key)?;
        value.map(|value| Row::decode(&key, &value).map_err(ReadError::from)).transpose()
    }

    /// The application's rows whose names begin with the prefix, in order.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn app_rows(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), ReadError> {
        let from = Key::App(prefix.to_vec()).bytes();
        let mut damage = None;
        self.0.store.scan(&from, &[Table::App.byte() + 1], &mut |key, value| {
            if !key.starts_with(&from) {
                return ControlFlow::Break(());
            }
            match Row::decode(key, value) {
                Ok(Row::App(name, content)) => {
                    visit(&name, &content);
                    ControlFlow::Continue(())
                }
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => {
                    damage = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        damage.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The store, for the inspecting queries.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.0.store.as_ref()
    }
}

/// Folds every row of the store. Checks each checksum on the way.
fn replay(store: &dyn Store, mut state: State, dir: &Path) -> Result<State, OpenError> {
    let mut failure = None;
    let mut found = Totals::default();
    // Bodies and application rows mean nothing to the fold, but their checksums are read here all the same: damage is found
    // when a journal is opened, not when the message is needed.
    store
        .scan(&[0], &[0xff], &mut |key, value| {
            found.add(key, value);
            let row = match Row::decode(key, value) {
                Ok(row) => row,
                Err(source) => {
                    failure = Some(OpenError::Row { path: dir.to_owned(), source });
                    return ControlFlow::Break(());
                }
            };
            match state.put(&row) {
                Ok(()) => ControlFlow::Continue(()),
                Err(source) => {
                    failure = Some(OpenError::Illegal { path: dir.to_owned(), source });
                    ControlFlow::Break(())
                }
            }
        })
        .map_err(|source| OpenError::Store { path: dir.to_owned(), source })?;
    match failure {
        Some(failure) => Err(failure),
        None if found.same_rows(&state.totals) => Ok(state),
        None => {
            let source = IllegalChange::Rows { written: state.totals.rows, found: found.rows };
            Err(OpenError::Illegal { path: dir.to_owned(), source })
        }
    }
}

/// Makes the directory if need be, checks whose it is, and takes its lock.
fn claim(dir: &Path) -> Result<File, OpenError> {
    let io = |path: &Path, operation| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, operation, source }
    };
    let missing = dir.ancestors().take_while(|folder| !folder.exists()).count();
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(io(dir, "creating it"))?;
    // The names of folders that were just made must survive a loss of power, or what is in them does not.
    for folder in dir.ancestors().skip(1).take(missing) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        sync_folder(folder).map_err(io(folder, "syncing it"))?;
    }
    let owner = fs::metadata(dir).map_err(io(dir, "looking at it"))?.uid();
    let user = rustix::process::geteuid().as_raw();
    if owner != user {
        return Err(OpenError::Owner { path: dir.to_owned(), owner, user });
    }
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(&path).map_err(io(&path, "opening the lock file"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::Locked { path: dir.to_owned(), pid: noted_pid(&mut lock) });
        }
        Err(TryLockError::Error(source)) => {
            return Err(OpenError::Io { path, operation: "locking", source });
        }
    }
    lock.set_len(0).map_err(io(&path, "writing the lock file"))?;
    writeln!(lock, "{}", std::process::id()).map_err(io(&path, "writing the lock file"))?;
    Ok(lock)
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn noted_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether a running process has the journal open.
///
/// # Errors
/// [`OpenError::Io`]
pub fn is_running(dir: &Path) -> Result<bool, OpenError> {
    let path = dir.join(LOCK_FILE);
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(OpenError::Io { path, operation: "opening the lock file", source }),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, operation: "trying the lock", source }),
    }
}

/// A change that sets a row of the application.
#[must_use]
pub fn put_app(name: Vec<u8>, content: Vec<u8>) -> Change {
    Change::Put(Row::App(name, content))
}
