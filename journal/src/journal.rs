//! An open journal: committing to it and reading from it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use messages::{DecodeError, EndpointId, Epoch, Message, Seq};

use crate::commit::{Commit, pair};
use crate::engine::Engine;
use crate::folders::sync_folder;
use crate::high_water::{HighWater, Shortfall};
use crate::in_step::InStep;
use crate::key::{Direction, Key, MessageTable, Table};
use crate::marks;
use crate::opening::{HeldLock, OpenError, Opening, claim, replay};
use crate::row::{Meta, Row, RowError};
use crate::seam::{BeforeMark, Seams};
use crate::segments::{self, SegmentStore};
use crate::sled_store::SledStore;
use crate::state::State;
use crate::store::{Store, StoreError};
use crate::tail_mark::TailMark;
use crate::write_ahead::{Change, WriteAhead};
use crate::writer::{Job, QUEUE_MAX, Writer};

/// The name of the engine's directory within a journal's.
pub(crate) const STORE_DIR: &str = "store";

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
    /// Held for as long as the journal is open: the last field, so that it ends after the store is closed.
    _lock: Option<HeldLock>,
}

/// What a journal in a directory holds there besides its store.
struct Held {
    lock: HeldLock,
    before_mark: Arc<BeforeMark>,
    tail: Option<TailMark>,
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
    /// Opens the journal in that directory, or creates it, and raises its epoch. What the rows amount to comes with it. The
    /// engine is the one that the journal has, the default for a new one.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was committed then.
    pub fn open(dir: &Path, opening: &Opening) -> Result<(Self, State), OpenError> {
        Self::open_through(dir, opening, None, Seams::default())
    }

    /// As [`Self::open`], and a new journal gets that engine.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::Engine`] when the journal is there already and has another engine.
    pub fn open_as(dir: &Path, opening: &Opening, engine: Engine) -> Result<(Self, State), OpenError> {
        Self::open_through(dir, opening, Some(engine), Seams::default())
    }

