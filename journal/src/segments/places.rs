//! The map from keys to places: blocks where keys follow one another, single rows otherwise. It knows no files, and no rows beyond
//! their keys' bytes.
//!
//! A key of nine bytes or more belongs into the block of all keys that share with it everything but the lower seven bits of the last
//! byte. The block is made when the second such key comes. Blocks never overlap in the order of keys, so reading
//! in order is going through blocks and single rows at the same time.
//!
//! **Memory.** A row in a full block takes 13 to 14 bytes: 12 for its place and checksum, and its part of the block's 80, of
//! the block's own key and of half-empty nodes. A single row takes 75 to 85, and the length of its key if that is over 22 bytes.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

use super::block::{Block, Place, SLOT_BITS};
use super::blocks::Blocks;

/// Bytes of a key that need no allocation of their own.
const SHORT: usize = 22;
/// Bytes of the shortest key that may belong to a block: a number of eight bytes, and before it what it counts. A block of shorter
/// keys would cover a large part of all keys, and no block may be within another.
const BLOCK_KEY_MIN: usize = 9;

/// A key, small ones without an allocation.
#[derive(Debug, Clone)]
pub(super) enum KeyBytes {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl KeyBytes {
    fn new(key: &[u8]) -> Self {
        match u8::try_from(key.len()) {
            Ok(length) if key.len() <= SHORT => {
                let mut bytes = [0; SHORT];
                bytes[..key.len()].copy_from_slice(key);
                Self::Short(length, bytes)
            }
            _ => Self::Long(key.into()),
        }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Short(length, bytes) => &mut bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for KeyBytes {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Short(length, bytes), Self::Short(other_length, other_bytes)) => {
                length == other_length && words(bytes) == words(other_bytes)
            }
            (Self::Short(..) | Self::Long(_), Self::Short(..) | Self::Long(_)) => self.bytes() == other.bytes(),
        }
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // What is behind a short key are zeros: of two that are alike as far as one goes, the shorter is the lower.
            (Self::Short(length, bytes), Self::Short(other_length, other_bytes)) => {
                let ([a, b, c], [other_a, other_b, other_c]) = (words(bytes), words(other_bytes));
                a.cmp(&other_a).then(b.cmp(&other_b)).then(c.cmp(&other_c)).then(length.cmp(other_length))
            }
            (Self::Short(..) | Self::Long(_), Self::Short(..) | Self::Long(_)) => self.bytes().cmp(other.bytes()),
        }
    }
}

/// The bytes of a short key as numbers that compare as they do; the last two overlap.
#[inline]
const fn words(bytes: &[u8; SHORT]) -> [u64; 3] {
    let b = bytes;
    [
        u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        u64::from_be_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        u64::from_be_bytes([b[14], b[15], b[16], b[17], b[18], b[19], b[20], b[21]]),
    ]
}

/// The base of the block that a key belongs to.
pub(super) fn base_of(key: &[u8]) -> KeyBytes {
    let mut base = KeyBytes::new(key);
    if let Some(last) = base.bytes_mut().last_mut() {
        *last &= !SLOT_BITS;
    }
    base
}

/// Whether a key belongs to the block with that base. Most keys of other blocks differ in their first or their last byte.
#[inline]
pub(super) fn is_of(base: &[u8], key: &[u8]) -> bool {
    let (Some((base_last, base)), Some((key_last, key))) = (base.split_last(), key.split_last()) else { return false };
    *base_last == key_last & !SLOT_BITS && base.first() == key.first() && base == key
}

/// The place of a key in its block.
fn slot_of(key: &[u8]) -> u8 {
    key.last().map_or(0, |last| last & SLOT_BITS)
}

/// Whether a key lies between the lowest and the highest key of the block with that base, or extends one of the block's keys.
fn is_within(base: &[u8], key: &[u8]) -> bool {
    let Some((low, before)) = base.split_last() else { return false };
    key.len() >= base.len() && key.starts_with(before) && key[before.len()] & !SLOT_BITS == *low
}

/// Keys and places.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// By the lowest key that each could hold.
    blocks: Blocks,
    singles: BTreeMap<KeyBytes, Place>,
    /// A row may be a single one although its block is there: its place did not fit into the block.
    misfits: bool,
}

impl Places {
    pub(super) fn get(&self, key: &[u8]) -> Option<Place> {
        if let Some(block) = self.blocks.get(key) {
            let found = block.get(slot_of(key));
            if found.is_some() || !self.misfits {
                return found;
            }
        }
        self.singles.get(key).copied()
    }

