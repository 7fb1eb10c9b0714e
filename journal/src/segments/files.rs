//! The files of a store: their names, their list, and reading frames out of them. It never writes, and trusts no length that it
//! has not checked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{BadHeader, FRAME_HEADER, FRAME_MAGIC, FrameHeader, SEGMENT_HEADER, SegmentHeader};
use crate::store::StoreError;

/// How a segment's name ends.
const EXTENSION: &str = ".seg";
/// Digits of a segment's name.
const DIGITS: usize = 12;
/// The file that is locked by the process that has the store open. That it is there says which engine the store belongs to.
pub(super) const LOCK_FILE: &str = "segments.lock";
/// Bytes that are read of a segment at once: few enough to stay in a processor's cache until they are summed and taken in.
const AHEAD_BYTES: usize = 256 * 1024;
/// Bytes that looking for a frame behind damage reads at once.
const SEARCH_BYTES: usize = 64 * 1024;
/// How often a folder is listed again because compaction removed a segment meanwhile.
const LISTINGS: u32 = 100;

pub(super) fn segment_name(number: u32) -> String {
    format!("{number:0DIGITS$}{EXTENSION}")
}

/// The number of a segment's file; nothing for any other file.
fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(EXTENSION)?;
    let number = digits.parse().ok()?;
    // No other way of writing the number, and none below the first.
    (number > 0 && segment_name(number) == name).then_some(number)
}

/// A failed call to the system.
pub(super) fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io { operation, source }
}

/// Damage, with its place.
pub(super) fn damaged(operation: &'static str, file: &str, offset: u64, what: &str) -> StoreError {
    StoreError::Damaged { operation, detail: format!("{file} at byte {offset}: {what}") }
}

/// The segments that there are, with the length of each.
pub(super) type Listing = BTreeMap<u32, u64>;

/// Lists the segments of a folder. What else lies there is left alone.
pub(super) fn list(dir: &Path) -> Result<Listing, StoreError> {
    for _ in 0..LISTINGS {
        if let Some(found) = list_once(dir)? {
            return Ok(found);
        }
    }
    Err(io("listing the segments")(std::io::Error::other("they are replaced faster than they can be listed")))
}

/// Nothing when a segment was removed between its name and its length: the rest of the list is as old.
fn list_once(dir: &Path) -> Result<Option<Listing>, StoreError> {
    let mut found = Listing::new();
    for entry in fs::read_dir(dir).map_err(io("listing the segments"))? {
        let entry = entry.map_err(io("listing the segments"))?;
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(segment_number) else {
            if name != LOCK_FILE {
                tracing::warn!(file = %entry.path().display(), "A file that is no segment lies among the segments; it is left alone.");
            }
            continue;
        };
        match entry.metadata() {
            Ok(meta) => found.insert(number, meta.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("looking at a segment")(error)),
        };
    }
    Ok(Some(found))
}

/// Whether the folder holds, or was about to hold, a store of segments.
pub(crate) fn is_store(dir: &Path) -> std::io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                if name == LOCK_FILE || name.to_str().and_then(segment_number).is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole frame; [`Buffer::payload`] is its payload.
    Frame(FrameHeader),
    /// Nothing: the segment ends here, or holds only zeros from here on.
    End,
    /// Bytes that are no whole frame, and in what way.
    Bad(&'static str),
}

/// What was read of a segment last, and a little more: frames are read one after the other, and most are small.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    segment: u32,
    start: u64,
    /// Only so many bytes are filled.
    filled: usize,
    bytes: Vec<u8>,
    payload: Range<usize>,
}

impl Buffer {
    /// The payload of the frame that was found last.
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(self.payload.clone()).unwrap_or_default()
    }

    fn keep_payload(&mut self, offset: u64, length: usize) {
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        self.payload = at..at + length;
    }

    fn forget(&mut self) {
        self.filled = 0;
    }

    /// Those bytes of the segment, which has them. Bytes that are there already are not read again.
    fn view(&mut self, source: &Source<'_>, offset: u64, length: usize) -> Result<&[u8], StoreError> {
        let at = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| self.segment == source.number && *at <= self.filled);
        if let Some(at) = at.filter(|at| self.filled - at >= length) {
            return Ok(&self.bytes[at..at + length]);
        }
        let held = at.map_or(0, |at| {
            self.bytes.copy_within(at..self.filled, 0);
            self.filled - at
        });
        let left = usize::try_from(source.length - offset).unwrap_or(usize::MAX);
        let wanted = length.max(AHEAD_BYTES).min(left);
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
        // Nothing is held if the read fails.
        (self.segment, self.start, self.filled) = (source.number, offset, 0);
        source.read(&mut self.bytes[held..wanted], offset + held as u64)?;
        self.filled = wanted;
        Ok(&self.bytes[..length])
    }
}

/// A segment to read, of a length that does not change while it is read.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) number: u32,
    pub(super) file: &'a File,
    pub(super) length: u64,
}

