//! Opening: whose the folder is, who holds it, and whether its rows add up. It never repairs: what it cannot trust it refuses,
//! and says why.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use messages::{EndpointId, Incarnation, Seq};

use crate::engine::Engine;
use crate::folders::make_folder;
use crate::high_water::{self, Shortfall};
use crate::key::{Key, MessageTable, Table};
use crate::row::{Row, RowError};
use crate::state::{IllegalChange, State};
use crate::store::{Store, StoreError};
use crate::totals::Totals;

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
    /// It is kept by another engine than the one that is wanted.
    #[error("the journal in {} is kept by the engine {found}, not by {wanted}", path.display())]
    Engine {
        /// The directory.
        path: PathBuf,
        /// The engine that was asked for.
        wanted: Engine,
        /// The engine whose files are there.
        found: Engine,
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
    /// The high-water file or the tail mark cannot be trusted.
    #[error("the high-water marks in {} cannot be trusted", path.display())]
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

/// Folds what the store holds, and makes sure that it is what was written: every row's checksum goes into the totals.
pub(crate) fn replay(store: &dyn Store, dir: &Path) -> Result<State, OpenError> {
    match replay_known(store, dir)? {
        Some(state) => Ok(state),
        None => replay_all(store, dir),
    }
}

/// The short way, for an engine that has read every byte already: its checksums must add up to the totals, and then each row is as it
/// was written. Only the rows that mean something are read again. Nothing where it does not add up: reading
/// every row says what is wrong.
fn replay_known(store: &dyn Store, dir: &Path) -> Result<Option<State>, OpenError> {
    let (mut found, mut forms, mut known) = (Totals::default(), Forms::default(), true);
    let told = store.checksums(&mut |key, sum| {
        known &= forms.has(key);
        found.add(key, sum);
    });
    if !told || !known {
        return Ok(None);
    }
    let mut fold = Fold::new(dir);
    fold.take(store, &[0], &[Table::SentHeader.byte()])?;
    // Headers mean something only beyond the mark of their stream.
    let mut from = Some(vec![Table::InboxHeader.byte()]);
    while let Some(at) = from.take() {
        fold.take_until(store, &at, &[Table::InboxBody.byte()], &mut |state, key| {
            from = match Key::read(key) {
                Some(Key::Message(_, peer, seq)) => {
                    let through = through(state, &peer).filter(|through| seq <= *through);
                    through.map(|through| Key::Message(MessageTable::InboxHeader, peer, through.next()).bytes())
                }
                Some(Key::Meta | Key::Stream(..) | Key::Totals | Key::App(_)) | None => None,
            };
            from.is_some()
        })?;
    }
    fold.take(store, &[Table::Work.byte()], &[Table::App.byte()])?;
    Ok(found.same_rows(&fold.state.totals).then_some(fold.state))
}

fn through(state: &State, peer: &EndpointId) -> Option<Seq> {
    state.peers.get(peer)?.incoming.as_ref()?.through
}

/// Folds every row of the store. Bodies, rows of the application and most headers mean nothing to the fold, but their checksums are
/// read here all the same: damage is found when a journal is opened, not when the message is needed.
fn replay_all(store: &dyn Store, dir: &Path) -> Result<State, OpenError> {
    let (mut fold, mut found) = (Fold::new(dir), Totals::default());
    fold.take_each(store, &[0], &[0xff], &mut |_, key, value| {
        found.add(key, crc32c::crc32c(value));
        false
    })?;
    if found.same_rows(&fold.state.totals) {
        return Ok(fold.state);
    }
    let source = IllegalChange::Rows { written: fold.state.totals.rows, found: found.rows };
    Err(OpenError::Illegal { path: dir.to_owned(), source })
}

/// Whether keys have a form that a row's key has. Keys that follow one another differ in their number only.
#[derive(Default)]
struct Forms {
    /// What the last key of a message had before its number.
    before: Vec<u8>,
}

impl Forms {
    fn has(&mut self, key: &[u8]) -> bool {
        if let Some(number) = key.strip_prefix(&self.before[..])
            && !self.before.is_empty()
            && number.len() == size_of::<Seq>()
            && number.iter().any(|byte| *byte != 0)
        {
            return true;
        }
        match Key::read(key) {
            Some(Key::Message(..)) => {
                self.before = key[..key.len() - size_of::<Seq>()].to_vec();
                true
            }
            Some(Key::Meta | Key::Stream(..) | Key::Totals | Key::App(_)) => true,
            None => false,
        }
    }
}

/// Folding rows as they are read.
struct Fold<'a> {
    state: State,
    dir: &'a Path,
}

impl<'a> Fold<'a> {
    fn new(dir: &'a Path) -> Self {
        Self { state: State::default(), dir }
    }

    fn take(&mut self, store: &dyn Store, from: &[u8], to: &[u8]) -> Result<(), OpenError> {
        self.take_each(store, from, to, &mut |_, _, _| false)
    }

