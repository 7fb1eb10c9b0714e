//! The end of the log: adding frames, syncing them, going on to the next segment. It never writes over anything but a mark and
//! zeros, never tries a failed write or sync again, and decides nothing about what is alive.
//!
//! **Room.** A frame that makes its file longer costs a sync of the file system's own journal besides its own. So zeros are
//! written ahead of the end, and the frames over them: then a sync has nothing but the frame to write. They are cut off before a
//! segment is sealed and when the store is closed. Zeros promise nothing: where they cannot be written the log does without. Behind
//! large frames it does without, too: writing everything twice would cost more than it saves.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{io, segment_name};
use super::format::{FRAME_HEADER, FrameHeader, Kind, PAYLOAD_MAX, SEGMENT_HEADER, SegmentHeader};
use super::{Options, Point};
use crate::store::StoreError;

/// Zeros that are written at once.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// The part of [`Options::ahead_bytes`] that a new segment begins with: most journals are small.
const AHEAD_MIN_PART: u64 = 16;
/// Bytes of a frame from which on no zeros are written behind it: those that wait share its sync, and what that costs is little
/// beside writing so much once more.
const AHEAD_FRAME_MAX: usize = 64 * 1024;

/// The log as its one writer knows it.
pub(super) struct Log {
    dir: PathBuf,
    folder: File,
    options: Options,
    /// The number of the segment that is written.
    pub(super) active: u32,
    pub(super) file: Arc<File>,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// Up to where the active segment is on stable storage.
    synced: u64,
    /// Up to where the active segment's file goes. Behind the end and its mark there are zeros.
    ready: u64,
    /// The lowest segment that is needed.
    pub(super) floor: u32,
}

/// A frame before it is written: room for its header, then records.
pub(super) fn empty_frame() -> Vec<u8> {
    vec![0; FRAME_HEADER as usize]
}

fn create(dir: &Path, number: u32) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(dir.join(segment_name(number))).map_err(io("making a segment"))
}

/// Opens a segment to go on writing it.
pub(super) fn reopen(dir: &Path, number: u32) -> Result<File, StoreError> {
    let path = dir.join(segment_name(number));
    OpenOptions::new().read(true).write(true).open(path).map_err(io("opening the last segment"))
}

impl Log {
    /// A log in a folder without segments. When this returns, the first one is on stable storage under its name.
    pub(super) fn create(dir: &Path, folder: File, options: Options) -> Result<Self, StoreError> {
        let file = Arc::new(create(dir, 1)?);
        let (end, active, floor) = (SEGMENT_HEADER, 1, 1);
        let log = Self { dir: dir.to_owned(), folder, options, active, file, end, synced: end, ready: end, floor };
        log.finish_segment(&log.file, SegmentHeader { number: active, floor })?;
        Ok(log)
    }

    /// Goes on with a log that was recovered and is on stable storage up to its end.
    pub(super) fn resume(dir: &Path, folder: File, options: Options, at: (u32, File, u64), floor: u32) -> Self {
        let (active, file, end) = at;
        let ready = file.metadata().map_or(end, |meta| meta.len());
        Self { dir: dir.to_owned(), folder, options, active, file: Arc::new(file), end, synced: end, ready, floor }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn reach(&self, point: Point) {
        self.options.reach(point);
    }

    /// A new segment's header and name, on stable storage.
    fn finish_segment(&self, file: &File, header: SegmentHeader) -> Result<(), StoreError> {
        self.reach(Point::SegmentMade);
        file.write_all_at(&header.encode(), 0).map_err(io("writing a segment's header"))?;
        self.reach(Point::HeaderWritten);
        file.sync_all().map_err(io("syncing a new segment"))?;
        self.reach(Point::HeaderSynced);
        self.folder.sync_all().map_err(io("syncing the store's folder"))?;
        self.reach(Point::NameSynced);
        Ok(())
    }

    /// Whether the next frame, of that many bytes, belongs into the next segment.
    pub(super) fn is_full(&self, frame: usize) -> bool {
        self.end > SEGMENT_HEADER && self.end + frame as u64 + FRAME_HEADER > self.options.segment_bytes
    }

    fn write(&mut self, kind: Kind, frame: &mut [u8]) -> Result<u64, StoreError> {
        let (header, payload) = frame.split_at_mut(FRAME_HEADER as usize);
        let too_large = || io("writing")(std::io::Error::other("the batch is larger than a segment may hold"));
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_MAX);
        let length = length.ok_or_else(too_large)?;
        // Everything before a place is written before it, so the place fits where the last one did.
        let synced = u32::try_from(self.synced).map_err(|_| too_large())?;
        let described =
            FrameHeader { kind, payload: length, payload_crc: crc32c::crc32c(payload), synced, floor: self.floor };
        header.copy_from_slice(&described.encode(self.active, self.end));
        let at = self.end;
        self.file.write_all_at(frame, at).map_err(io("writing"))?;
        Ok(at)
    }

    /// Writes a batch with one call, into the next segment when this one is full. Returns where it begins.
    ///
    /// # Errors
    /// [`StoreError`]; nothing may be written any more.
    pub(super) fn append(&mut self, frame: &mut [u8]) -> Result<u64, StoreError> {
        self.add(Kind::Batch, frame)
    }

