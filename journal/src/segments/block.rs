//! Rows whose keys differ in nothing but the lower seven bits of their last byte, side by side: what makes the index small. Pure.
//!
//! A row takes 12 bytes here, and its key takes none: a bit says that it is there. Messages are numbered one after the other, so
//! their blocks are full.

/// The bits of a key's last byte that differ within a block.
pub(super) const SLOT_BITS: u8 = 0x7f;

/// Bits of an offset in a block's row. A segment has as many bytes; only a batch that is larger than a segment goes beyond.
const OFFSET_BITS: u32 = 24;
/// Bits of a value's length in a block's row: four times what a message may have.
const VALUE_BITS: u32 = 20;
/// Bits of a segment's number in a block's row, counted from the block's first one: 16 TiB of segments. They lie above the others.
const SEGMENT_BITS: u32 = 64 - OFFSET_BITS - VALUE_BITS;

/// Where a record is, and what its value is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    /// Where the record begins in the segment.
    pub(super) offset: u32,
    /// Bytes of the value.
    pub(super) value: u32,
    /// CRC32C of the value.
    pub(super) sum: u32,
}

/// Place and checksum of one row, in three words.
type Packed = [u32; 3];

/// The rows of a block that are there.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// A bit for each slot.
    present: [u64; 2],
    /// What segments are counted from.
    segment: u32,
    /// One for each bit, in the order of the slots.
    rows: Vec<Packed>,
}

impl Block {
    /// A block without rows, for places from that segment on.
    pub(super) const fn new(segment: u32) -> Self {
        Self { present: [0; 2], segment, rows: Vec::new() }
    }

    /// Whether a block can hold that place.
    pub(super) fn fits(&self, place: &Place) -> bool {
        let segment = place.segment.checked_sub(self.segment);
        place.offset >> OFFSET_BITS == 0
            && place.value >> VALUE_BITS == 0
            && segment.is_some_and(|segment| segment >> SEGMENT_BITS == 0)
    }

    fn pack(&self, place: &Place) -> Packed {
        let segment = place.segment - self.segment;
        let low = segment << OFFSET_BITS;
        let high = (segment >> (32 - OFFSET_BITS)) << VALUE_BITS;
        [low | place.offset, high | place.value, place.sum]
    }

    fn unpack(&self, [low, high, sum]: Packed) -> Place {
        let segment = (low >> OFFSET_BITS) | ((high >> VALUE_BITS) << (32 - OFFSET_BITS));
        let below = |word: u32, bits: u32| word & ((1 << bits) - 1);
        Place { segment: self.segment + segment, offset: below(low, OFFSET_BITS), value: below(high, VALUE_BITS), sum }
    }

    /// Whether the slot is taken, and where its row is or would be.
    fn find(&self, slot: u8) -> (bool, usize) {
        let (word, bit) = (usize::from(slot >> 6), 1_u64 << (slot & 63));
        let before = (self.present[word] & (bit - 1)).count_ones();
        let before = if word == 0 { before } else { before + self.present[0].count_ones() };
        (self.present[word] & bit != 0, before as usize)
    }

    pub(super) fn get(&self, slot: u8) -> Option<Place> {
        let (taken, at) = self.find(slot);
        taken.then(|| self.unpack(self.rows[at]))
    }

    /// Sets the row of a slot to a place that fits. Returns what was there.
    pub(super) fn put(&mut self, slot: u8, place: &Place) -> Option<Place> {
        debug_assert!(self.fits(place));
        let (packed, (taken, at)) = (self.pack(place), self.find(slot));
        if taken {
            let old = std::mem::replace(&mut self.rows[at], packed);
            return Some(self.unpack(old));
        }
        self.present[usize::from(slot >> 6)] |= 1 << (slot & 63);
        self.rows.insert(at, packed);
        None
    }

    pub(super) fn remove(&mut self, slot: u8) -> Option<Place> {
        let (taken, at) = self.find(slot);
        if !taken {
            return None;
        }
        self.present[usize::from(slot >> 6)] &= !(1 << (slot & 63));
        let old = self.rows.remove(at);
        if self.rows.len() <= self.rows.capacity() / 4 {
            self.rows.shrink_to(self.rows.capacity() / 2);
        }
        Some(self.unpack(old))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.present[0] | self.present[1] == 0
    }

    /// The rows with their slots, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, Place)> {
        let mut left = self.present;
        let slots = std::iter::from_fn(move || {
            let word = if left[0] != 0 { 0 } else { 1 };
            let bit = left[word].trailing_zeros();
            left[word] &= left[word].wrapping_sub(1);
            // A word has 64 bits, so both numbers are small.
            (bit < 64).then_some((word as u8) << 6 | bit as u8)
        });
        slots.zip(self.rows.iter().map(|row| self.unpack(*row)))
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.rows.capacity() * size_of::<Packed>()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn place(number: u32) -> Place {
        Place { segment: 7 + number % 3, offset: number * 1_000, value: number, sum: number.wrapping_mul(0x9e37_79b9) }
    }

    #[test]
    fn a_block_does_what_a_map_of_its_slots_does() {
        let (mut block, mut model) = (Block::new(7), BTreeMap::new());
        // Full, then thinned out, in an order in which every slot is put and removed several times.
        for step in 0..5_000_u32 {
            let slot = u8::try_from(step.wrapping_mul(2_654_435_761) >> 25).unwrap();
            if step.wrapping_mul(0x85eb_ca6b) >> 30 > step / 2_000 {
                assert_eq!(block.put(slot, &place(step)), model.insert(slot, place(step)));
            } else {
                assert_eq!(block.remove(slot), model.remove(&slot));
            }
            assert_eq!(block.get(slot), model.get(&slot).copied());
            assert_eq!(block.is_empty(), model.is_empty());
        }
        assert!(model.len() > 20, "the history leaves something");
        assert!(block.iter().eq(model.into_iter()));
    }

    #[test]
    fn the_largest_place_that_fits_comes_back_and_a_larger_one_does_not_fit() {
        let mut block = Block::new(5);
        let largest = Place {
            segment: 5 + (1 << SEGMENT_BITS) - 1,
            offset: (1 << OFFSET_BITS) - 1,
            value: (1 << VALUE_BITS) - 1,
            sum: u32::MAX,
        };
        assert!(block.fits(&largest));
        assert_eq!((block.put(127, &largest), block.get(127)), (None, Some(largest)));
        for larger in [
            Place { segment: largest.segment + 1, ..largest },
            Place { segment: 4, ..largest },
            Place { offset: largest.offset + 1, ..largest },
            Place { value: largest.value + 1, ..largest },
        ] {
            assert!(!block.fits(&larger));
        }
    }

    #[test]
    fn a_full_block_takes_twelve_bytes_a_row_and_gives_memory_back() {
        let mut block = Block::new(0);
        for slot in 0..128 {
            block.put(slot, &place(u32::from(slot)));
        }
        assert!(block.bytes() <= 128 * 12 + 48, "{}", block.bytes());
        for slot in 0..120 {
            block.remove(slot);
        }
        assert!(block.bytes() <= 32 * 12 + 48, "{}", block.bytes());
    }
}
