//! The checksums of values that were written lately, for an engine that would have to read a value to say its checksum. It holds what was
//! written, never what was read, and forgets the oldest: whoever finds nothing here reads.

use std::collections::HashMap;

/// Keys after which the older half is forgotten: as many as the messages on their way in a busy journal have, header and body. With keys
/// of some 50 bytes that is 1 MiB for each half.
const HALF_MAX: usize = 8 * 1024;

/// Checksums by key, in two halves.
#[derive(Debug, Default)]
pub(crate) struct KnownSums {
    young: HashMap<Box<[u8]>, u32>,
    old: HashMap<Box<[u8]>, u32>,
}

impl KnownSums {
    /// The value of that key was written, or deleted.
    pub(crate) fn note(&mut self, key: &[u8], sum: Option<u32>) {
        self.old.remove(key);
        match sum {
            None => drop(self.young.remove(key)),
            Some(sum) => match self.young.get_mut(key) {
                Some(known) => *known = sum,
                None => {
                    if self.young.len() >= HALF_MAX {
                        self.old = std::mem::take(&mut self.young);
                    }
                    self.young.insert(key.into(), sum);
                }
            },
        }
    }

    /// CRC32C of the value of that key, if it was written lately.
    pub(crate) fn get(&self, key: &[u8]) -> Option<u32> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    /// Forgets everything: what is written is not known any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_a_key_counts_and_the_oldest_are_forgotten() {
        let mut known = KnownSums::default();
        let key = |number: usize| number.to_be_bytes();
        known.note(&key(0), Some(1));
        for number in 1..HALF_MAX {
            known.note(&key(number), Some(2));
        }
        // From here on the first ones are the older half.
        known.note(&key(HALF_MAX), Some(3));
        assert_eq!(known.get(&key(0)), Some(1));
        known.note(&key(0), Some(4));
        known.note(&key(1), None);
        assert_eq!([0, 1, 2].map(|number| known.get(&key(number))), [Some(4), None, Some(2)]);
        known.note(&key(HALF_MAX), None);
        assert_eq!(known.get(&key(HALF_MAX)), None);
        known.note(&key(HALF_MAX), Some(6));
        assert_eq!(known.get(&key(HALF_MAX)), Some(6));
        for number in HALF_MAX..3 * HALF_MAX {
            known.note(&key(number), Some(5));
        }
        assert_eq!((known.get(&key(0)), known.get(&key(3 * HALF_MAX - 1))), (None, Some(5)));
        assert!(known.young.len() + known.old.len() <= 2 * HALF_MAX);
        known.clear();
        assert_eq!(known.get(&key(3 * HALF_MAX - 1)), None);
    }
}