    /// As the others, with something between the journal and its disk: for tests that make the disk fail.
    ///
    /// # Errors
    /// As for [`Self::open_as`].
    #[doc(hidden)]
    pub fn open_through(
        dir: &Path,
        opening: &Opening,
        wanted: Option<Engine>,
        seams: Seams,
    ) -> Result<(Self, State), OpenError> {
        let lock = claim(dir)?;
        let path = dir.join(STORE_DIR);
        let found = Engine::of(&path).map_err(|source| OpenError::Io {
            path: path.clone(),
            operation: "looking for its engine",
            source,
        })?;
        if let (Some(found), Some(wanted)) = (found, wanted)
            && found != wanted
        {
            return Err(OpenError::Engine { path: dir.to_owned(), wanted, found });
        }
        let store = open_store(&path, found.or(wanted).unwrap_or_default(), seams.segments)
            .map_err(|source| OpenError::Store { path: dir.to_owned(), source })?;
        let tail = TailMark::open(dir).inspect_err(|error| {
            tracing::warn!(dir = %dir.display(), %error, "The tail mark cannot be opened; it is left as it is.");
        });
        // The names of the store's directory and of the mark, too, before anything is called durable.
        sync_folder(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), operation: "syncing it", source })?;
        let store = (seams.store)(store);
        let state = replay(store.as_ref(), dir)?;
        let untrusted = |source| OpenError::HighWater { path: dir.to_owned(), source };
        long_enough(marks::shortfalls(dir, &state).map_err(untrusted)?, dir)?;
        Self::start(store, state, opening, dir, Some(Held { lock, before_mark: seams.mark, tail: tail.ok() }))
    }

    /// Opens a journal over a store of the caller's: for simulation and tests. There is no high-water file then.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn over(store: Arc<dyn Store>, opening: &Opening) -> Result<(Self, State), OpenError> {
        let path = Path::new("(memory)");
        let state = replay(store.as_ref(), path)?;
        Self::start(store, state, opening, path, None)
    }

    fn start(
        store: Arc<dyn Store>,
        state: State,
        opening: &Opening,
        dir: &Path,
        held: Option<Held>,
    ) -> Result<(Self, State), OpenError> {
        let (meta, state) = begin(store.as_ref(), state, opening, dir)?;
        let (jobs, queue) = mpsc::sync_channel(QUEUE_MAX);
        let mark_dir = held.is_some().then(|| dir.to_owned());
        let (lock, before_mark, tail) = match held {
            Some(Held { lock, before_mark, tail }) => (Some(lock), before_mark, tail),
            None => (None, Seams::default().mark, None),
        };
        let mut writer = Writer::new(Arc::clone(&store), state.clone());
        (writer.mark_dir, writer.before_mark, writer.tail) = (mark_dir, before_mark, tail);
        writer.mark_tail();
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(&queue)).map_err(
            |source| OpenError::Io { path: dir.to_owned(), operation: "starting the writer thread", source },
        )?;
        let open = Open { store, meta, jobs: Some(jobs), writer: Some(thread), _lock: lock };
        Ok((Self(Arc::new(open)), state))
    }

    /// Opens a journal over a store of the caller's without a thread: for simulators, which decide themselves what is written
    /// when. What is returned reads; only the [`InStep`] beside it writes. The mark stands in for the high-water file.
    ///
    /// # Errors
    /// [`OpenError`]
    #[doc(hidden)]
    pub fn in_step(
        store: Arc<dyn Store>,
        opening: &Opening,
        mark: Option<&HighWater>,
    ) -> Result<(Self, InStep, State), OpenError> {
        let path = Path::new("(memory)");
        let state = replay(store.as_ref(), path)?;
        long_enough(mark.map(|mark| mark.shortfalls(&state)).unwrap_or_default(), path)?;
        let (meta, state) = begin(store.as_ref(), state, opening, path)?;
        let writer = Writer::new(Arc::clone(&store), state.clone());
        let open = Open { store, meta, jobs: None, writer: None, _lock: None };
        Ok((Self(Arc::new(open)), InStep::new(writer), state))
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
        let (done, commit) = pair(then);
        if let Some(jobs) = &self.0.jobs {
            // A writer that is gone drops the job, and with it the answer, which then says so.
            let _ = jobs.send(Job { changes, done });
        }
        commit
    }

    /// The messages of a stream from `from` to `to`, both included, that are still whole, each with its place here, lowest first. It
    /// looks at each place of the span. It stops early when
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
    ) -> Result<Vec<(Seq, Message)>, ReadError> {
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
                found.push((seq, message));
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

    /// What the stream received from a peer amounts to; nothing if none was.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn incoming(&self, peer: &EndpointId) -> Result<Option<crate::Incoming>, ReadError> {
        match self.row(&Key::Stream(Direction::In, peer.clone()))? {
            Some(Row::Incoming(_, row)) => Ok(Some(row)),
            Some(_) | None => Ok(None),
        }
    }

    /// What the stream sent to a peer amounts to; nothing if none was.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn outgoing(&self, peer: &EndpointId) -> Result<Option<crate::Outgoing>, ReadError> {
        match self.row(&Key::Stream(Direction::Out, peer.clone()))? {
            Some(Row::Outgoing(_, row)) => Ok(Some(row)),
            Some(_) | None => Ok(None),
        }
    }

    /// Whether a message from a peer was applied and its outcome is still open.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn is_open(&self, peer: &EndpointId, seq: Seq) -> Result<bool, ReadError> {
        Ok(self.row(&Key::Message(MessageTable::Work, peer.clone(), seq))?.is_some())
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

fn open_store(path: &Path, engine: Engine, sizes: segments::Options) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match engine {
        Engine::Sled => Arc::new(SledStore::open(path)?),
        Engine::Segments => Arc::new(SegmentStore::open_with(path, sizes)?),
    })
}

/// Refuses a journal that is shorter than it is known to have been.
fn long_enough(shortfalls: Vec<Shortfall>, dir: &Path) -> Result<(), OpenError> {
    if shortfalls.is_empty() { Ok(()) } else { Err(OpenError::Shorter { path: dir.to_owned(), shortfalls }) }
}

/// Makes the opening durable: the journal's first row, or a raised epoch.
fn begin(store: &dyn Store, mut state: State, opening: &Opening, dir: &Path) -> Result<(Meta, State), OpenError> {
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
    row.put_into(&mut batch);
    state.totals.seal(store, &mut batch).map_err(store_error)?;
    store.apply(&batch).map_err(store_error)?;
    store.sync().map_err(store_error)?;
    state.put(&row).map_err(|source| OpenError::Illegal { path: dir.to_owned(), source })?;
    Ok((meta, state))
}

/// A change that sets a row of the application.
#[must_use]
pub fn put_app(name: Vec<u8>, content: Vec<u8>) -> Change {
    Change::Put(Row::App(name, content))
}
