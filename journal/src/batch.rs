//! A batch: changes on their way to a store. It keeps their bytes one behind the other, and their checksums, so that nothing has to
//! be copied or summed again on the way. Pure.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Bytes of a batch's memory that are kept for the next one.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Changes of which the memory is kept for the next batch.
const KEPT_CHANGES: usize = 16 * 1024;

/// Puts and deletes that become visible together or not at all. A later change of a key replaces an earlier one.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The last entry for each checksum of a key.
    latest: HashMap<u32, u32, BuildHasherDefault<Spread>>,
}

/// One change.
#[derive(Debug, Clone, Copy)]
struct Entry {
    key_at: usize,
    value_at: usize,
    end: usize,
    key_sum: u32,
    /// Nothing for a delete.
    sum: Option<u32>,
    /// The entry before this one whose key has the same checksum.
    before: Option<u32>,
    /// It is nothing: a later entry is about the same key, or it changes nothing.
    void: bool,
}

/// A change, with what its key and its value are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed<'a> {
    pub(crate) key: &'a [u8],
    /// CRC32C of the key.
    pub(crate) key_sum: u32,
    /// Nothing for a delete; else the value and its CRC32C.
    pub(crate) value: Option<(&'a [u8], u32)>,
}

/// Keys are looked up by their checksums, which are as good as any hash but for their upper bits.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Batch {
    /// Sets the value of a key.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let key_at = self.bytes.len();
        self.bytes.extend_from_slice(&key);
        let value_at = self.bytes.len();
        self.bytes.extend_from_slice(&value);
        self.enter(key_at, value_at, crc32c::crc32c(&key), Some(crc32c::crc32c(&value)));
    }

    /// Removes a key; removing one that is not there is nothing.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.delete_key(&key);
    }

    /// As [`Self::delete`].
    pub(crate) fn delete_key(&mut self, key: &[u8]) {
        let key_at = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.enter(key_at, self.bytes.len(), crc32c::crc32c(key), None);
    }

    /// Adds a put whose key and value are written right into the batch: `write` appends both and returns where the value begins, and
    /// the checksums of both. Returns its bytes.
    pub(crate) fn put_written(&mut self, write: impl FnOnce(&mut Vec<u8>) -> (usize, u32, u32)) -> usize {
        let key_at = self.bytes.len();
        let (value_at, key_sum, sum) = write(&mut self.bytes);
        self.enter(key_at, value_at, key_sum, Some(sum));
        self.bytes.len() - key_at
    }

    fn enter(&mut self, key_at: usize, value_at: usize, key_sum: u32, sum: Option<u32>) {
        let number = u32::try_from(self.entries.len()).expect("memory ends before four billion changes");
        let before = self.latest.insert(key_sum, number);
        let mut earlier = before;
        while let Some(entry) = earlier.map(|number| number as usize) {
            let Entry { key_at: at, value_at: end, before, .. } = self.entries[entry];
            if self.bytes[at..end] == self.bytes[key_at..value_at] {
                self.entries[entry].void = true;
                break;
            }
            earlier = before;
        }
        let end = self.bytes.len();
        self.entries.push(Entry { key_at, value_at, end, key_sum, sum, before, void: false });
    }

    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The changes, one for each key, in the order in which they were made; no value means delete.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes().map(|change| (change.key, change.value.map(|(value, _)| value)))
    }

    /// As [`Self::iter`], with checksums.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Changed<'_>> {
        self.entries.iter().filter(|entry| !entry.void).map(|entry| changed(&self.bytes, entry))
    }

    /// Leaves out the changes for which `keep` says no.
    ///
    /// # Errors
    /// The first one of `keep`. What it had decided by then stands.
    pub(crate) fn retain<E>(&mut self, mut keep: impl FnMut(Changed<'_>) -> Result<bool, E>) -> Result<(), E> {
        for entry in self.entries.iter_mut().filter(|entry| !entry.void) {
            entry.void = !keep(changed(&self.bytes, entry))?;
        }
        Ok(())
    }

    /// Empties it. What memory it took is kept, within bounds.
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES || self.entries.capacity() > KEPT_CHANGES {
            *self = Self::default();
            return;
        }
        self.bytes.clear();
        self.entries.clear();
        self.latest.clear();
    }
}

fn changed<'a>(bytes: &'a [u8], entry: &Entry) -> Changed<'a> {
    Changed {
        key: &bytes[entry.key_at..entry.value_at],
        key_sum: entry.key_sum,
        value: entry.sum.map(|sum| (&bytes[entry.value_at..entry.end], sum)),
    }
}

impl PartialEq for Batch {
    /// Whether both do the same.
    fn eq(&self, other: &Self) -> bool {
        let sorted = |batch: &Self| {
            let mut changes: Vec<_> =
                batch.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
            changes.sort();
            changes
        };
        sorted(self) == sorted(other)
    }
}

impl Eq for Batch {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_batch_does_to_a_map_what_its_changes_did_one_after_the_other() {
        let (mut batch, mut model) = (Batch::default(), BTreeMap::new());
        for round in 0..3 {
            for step in 0..500_u32 {
                let key = (step.wrapping_mul(2_654_435_761) >> 25).to_be_bytes().to_vec();
                let value = (step % 4 > 0).then(|| vec![7; step as usize % 50]);
                match &value {
                    Some(value) => batch.put(key.clone(), value.clone()),
                    None => batch.delete(key.clone()),
                }
                model.insert(key, value);
            }
            let changes: BTreeMap<_, _> =
                batch.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
            assert_eq!(changes, model, "round {round}");
            assert_eq!(batch.iter().count(), model.len());
            for change in batch.changes() {
                assert_eq!(change.key_sum, crc32c::crc32c(change.key));
                assert!(change.value.is_none_or(|(value, sum)| sum == crc32c::crc32c(value)));
            }
            batch.clear();
            model.clear();
            assert!(batch.is_empty());
        }
    }

    #[test]
    fn keys_that_have_the_same_checksum_are_not_the_same_key() {
        // Among 400,000 keys about twenty pairs share one of 2^32 checksums.
        let keys = (1..400_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let mut seen = HashMap::new();
        let mut pairs = keys.filter_map(|key| seen.insert(crc32c::crc32c(&key), key).map(|before| (before, key)));
        let (first, second) = pairs.next().unwrap();
        let mut batch = Batch::default();
        batch.put(first.to_vec(), vec![1]);
        batch.put(second.to_vec(), vec![2]);
        batch.put(first.to_vec(), vec![3]);
        let changes: Vec<_> = batch.iter().collect();
        assert_eq!(changes, [(&second[..], Some(&[2][..])), (&first[..], Some(&[3][..]))]);
    }
}
