//! The second engine: our own append-only log in segments, with an index in memory. It knows no rows, and it never repairs: of
//! what it finds it either believes every byte or says which file and which byte are wrong.
//!
//! **Writing.** A batch is one frame, so it is there whole or not at all. [`Store::apply`] adds it with one write;
//! [`Store::sync`] is one `fdatasync`, after which a mark is put behind the last frame, unsynced, which the next frame is
//! written over. Behind the mark there are zeros, written ahead, so that a sync finds nothing to write but the frame. A write or
//! sync that failed ends the store: it is never tried again.
//!
//! **Segments.** A full segment is followed by the next in this order: the new file with its header is synced, then its name,
//! then the old one, which loses its zeros and is synced again, then that gets its seal, then the seal is synced. Only then is the new one written. So a sealed segment promises the next
//! one, and one without a seal that is not the last has lost its end.
//!
//! **A torn tail and damage.** Each frame says up to where its segment was on stable storage when it was written. Bytes that
//! are no frame are damage when anything behind them says that they had been synced, and in a sealed segment always: file and
//! offset are in the error. Otherwise they are what a crash left of a write that nobody was promised; they are cut off, which
//! is logged. Where there is nothing but zeros up to the end of the file the log ends. What each layer catches:
//!
//! | What happened | Who notices |
//! |---|---|
//! | a write cut off by a crash, in any order of pages | nobody needs to: it is cut off |
//! | a bit, a page or a cut before the last mark that reached the disk | the frames, exactly |
//! | a missing, renamed or replaced segment; one that is cut at a frame's border | seals, numbers, the floor |
//! | the end of the last segment gone or zeroed together with its marks | the high-water file: batches are missing |
//! | all segments replaced by older ones | the high-water file |
//! | a value that changed on disk after it was read at opening | the checksum of its row |
//! | a frame that lies (a defect of this engine) | the totals of the rows |
//!
//! **Compaction** is in `compact.rs`. It rewrites what is alive of the oldest segment, then adds a frame that raises the floor;
//! after the next sync the old file is removed. A crash between any two of these leaves the old file, the new records, or both,
//! which say the same. A file below the floor is left over and is removed at the next opening.
//!
//! **Limits.** A segment has 16 MiB and one batch more, a batch 256 MiB, a key [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX) bytes.
//! At most 1 MiB of zeros lies ahead of the end while the store is open.
//! Memory is the index (`places.rs`: 14 bytes for each row of a message that is kept, 75 to 85 for others), and one frame while
//! opening and compacting. A scan that a writer may disturb holds on to the part of the index that it reads. Every segment's file
//! stays open: 64 descriptors for each GiB.

mod ahead;
mod block;
mod blocks;
mod compact;
mod fetch;
mod files;
mod format;
mod index;
mod log;
mod places;
mod reader;
mod recover;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub(crate) use files::is_store;
pub use reader::SegmentReader;

use self::compact::Compaction;
use self::fetch::read_value;
use self::files::{LOCK_FILE, io, list, segment_name};
use self::format::{FRAME_HEADER, Records, push_record};
use self::index::{Index, Segment};
use self::log::{Log, remove, reopen};
use self::recover::recover;
use crate::opening::HeldLock;
use crate::store::{Batch, Store, StoreError, Visit};

/// Bytes of a segment. Compaction frees space in this unit, and each one costs an open file.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Zeros that are written ahead of the end at most: with commits of 1 KiB one sync in a thousand takes them along.
const AHEAD_BYTES: u64 = 1024 * 1024;
/// Bytes of old segments that any batch pays for while compaction is due: under a millisecond of work.
const COMPACT_BYTES: u64 = 256 * 1024;

/// Bytes of a frame's memory that are kept for the next one.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// A step of the store that a crash can come after. Tests and crash trials stop there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The file of a new segment was made.
    SegmentMade,
    /// Its header was written.
    HeaderWritten,
    /// Its header was synced.
    HeaderSynced,
    /// Its name was synced.
    NameSynced,
    /// The seal of the segment before was written; its sync comes next.
    SealWritten,
    /// A batch was written.
    FrameWritten,
    /// Zeros were written ahead of the end.
    RoomMade,
    /// The zeros behind the last frame of a segment that is about to be sealed were cut off, and that was synced.
    RoomGivenBack,
    /// The segment was synced.
    Synced,
    /// The end was marked as synced.
    MarkWritten,
    /// A segment was removed after it had been compacted.
    SegmentRemoved,
    /// What a crash had left of a write was cut off, and that was synced.
    TailCut,
}

/// What is called at each [`Point`].
pub type Observer = Arc<dyn Fn(Point) + Send + Sync>;

/// Sizes, for tests and trials; the default is what journals use.
#[derive(Clone)]
pub struct Options {
    /// Bytes of a segment, from which on the next one is begun.
    pub segment_bytes: u64,
    /// Bytes of old segments that each batch compacts at least, when compaction is due.
    pub compact_bytes: u64,
    /// Zeros that are written ahead of the end of the log at most.
    pub ahead_bytes: u64,
    /// Told of each step.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, compact_bytes: COMPACT_BYTES, ahead_bytes: AHEAD_BYTES, observer: None }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { segment_bytes, compact_bytes, ahead_bytes, observer } = self;
        f.debug_struct("Options")
            .field("segment_bytes", segment_bytes)
            .field("compact_bytes", compact_bytes)
            .field("ahead_bytes", ahead_bytes)
            .field("observed", &observer.is_some())
            .finish()
    }
}

