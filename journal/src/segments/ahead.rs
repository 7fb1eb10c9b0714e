//! Reading many sealed segments with two threads. Each takes the next segment that nobody has, reads and checks it whole, and keeps of it
//! only where its records are; the one that opens the store takes these into the index in the order of the segments, and what comes next
//! in order without that detour. What is wrong is found at the same place as by one thread. It never writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::files::{Buffer, Source};
use super::format::Record;
use super::index::Index;
use super::recover::{beyond, records, take_one};
use crate::store::StoreError;

/// Bytes of segments from which a second thread is worth starting: opening takes some ten milliseconds then. In builds for development
/// a few, so that whatever a test opens is mostly opened this way.
pub(super) const APART_BYTES: u64 = if cfg!(debug_assertions) { 64 * 1024 } else { 64 * 1024 * 1024 };

/// Segments that may be read beyond the one that is next for the index: so many lists of records are in memory.
const AHEAD: usize = 2;

/// A segment to read: number, file and length.
pub(super) type Sealed = (u32, Arc<File>, u64);

/// The records of a segment without their values.
#[derive(Default)]
struct Digest {
    keys: Vec<u8>,
    records: Vec<Short>,
}

/// A record in 16 bytes: the length of its key, its place in the segment, the length of its value and that one's checksum.
struct Short {
    key: u16,
    place: u32,
    value: u32,
    sum: u32,
}

/// The length of the value of a record that has none.
const DELETED: u32 = u32::MAX;

/// Who reads what.
#[derive(Default)]
struct Shared {
    /// The first segment that nobody reads or has read.
    next: usize,
    /// The one that the index gets next.
    wanted: usize,
    read: BTreeMap<usize, Result<Digest, StoreError>>,
    /// Lists that are empty again.
    spare: Vec<Digest>,
    /// One of the two needs the other no more.
    over: bool,
}

struct Work<'a> {
    segments: &'a [Sealed],
    shared: Mutex<Shared>,
    changed: Condvar,
}

/// Says that a thread needs the other one no more, however it ends.
struct Leaving<'a>(&'a Work<'a>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_all();
    }
}

/// Reads the segments, and takes what they hold into the index. Whether it did; not when there is no second thread to be had.
///
/// # Errors
/// [`StoreError::Damaged`] with the first place where something is wrong.
pub(super) fn take_all(segments: &[Sealed], index: &mut Index) -> Result<bool, StoreError> {
    let work = Work { segments, shared: Mutex::default(), changed: Condvar::new() };
    let work = &work;
    thread::scope(|scope| {
        let helping = move || work.help();
        if thread::Builder::new().name("journal-opening".to_owned()).spawn_scoped(scope, helping).is_err() {
            return Ok(false);
        }
        let _leaving = Leaving(work);
        work.take_in_order(index).map(|()| true)
    })
}

/// What the thread that has the index is to do.
enum Turn {
    /// Take the next segment into the index.
    Take(usize),
    /// Read a later one meanwhile.
    Read(usize, Digest),
    /// Take what was read of the next one into the index.
    TakeRead(Result<Digest, StoreError>),
}

