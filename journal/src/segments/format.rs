//! The bytes of segment files: the header of a segment, the header of a frame, the records in a frame. Pure; it reads no file
//! and never allocates from a length that is not checked yet.
//!
//! ```text
//! segment   magic 8 | format u32 | crc u32 | number u32 | floor u32 | zero 8
//! frame     magic 4 | crc u32 | payload crc u32 | payload bytes u32 | synced u32 | floor u32 | kind u8 | zero 7 | payload
//! record    key bytes u16 | value bytes u32, all ones for a delete | key | value
//! ```
//!
//! Numbers are little-endian. A frame's first checksum covers the segment's number, the frame's offset and the rest of its
//! header, so that a frame that stands anywhere but where it was written is none. The second covers the payload.

use crate::store::KEY_BYTES_MAX;

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: u64 = 32;
/// Bytes of a frame's header.
pub(super) const FRAME_HEADER: u64 = 32;
/// Bytes of a record beside its key and value.
pub(super) const RECORD_HEADER: usize = 6;
/// Bytes of a frame's payload at most: one batch. The writer collects 4 MiB and then at most one transaction more.
pub(super) const PAYLOAD_MAX: usize = 256 * 1024 * 1024;

/// The format that this build writes and reads.
const FORMAT: u32 = 1;
const SEGMENT_MAGIC: [u8; 8] = *b"LONGSEG\n";
/// What each frame begins with, so that frames can be found again behind damage.
pub(super) const FRAME_MAGIC: [u8; 4] = [0xf5, b'L', b'S', 0x1a];
/// The value length that means delete.
const DELETED: u32 = u32::MAX;

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Its number, as in its name.
    pub(super) number: u32,
    /// The lowest segment that was needed when it was made.
    pub(super) floor: u32,
}

/// Why bytes are no segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Another magic, or the checksum is wrong.
    Checksum,
    /// Whole, but of another format.
    Format(u32),
}

impl SegmentHeader {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0; SEGMENT_HEADER as usize];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.floor.to_le_bytes());
        let crc = segment_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER as usize]) -> Result<Self, BadHeader> {
        if bytes[..8] != SEGMENT_MAGIC || number(bytes, 12) != segment_crc(bytes) {
            return Err(BadHeader::Checksum);
        }
        match number(bytes, 8) {
            FORMAT => Ok(Self { number: number(bytes, 16), floor: number(bytes, 20) }),
            other => Err(BadHeader::Format(other)),
        }
    }
}

fn segment_crc(bytes: &[u8; SEGMENT_HEADER as usize]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A batch of records.
    Batch,
    /// No content: everything before it was synced when it was written. The next frame is written over it.
    Mark,
    /// No content: it says which segment is the lowest needed, and stays.
    Floor,
    /// No content: the segment ends here and the next one exists.
    Seal,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Mark => 2,
            Self::Floor => 3,
            Self::Seal => 4,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Batch),
            2 => Some(Self::Mark),
            3 => Some(Self::Floor),
            4 => Some(Self::Seal),
            _ => None,
        }
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) kind: Kind,
    /// Bytes of the payload.
    pub(super) payload: u32,
    /// Checksum of the payload.
    pub(super) payload_crc: u32,
    /// Up to where this segment was known to be on stable storage when the frame was written.
    pub(super) synced: u32,
    /// The lowest segment that is needed from this frame on.
    pub(super) floor: u32,
}

impl FrameHeader {
    /// Bytes of the whole frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER + u64::from(self.payload)
    }

    pub(super) fn encode(&self, segment: u32, offset: u64) -> [u8; FRAME_HEADER as usize] {
        let mut bytes = [0; FRAME_HEADER as usize];
        bytes[..4].copy_from_slice(&FRAME_MAGIC);
        bytes[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.synced.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.floor.to_le_bytes());
        bytes[24] = self.kind.byte();
        let crc = frame_crc(&bytes, segment, offset);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header, if these bytes are one that was written at that place.
    pub(super) fn decode(bytes: &[u8; FRAME_HEADER as usize], segment: u32, offset: u64) -> Option<Self> {
        if bytes[..4] != FRAME_MAGIC || number(bytes, 4) != frame_crc(bytes, segment, offset) {
            return None;
        }
        let kind = Kind::from_byte(bytes[24])?;
        let (payload_crc, payload) = (number(bytes, 8), number(bytes, 12));
        let limit = match kind {
            Kind::Batch => PAYLOAD_MAX,
            Kind::Mark | Kind::Floor | Kind::Seal => 0,
        };
        let header = Self { kind, payload, payload_crc, synced: number(bytes, 16), floor: number(bytes, 20) };
        (payload as usize <= limit && header.floor <= segment).then_some(header)
    }
}

fn frame_crc(bytes: &[u8; FRAME_HEADER as usize], segment: u32, offset: u64) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), &offset.to_le_bytes());
    crc32c::crc32c_append(place, &bytes[8..])
}

/// Bytes of a record.
pub(super) fn record_bytes(key: usize, value: usize) -> u64 {
    (RECORD_HEADER + key + value) as u64
}

