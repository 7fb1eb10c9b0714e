//! The sled engine, the only file that names it. What is wanting in sled 0.34.7 is made good here:
//!
//! - its `flush` is `sync_file_range`, not a sync (upstream issues 1351 and 1452), so [`Store::sync`] also calls
//!   `fdatasync` on the engine's file;
//! - what takes over about 128 KiB in its log goes to files that it never syncs. That holds for whole pages of its tree, so
//!   longer values are stored in pieces so small that no page grows that large;
//! - `flush_async` hangs with eight callers, so only the one committer calls `flush`, and its own timer is off;
//! - what it cannot read while it opens it takes for the end of its log, and cuts off. So everything is read once before, and an
//!   error of the disk is a refusal that destroys nothing;
//! - it never syncs its settings either, and refuses to open for good when a loss of power leaves zeros of them or a part. They
//!   are always the same, so what is not whole of them is removed before, and the engine writes them again;
//! - while it opens it syncs a snapshot of what it read in its log, and not the log, which a killed process may have left unsynced.
//!   So the log is synced before;
//! - a snapshot that it was writing when it died it takes for a finished one, and then refuses to open for good. The real one
//!   and the log are still there, so what is unfinished is removed before;
//! - when a write fails, its `flush` may miss that and wait for good; calling it once more wakes it, so somebody looks whether
//!   a call has been running for long;
//! - damaged files may make it panic, so a panic is caught wherever it is called, and reported as damage;
//! - its helper threads may hold its files for a moment after it was closed, so closing waits until they let go.

use std::fs::{File, TryLockError};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::known_sums::KnownSums;
use crate::long_values::LongValues;
use crate::nudge::{Nudger, PAUSE};
use crate::store::{Batch, Store, StoreError, Visit};

/// Bytes of a piece. Sled keeps in a file of its own, never synced, whatever is over about 128 KiB in its log, and it writes
/// whole leaves of its tree there. A leaf is split at more than 16 entries and takes in a neighbour of at most 3, so with keys
/// of [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX) bytes the largest leaf has 20 x (4 KiB + 0.5 KiB) = 90 KiB.
const PIECE_BYTES: usize = 4 * 1024;

/// Bytes of sled's page cache, by its own count: in memory it takes two to three times as much. The default of 1 GiB is not an
/// agent's size; commits were as fast with 8 MiB as with 32.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes read at a time when everything is read once before opening.
const READ_BYTES: usize = 64 * 1024;

/// How often and how long apart closing looks whether the engine's helper threads have let go of its files: 5 seconds in all,
/// where they take milliseconds. Whoever opens the store earlier would be told that it is in use.
const RELEASE_ATTEMPTS: u32 = 2_500;
/// See [`RELEASE_ATTEMPTS`].
const RELEASE_PAUSE: Duration = Duration::from_millis(2);

/// Values are under this prefix of the one tree, so that a batch over values and pieces is atomic.
const VALUES: u8 = b'v';
/// Pieces of long values are under this prefix: key, then the piece's number, big-endian.
const PIECES: u8 = b'p';

/// The number of a long value's first piece.
const FIRST_PIECE: u32 = 0;

/// First byte of a stored value: the rest is the value.
const WHOLE: u8 = 0;
/// First byte of a stored value: the rest is the number of pieces, big-endian.
const IN_PIECES: u8 = 1;

/// A store in a directory of its own.
#[derive(Debug)]
pub struct SledStore {
    /// Taken out only when the store is dropped.
    db: Option<Arc<sled::Db>>,
    /// Looks after `flush`.
    nudger: Nudger,
    /// Which keys may have values in pieces: for the others none need be looked for when they are written.
    long: LongValues,
    /// What was written lately, so that it need not be read to be replaced.
    sums: Mutex<KnownSums>,
    /// The engine's one data file, opened once more for `fdatasync`.
    file: File,
    dir: PathBuf,
}

/// The engine's settings: segment size, compression, version.
const SETTINGS: &str = "conf";
/// Names of the files that the engine makes first, in this order.
const FIRST_FILES: [&str; 2] = [SETTINGS, "db"];
/// What its settings' lines begin with. A checksum of [`SETTINGS_SUM_BYTES`] follows.
const SETTINGS_LINES: [&str; 3] = ["segment_size: ", "use_compression: ", "version: "];
/// See [`SETTINGS_LINES`].
const SETTINGS_SUM_BYTES: usize = 4;

