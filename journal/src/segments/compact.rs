//! Compaction: giving back the space of what was replaced and deleted. It never touches the segment that is written, and never
//! removes a file itself: it says which ones may go after the next sync.
//!
//! It takes segments strictly from the oldest on. So nothing older can hold a key that a delete in the oldest segment speaks of,
//! and that delete can be dropped; and the records that are still alive can be written again at the end as ordinary frames.
//!
//! **The bound.** It begins when what is dead in sealed segments outweighs all that is alive, and a quarter of a segment. Each
//! batch pays for it with so many bytes that a round through the log takes no longer than writing a quarter of it anew. Once it
//! has caught up the files take at most twice the live bytes, the segment that is written and a quarter of one more.
//!
//! While nothing is written it goes further, the segment that was written included: then the files take at most half as much again as
//! the live bytes, and two MiB. A segment in which nothing is alive goes without being read.

use std::ops::ControlFlow;
use std::sync::{PoisonError, RwLock};

use super::files::{Buffer, Source};
use super::format::{FRAME_HEADER, FrameHeader, Kind, Records, SEGMENT_HEADER};
use super::index::{Index, Segment};
use super::log::Log;
use super::recover::sealed_frame;
use super::{Frame, write_frame};
use crate::store::StoreError;

/// Dead bytes for each live one from which compaction works.
const DEAD_PER_LIVE: u64 = 1;
/// The part of a segment that dead bytes must reach, so that a small store is not turned over for nothing.
const DEAD_MIN_PART: u64 = 4;
/// Bytes of old segments that a batch of that size pays for.
const READ_PER_WRITTEN: u64 = 4;

/// Live bytes for each dead one down to which a store that rests is compacted. More would move more than two bytes for each that it
/// frees.
const LIVE_PER_DEAD_AT_REST: u64 = 2;
/// The part of a segment, one MiB, that dead bytes of a store that rests must reach.
const DEAD_AT_REST_PART: u64 = 16;
/// Bytes of old segments that are moved at once while the store rests: a commit that comes meanwhile waits for some milliseconds.
const READ_AT_REST: u64 = 4 * 1024 * 1024;

/// Where compaction is.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// The segment being moved and where it goes on; nothing while there is no need.
    at: Option<(u32, u64)>,
    /// Segments that nothing needs once the next sync is done.
    pub(super) done: Vec<u32>,
    buffer: Buffer,
    frame: Frame,
}

/// Whether there is so much to gain that the oldest segment should be moved.
type IsDue = fn(&Index, &Log) -> bool;

fn is_due(index: &Index, log: &Log) -> bool {
    let dead = index.dead(log.floor, log.active);
    dead > index.live() * DEAD_PER_LIVE && dead > log.options().segment_bytes / DEAD_MIN_PART
}

fn is_due_at_rest(index: &Index, log: &Log) -> bool {
    let dead = index.dead(log.floor, log.active.saturating_add(1));
    dead * LIVE_PER_DEAD_AT_REST > index.live() && dead > log.options().segment_bytes / DEAD_AT_REST_PART
}

fn holds(is_due: IsDue, index: &RwLock<Index>, log: &Log) -> bool {
    is_due(&index.read().unwrap_or_else(PoisonError::into_inner), log)
}

impl Compaction {
    /// Does the part of the work that a batch of that many bytes pays for. One frame more than asked for at most: a frame is
    /// moved whole.
    ///
    /// # Errors
    /// [`StoreError`], damage of the old segment included: what is rotten must not be written again as if it were whole.
    pub(super) fn work(&mut self, index: &RwLock<Index>, log: &mut Log, written: u64) -> Result<(), StoreError> {
        self.go_on(index, log, log.options().compact_bytes.max(written * READ_PER_WRITTEN), is_due)
    }

    /// Does a part of the work that a store which rests has time for. Whether there was any; then a sync is needed.
    ///
    /// # Errors
    /// As for [`Self::work`].
    pub(super) fn rest(&mut self, index: &RwLock<Index>, log: &mut Log) -> Result<bool, StoreError> {
        if self.at.is_none() && !holds(is_due_at_rest, index, log) {
            return Ok(false);
        }
        if log.floor == log.active {
            super::rotate(index, log)?;
        }
        self.go_on(index, log, READ_AT_REST, is_due_at_rest)?;
        Ok(true)
    }

    fn go_on(
        &mut self,
        index: &RwLock<Index>,
        log: &mut Log,
        mut budget: u64,
        is_due: IsDue,
    ) -> Result<(), StoreError> {
        loop {
            let (number, offset) = match self.at {
                Some(at) => at,
                None if log.floor < log.active && holds(is_due, index, log) => (log.floor, SEGMENT_HEADER),
                None => {
                    // Most of the time there is nothing to do, and no memory is needed for it.
                    (self.buffer, self.frame) = (Buffer::default(), Frame::default());
                    return Ok(());
                }
            };
            if budget == 0 {
                self.at = Some((number, offset));
                return Ok(());
            }
            self.at = match self.step(index, log, number, offset)? {
                Some(next) => {
                    budget = budget.saturating_sub(next - offset);
                    Some((number, next))
                }
                // Only a segment that the index does not know would leave the floor where it is.
                None if log.floor <= number => return Ok(()),
                None => {
                    self.done.push(number);
                    None
                }
            };
        }
    }

    /// Moves what is alive of one frame. Returns where the next one is; nothing when the segment is done.
    fn step(
        &mut self,
        index: &RwLock<Index>,
        log: &mut Log,
        number: u32,
        offset: u64,
    ) -> Result<Option<u64>, StoreError> {
        let segment = {
            let index = index.read().unwrap_or_else(PoisonError::into_inner);
            index.segments.get(&number).cloned()
        };
        let Some(Segment { file, bytes, live }) = segment else { return Ok(None) };
        let source = Source { number, file: &file, length: bytes };
        if live > 0
            && let ControlFlow::Continue((header, next)) = sealed_frame(&source, offset, &mut self.buffer)?
        {
            self.carry_over(index, log, (number, offset), &header)?;
            return Ok(Some(next));
        }
        // In the log behind everything that was moved: whoever finds it finds that, too.
        if log.is_full(FRAME_HEADER as usize) {
            super::rotate(index, log)?;
        }
        log.raise_floor(number + 1)?;
        super::set_length(index, log);
        Ok(None)
    }

    fn carry_over(
        &mut self,
        index: &RwLock<Index>,
        log: &mut Log,
        (number, offset): (u32, u64),
        header: &FrameHeader,
    ) -> Result<(), StoreError> {
        if header.kind != Kind::Batch {
            return Ok(());
        }
        self.frame.begin();
        {
            let index = index.read().unwrap_or_else(PoisonError::into_inner);
            let start = offset + FRAME_HEADER;
            for record in Records::new(self.buffer.payload()).map_while(Result::ok) {
                let Some(value) = record.value else { continue };
                let at = start + record.at as u64;
                let place = index.place(record.key);
                if let Some(place) = place.filter(|place| place.segment == number && u64::from(place.offset) == at) {
                    self.frame.push(record.key, Some((value, place.sum)))?;
                }
            }
        }
        if self.frame.is_empty() { Ok(()) } else { write_frame(index, log, &mut self.frame).map(|_| ()) }
    }
}
