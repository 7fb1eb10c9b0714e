//! Reading records where the index says that they are. It reads no index, and takes no length from a file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::block::Place;
use super::files::{damaged, io, segment_name};
use super::format::{RECORD_HEADER, read_record};
use crate::store::StoreError;

/// Bytes that a scan reads at once where records lie one after the other.
const WINDOW: usize = 64 * 1024;

/// What was read of a file last: keys that were written in order lie in the file in order.
#[derive(Debug, Default)]
pub(super) struct Window {
    segment: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The value of the record of that key at that place.
    pub(super) fn record(&mut self, file: &File, key: &[u8], place: Place) -> Result<&[u8], StoreError> {
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