/// Whether the folder holds, or was about to hold, a store of this engine.
pub(crate) fn is_store(dir: &Path) -> std::io::Result<bool> {
    for name in FIRST_FILES {
        if dir.join(name).try_exists()? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl SledStore {
    /// Opens the store in `dir`, creating it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it open, [`StoreError::Damaged`] when sled says so or panics.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        prepare(dir)?;
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let db = Arc::new(guarded("opening", || config.open())?);
        let weak = Arc::downgrade(&db);
        // Whoever waits gets the answer; this call is only there to wake it.
        let nudge = move || drop(weak.upgrade().map(|db| guarded("flushing", || db.flush())));
        let io = |operation| move |source| StoreError::Io { operation, source };
        let file = File::open(dir.join("db")).map_err(io("opening the data file to sync it"))?;
        let nudger = Nudger::start(PAUSE, nudge).map_err(io("starting a thread"))?;
        let long = long_values(&db)?;
        let sums = Mutex::default();
        let store = Self { db: Some(db), nudger, long, sums, file, dir: dir.to_owned() };
        // The files' names must survive. What was in them is synced already, and nothing new is promised before the next sync.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("syncing the directory"))?;
        Ok(store)
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("it is taken out only when the store is dropped")
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        guarded("reading", || self.db().get(key))
    }

    fn sums(&self) -> MutexGuard<'_, KnownSums> {
        // What a panic left half-noted is cleared with the batch that failed by it.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pieces_of(&self, key: &[u8]) -> Result<u32, StoreError> {
        let stored = self.get(&prefixed(VALUES, key))?;
        Ok(stored.as_deref().and_then(piece_count).unwrap_or(0))
    }

    fn join(&self, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = |detail: &str| StoreError::Damaged { operation: "reading", detail: detail.to_owned() };
        match stored.split_first() {
            Some((&WHOLE, value)) => Ok(value.to_vec()),
            Some((&IN_PIECES, _)) => {
                let count = piece_count(stored).ok_or_else(|| damaged("a long value's piece count is unreadable"))?;
                let mut value = Vec::new();
                for piece in 0..count {
                    let bytes = self.get(&piece_key(key, piece))?;
                    value.extend_from_slice(&bytes.ok_or_else(|| damaged("a piece of a long value is missing"))?);
                }
                Ok(value)
            }
            Some(_) | None => Err(damaged("a value has an unknown form")),
        }
    }
}

/// The keys whose values are in pieces.
fn long_values(db: &sled::Db) -> Result<LongValues, StoreError> {
    let long = LongValues::default();
    let mut pieces = db.scan_prefix([PIECES]).keys();
    while let Some(key) = guarded("reading", || pieces.next().transpose())? {
        if let Some(key) = key.strip_prefix(&[PIECES]).and_then(|key| key.strip_suffix(&FIRST_PIECE.to_be_bytes())) {
            long.add(key);
        }
    }
    Ok(long)
}

/// Does before opening what the engine does not: finds a disk that cannot be read, syncs what was read, and removes what a crash
/// left unfinished of settings and snapshot.
fn prepare(dir: &Path) -> Result<(), StoreError> {
    let io = |operation| move |source| StoreError::Io { operation, source };
    let file = match File::open(dir.join("db")) {
        Ok(file) => file,
        // Nothing but settings, at most: whoever was making this store had not come further.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return drop_torn_settings(dir),
        Err(source) => return Err(StoreError::Io { operation: "opening the data file to read it", source }),
    };
    // What looks unfinished may be in the hands of a process that is just opening it.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(StoreError::Locked);
    }
    let prepared = prepare_locked(dir, &file);
    // Not left to closing the file: a process that is just being started from here still has it open for a moment, and the engine
    // would find its own store in use.
    file.unlock().map_err(io("unlocking the data file"))?;
    prepared
}

/// Removes settings of which a loss of power left only a part, or zeros. Settings that are whole and wrong are the engine's to judge.
fn drop_torn_settings(dir: &Path) -> Result<(), StoreError> {
    let io = |operation| move |source| StoreError::Io { operation, source };
    let path = dir.join(SETTINGS);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StoreError::Io { operation: "reading the settings", source }),
    };
    let text = &bytes[..bytes.len().saturating_sub(SETTINGS_SUM_BYTES)];
    let text = std::str::from_utf8(text).unwrap_or_default();
    let whole = text.ends_with('\n') && SETTINGS_LINES.iter().all(|name| text.contains(name));
    if whole { Ok(()) } else { std::fs::remove_file(path).map_err(io("removing unfinished settings")) }
}

fn prepare_locked(dir: &Path, file: &File) -> Result<(), StoreError> {
    let io = |operation| move |source| StoreError::Io { operation, source };
    drop_torn_settings(dir)?;
    let (mut buffer, mut offset) = (vec![0; READ_BYTES], 0);
    loop {
        match file.read_at(&mut buffer, offset).map_err(io("reading the data file through"))? {
            0 => break,
            bytes => offset += bytes as u64,
        }
    }
    file.sync_all().map_err(io("syncing the data file as it was found"))?;
    for entry in std::fs::read_dir(dir).map_err(io("listing the directory"))? {
        let entry = entry.map_err(io("listing the directory"))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path()).map_err(io("removing an unfinished snapshot"))?;
        }
    }
    Ok(())
}

fn prefixed(prefix: u8, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(prefix);
    full.extend_from_slice(key);
    full
}

