//! The index in memory: which record of which segment holds a key, and how much of each segment is still alive. It reads and
//! writes no file but to fetch the record that it points at.
//!
//! **Memory.** A key of up to 22 bytes, which is what rows of messages have under a short name, takes 24 bytes in its node, a
//! longer one its length on the heap besides; the place takes 12. Nodes of the standard library's map are at least half full,
//! about 60 % when keys come in order. That is 60 to 75 bytes for each key, never more than a few of the values.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::files::{damaged, io, segment_name};
use super::format::{RECORD_HEADER, Record, read_record, record_bytes};
use crate::store::{StoreError, Visit};

/// Bytes of a key that need no allocation of their own.
const SHORT: usize = 22;
/// Bytes that a scan reads at once where records lie one after the other.
const WINDOW: usize = 64 * 1024;

/// A key, small ones without an allocation.
#[derive(Debug, Clone)]
enum KeyBytes {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl KeyBytes {
    fn new(key: &[u8]) -> Self {
        match u8::try_from(key.len()) {
            Ok(length) if key.len() <= SHORT => {
                let mut bytes = [0; SHORT];
                bytes[..key.len()].copy_from_slice(key);
                Self::Short(length, bytes)
            }
            _ => Self::Long(key.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for KeyBytes {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    /// Where the record begins in the segment.
    pub(super) offset: u32,
    /// Bytes of the value.
    pub(super) value: u32,
}

impl Place {
    fn record(self, key: &[u8]) -> u64 {
        record_bytes(key.len(), self.value as usize)
    }
}

/// One segment, as far as reading and compacting need to know.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// Bytes of records that the index points at.
    pub(super) live: u64,
}

/// Keys, places and segments, which change together.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<KeyBytes, Place>,
    pub(super) segments: BTreeMap<u32, Segment>,
}

impl Index {
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    pub(super) fn place(&self, key: &[u8]) -> Option<Place> {
        self.keys.get(key).copied()
    }

    /// Takes in a record that begins at that offset of a segment.
    pub(super) fn take(&mut self, segment: u32, offset: u64, record: &Record<'_>) -> Option<()> {
        let old = match record.value {
            Some(value) => {
                let (offset, value) = (u32::try_from(offset).ok()?, u32::try_from(value.len()).ok()?);
                let place = Place { segment, offset, value };
                if let Some(segment) = self.segments.get_mut(&segment) {
                    segment.live += place.record(record.key);
                }
                self.keys.insert(KeyBytes::new(record.key), place)
            }
            None => self.keys.remove(record.key),
        };
        if let Some(old) = old
            && let Some(segment) = self.segments.get_mut(&old.segment)
        {
            segment.live = segment.live.saturating_sub(old.record(record.key));
        }
        Some(())
    }

    /// Bytes of all records that are alive.
    pub(super) fn live(&self) -> u64 {
        self.segments.values().map(|segment| segment.live).sum()
    }

    /// Bytes in the sealed segments from `floor` on, below `active`, that nothing points at.
    pub(super) fn dead(&self, floor: u32, active: u32) -> u64 {
        self.segments.range(floor..active).map(|(_, segment)| segment.bytes.saturating_sub(segment.live)).sum()
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// The value of a key, with what is needed to read it without the index.
    pub(super) fn find(&self, key: &[u8]) -> Option<(Place, Arc<File>)> {
        let place = self.place(key)?;
        Some((place, Arc::clone(&self.segments.get(&place.segment)?.file)))
    }

    /// Visits every key of a range with its value, until told to stop. It takes no memory for the keys; the index must not change
    /// meanwhile, which borrowing it sees to.
    pub(super) fn visit(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let entries = self.keys.range::<[u8], _>(bounds).map(|(key, place)| (key.bytes(), *place));
        visit_places(entries, |segment| self.segments.get(&segment).map(|segment| segment.file.as_ref()), visit)
    }

    /// A range as it is now: whatever is written or compacted later does not change it. 36 bytes for each key, and the heap of
    /// keys that are long.
    pub(super) fn range(&self, from: &[u8], to: &[u8]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        if from < to {
            let bounds = (Bound::Included(from), Bound::Excluded(to));
            let entries = self.keys.range::<[u8], _>(bounds).map(|(key, place)| (key.clone(), *place));
            snapshot.entries.extend(entries);
            let files = self.segments.iter().map(|(number, segment)| (*number, Arc::clone(&segment.file)));
            snapshot.files.extend(files);
        }
        snapshot
    }
}

/// Keys and places of one moment, and the files that they are in; a file that is removed meanwhile stays readable.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    entries: Vec<(KeyBytes, Place)>,
    files: BTreeMap<u32, Arc<File>>,
}

impl Snapshot {
    /// Visits every key with its value, until told to stop.
    pub(super) fn visit(&self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let entries = self.entries.iter().map(|(key, place)| (key.bytes(), *place));
        visit_places(entries, |segment| self.files.get(&segment).map(Arc::as_ref), visit)
    }
}

/// Reads the values at those places, in that order, and visits them.
fn visit_places<'a>(
    entries: impl Iterator<Item = (&'a [u8], Place)>,
    file: impl Fn(u32) -> Option<&'a File>,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let mut window = Window::default();
    for (key, place) in entries {
        let missing = || damaged("reading", &segment_name(place.segment), u64::from(place.offset), "it is gone");
        let value = window.record(file(place.segment).ok_or_else(missing)?, key, place)?;
        if visit(key, value).is_break() {
            break;
        }
    }
    Ok(())
}

/// What was read of a file last: keys that were written in order lie in the file in order.
#[derive(Debug, Default)]
struct Window {
    segment: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn record(&mut self, file: &File, key: &[u8], place: Place) -> Result<&[u8], StoreError> {
        let (offset, length) = (u64::from(place.offset), RECORD_HEADER + key.len() + place.value as usize);
        let end = self.start + self.bytes.len() as u64;
        let same = self.segment == place.segment && !self.bytes.is_empty();
        if !(same && self.start <= offset && offset + length as u64 <= end) {
            // Only a neighbour of what was read last promises that its own neighbours are wanted next.
            let near = same && offset >= self.start && offset < end + WINDOW as u64;
            let wanted = if near { length.max(WINDOW) } else { length };
            read_some(file, offset, length, wanted, &mut self.bytes, place)?;
            (self.segment, self.start) = (place.segment, offset);
        }
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(at..).and_then(|bytes| bytes.get(..length)).unwrap_or_default();
        checked(bytes, key, place)
    }
}

/// Reads at least `least` bytes and up to `wanted`, which no length from a file decides: the index says them.
fn read_some(
    file: &File,
    offset: u64,
    least: usize,
    wanted: usize,
    bytes: &mut Vec<u8>,
    place: Place,
) -> Result<(), StoreError> {
    bytes.resize(wanted, 0);
    let mut filled = 0;
    while filled < least {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => {
                bytes.clear();
                return Err(damaged(
                    "reading",
                    &segment_name(place.segment),
                    offset,
                    "the file ends within the record",
                ));
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                bytes.clear();
                return Err(io("reading a record")(error));
            }
        }
    }
    bytes.truncate(filled);
    Ok(())
}

/// The value of a record, if it is the one that the index means. The rows above have checksums; this only makes sure that the
/// right bytes are looked at.
fn checked<'a>(bytes: &'a [u8], key: &[u8], place: Place) -> Result<&'a [u8], StoreError> {
    let record = read_record(bytes).filter(|record| record.key == key && record.bytes() == bytes.len());
    match record.and_then(|record| record.value) {
        Some(value) => Ok(value),
        None => {
            let what = "the record there is not the one that was written";
            Err(damaged("reading", &segment_name(place.segment), u64::from(place.offset), what))
        }
    }
}

/// Reads the value of one key.
pub(super) fn read_value(file: &File, key: &[u8], place: Place) -> Result<Vec<u8>, StoreError> {
    let length = RECORD_HEADER + key.len() + place.value as usize;
    let mut bytes = Vec::new();
    read_some(file, u64::from(place.offset), length, length, &mut bytes, place)?;
    checked(&bytes, key, place).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_bytes_whatever_their_length() {
        let long = [b'b'; 40];
        let mut keys = [&b""[..], b"a", b"a\0", &long, &long[..SHORT], &long[..SHORT + 1], b"\xff"].map(KeyBytes::new);
        keys.sort();
        let mut expected = keys.clone().map(|key| key.bytes().to_vec());
        expected.sort();
        assert_eq!(keys.map(|key| key.bytes().to_vec()), expected);
    }

    #[test]
    fn an_entry_is_as_small_as_the_documentation_says() {
        assert_eq!(size_of::<KeyBytes>(), 24);
        assert_eq!(size_of::<Place>(), 12);
    }
}