impl Options {
    fn reach(&self, point: Point) {
        if let Some(observer) = &self.observer {
            observer(point);
        }
    }
}

/// Where frames are put together.
#[derive(Debug, Default)]
struct Frame {
    bytes: Vec<u8>,
    /// The checksum of each record's value; anything for a delete.
    sums: Vec<u32>,
}

impl Frame {
    /// Makes it empty, but for the room for its header.
    fn begin(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
        self.bytes.clear();
        self.bytes.resize(FRAME_HEADER as usize, 0);
        self.sums.clear();
    }

    fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    fn push(&mut self, key: &[u8], value: Option<(&[u8], u32)>) -> Result<(), StoreError> {
        let too_long = || io("writing")(std::io::Error::other("a key or a value is longer than may be"));
        push_record(&mut self.bytes, key, value.map(|(value, _)| value)).ok_or_else(too_long)?;
        self.sums.push(value.map_or(0, |(_, sum)| sum));
        Ok(())
    }
}

/// What only the writer touches.
struct Writing {
    log: Log,
    compaction: Compaction,
    frame: Frame,
    /// A write or a sync failed: nothing is tried any more.
    failed: bool,
}

/// A store of segments, open for writing in this process alone.
pub struct SegmentStore {
    index: RwLock<Index>,
    writing: Mutex<Writing>,
    /// Held for as long as the store is open.
    _lock: HeldLock,
}

impl std::fmt::Debug for SegmentStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentStore").field("index", &self.index).finish_non_exhaustive()
    }
}

impl SegmentStore {
    /// Opens the store in `dir`, creating it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it open; [`StoreError::Damaged`] with file and offset.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Options::default())
    }

    /// As [`Self::open`], with other sizes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(dir: &Path, options: Options) -> Result<Self, StoreError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("making the store's folder"))?;
        let lock = lock(dir)?;
        let folder = File::open(dir).map_err(io("opening the store's folder"))?;
        let listing = list(dir)?;
        let (mut log, mut index) = match recover(dir, &listing)? {
            None => {
                // At most a first segment that a crash left unfinished.
                listing.keys().for_each(|number| remove(dir, *number));
                (Log::create(dir, folder, options)?, Index::default())
            }
            Some(recovered) => {
                let active = (recovered.active, reopen(dir, recovered.active)?, recovered.end);
                settle(dir, &active, recovered.torn, &options)?;
                if listing.contains_key(&(recovered.active - 1)) {
                    sync_seal(dir, recovered.active - 1)?;
                }
                recovered.leftover.iter().for_each(|number| remove(dir, *number));
                folder.sync_all().map_err(io("syncing the store's folder"))?;
                (Log::resume(dir, folder, options, active, recovered.floor), recovered.index)
            }
        };
        index.segments.entry(log.active).or_insert_with(|| segment(&log)).file = Arc::clone(&log.file);
        log.mark();
        let writing = Writing { log, compaction: Compaction::default(), frame: Frame::default(), failed: false };
        Ok(Self { index: RwLock::new(index), writing: Mutex::new(writing), _lock: lock })
    }

    /// Opens the store in `dir` to read it as it is now, whoever writes it. Takes no lock and never writes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with file and offset; [`StoreError::Io`] when there is no such folder.
    pub fn open_read_only(dir: &Path) -> Result<SegmentReader, StoreError> {
        SegmentReader::open(dir)
    }

    /// Does one thing with the log. What fails ends the store.
    fn write<T>(&self, what: impl FnOnce(&mut Writing) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let ended = || StoreError::Io {
            operation: "writing",
            source: std::io::Error::other("an earlier write or sync failed; nothing is tried any more"),
        };
        // A panic within is a failure like any other.
        let mut writing: MutexGuard<'_, Writing> = self.writing.lock().map_err(|_| ended())?;
        if writing.failed {
            return Err(ended());
        }
        let done = what(&mut writing);
        writing.failed = done.is_err();
        done
    }

    fn append(&self, writing: &mut Writing, batch: &Batch) -> Result<(), StoreError> {
        let Writing { log, compaction, frame, .. } = writing;
        frame.begin();
        {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            for change in batch.changes() {
                // A key that is not there needs no delete: whatever older segments hold of it has one already.
                if change.value.is_some() || index.place(change.key).is_some() {
                    frame.push(change.key, change.value)?;
                }
            }
        }
        if frame.is_empty() {
            return Ok(());
        }
        let written = write_frame(&self.index, log, frame)?;
        compaction.work(&self.index, log, written)
    }

    fn flush(&self, writing: &mut Writing) -> Result<(), StoreError> {
        let Writing { log, compaction, .. } = writing;
        log.sync()?;
        log.mark();
        if !compaction.done.is_empty() {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            for number in compaction.done.drain(..) {
                index.segments.remove(&number);
                log.remove(number);
            }
            drop(index);
            log.removed();
        }
        Ok(())
    }
}

