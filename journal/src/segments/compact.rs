//! Compaction: giving back the space of what was replaced and deleted. It never touches the segment that is written, and never
//! removes a file itself: it says which ones may go after the next sync.
//!
//! It takes segments strictly from the oldest on. So nothing older can hold a key that a delete in the oldest segment speaks of,
//! and that delete can be dropped; and the records that are still alive can be written again at the end as ordinary frames.
//!
//! **The bound.** It begins when what is dead in sealed segments outweighs all that is alive, and a quarter of a segment. Each
//! batch pays for it with so many bytes that a round through the log takes no longer than writing a quarter of it anew. Once it
//! has caught up the files take at most twice the live bytes, the segment that is written and a quarter of one more.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use super::files::Source;
use super::format::{FRAME_HEADER, FrameHeader, Kind, Record, Records, SEGMENT_HEADER, push_record};
use super::index::Index;
use super::log::{Log, empty_frame};
use super::recover::sealed_frame;
use super::{KEPT_BYTES, write_frame};
use crate::store::StoreError;

/// Dead bytes for each live one from which compaction works.
const DEAD_PER_LIVE: u64 = 1;
/// The part of a segment that dead bytes must reach, so that a small store is not turned over for nothing.
const DEAD_MIN_PART: u64 = 4;
/// Bytes of old segments that a batch of that size pays for.
const READ_PER_WRITTEN: u64 = 4;

/// Where compaction is.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// The segment being moved and where it goes on; nothing while there is no need.
    at: Option<(u32, u64)>,
    /// Segments that nothing needs once the next sync is done.
    pub(super) done: Vec<u32>,
    payload: Vec<u8>,
}

impl Compaction {
    /// Whether there is so much to gain that the oldest segment should be moved.
    fn is_due(index: &RwLock<Index>, log: &Log) -> bool {
        let index = index.read().unwrap_or_else(PoisonError::into_inner);
        let dead = index.dead(log.floor, log.active);
        dead > index.live() * DEAD_PER_LIVE && dead > log.options().segment_bytes / DEAD_MIN_PART
    }

    /// Does the part of the work that a batch of that many bytes pays for. One frame more than asked for at most: a frame is
    /// moved whole.
    ///
    /// # Errors
    /// [`StoreError`], damage of the old segment included: what is rotten must not be written again as if it were whole.
    pub(super) fn work(&mut self, index: &RwLock<Index>, log: &mut Log, written: u64) -> Result<(), StoreError> {
        if self.payload.capacity() > KEPT_BYTES {
            self.payload = Vec::new();
        }
        let mut budget = log.options().compact_bytes.max(written * READ_PER_WRITTEN);
        loop {
            let (number, offset) = match self.at {
                Some(at) => at,
                None if Self::is_due(index, log) => (log.floor, SEGMENT_HEADER),
                None => return Ok(()),
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
            index.segments.get(&number).map(|segment| (Arc::clone(&segment.file), segment.bytes))
        };
        let Some((file, length)) = segment else { return Ok(None) };
        let source = Source { number, file: &file, length };
        match sealed_frame(&source, offset, &mut self.payload)? {
            ControlFlow::Continue((header, next)) => {
                self.carry_over(index, log, (number, offset), &header)?;
                Ok(Some(next))
            }
            ControlFlow::Break(()) => {
                // In the log behind everything that was moved: whoever finds it finds that, too.
                let floor = number + 1;
                if log.is_full(FRAME_HEADER as usize) {
                    super::rotate(index, log)?;
                }
                log.raise_floor(floor)?;
                super::set_length(index, log);
                Ok(None)
            }
        }
    }

    fn carry_over(
        &self,
        index: &RwLock<Index>,
        log: &mut Log,
        (number, offset): (u32, u64),
        header: &FrameHeader,
    ) -> Result<(), StoreError> {
        if header.kind != Kind::Batch {
            return Ok(());
        }
        let mut frame = empty_frame();
        {
            let index = index.read().unwrap_or_else(PoisonError::into_inner);
            let start = offset + FRAME_HEADER;
            let alive = |record: &Record<'_>| {
                let place = index.place(record.key);
                record.value.is_some()
                    && place.is_some_and(|place| {
                        place.segment == number && u64::from(place.offset) == start + record.at as u64
                    })
            };
            for record in Records::new(&self.payload).map_while(Result::ok).filter(alive) {
                // It was within the limits when it was written first.
                let _ = push_record(&mut frame, record.key, record.value);
            }
        }
        if frame.len() as u64 > FRAME_HEADER { write_frame(index, log, &mut frame).map(|_| ()) } else { Ok(()) }
    }
}