    fn take_until(
        &mut self,
        store: &dyn Store,
        from: &[u8],
        to: &[u8],
        until: &mut dyn FnMut(&State, &[u8]) -> bool,
    ) -> Result<(), OpenError> {
        self.take_each(store, from, to, &mut |state, key, _| until(state, key))
    }

    /// Takes in the rows of a range, each after it was looked at, and ends before one of which that says so.
    fn take_each(&mut self, store: &dyn Store, from: &[u8], to: &[u8], look: &mut Look<'_>) -> Result<(), OpenError> {
        let (mut failure, path) = (None, self.dir.to_owned());
        store
            .scan_undisturbed(from, to, &mut |key, value| {
                if look(&self.state, key, value) {
                    return ControlFlow::Break(());
                }
                let row = match Row::decode_meaning(key, value, &|peer, seq| Some(seq) > through(&self.state, peer)) {
                    Ok(Some(row)) => row,
                    Ok(None) => return ControlFlow::Continue(()),
                    Err(source) => {
                        failure = Some(OpenError::Row { path: path.clone(), source });
                        return ControlFlow::Break(());
                    }
                };
                match self.state.put(&row) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(source) => {
                        failure = Some(OpenError::Illegal { path: path.clone(), source });
                        ControlFlow::Break(())
                    }
                }
            })
            .map_err(|source| OpenError::Store { path: self.dir.to_owned(), source })?;
        failure.map_or(Ok(()), Err)
    }
}

/// A lock that is given back when this is dropped. Closing the file would not do: a process that another thread is just
/// starting has it open, too, until it becomes the other program, and whoever opens next would be told that it is in use.
#[derive(Debug)]
pub(crate) struct HeldLock(pub(crate) File);

impl Drop for HeldLock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "A lock could not be given back; it goes with the process.");
        }
    }
}

/// Makes the directory if need be, checks whose it is, and takes its lock.
pub(crate) fn claim(dir: &Path) -> Result<HeldLock, OpenError> {
    let io = |path: &Path, operation| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, operation, source }
    };
    make_folder(dir).map_err(io(dir, "creating it and syncing its name"))?;
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
    Ok(HeldLock(lock))
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

/// Looks at a row, its key and its value, before it is taken in; says whether to end before it.
type Look<'a> = dyn FnMut(&State, &[u8], &[u8]) -> bool + 'a;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use messages::{Epoch, Seq};

    use super::*;
    use crate::store::Batch;
    use crate::{Direction, HeaderRow, Incoming, MemoryStore, Outgoing, Work};

    /// What is kept of a journal with streams that came so far, of which that many messages were not dropped yet.
    fn kept(through: u64, whole: u64) -> State {
        let peer: EndpointId = "web-01".parse().unwrap();
        let all = Seq::new(through);
        let mut incoming = Incoming::new(Incarnation::from_u128(7), Epoch::FIRST);
        (incoming.through, incoming.applied, incoming.settled) = (all, all, all);
        let next = Seq::after(all);
        let outgoing = Outgoing { next, received: all, settled: all, ..Outgoing::default() };
        let mut rows = vec![Row::Outgoing(peer.clone(), outgoing), Row::Incoming(peer.clone(), incoming)];
        for seq in (1..=whole).filter_map(Seq::new) {
            for direction in [Direction::In, Direction::Out] {
                let header = HeaderRow { at_ms: 0, header: vec![0xc0], body_bytes: 3, refused: None };
                rows.push(Row::Header(direction, peer.clone(), seq, header));
                rows.push(Row::Body(direction, peer.clone(), seq, vec![1, 2, 3]));
            }
            rows.push(Row::App(seq.value().to_be_bytes().to_vec(), vec![4; 50]));
        }
        rows.push(Row::Work(peer, Seq::FIRST, Work::default()));
        let (store, mut batch, mut totals) = (MemoryStore::default(), Batch::default(), Totals::default());
        for row in &rows {
            row.put_into(&mut batch);
        }
        totals.seal(&store, &mut batch).unwrap();
        store.apply(&batch).unwrap();
        let state = replay(&store, Path::new("(memory)")).unwrap();
        assert_eq!(state.totals.rows, rows.len() as u64);
        State { totals: Totals::default(), ..state }
    }

    #[test]
    fn opening_keeps_nothing_of_a_message_that_is_settled_nor_of_a_row_of_the_application() {
        let state = kept(1_000, 0);
        let streams = state.peers.values().next().unwrap();
        assert_eq!((streams.work.len(), streams.beyond.len()), (1, 0), "what is open is kept");
        assert_eq!(kept(1_000, 1), state);
        assert_eq!(kept(1_000, 1_000), state);
    }

    #[test]
    fn a_lock_is_given_back_although_a_process_that_is_just_starting_has_its_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal");
        let lock = claim(&journal).unwrap();
        // What a process has between fork and exec: the same open file.
        let inherited = lock.0.try_clone().unwrap();
        assert!(matches!(claim(&journal), Err(OpenError::Locked { .. })));
        drop(lock);
        claim(&journal).expect("it was given back");
        drop(inherited);
    }
}