impl Work<'_> {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing in there is half done when a panic ends a thread.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in_order(&self, index: &mut Index) -> Result<(), StoreError> {
        let mut buffer = Buffer::default();
        for wanted in 0..self.segments.len() {
            loop {
                match self.turn(wanted) {
                    Turn::Take(at) => take_one(&self.segments[at], index, &mut buffer)?,
                    Turn::TakeRead(digest) => {
                        let digest = digest?;
                        digest.hand_over(&self.segments[wanted], index)?;
                        self.lock().spare.push(digest);
                    }
                    Turn::Read(at, digest) => {
                        let digest = digest.read(&self.segments[at], &mut buffer);
                        self.lock().read.insert(at, digest);
                        continue;
                    }
                }
                break;
            }
        }
        Ok(())
    }

    fn turn(&self, wanted: usize) -> Turn {
        let mut shared = self.lock();
        shared.wanted = wanted;
        self.changed.notify_all();
        loop {
            if let Some(read) = shared.read.remove(&wanted) {
                return Turn::TakeRead(read);
            }
            // Nobody has it, or the other thread could not go on with it.
            if shared.next == wanted || shared.over {
                shared.next = shared.next.max(wanted + 1);
                return Turn::Take(wanted);
            }
            if let Some((at, digest)) = shared.claim(self.segments.len()) {
                return Turn::Read(at, digest);
            }
            shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads whatever nobody has, not too far ahead.
    fn help(&self) {
        let _leaving = Leaving(self);
        let mut buffer = Buffer::default();
        let mut shared = self.lock();
        while !shared.over && shared.next < self.segments.len() {
            let Some((at, digest)) = shared.claim(self.segments.len()) else {
                shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(shared);
            let digest = digest.read(&self.segments[at], &mut buffer);
            shared = self.lock();
            shared.read.insert(at, digest);
            self.changed.notify_all();
        }
    }
}

impl Shared {
    /// A segment to read, if there is one and it is not too far ahead.
    fn claim(&mut self, segments: usize) -> Option<(usize, Digest)> {
        let at = self.next;
        if at >= segments || at > self.wanted + AHEAD {
            return None;
        }
        self.next += 1;
        Some((at, self.spare.pop().unwrap_or_default()))
    }
}

impl Digest {
    fn read(mut self, segment: &Sealed, buffer: &mut Buffer) -> Result<Self, StoreError> {
        self.keys.clear();
        self.records.clear();
        records(segment, buffer, &mut |place, record, sum| {
            let short = Short::of(place, record, sum).ok_or_else(|| beyond(&source(segment), place))?;
            self.keys.extend_from_slice(record.key);
            self.records.push(short);
            Ok(())
        })?;
        Ok(self)
    }

    fn hand_over(&self, segment: &Sealed, index: &mut Index) -> Result<(), StoreError> {
        let mut keys = &self.keys[..];
        for Short { key, place, value, sum } in &self.records {
            let (key, rest) = keys.split_at(usize::from(*key));
            keys = rest;
            let (place, value) = (u64::from(*place), (*value != DELETED).then_some(*value as usize));
            index.take(segment.0, place, key, value, *sum).ok_or_else(|| beyond(&source(segment), place))?;
        }
        Ok(())
    }
}

impl Short {
    /// Nothing for a record that lies too far from the beginning of its segment.
    fn of(place: u64, record: &Record<'_>, sum: u32) -> Option<Self> {
        let value = match record.value {
            Some(value) => u32::try_from(value.len()).ok().filter(|length| *length != DELETED)?,
            None => DELETED,
        };
        Some(Self { key: record.key.len().try_into().ok()?, place: place.try_into().ok()?, value, sum })
    }
}

fn source((number, file, length): &Sealed) -> Source<'_> {
    Source { number: *number, file, length: *length }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::super::files::{list, segment_name};
    use super::super::index::Segment;
    use super::super::{Options, SegmentStore, recover};
    use super::*;
    use crate::store::{Batch, Store as _};

    /// Sealed segments of frames that are small, and some that no buffer holds beside another.
    fn filled(dir: &Path) {
        let options = Options { segment_bytes: 700_000, ..Options::default() };
        let store = SegmentStore::open_with(dir, options).unwrap();
        for number in 0..2_000_u64 {
            let mut batch = Batch::default();
            let key = |table: u8| [&[table][..], b"web-01\0", &number.to_be_bytes()].concat();
            let bytes = if number % 300 == 7 { 300_000 } else { 100 + number as usize % 900 };
            batch.put(key(4), vec![number as u8; 60]);
            batch.put(key(5), vec![number as u8; bytes]);
            if number > 50 {
                batch.delete([&[4][..], b"web-01\0", &(number - 50).to_be_bytes()].concat());
            }
            store.apply(&batch).unwrap();
        }
    }

    type Taken = Result<(Vec<(Vec<u8>, u32)>, Vec<u64>), String>;

    /// What the index holds afterwards, or what is wrong.
    fn taken(dir: &Path, apart: bool) -> Taken {
        let numbers: Vec<u32> = list(dir).unwrap().into_keys().collect();
        let (_, sealed) = numbers.split_last().unwrap();
        let mut index = Index::default();
        let segments: Vec<Sealed> = sealed
            .iter()
            .map(|number| {
                let file = Arc::new(File::open(dir.join(segment_name(*number))).unwrap());
                let bytes = file.metadata().unwrap().len();
                index.segments.insert(*number, Segment { file: Arc::clone(&file), bytes, live: 0 });
                (*number, file, bytes)
            })
            .collect();
        let done = if apart {
            take_all(&segments, &mut index).map(|done| assert!(done, "there is a second thread"))
        } else {
            recover::take_all(&segments, &mut index, &mut Buffer::default())
        };
        done.map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        index.checksums(&mut |key, sum| rows.push((key.to_vec(), sum)));
        Ok((rows, index.segments.values().map(|segment| segment.live).collect()))
    }

    #[test]
    fn two_threads_find_what_one_finds_and_the_same_damage_at_the_same_place() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let whole = taken(dir.path(), false);
        let (rows, segments) = whole.clone().unwrap();
        assert!(rows.len() > 1_000 && segments.len() > 3, "{} rows in {} segments", rows.len(), segments.len());
        assert_eq!(taken(dir.path(), true), whole);
        for number in [1, 3] {
            let path = dir.path().join(segment_name(number));
            let bytes = std::fs::read(&path).unwrap();
            for at in (0..bytes.len()).step_by(bytes.len() / 40).chain([bytes.len() - 1]) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                std::fs::write(&path, &damaged).unwrap();
                let found = taken(dir.path(), true);
                assert!(found.is_err(), "byte {at} of segment {number}");
                assert_eq!(found, taken(dir.path(), false), "byte {at} of segment {number}");
            }
            std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
            assert_eq!(taken(dir.path(), true), taken(dir.path(), false));
            std::fs::write(&path, &bytes).unwrap();
        }
    }
}