impl Source<'_> {
    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), StoreError> {
        match self.file.read_exact_at(bytes, offset) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.damaged(offset, "the file became shorter while it was read"))
            }
            read => read.map_err(io("reading a segment")),
        }
    }

    pub(super) fn damaged(&self, offset: u64, what: &str) -> StoreError {
        damaged("reading the segments", &segment_name(self.number), offset, what)
    }

    /// The segment's header; nothing when the file is too short to hold anything else and does not hold that, which is how a
    /// crash leaves a segment that was being made.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the header is wrong though something was written behind it.
    pub(super) fn header(&self) -> Result<Option<SegmentHeader>, StoreError> {
        let unfinished = self.length <= SEGMENT_HEADER;
        if self.length < SEGMENT_HEADER {
            return Ok(None);
        }
        let mut bytes = [0; SEGMENT_HEADER as usize];
        self.read(&mut bytes, 0)?;
        match SegmentHeader::decode(&bytes) {
            Ok(header) if header.number != self.number => {
                Err(self.damaged(0, &format!("it is segment {} under another name", header.number)))
            }
            Ok(header) if header.floor > self.number => Err(self.damaged(0, "its header contradicts itself")),
            Ok(header) => Ok(Some(header)),
            Err(BadHeader::Format(other)) => Err(self.damaged(0, &format!("format {other} is unknown to this build"))),
            Err(BadHeader::Checksum) if unfinished => Ok(None),
            Err(BadHeader::Checksum) => Err(self.damaged(0, "the segment's header does not match its checksum")),
        }
    }

    /// The header of the frame at `offset`, if one was written there.
    fn frame_header(&self, offset: u64) -> Result<Option<FrameHeader>, StoreError> {
        let mut bytes = [0; FRAME_HEADER as usize];
        self.read(&mut bytes, offset)?;
        Ok(FrameHeader::decode(&bytes, self.number, offset))
    }

    /// The last frame's header if it is as short as a seal: whether the segment is sealed can be said without reading it.
    pub(super) fn last_header(&self) -> Result<Option<FrameHeader>, StoreError> {
        match self.length.checked_sub(FRAME_HEADER) {
            Some(offset) if offset >= SEGMENT_HEADER => self.frame_header(offset),
            Some(_) | None => Ok(None),
        }
    }

    /// Reads and checks the frame at `offset`. Its payload is then in the buffer. Memory is taken for it only after its header was
    /// found whole and the file found long enough.
    ///
    /// What was read ahead may be older than the file, which another process may be writing. So only a whole frame is believed of it;
    /// anything else is read once more.
    pub(super) fn frame(&self, offset: u64, buffer: &mut Buffer) -> Result<Found, StoreError> {
        match self.frame_in(offset, buffer)? {
            found @ Found::Frame(_) => Ok(found),
            Found::End | Found::Bad(_) => {
                buffer.forget();
                self.frame_in(offset, buffer)
            }
        }
    }

    fn frame_in(&self, offset: u64, buffer: &mut Buffer) -> Result<Found, StoreError> {
        buffer.payload = 0..0;
        let left = self.length.saturating_sub(offset);
        let header = if left < FRAME_HEADER {
            None
        } else {
            let bytes = buffer.view(self, offset, FRAME_HEADER as usize)?;
            bytes.try_into().ok().and_then(|bytes| FrameHeader::decode(bytes, self.number, offset))
        };
        let Some(header) = header else {
            return Ok(match (self.is_zero_from(offset)?, left < FRAME_HEADER) {
                (true, _) => Found::End,
                (false, true) => Found::Bad("the frame is cut off"),
                (false, false) => Found::Bad("the frame's header does not match its checksum"),
            });
        };
        if left < header.frame_bytes() {
            return Ok(Found::Bad("the frame is cut off"));
        }
        let payload = buffer.view(self, offset + FRAME_HEADER, header.payload as usize)?;
        if crc32c::crc32c(payload) != header.payload_crc {
            return Ok(Found::Bad("the frame does not match its checksum"));
        }
        buffer.keep_payload(offset + FRAME_HEADER, header.payload as usize);
        Ok(Found::Frame(header))
    }

    /// Whether nothing was ever written from that place on: the segment ends there, or all that follows is the zeros that are
    /// made ready for what is written next.
    fn is_zero_from(&self, mut offset: u64) -> Result<bool, StoreError> {
        let mut bytes = Vec::new();
        while offset < self.length {
            let left = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
            bytes.resize(SEARCH_BYTES.min(left), 0);
            self.read(&mut bytes, offset)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += bytes.len() as u64;
        }
        Ok(true)
    }

    /// Looks behind a bad frame for one that was written after the bad one had been synced. Where there is one, the bad frame
    /// was whole on stable storage once, and is damaged; without one it may be what a crash left of a write.
    pub(super) fn proves_synced(&self, bad: u64) -> Result<bool, StoreError> {
        let mut bytes = vec![0; SEARCH_BYTES];
        let mut offset = bad + 1;
        while offset + FRAME_HEADER <= self.length {
            let left = self.length - offset;
            let wanted = usize::try_from(left).map_or(SEARCH_BYTES, |left| left.min(SEARCH_BYTES));
            let chunk = &mut bytes[..wanted];
            self.read(chunk, offset)?;
            let headers = chunk.windows(FRAME_HEADER as usize).zip(offset..);
            for (window, at) in headers.filter(|(window, _)| window[..4] == FRAME_MAGIC) {
                let header = window.try_into().ok().and_then(|header| FrameHeader::decode(header, self.number, at));
                if header.is_some_and(|header| u64::from(header.synced) > bad) {
                    return Ok(true);
                }
            }
            // The next chunk begins with the first place that was not looked at.
            offset += wanted as u64 - (FRAME_HEADER - 1);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_a_segment_has_is_one() {
        assert_eq!(segment_number(&segment_name(1)), Some(1));
        assert_eq!(segment_number(&segment_name(u32::MAX)), Some(u32::MAX));
        for name in ["1.seg", "000000000000.seg", "+00000000001.seg", "000000000001.seg.bak", "004294967296.seg", "db"]
        {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
