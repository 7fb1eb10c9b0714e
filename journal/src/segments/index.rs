//! The index in memory: which record of which segment holds a key, the checksum of its value, and how much of each segment is still
//! alive. It reads and writes no file but to fetch the record that it points at. What it takes is said in `places.rs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use super::block::Place;
use super::fetch::Window;
use super::files::{damaged, segment_name};
use super::format::record_bytes;
use super::places::{Places, Range};
use crate::store::{StoreError, Visit};

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
    places: Places,
    pub(super) segments: BTreeMap<u32, Segment>,
}

impl Index {
    pub(super) fn place(&self, key: &[u8]) -> Option<Place> {
        self.places.get(key)
    }

    /// Takes in a record that begins at that offset of a segment, with its key, the length of its value if it has one, and the checksum
    /// of that. Nothing when the offset is beyond what a segment may have.
    pub(super) fn take(&mut self, segment: u32, offset: u64, key: &[u8], value: Option<usize>, sum: u32) -> Option<()> {
        let bytes = |value: usize| record_bytes(key.len(), value);
        let old = match value {
            Some(value) => {
                let (offset, length) = (u32::try_from(offset).ok()?, u32::try_from(value).ok()?);
                if let Some(segment) = self.segments.get_mut(&segment) {
                    segment.live += bytes(value);
                }
                self.places.insert(key, Place { segment, offset, value: length, sum })
            }
            None => self.places.remove(key),
        };
        if let Some(old) = old
            && let Some(segment) = self.segments.get_mut(&old.segment)
        {
            segment.live = segment.live.saturating_sub(bytes(old.value as usize));
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
        let mut fetching = Fetching { window: Window::default(), visit };
        self.places.visit(from, to, |key, place| {
            fetching.fetch(self.segments.get(&place.segment).map(|segment| segment.file.as_ref()), key, place)
        })
    }

    /// Visits every key, in order, with the checksum of its value.
    pub(super) fn checksums(&self, visit: &mut dyn FnMut(&[u8], u32)) {
        self.places.each(|key, place| visit(key, place.sum));
    }

    /// A range as it is now: whatever is written or compacted later does not change it. It takes no more memory than `places.rs`
    /// says, until rows of it are written: then a part of the index is there twice.
    pub(super) fn range(&self, from: &[u8], to: &[u8]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        if from < to {
            snapshot.places = self.places.range(from, to);
            let files = self.segments.iter().map(|(number, segment)| (*number, Arc::clone(&segment.file)));
            snapshot.files.extend(files);
        }
        snapshot
    }
}

/// Keys and places of one moment, and the files that they are in; a file that is removed meanwhile stays readable.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    places: Range,
    files: BTreeMap<u32, Arc<File>>,
}

impl Snapshot {
    /// Visits every key with its value, until told to stop.
    pub(super) fn visit(&self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut fetching = Fetching { window: Window::default(), visit };
        self.places.visit(|key, place| fetching.fetch(self.files.get(&place.segment).map(Arc::as_ref), key, place))
    }
}

/// Reads the values of keys as they come.
struct Fetching<'a, 'b> {
    window: Window,
    visit: &'a mut Visit<'b>,
}

impl Fetching<'_, '_> {
    /// Reads one value and visits it. Whether to go on.
    fn fetch(&mut self, file: Option<&File>, key: &[u8], place: Place) -> Result<bool, StoreError> {
        let missing = || damaged("reading", &segment_name(place.segment), u64::from(place.offset), "it is gone");
        let value = self.window.record(file.ok_or_else(missing)?, key, place)?;
        Ok((self.visit)(key, value).is_continue())
    }
}
