//! The world of a search, in few words: which endpoints, which journals' copies and which ledgers, by their numbers in the
//! [`Parts`](super::parts::Parts), and what is under way. It holds nothing that two worlds with the same future could differ in.

use super::flight::Flight;
use super::parts::{CopyId, EndId, LedgersId};
use super::scope::{Budget, Side};

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct World {
    pub(super) ends: [EndId; 2],
    /// At most one copy of a journal is kept, of either endpoint.
    pub(super) copies: [Option<CopyId>; 2],
    /// What each endpoint's application submitted.
    pub(super) ledgers: LedgersId,
    /// What may still go wrong with each endpoint and the queue that it reads.
    pub(super) left: [Budget; 2],
    /// What waits for each endpoint, first come first.
    pub(super) queues: [Vec<Flight>; 2],
}

/// Words of a world besides its queues.
const HEAD: usize = 8;

impl World {
    /// The same as that one. What is allocated stays in use.
    pub(super) fn become_like(&mut self, other: &Self) {
        (self.ends, self.copies, self.ledgers) = (other.ends, other.copies, other.ledgers);
        self.left = other.left;
        for (queue, other) in self.queues.iter_mut().zip(&other.queues) {
            queue.clone_from(other);
        }
    }

    /// How often the broker may still lose everything.
    pub(super) const fn wipes(&self) -> u8 {
        self.left[0].wipes
    }

    pub(super) const fn queue(&self, side: Side) -> &Vec<Flight> {
        &self.queues[side.at()]
    }

    pub(super) fn queue_mut(&mut self, side: Side) -> &mut Vec<Flight> {
        &mut self.queues[side.at()]
    }

    /// Adds it to a list of words.
    pub(super) fn write(&self, words: &mut Vec<u32>) {
        let [server, agent] = [self.queues[0].len() as u32, self.queues[1].len() as u32];
        assert!(server | agent < 1 << 16, "a queue of a small world is short");
        let copy = |copy: Option<CopyId>| copy.map_or(0, |CopyId(number)| number + 1);
        words.extend([server << 16 | agent, self.ends[0].0, self.ends[1].0, self.ledgers.0]);
        words.extend(self.copies.map(copy));
        words.extend(self.left.map(Budget::word));
        words.extend(self.queues.iter().flatten().map(|flight| flight.word()));
    }

    /// Becomes the one that was written at the beginning of a list of words. Returns how many words it took.
    pub(super) fn read(&mut self, words: &[u32]) -> usize {
        let lens = [(words[0] >> 16) as usize, (words[0] & 0xffff) as usize];
        self.ends = [EndId(words[1]), EndId(words[2])];
        self.ledgers = LedgersId(words[3]);
        self.copies = [words[4], words[5]].map(|word| word.checked_sub(1).map(CopyId));
        self.left = [Budget::of_word(words[6]), Budget::of_word(words[7])];
        let mut at = HEAD;
        for (queue, len) in self.queues.iter_mut().zip(lens) {
            queue.clear();
            queue.extend(words[at..at + len].iter().map(|word| Flight::of_word(*word)));
            at += len;
        }
        at
    }
}

/// Two odd numbers without a pattern, one for each half of a fingerprint.
pub(super) const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];

/// A fingerprint of 128 bits. [`Visited`](super::visited::Visited) keeps 64 of them, where the others say.
pub(super) fn fingerprint(words: &[u32]) -> [u64; 2] {
    let fold = |a: u64, b: u64| {
        let wide = u128::from(a) * u128::from(b);
        wide as u64 ^ (wide >> 64) as u64
    };
    FACTORS.map(|factor| {
        let mut hash = factor ^ words.len() as u64;
        for pair in words.chunks(2) {
            let wide = u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or_default()) << 32;
            hash = fold(hash ^ wide, factor).wrapping_add(wide);
        }
        fold(hash, factor) ^ hash
    })
}