    /// Sets the place of a key. Returns the one before.
    pub(super) fn insert(&mut self, key: &[u8], place: Place) -> Option<Place> {
        if let Some(block) = self.blocks.get_mut(key) {
            if block.fits(&place) {
                let old = Arc::make_mut(block).put(slot_of(key), &place);
                return if old.is_none() && self.misfits { self.singles.remove(key) } else { old };
            }
            let old = self.remove(key);
            self.misfits = true;
            self.singles.insert(KeyBytes::new(key), place);
            return old;
        }
        if let Some(single) = self.singles.get_mut(key) {
            return Some(std::mem::replace(single, place));
        }
        if !self.begin_block(key, place) {
            self.singles.insert(KeyBytes::new(key), place);
        }
        None
    }

    /// Puts a new key and its neighbours into a block of their own, if it has a neighbour and the block overlaps no other.
    fn begin_block(&mut self, key: &[u8], place: Place) -> bool {
        let Some(last) = key.len().checked_sub(1).filter(|_| key.len() >= BLOCK_KEY_MIN) else { return false };
        let (base, mut end) = (base_of(key), KeyBytes::new(key));
        end.bytes_mut()[last] |= SLOT_BITS;
        let is_alike = |other: &KeyBytes| other.bytes().len() == key.len() && is_within(base.bytes(), other.bytes());
        let below = (Bound::Included(base.bytes()), Bound::Excluded(key));
        let above = (Bound::Excluded(key), Bound::Included(end.bytes()));
        let before = self.singles.range::<[u8], _>(below).next_back();
        let after = self.singles.range::<[u8], _>(above).next();
        if !before.into_iter().chain(after).any(|(other, _)| is_alike(other)) || self.is_in_the_way(&base) {
            return false;
        }
        let around = (Bound::Included(base.bytes()), Bound::Included(end.bytes()));
        let neighbours = self.singles.range::<[u8], _>(around).filter(|(other, _)| is_alike(other));
        let mut rows: Vec<(KeyBytes, Place)> = neighbours.map(|(other, place)| (other.clone(), *place)).collect();
        let first = rows.iter().map(|(_, place)| place.segment).min();
        let mut block = Block::new(first.map_or(place.segment, |first| first.min(place.segment)));
        rows.retain(|(_, place)| block.fits(place));
        if rows.is_empty() || !block.fits(&place) {
            return false;
        }
        for (other, place) in &rows {
            self.singles.remove(other.bytes());
            block.put(slot_of(other.bytes()), place);
        }
        block.put(slot_of(key), &place);
        // Those that do not fit stay where they are.
        self.misfits |= self.singles.range::<[u8], _>(around).any(|(other, _)| is_alike(other));
        self.blocks.insert(base, block);
        true
    }

    /// Whether a block with that base would be within another one, or another one within it.
    fn is_in_the_way(&self, base: &KeyBytes) -> bool {
        let base = base.bytes();
        let before = self.blocks.range((Bound::Unbounded, Bound::Excluded(base))).next_back();
        let after = self.blocks.range((Bound::Included(base), Bound::Unbounded)).next();
        before.is_some_and(|(before, _)| is_within(before.bytes(), base))
            || after.is_some_and(|(after, _)| is_within(base, after.bytes()))
    }

    /// Removes a key. Returns its place.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Place> {
        let Some(block) = self.blocks.get_mut(key) else { return self.singles.remove(key) };
        if block.get(slot_of(key)).is_none() {
            return if self.misfits { self.singles.remove(key) } else { None };
        }
        let block = Arc::make_mut(block);
        let old = block.remove(slot_of(key));
        if block.is_empty() {
            self.blocks.remove(&base_of(key));
        }
        old
    }

    /// A range as it is now, whatever changes later: 32 bytes for each block and 40 for each single row.
    pub(super) fn range(&self, from: &[u8], to: &[u8]) -> Range {
        let (blocks, singles) = self.within(from, to);
        Range {
            from: from.to_vec(),
            to: to.to_vec(),
            blocks: blocks.map(|(base, block)| (base.clone(), Arc::clone(block))).collect(),
            singles: singles.map(|(key, place)| (key.clone(), *place)).collect(),
        }
    }

    fn within(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> (impl Iterator<Item = (&KeyBytes, &Arc<Block>)>, impl Iterator<Item = (&KeyBytes, &Place)>) {
        // An empty range; the map does not take one that ends before it begins.
        let to = to.max(from);
        // The block that holds `from` begins before it.
        let up_to = (Bound::Unbounded, Bound::Included(from));
        let first = self.blocks.range(up_to).next_back();
        let first = first.filter(|(base, _)| is_within(base.bytes(), from)).map_or(from, |(base, _)| base.bytes());
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let blocks = self.blocks.range((Bound::Included(first), Bound::Unbounded));
        let end = to.to_vec();
        (blocks.take_while(move |(base, _)| base.bytes() < &end[..]), self.singles.range::<[u8], _>(bounds))
    }

    /// Goes through all keys, lowest first.
    pub(super) fn each(&self, mut visit: impl FnMut(&[u8], Place)) {
        let blocks = self.blocks.iter().map(|(base, block)| (base.bytes(), block.as_ref()));
        let singles = self.singles.iter().map(|(key, place)| (key.bytes(), *place));
        let every = |key: &[u8], place: Place| {
            visit(key, place);
            Ok::<_, Infallible>(true)
        };
        let Ok(()) = merge(blocks, singles, (&[], None), every);
    }

    /// Goes through the keys of a range, lowest first, until told to stop. The keys must not change meanwhile, which borrowing
    /// them sees to.
    pub(super) fn visit<E>(
        &self,
        from: &[u8],
        to: &[u8],
        visit: impl FnMut(&[u8], Place) -> Result<bool, E>,
    ) -> Result<(), E> {
        let (blocks, singles) = self.within(from, to);
        let blocks = blocks.map(|(base, block)| (base.bytes(), block.as_ref()));
        let singles = singles.map(|(key, place)| (key.bytes(), *place));
        merge(blocks, singles, (from, Some(to)), visit)
    }
}

