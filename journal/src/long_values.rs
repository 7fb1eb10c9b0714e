//! Whether a key may have a long value, in a fixed space whatever the number of keys: counts by the hash of the key. A count of nothing
//! is certain; any other says "perhaps", and whoever asks has to look.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts: 4 KiB. Keys share them once there are hundreds of long values.
const COUNTS: usize = 1024;

/// Long values, counted by the hashes of their keys.
#[derive(Debug)]
pub(crate) struct LongValues(Vec<AtomicU32>);

impl Default for LongValues {
    fn default() -> Self {
        Self((0..COUNTS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl LongValues {
    fn count(&self, key: &[u8]) -> &AtomicU32 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        &self.0[usize::try_from(hash % COUNTS as u64).unwrap_or_default()]
    }

    /// That key has one from now on. Before it is written: too many are harmless, one too few is not.
    pub(crate) fn add(&self, key: &[u8]) {
        // Beyond what can be counted it stays, and is never nothing again.
        let add = |count: u32| count.checked_add(1);
        let _full = self.count(key).fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// That key has none any more, which is written.
    pub(crate) fn remove(&self, key: &[u8]) {
        let less = |count: u32| count.checked_sub(1).filter(|_| count < u32::MAX);
        let _full = self.count(key).fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Whether that key may have one.
    pub(crate) fn may_have(&self, key: &[u8]) -> bool {
        self.count(key).load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_a_long_value_is_never_passed_over_and_others_mostly_are() {
        let long = LongValues::default();
        let keys: Vec<_> = (0..2 * COUNTS).map(usize::to_be_bytes).collect();
        let (with, without) = keys.split_at(50);
        with.iter().for_each(|key| long.add(key));
        assert!(with.iter().all(|key| long.may_have(key)));
        assert!(without.iter().filter(|key| long.may_have(*key)).count() < without.len() / 10);
        with.iter().for_each(|key| long.remove(key));
        assert!(!keys.iter().any(|key| long.may_have(key)));
    }

    #[test]
    fn a_count_that_is_full_stays_full() {
        let long = LongValues::default();
        long.count(b"key").store(u32::MAX - 1, Ordering::Relaxed);
        (0..3).for_each(|_| long.add(b"key"));
        (0..3).for_each(|_| long.remove(b"key"));
        assert_eq!(long.count(b"key").load(Ordering::Relaxed), u32::MAX);
    }
}