    /// Says, in a frame that stays, that segments below `floor` are not needed any more. They may be removed after the next
    /// sync.
    pub(super) fn raise_floor(&mut self, floor: u32) -> Result<(), StoreError> {
        self.floor = floor;
        self.add(Kind::Floor, &mut empty_frame()).map(|_| ())
    }

    fn add(&mut self, kind: Kind, frame: &mut [u8]) -> Result<u64, StoreError> {
        let at = self.write(kind, frame)?;
        self.end = at + frame.len() as u64;
        self.reach(Point::FrameWritten);
        if frame.len() < AHEAD_FRAME_MAX {
            self.make_room()?;
        }
        Ok(at)
    }

    /// Writes zeros behind the end when the next mark or frame would make the file longer: as many as the segment has bytes,
    /// within limits. The next sync takes them along.
    fn make_room(&mut self) -> Result<(), StoreError> {
        let Options { segment_bytes, ahead_bytes, .. } = self.options;
        let wanted = (self.end + self.end.clamp(ahead_bytes / AHEAD_MIN_PART, ahead_bytes)).min(segment_bytes);
        if self.end + FRAME_HEADER <= self.ready || wanted <= self.ready {
            return Ok(());
        }
        self.ready = self.ready.max(self.end);
        while self.ready < wanted {
            let bytes = ZEROS.len().min(usize::try_from(wanted - self.ready).unwrap_or(usize::MAX));
            match self.file.write_all_at(&ZEROS[..bytes], self.ready) {
                Ok(()) => self.ready += bytes as u64,
                // What space is left is for frames.
                Err(error) if is_out_of_space(&error) => return Ok(()),
                Err(error) => return Err(io("writing zeros ahead")(error)),
            }
        }
        self.reach(Point::RoomMade);
        Ok(())
    }

    /// Cuts off the zeros behind the end, the mark included when it is there: a store that is closed is as long as what it holds.
    /// What stays is read as the end all the same.
    pub(super) fn give_room_back(&self) {
        let mark = if self.synced == self.end { FRAME_HEADER } else { 0 };
        if let Err(error) = self.file.set_len(self.end + mark) {
            tracing::debug!(%error, "The zeros behind the end of the log could not be cut off.");
        }
    }

    /// Everything written is on stable storage when this returns.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        if self.synced < self.end {
            self.file.sync_data().map_err(io("fdatasync"))?;
            self.synced = self.end;
            self.reach(Point::Synced);
        }
        Ok(())
    }

    /// Notes behind the last frame that it was synced, so that damage to it can never pass for a write that a crash cut off.
    /// The note itself is not synced and the next frame is written over it: a failure costs nothing but that sharpness, and
    /// whatever made it fail meets the next frame.
    pub(super) fn mark(&mut self) {
        match self.write(Kind::Mark, &mut empty_frame()) {
            Ok(_) => self.reach(Point::MarkWritten),
            Err(error) => tracing::debug!(%error, "The end of the log could not be marked as synced."),
        }
    }

    /// Goes on with the next segment, and returns the one that was left, its file and its length. The next one is on stable
    /// storage before this one is sealed, and the seal before anything is written behind it: so a missing segment is never
    /// taken for one that was not begun.
    pub(super) fn rotate(&mut self) -> Result<(u32, u64), StoreError> {
        let exhausted = || io("making a segment")(std::io::Error::other("there are no more segment numbers"));
        let number = self.active.checked_add(1).ok_or_else(exhausted)?;
        let file = Arc::new(create(&self.dir, number)?);
        self.finish_segment(&file, SegmentHeader { number, floor: self.floor })?;
        // A seal that came to the disk before what it seals would make a damaged segment of one that a crash cut off; and one that
        // came before the zeros behind it were gone would not be the last thing in its file, where it is looked for.
        self.sync()?;
        self.mark();
        self.file.set_len(self.end + FRAME_HEADER).map_err(io("cutting off the zeros behind a segment"))?;
        self.file.sync_all().map_err(io("syncing a segment's length"))?;
        self.reach(Point::RoomGivenBack);
        let at = self.write(Kind::Seal, &mut empty_frame())?;
        self.end = at + FRAME_HEADER;
        self.reach(Point::SealWritten);
        self.sync()?;
        let left = (self.active, self.end);
        (self.active, self.file) = (number, file);
        (self.end, self.synced, self.ready) = (SEGMENT_HEADER, SEGMENT_HEADER, SEGMENT_HEADER);
        Ok(left)
    }

    /// Removes a segment that is not needed. One that stays is known to be left over, and is removed at the next opening.
    pub(super) fn remove(&self, number: u32) {
        remove(&self.dir, number);
        self.reach(Point::SegmentRemoved);
    }

    /// Makes removals last. One that does not is harmless for the same reason.
    pub(super) fn removed(&self) {
        if let Err(error) = self.folder.sync_all() {
            tracing::warn!(dir = %self.dir.display(), %error, "The removal of segments could not be synced.");
        }
    }
}

fn is_out_of_space(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Removes a segment's file, if it can be.
pub(super) fn remove(dir: &Path, number: u32) {
    match std::fs::remove_file(dir.join(segment_name(number))) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), number, %error, "A segment that is not needed could not be removed.");
        }
        Ok(()) | Err(_) => {}
    }
}