/// A range of one moment.
#[derive(Debug, Default)]
pub(super) struct Range {
    from: Vec<u8>,
    to: Vec<u8>,
    blocks: Vec<(KeyBytes, Arc<Block>)>,
    singles: Vec<(KeyBytes, Place)>,
}

impl Range {
    /// As [`Places::visit`].
    pub(super) fn visit<E>(&self, visit: impl FnMut(&[u8], Place) -> Result<bool, E>) -> Result<(), E> {
        let blocks = self.blocks.iter().map(|(base, block)| (base.bytes(), block.as_ref()));
        let singles = self.singles.iter().map(|(key, place)| (key.bytes(), *place));
        merge(blocks, singles, (&self.from, Some(&self.to)), visit)
    }
}

/// Goes through blocks and single rows in the order of their keys, for as long as it is told to go on.
fn merge<'a, E>(
    blocks: impl Iterator<Item = (&'a [u8], &'a Block)>,
    singles: impl Iterator<Item = (&'a [u8], Place)>,
    (from, to): (&[u8], Option<&[u8]>),
    mut visit: impl FnMut(&[u8], Place) -> Result<bool, E>,
) -> Result<(), E> {
    let mut singles = singles.peekable();
    let mut key = Vec::new();
    for (base, block) in blocks {
        key.clear();
        key.extend_from_slice(base);
        for (slot, place) in block.iter() {
            if let Some(last) = key.last_mut() {
                *last = *last & !SLOT_BITS | slot;
            }
            if *key < *from {
                continue;
            }
            if to.is_some_and(|to| *key >= *to) {
                break;
            }
            while let Some((single, place)) = singles.next_if(|(single, _)| *single < &key[..]) {
                if !visit(single, place)? {
                    return Ok(());
                }
            }
            if !visit(&key, place)? {
                return Ok(());
            }
        }
    }
    for (single, place) in singles {
        if !visit(single, place)? {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
impl Places {
    /// Bytes of memory at most: nodes of the standard library's map are at least half full but for the last ones.
    pub(super) fn memory(&self) -> usize {
        const NODES: usize = 2;
        const ALLOCATION: usize = 16;
        let heap = |key: &KeyBytes| match key {
            KeyBytes::Short(..) => 0,
            KeyBytes::Long(bytes) => bytes.len() + ALLOCATION,
        };
        let blocks = self.blocks.iter().map(|(base, block)| {
            let node = NODES * (size_of::<KeyBytes>() + size_of::<usize>() + size_of::<Arc<Block>>());
            node + heap(base) + block.bytes() + 3 * ALLOCATION
        });
        let single = NODES * (size_of::<KeyBytes>() + size_of::<Place>());
        blocks.sum::<usize>() + self.singles.keys().map(|key| single + heap(key)).sum::<usize>()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(sum: u32) -> Place {
        Place { segment: sum % 5, offset: 40 * (sum % 1_000), value: 10, sum }
    }

    /// Keys that follow one another, keys that extend them, keys that are alike but for their length, and others.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof![3 => 0..20_u64, 3 => 100..300_u64, 1 => Just(u64::MAX), 1 => any::<u64>()];
        let before = prop_oneof![
            4 => Just(b"\x04web-01\0".to_vec()),
            2 => Just(b"\x05server\0".to_vec()),
            1 => Just(vec![0x10]),
            1 => Just(b"\x10run/a-name-longer-than-a-short-key".to_vec()),
        ];
        let numbered = (before, number).prop_map(|(before, number)| [before, number.to_be_bytes().to_vec()].concat());
        prop_oneof![
            6 => numbered.clone(),
            2 => (numbered.clone(), prop::collection::vec(0..3_u8, 1..3)).prop_map(|(key, more)| [key, more].concat()),
            1 => (numbered.clone(), numbered).prop_map(|(key, more)| [key, more].concat()),
            1 => prop::collection::vec(0..3_u8, 0..4),
        ]
    }

    fn change() -> impl Strategy<Value = (Vec<u8>, Option<Place>)> {
        let misfit = any::<u32>().prop_map(|sum| Place { offset: 1 << 25, ..place(sum) });
        (
            key(),
            prop_oneof![6 => any::<u32>().prop_map(|sum| Some(place(sum))), 1 => misfit.prop_map(Some), 3 => Just(None)],
        )
    }

    type Rows = Vec<(Vec<u8>, Place)>;

    fn seen(visit: impl Fn(&mut dyn FnMut(&[u8], Place) -> Result<bool, ()>) -> Result<(), ()>) -> Rows {
        let mut rows = Vec::new();
        visit(&mut |key, place| {
            rows.push((key.to_vec(), place));
            Ok(true)
        })
        .unwrap();
        rows
    }

    proptest! {
        #[test]
        fn places_are_what_a_map_holds_in_the_same_order(
            changes in prop::collection::vec(change(), 1..300),
            bounds in prop::collection::vec((key(), key()), 1..8),
        ) {
            let (mut places, mut model) = (Places::default(), BTreeMap::new());
            for (number, (key, change)) in changes.iter().enumerate() {
                match change {
                    Some(place) => prop_assert_eq!(places.insert(key, *place), model.insert(key.clone(), *place)),
                    None => prop_assert_eq!(places.remove(key), model.remove(key)),
                }
                // What is noted now stays as it is, whatever follows.
                if number == changes.len() / 2 {
                    let (noted, then) = (places.range(b"", &[0xff]), model.clone());
                    for (key, change) in &changes[number + 1..] {
                        match change {
                            Some(place) => drop(places.insert(key, *place)),
                            None => drop(places.remove(key)),
                        }
                        match change {
                            Some(place) => drop(model.insert(key.clone(), *place)),
                            None => drop(model.remove(key)),
                        }
                    }
                    prop_assert_eq!(seen(|visit| noted.visit(visit)), then.into_iter().collect::<Rows>());
                    break;
                }
            }
            for (key, _) in &changes {
                prop_assert_eq!(places.get(key), model.get(key).copied());
            }
            for (from, to) in &bounds {
                let expected: Rows = model.clone().into_iter().filter(|(key, _)| from <= key && key < to).collect();
                prop_assert_eq!(&seen(|visit| places.visit(from, to, visit)), &expected);
                prop_assert_eq!(&seen(|visit| places.range(from, to).visit(visit)), &expected);
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_bytes_whatever_their_length() {
        let long = [b'b'; 40];
        let mut keys = [&b""[..], b"a", b"a\0", &long, &long[..SHORT], &long[..SHORT + 1], b"\xff"].map(KeyBytes::new);
        keys.sort();
        let mut expected = keys.clone().map(|key| key.bytes().to_vec());
        expected.sort();
        assert_eq!(keys.map(|key| key.bytes().to_vec()), expected);
    }

    #[test]
    fn a_row_of_a_message_takes_less_than_sixteen_bytes_and_a_stream_that_moves_on_keeps_nothing() {
        const ROWS: u64 = 100_000;
        let keys = |number: u64| [0x04, 0x05].map(|table| [&[table][..], b"web-01\0", &number.to_be_bytes()].concat());
        let mut places = Places::default();
        let put = |places: &mut Places, number| {
            for key in keys(number) {
                places.insert(&key, place(7));
            }
        };
        let remove = |places: &mut Places, number| {
            for key in keys(number) {
                assert!(places.remove(&key).is_some());
            }
        };
        (1..=ROWS).for_each(|number| put(&mut places, number));
        let bytes = places.memory() as f64 / (2 * ROWS) as f64;
        assert!(bytes < 16.0, "{bytes} bytes a row");
        // Settled and dropped from the first on, while as many more are sent.
        for number in ROWS + 1..ROWS * 2 {
            put(&mut places, number);
            remove(&mut places, number - ROWS);
        }
        assert!(places.memory() < 2 * 16 * 100_100, "{} bytes", places.memory());
        (ROWS..ROWS * 2 - 100).for_each(|number| remove(&mut places, number));
        assert!(places.memory() < 16 * 2 * 400, "{} bytes for 200 rows", places.memory());
    }
}