impl Drop for SegmentStore {
    fn drop(&mut self) {
        let writing = self.writing.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !writing.failed {
            writing.log.give_room_back();
        }
    }
}

/// Takes the lock, which also says to which engine the folder belongs.
fn lock(dir: &Path) -> Result<HeldLock, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(dir.join(LOCK_FILE)).map_err(io("opening the lock file"))?;
    match lock.try_lock() {
        Ok(()) => Ok(HeldLock(lock)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
        Err(TryLockError::Error(source)) => Err(io("locking")(source)),
    }
}

/// Brings the last segment to stable storage as it was found, what a crash left of a write cut off. What is shown after an
/// opening must not vanish in the next crash.
fn settle(
    dir: &Path,
    (number, file, end): &(u32, File, u64),
    torn: Option<&'static str>,
    options: &Options,
) -> Result<(), StoreError> {
    if let Some(what) = torn {
        let (path, offset) = (dir.join(segment_name(*number)), *end);
        let bytes = file.metadata().map_or(0, |meta| meta.len().saturating_sub(offset));
        tracing::warn!(file = %path.display(), offset, bytes, what, "The end of the log is cut off: it was being written when the process or the machine died, and had not been acknowledged.");
        file.set_len(offset).map_err(io("cutting off the end of the log"))?;
    }
    file.sync_all().map_err(io("syncing the last segment"))?;
    if torn.is_some() {
        options.reach(Point::TailCut);
    }
    Ok(())
}

/// Brings the seal of the segment before the last to stable storage. The process that wrote it may have been killed before it had
/// synced it, and nothing may be written behind a seal that can still be lost.
fn sync_seal(dir: &Path, number: u32) -> Result<(), StoreError> {
    reopen(dir, number)?.sync_all().map_err(io("syncing the segment before the last"))
}

fn segment(log: &Log) -> Segment {
    Segment { file: Arc::clone(&log.file), bytes: log.end, live: 0 }
}

/// Tells the index how long the active segment has become.
fn set_length(index: &RwLock<Index>, log: &Log) {
    let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
    index.segments.entry(log.active).or_insert_with(|| segment(log)).bytes = log.end;
}

/// Goes on with the next segment.
fn rotate(index: &RwLock<Index>, log: &mut Log) -> Result<(), StoreError> {
    let (left, bytes) = log.rotate()?;
    let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(segment) = index.segments.get_mut(&left) {
        segment.bytes = bytes;
    }
    index.segments.insert(log.active, segment(log));
    Ok(())
}

/// Writes a frame of records and takes them into the index. Returns its bytes.
fn write_frame(index: &RwLock<Index>, log: &mut Log, frame: &mut Frame) -> Result<u64, StoreError> {
    let Frame { bytes, sums } = frame;
    if log.is_full(bytes.len()) {
        rotate(index, log)?;
    }
    let start = log.append(bytes)? + FRAME_HEADER;
    let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
    index.segments.entry(log.active).or_insert_with(|| segment(log)).bytes = log.end;
    let records = Records::new(&bytes[FRAME_HEADER as usize..]).map_while(Result::ok);
    for (record, sum) in records.zip(sums.iter()) {
        let (place, value) = (start + record.at as u64, record.value.map(<[u8]>::len));
        let taken = index.take(log.active, place, record.key, value, *sum);
        taken.ok_or_else(|| io("writing")(std::io::Error::other("the segment is larger than 4 GiB")))?;
    }
    Ok(bytes.len() as u64)
}

impl Store for SegmentStore {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.write(|writing| self.append(writing, batch))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.write(|writing| self.flush(writing))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let snapshot = self.index.read().unwrap_or_else(PoisonError::into_inner).range(from, to);
        snapshot.visit(visit)
    }

    fn scan_undisturbed(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        // A writer that there should not be waits.
        self.index.read().unwrap_or_else(PoisonError::into_inner).visit(from, to, visit)
    }

    fn size(&self) -> Result<u64, StoreError> {
        Ok(self.index.read().unwrap_or_else(PoisonError::into_inner).bytes())
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.index.read().unwrap_or_else(PoisonError::into_inner).find(key);
        found.map(|(place, file)| read_value(&file, key, place)).transpose()
    }

    fn rest(&self) -> Result<bool, StoreError> {
        self.write(|writing| {
            let worked = writing.compaction.rest(&self.index, &mut writing.log)?;
            if worked {
                self.flush(writing)?;
            }
            Ok(worked)
        })
    }

    fn checksum(&self, key: &[u8]) -> Result<Option<u32>, StoreError> {
        Ok(self.index.read().unwrap_or_else(PoisonError::into_inner).place(key).map(|place| place.sum))
    }

    fn checksums(&self, visit: &mut dyn FnMut(&[u8], u32)) -> bool {
        self.index.read().unwrap_or_else(PoisonError::into_inner).checksums(visit);
        true
    }
}
