//! Reading a whole store: from the segments to the index. Used by the writer when it opens and by readers. It never writes: what
//! must be removed or cut is returned, for the writer to do.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::ahead::{self, APART_BYTES, Sealed};
use super::files::{Buffer, Found, Listing, Source, damaged, io, segment_name};
use super::format::{FRAME_HEADER, FrameHeader, Kind, Record, Records, SEGMENT_HEADER};
use super::index::{Index, Segment};
use crate::store::StoreError;

/// What a folder holds.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// The segment that frames are added to.
    pub(super) active: u32,
    /// Where its last whole frame ends.
    pub(super) end: u64,
    /// Why the bytes behind that are no frame; nothing when there are none.
    pub(super) torn: Option<&'static str>,
    /// The lowest segment that is needed.
    pub(super) floor: u32,
    /// Segments to remove: compacted ones that were not removed yet, and a new one that a crash left unfinished.
    pub(super) leftover: Vec<u32>,
}

fn open(dir: &Path, number: u32) -> Result<File, StoreError> {
    File::open(dir.join(segment_name(number))).map_err(|error| match error.kind() {
        ErrorKind::NotFound => damaged("opening a segment", &segment_name(number), 0, "the segment is missing"),
        _ => io("opening a segment")(error),
    })
}

/// Reads the store. Nothing when there is no segment, or only a first one that was never finished.
///
/// # Errors
/// [`StoreError::Damaged`] with file and offset of the first thing that no crash can have left.
pub(super) fn recover(dir: &Path, listing: &Listing) -> Result<Option<Recovered>, StoreError> {
    let Some((active, unborn)) = active_segment(dir, listing)? else { return Ok(None) };
    let file = open(dir, active)?;
    let source = Source { number: active, file: &file, length: length(&file)? };
    let Some(header) = source.header()? else {
        return Err(source.damaged(0, "the segment's header is missing though the one before is sealed"));
    };
    let mut buffer = Buffer::default();
    let tail = read_active(&source, header.floor, &mut buffer, &mut |_, _, _| Ok(()))?;
    let mut index = Index::default();
    // All of them before any is read: a reader keeps what a writer removes meanwhile.
    for number in tail.floor..active {
        let file = open(dir, number)?;
        let bytes = length(&file)?;
        index.segments.insert(number, Segment { file: Arc::new(file), bytes, live: 0 });
    }
    read_all_sealed(&mut index, &mut buffer)?;
    let reading = file.try_clone().map_err(io("opening a segment"))?;
    index.segments.insert(active, Segment { file: Arc::new(reading), bytes: tail.end, live: 0 });
    // Again, now that everything before it is known, and not beyond what was found good: a writer may be at work.
    let source = Source { length: tail.end, ..source };
    let again = read_active(&source, header.floor, &mut buffer, &mut |at, header, payload| {
        take(&mut index, &source, at, header, payload)
    })?;
    if again.end != tail.end {
        return Err(source.damaged(again.end, "the segment changed while it was read"));
    }
    let leftover = listing.range(..tail.floor).map(|(number, _)| *number).chain(unborn).collect();
    Ok(Some(Recovered { index, active, end: tail.end, torn: tail.torn, floor: tail.floor, leftover }))
}

fn length(file: &File) -> Result<u64, StoreError> {
    Ok(file.metadata().map_err(io("looking at a segment"))?.len())
}

/// Which segment is the last, and which file a crash left of making the next one. A new segment is finished before the one
/// before it is sealed, and nothing is written into it before that seal is synced. So an empty segment behind one without a
/// seal was never used.
fn active_segment(dir: &Path, listing: &Listing) -> Result<Option<(u32, Option<u32>)>, StoreError> {
    let Some((&last, &bytes)) = listing.last_key_value() else { return Ok(None) };
    if bytes > SEGMENT_HEADER {
        return Ok(Some((last, None)));
    }
    if !listing.contains_key(&(last - 1)) {
        let file = open(dir, last)?;
        let unfinished = Source { number: last, file: &file, length: bytes }.header()?.is_none();
        // The first of all, or an error about what is missing before it.
        return Ok((last > 1 || !unfinished).then_some((last, None)));
    }
    let file = open(dir, last - 1)?;
    let before = Source { number: last - 1, file: &file, length: length(&file)? };
    let sealed = before.last_header()?.is_some_and(|header| header.kind == Kind::Seal);
    Ok(Some(if sealed { (last, None) } else { (last - 1, Some(last)) }))
}

/// How far the active segment is good.
#[derive(Debug, Clone, Copy)]
struct Tail {
    /// Behind the last frame that stays.
    end: u64,
    floor: u32,
    torn: Option<&'static str>,
}

type Take<'a> = dyn FnMut(u64, &FrameHeader, &[u8]) -> Result<(), StoreError> + 'a;