/// Adds a record to a payload. Nothing when the key or the value is longer than may be.
pub(super) fn push_record(payload: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) -> Option<()> {
    let key_bytes = u16::try_from(key.len()).ok().filter(|_| key.len() <= KEY_BYTES_MAX)?;
    let value_bytes = match value {
        Some(value) => u32::try_from(value.len()).ok().filter(|_| value.len() <= PAYLOAD_MAX)?,
        None => DELETED,
    };
    payload.extend_from_slice(&key_bytes.to_le_bytes());
    payload.extend_from_slice(&value_bytes.to_le_bytes());
    payload.extend_from_slice(key);
    payload.extend_from_slice(value.unwrap_or_default());
    Some(())
}

/// One record in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Where it begins in the payload.
    pub(super) at: usize,
    pub(super) key: &'a [u8],
    /// Nothing for a delete.
    pub(super) value: Option<&'a [u8]>,
}

impl Record<'_> {
    /// Bytes that it takes in its payload.
    pub(super) fn bytes(&self) -> usize {
        RECORD_HEADER + self.key.len() + self.value.map_or(0, <[u8]>::len)
    }
}

/// The record at the beginning of these bytes. Nothing when they hold none that is whole.
pub(super) fn read_record(bytes: &[u8]) -> Option<Record<'_>> {
    let head = bytes.get(..RECORD_HEADER)?;
    let key_bytes = usize::from(u16::from_le_bytes([head[0], head[1]]));
    if key_bytes > KEY_BYTES_MAX {
        return None;
    }
    let value_start = RECORD_HEADER + key_bytes;
    let key = bytes.get(RECORD_HEADER..value_start)?;
    match number(head, 2) {
        DELETED => Some(Record { at: 0, key, value: None }),
        length => {
            let end = value_start.checked_add(usize::try_from(length).ok()?)?;
            Some(Record { at: 0, key, value: Some(bytes.get(value_start..end)?) })
        }
    }
}

/// The records of a payload, one after the other.
pub(super) struct Records<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub(super) const fn new(payload: &'a [u8]) -> Self {
        Self { payload, at: 0 }
    }
}

impl<'a> Iterator for Records<'a> {
    /// An error is where the bytes stop being records.
    type Item = Result<Record<'a>, usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.payload.get(self.at..).filter(|rest| !rest.is_empty())?;
        let at = self.at;
        match read_record(rest) {
            Some(record) => {
                self.at += record.bytes();
                Some(Ok(Record { at, ..record }))
            }
            None => {
                self.at = self.payload.len();
                Some(Err(at))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn frame() -> FrameHeader {
        FrameHeader { kind: Kind::Batch, payload: 77, payload_crc: 5, synced: 4_000, floor: 2 }
    }

    #[test]
    fn a_frame_is_one_only_where_it_was_written() {
        let bytes = frame().encode(3, 4_096);
        assert_eq!(FrameHeader::decode(&bytes, 3, 4_096), Some(frame()));
        for (segment, offset) in [(4, 4_096), (3, 4_095), (3, 0), (2, 4_096)] {
            assert_eq!(FrameHeader::decode(&bytes, segment, offset), None);
        }
    }

    #[test]
    fn headers_with_any_bit_flipped_are_none() {
        let (frame_bytes, segment) = (frame().encode(3, 40), SegmentHeader { number: 7, floor: 2 });
        for bit in 0..frame_bytes.len() * 8 {
            let mut bad = frame_bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bad, 3, 40), None, "bit {bit}");
            let mut bad = segment.encode();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), Err(BadHeader::Checksum), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
    }

    #[test]
    fn a_length_or_a_floor_that_cannot_be_makes_no_frame() {
        for impossible in [
            FrameHeader { payload: u32::try_from(PAYLOAD_MAX).unwrap() + 1, ..frame() },
            FrameHeader { kind: Kind::Mark, ..frame() },
            FrameHeader { kind: Kind::Seal, ..frame() },
            FrameHeader { floor: 4, ..frame() },
        ] {
            assert_eq!(FrameHeader::decode(&impossible.encode(3, 40), 3, 40), None);
        }
    }

    #[test]
    fn records_come_back_and_a_cut_one_is_said_to_be_cut() {
        let mut payload = Vec::new();
        push_record(&mut payload, b"a", Some(b"one")).unwrap();
        push_record(&mut payload, &[b'k'; KEY_BYTES_MAX], None).unwrap();
        push_record(&mut payload, b"", Some(b"")).unwrap();
        assert_eq!(push_record(&mut payload, &[b'k'; KEY_BYTES_MAX + 1], None), None);
        let records: Vec<_> = Records::new(&payload).map(Result::unwrap).collect();
        assert_eq!(records.len(), 3);
        assert_eq!((records[0].key, records[0].value), (&b"a"[..], Some(&b"one"[..])));
        assert_eq!((records[1].key.len(), records[1].value), (KEY_BYTES_MAX, None));
        let ends = [records[1].at, records[2].at, payload.len()];
        for cut in (1..payload.len()).filter(|cut| !ends.contains(cut)) {
            assert!(Records::new(&payload[..cut]).any(|record| record.is_err()), "cut at {cut}");
        }
    }

    #[test]
    fn a_key_longer_than_may_be_is_no_record() {
        let mut bytes = u16::try_from(KEY_BYTES_MAX + 1).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 2_000]);
        assert_eq!(read_record(&bytes), None);
    }
}
