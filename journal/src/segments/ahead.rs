//! Reading many sealed segments with two threads: one reads and checks the frames, the other takes their records into the index. Both
//! go through the segments in order, and what is wrong is found at the same place as by one thread. It never writes.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, Scope};

use super::files::{Buffer, Source};
use super::format::{FrameHeader, Kind, SEGMENT_HEADER};
use super::index::Index;
use super::recover::{sealed_frame, sealed_header, take};
use crate::store::StoreError;

/// Bytes of segments from which a second thread is worth starting: opening takes some ten milliseconds then.
pub(super) const APART_BYTES: u64 = 64 * 1024 * 1024;

/// Pieces that wait for the index. One is being filled and one taken in besides, so there are four buffers, each as large as the
/// largest frame.
const WAITING: usize = 2;

/// A segment to read: number, file and length.
pub(super) type Sealed = (u32, Arc<File>, u64);

/// Frames of one segment that were found good, with their places, and the bytes that they are in.
struct Piece {
    segment: usize,
    frames: Vec<(u64, FrameHeader)>,
    buffer: Buffer,
}

/// Reads the segments, and takes what they hold into the index. Whether it did; not when there is no second thread to be had.
///
/// # Errors
/// [`StoreError::Damaged`] with the first place where something is wrong.
pub(super) fn take_all(segments: &[Sealed], index: &mut Index) -> Result<bool, StoreError> {
    thread::scope(|scope| match start(scope, segments) {
        Ok((pieces, emptied)) => take_pieces(segments, index, pieces, &emptied).map(|()| true),
        Err(_) => Ok(false),
    })
}

type Pieces = Receiver<Result<Piece, StoreError>>;

fn start<'scope>(scope: &'scope Scope<'scope, '_>, segments: &'scope [Sealed]) -> io::Result<(Pieces, Sender<Piece>)> {
    let (found, pieces) = sync_channel(WAITING);
    let (emptied, empty) = channel();
    let reading = move || {
        let mut reader = Reader { found, empty, piece: Piece::new(0, Buffer::default()) };
        if let Err(error) = reader.read(segments) {
            // Nobody listens any more when the index was refused something: that is the first error then.
            let _ = reader.found.send(Err(error));
        }
    };
    thread::Builder::new().name("journal-opening".to_owned()).spawn_scoped(scope, reading)?;
    Ok((pieces, emptied))
}

fn take_pieces(
    segments: &[Sealed],
    index: &mut Index,
    pieces: Pieces,
    emptied: &Sender<Piece>,
) -> Result<(), StoreError> {
    for piece in pieces {
        let piece = piece?;
        let source = source(&segments[piece.segment]);
        for (offset, header) in &piece.frames {
            take(index, &source, *offset, header, piece.buffer.payload_at(source.number, *offset, header))?;
        }
        // The reader has come to its end when it takes none back.
        let _ = emptied.send(piece);
    }
    Ok(())
}

struct Reader {
    found: SyncSender<Result<Piece, StoreError>>,
    empty: Receiver<Piece>,
    piece: Piece,
}

impl Piece {
    const fn new(segment: usize, buffer: Buffer) -> Self {
        Self { segment, frames: Vec::new(), buffer }
    }
}

impl Reader {
    /// Reads all of them, or as long as anybody takes what was found.
    fn read(&mut self, segments: &[Sealed]) -> Result<(), StoreError> {
        for (at, segment) in segments.iter().enumerate() {
            let source = source(segment);
            sealed_header(&source)?;
            self.piece.segment = at;
            let mut offset = SEGMENT_HEADER;
            while let Some(header) = self.next(&source, offset)? {
                self.piece.frames.push((offset, header));
                offset += header.frame_bytes();
            }
            if !self.hand_over(&source, offset) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next frame; nothing at the seal. Before anything is read over what was found, or found to be wrong behind it, that is handed
    /// over.
    fn next(&mut self, source: &Source<'_>, offset: u64) -> Result<Option<FrameHeader>, StoreError> {
        if !self.piece.frames.is_empty() {
            match source.frame_held(offset, &self.piece.buffer) {
                Some(header) if header.kind != Kind::Seal => return Ok(Some(header)),
                // The next one finds out that nobody takes them.
                Some(_) | None => drop(self.hand_over(source, offset)),
            }
        }
        match sealed_frame(source, offset, &mut self.piece.buffer)? {
            ControlFlow::Continue((header, _)) => Ok(Some(header)),
            ControlFlow::Break(()) => Ok(None),
        }
    }

    /// Gives away what was found, and goes on in another buffer. Whether anybody takes it.
    fn hand_over(&mut self, source: &Source<'_>, offset: u64) -> bool {
        let mut next = self.empty.try_recv().unwrap_or_else(|_| Piece::new(0, Buffer::default()));
        next.frames.clear();
        next.segment = self.piece.segment;
        self.piece.buffer.go_on_in(&mut next.buffer, source.number, offset);
        self.found.send(Ok(std::mem::replace(&mut self.piece, next))).is_ok()
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