/// Reads the frames of the segment that has no seal, up to where a crash may have cut a write off.
fn read_active(source: &Source<'_>, floor: u32, buffer: &mut Buffer, take: &mut Take<'_>) -> Result<Tail, StoreError> {
    let mut tail = Tail { end: SEGMENT_HEADER, floor, torn: None };
    let mut offset = tail.end;
    loop {
        match source.frame(offset, buffer)? {
            Found::Frame(header) => {
                take(offset, &header, buffer.payload())?;
                offset += header.frame_bytes();
                tail.floor = tail.floor.max(header.floor);
                match header.kind {
                    Kind::Batch | Kind::Floor => tail.end = offset,
                    // The next frame is written over it.
                    Kind::Mark => {}
                    Kind::Seal => {
                        let next = segment_name(source.number.saturating_add(1));
                        return Err(damaged("reading the segments", &next, 0, "the segment is missing"));
                    }
                }
            }
            Found::End => return Ok(tail),
            Found::Bad(what) if source.proves_synced(offset)? => return Err(source.damaged(offset, what)),
            Found::Bad(what) => return Ok(Tail { torn: Some(what), ..tail }),
        }
    }
}

/// Reads the segments that were synced and sealed before the next one was used: nothing in them may be wrong.
fn read_all_sealed(index: &mut Index, buffer: &mut Buffer) -> Result<(), StoreError> {
    let segments = index.segments.iter().map(|(number, segment)| (*number, Arc::clone(&segment.file), segment.bytes));
    let segments: Vec<Sealed> = segments.collect();
    let bytes: u64 = segments.iter().map(|(_, _, bytes)| bytes).sum();
    if bytes >= APART_BYTES && ahead::take_all(&segments, index)? {
        return Ok(());
    }
    take_all(&segments, index, buffer)
}

/// Takes what the segments hold into the index, with one thread.
pub(super) fn take_all(segments: &[Sealed], index: &mut Index, buffer: &mut Buffer) -> Result<(), StoreError> {
    segments.iter().try_for_each(|segment| take_one(segment, index, buffer))
}

/// Takes what one sealed segment holds into the index.
pub(super) fn take_one(segment: &Sealed, index: &mut Index, buffer: &mut Buffer) -> Result<(), StoreError> {
    let (number, file, length) = segment;
    let source = Source { number: *number, file, length: *length };
    records(segment, buffer, &mut |place, record, sum| {
        let value = record.value.map(<[u8]>::len);
        index.take(*number, place, record.key, value, sum).ok_or_else(|| beyond(&source, place))
    })
}

/// Shows each record of a sealed segment, with its place and the checksum of its value.
pub(super) fn records(
    (number, file, length): &Sealed,
    buffer: &mut Buffer,
    show: &mut dyn FnMut(u64, &Record<'_>, u32) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let source = Source { number: *number, file, length: *length };
    sealed_header(&source)?;
    let mut offset = SEGMENT_HEADER;
    while let ControlFlow::Continue((header, next)) = sealed_frame(&source, offset, buffer)? {
        records_of(&source, offset, &header, buffer.payload(), show)?;
        offset = next;
    }
    Ok(())
}

/// No place in a store is so far from the beginning of its segment.
pub(super) fn beyond(source: &Source<'_>, place: u64) -> StoreError {
    source.damaged(place, "a record lies beyond 4 GiB")
}

/// Makes sure that a segment which was sealed has its header.
fn sealed_header(source: &Source<'_>) -> Result<(), StoreError> {
    let missing = || source.damaged(0, "the segment's header is missing");
    source.header()?.map(drop).ok_or_else(missing)
}

/// The frame at that offset of a sealed segment, and where the next one is; an end where the seal is.
pub(super) fn sealed_frame(
    source: &Source<'_>,
    offset: u64,
    buffer: &mut Buffer,
) -> Result<ControlFlow<(), (FrameHeader, u64)>, StoreError> {
    match source.frame(offset, buffer)? {
        Found::Frame(header) if header.kind == Kind::Seal => {
            let end = offset + FRAME_HEADER;
            if end == source.length {
                Ok(ControlFlow::Break(()))
            } else {
                Err(source.damaged(end, "bytes behind the seal"))
            }
        }
        Found::Frame(header) => Ok(ControlFlow::Continue((header, offset + header.frame_bytes()))),
        Found::End => Err(source.damaged(offset, "the segment ends without its seal")),
        Found::Bad(what) => Err(source.damaged(offset, what)),
    }
}

/// Takes the records of a frame into the index.
fn take(
    index: &mut Index,
    source: &Source<'_>,
    offset: u64,
    header: &FrameHeader,
    payload: &[u8],
) -> Result<(), StoreError> {
    records_of(source, offset, header, payload, &mut |place, record, sum| {
        let value = record.value.map(<[u8]>::len);
        index.take(source.number, place, record.key, value, sum).ok_or_else(|| beyond(source, place))
    })
}

/// Shows the records of a frame, with the place of each and the checksum of its value.
fn records_of(
    source: &Source<'_>,
    offset: u64,
    header: &FrameHeader,
    payload: &[u8],
    show: &mut dyn FnMut(u64, &Record<'_>, u32) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if header.kind != Kind::Batch {
        return Ok(());
    }
    let start = offset + FRAME_HEADER;
    for record in Records::new(payload) {
        let record = record.map_err(|at| source.damaged(start + at as u64, "a record in a whole frame is cut off"))?;
        show(start + record.at as u64, &record, record.value.map_or(0, crc32c::crc32c))?;
    }
    Ok(())
}