fn piece_key(key: &[u8], piece: u32) -> Vec<u8> {
    let mut full = prefixed(PIECES, key);
    full.extend_from_slice(&piece.to_be_bytes());
    full
}

fn piece_count(stored: &[u8]) -> Option<u32> {
    let (&IN_PIECES, count) = stored.split_first()? else { return None };
    count.try_into().ok().map(u32::from_be_bytes)
}

/// Calls the engine. Its panics are how it reports some kinds of damage.
fn guarded<T>(operation: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    // What a panic leaves half-done is the engine's own, and no commit is made with it any more.
    std::panic::catch_unwind(AssertUnwindSafe(call))
        .map_err(|panic| {
            let detail = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("the engine panicked");
            StoreError::Damaged { operation, detail: detail.to_owned() }
        })?
        .map_err(|error| explain(operation, error))
}

fn explain(operation: &'static str, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) if source.to_string().starts_with("could not acquire lock") => StoreError::Locked,
        sled::Error::Io(source) => StoreError::Io { operation, source },
        sled::Error::Corruption { .. }
        | sled::Error::ReportableBug(_)
        | sled::Error::Unsupported(_)
        | sled::Error::CollectionNotFound(_) => StoreError::Damaged { operation, detail: error.to_string() },
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        let db = self.db.take();
        let closed = guarded("closing", || {
            drop(db);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::error!(dir = %self.dir.display(), %error, "The store was not closed cleanly.");
        }
        for _ in 0..RELEASE_ATTEMPTS {
            // The engine holds a lock on the same file for as long as anything of it has the file open.
            match self.file.try_lock() {
                Err(TryLockError::WouldBlock) => std::thread::sleep(RELEASE_PAUSE),
                Ok(()) | Err(TryLockError::Error(_)) => return,
            }
        }
        tracing::warn!(dir = %self.dir.display(), "The engine still holds its files after it was closed.");
    }
}

impl Store for SledStore {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut sled_batch = sled::Batch::default();
        let mut no_longer_long = Vec::new();
        for change in batch.changes() {
            let (key, value) = (change.key, change.value.map(|(value, _)| value));
            let old_pieces = if self.long.may_have(key) { self.pieces_of(key)? } else { 0 };
            let mut new_pieces = FIRST_PIECE;
            match value {
                Some(value) if value.len() <= PIECE_BYTES => {
                    sled_batch.insert(prefixed(VALUES, key), prefixed(WHOLE, value))
                }
                Some(value) => {
                    for piece in value.chunks(PIECE_BYTES) {
                        sled_batch.insert(piece_key(key, new_pieces), piece);
                        new_pieces += 1;
                    }
                    sled_batch.insert(prefixed(VALUES, key), prefixed(IN_PIECES, &new_pieces.to_be_bytes()));
                }
                None => sled_batch.remove(prefixed(VALUES, key)),
            }
            for piece in new_pieces..old_pieces {
                sled_batch.remove(piece_key(key, piece));
            }
            match (old_pieces, new_pieces) {
                (0, 1..) => self.long.add(key),
                (1.., 0) => no_longer_long.push(key),
                (_, _) => {}
            }
        }
        let applied = guarded("writing", || self.db().apply_batch(sled_batch));
        let mut sums = self.sums();
        if applied.is_err() {
            sums.clear();
            return applied;
        }
        for change in batch.changes() {
            sums.note(change.key, change.value.map(|(_, sum)| sum));
        }
        no_longer_long.iter().for_each(|key| self.long.remove(key));
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.nudger.watch(|| guarded("flushing", || self.db().flush()))?;
        self.file.sync_data().map_err(|source| StoreError::Io { operation: "fdatasync", source })
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let mut entries = self.db().range(prefixed(VALUES, from)..prefixed(VALUES, to));
        while let Some((key, stored)) = guarded("reading", || entries.next().transpose())? {
            let joined;
            let value = match stored.split_first() {
                Some((&WHOLE, value)) => value,
                Some(_) | None => {
                    joined = self.join(&key[1..], &stored)?;
                    &joined
                }
            };
            if let ControlFlow::Break(()) = visit(&key[1..], value) {
                break;
            }
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, StoreError> {
        let io = |source| StoreError::Io { operation: "measuring the directory", source };
        let mut bytes = 0;
        let mut folders = vec![self.dir.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).map_err(io)? {
                let entry = entry.map_err(io)?;
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                    Ok(meta) => bytes += meta.len(),
                    // The engine removes files while it runs.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(io(error)),
                }
            }
        }
        Ok(bytes)
    }

    fn checksum(&self, key: &[u8]) -> Result<Option<u32>, StoreError> {
        if let Some(sum) = self.sums().get(key) {
            return Ok(Some(sum));
        }
        Ok(self.value(key)?.map(|value| crc32c::crc32c(&value)))
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let stored = self.get(&prefixed(VALUES, key))?;
        stored.map(|stored| self.join(key, &stored)).transpose()
    }
}
