//! What a receiver has beyond its contiguous mark: a small sorted set of ranges. It never holds more than [`RANGES_MAX`] of
//! them, so neither a status nor a stream's row can grow without bound.

use serde::{Deserialize, Serialize};

use crate::Seq;
use crate::limits::RANGES_MAX;

/// Sorted, disjoint, non-adjacent inclusive ranges of sequence numbers, at most [`RANGES_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Seq, Seq)>", into = "Vec<(Seq, Seq)>")]
pub struct Ranges(Vec<(Seq, Seq)>);

/// What became of a sequence number offered to [`Ranges::insert`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// It was new and is now held.
    New,
    /// It was held already.
    Duplicate,
    /// It would open one range too many and is not held.
    Full,
}

/// Why a list from outside is not a set of ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// More ranges than allowed.
    #[error("{count} ranges, at most {RANGES_MAX} are allowed")]
    TooMany {
        /// Ranges in the list.
        count: usize,
    },
    /// A range ends before it begins, or touches or precedes the one before it.
    #[error("range {index} is out of order")]
    Order {
        /// Place in the list, from 0.
        index: usize,
    },
}

impl Ranges {
    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, lowest first, both ends included.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Seq, Seq)> + '_ {
        self.0.iter().copied()
    }

    /// The highest number held.
    #[must_use]
    pub fn last(&self) -> Option<Seq> {
        self.0.last().map(|&(_, end)| end)
    }

    /// Whether the number is held.
    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        let index = self.0.partition_point(|&(_, end)| end < seq);
        self.0.get(index).is_some_and(|&(start, _)| start <= seq)
    }

    /// Takes a number in, joining neighbours.
    pub fn insert(&mut self, seq: Seq) -> Insert {
        // The first range that ends at or after the number's predecessor is the only one it can touch from below.
        let index = self.0.partition_point(|&(_, end)| end.next() < seq);
        let Some(&(start, end)) = self.0.get(index) else {
            return self.open(index, seq);
        };
        if start <= seq && seq <= end {
            return Insert::Duplicate;
        }
        if end.next() == seq {
            self.0[index].1 = seq;
            if let Some(&(above, top)) = self.0.get(index + 1)
                && above == seq.next()
            {
                self.0[index].1 = top;
                self.0.remove(index + 1);
            }
            return Insert::New;
        }
        if seq.next() == start {
            self.0[index].0 = seq;
            return Insert::New;
        }
        self.open(index, seq)
    }

    /// Whether the number touches nothing that is held, so that it would be a range of its own.
    #[must_use]
    pub fn opens(&self, seq: Seq) -> bool {
        let index = self.0.partition_point(|&(_, end)| end.next() < seq);
        self.0.get(index).is_none_or(|&(start, _)| seq.next() < start)
    }

    fn open(&mut self, index: usize, seq: Seq) -> Insert {
        if self.0.len() == RANGES_MAX {
            return Insert::Full;
        }
        self.0.insert(index, (seq, seq));
        Insert::New
    }

    /// Takes in a span, both ends included, joining what it overlaps or touches. False, and nothing is changed, if that would
    /// be one range too many.
    #[must_use]
    pub fn insert_span(&mut self, (from, to): (Seq, Seq)) -> bool {
        if to < from {
            return true;
        }
        let apart = |&(start, end): &(Seq, Seq)| end.next() < from || to.next() < start;
        let joined = self.0.iter().filter(|range| !apart(range)).copied();
        let (from, to) = joined.fold((from, to), |(from, to), (start, end)| (from.min(start), to.max(end)));
        let mut ranges: Vec<_> = self.0.iter().filter(|range| apart(range)).copied().collect();
        if ranges.len() == RANGES_MAX {
            return false;
        }
        let index = ranges.partition_point(|&(start, _)| start < from);
        ranges.insert(index, (from, to));
        self.0 = ranges;
        true
    }

    /// Drops everything from a place on.
    pub fn drop_from(&mut self, from: Seq) {
        self.0.retain_mut(|(start, end)| {
            *end = from.previous().map_or(*end, |last| last.min(*end));
            *start < from && *start <= *end
        });
    }

    /// Removes the range that begins right after the mark, if there is one, and returns its end: the new mark.
    pub fn take_next(&mut self, mark: Option<Seq>) -> Option<Seq> {
        if self.0.first()?.0 == Seq::after(mark) { Some(self.0.remove(0).1) } else { None }
    }

    /// Drops everything up to and including the mark.
    pub fn drop_through(&mut self, mark: Seq) {
        self.0.retain_mut(|(start, end)| {
            if *start <= mark {
                *start = mark.next();
            }
            *start <= *end
        });
    }

    /// The highest number that is held here, and there is neither held nor within the mark.
    #[must_use]
    pub fn highest_beyond(&self, mark: Option<Seq>, there: &Self) -> Option<Seq> {
        let lacks = |(from, to): (Seq, Seq)| there.missing(mark.max(from.previous()), Some(to)).last();
        self.iter().rev().find_map(lacks).map(|(_, to)| to)
    }

    /// What is missing between the mark and `last`, both ends included, lowest first.
    pub fn missing(&self, mark: Option<Seq>, last: Option<Seq>) -> impl Iterator<Item = (Seq, Seq)> + '_ {
        let mut from = Seq::after(mark);
        let mut held = self.0.iter().copied();
        let mut done = false;
        std::iter::from_fn(move || {
            let last = last?;
            while !done {
                let Some((start, end)) = held.next() else {
                    done = true;
                    return (from <= last).then_some((from, last));
                };
                if start > last {
                    done = true;
                    return (from <= last).then_some((from, last));
                }
                let gap = start.previous().filter(|before| *before >= from).map(|before| (from, before));
                from = from.max(end.next());
                if gap.is_some() {
                    return gap;
                }
            }
            None
        })
    }
}

impl TryFrom<Vec<(Seq, Seq)>> for Ranges {
    type Error = RangeError;

    fn try_from(list: Vec<(Seq, Seq)>) -> Result<Self, RangeError> {
        if list.len() > RANGES_MAX {
            return Err(RangeError::TooMany { count: list.len() });
        }
        let mut previous: Option<Seq> = None;
        for (index, &(start, end)) in list.iter().enumerate() {
            if end < start || previous.is_some_and(|previous| start <= previous.next()) {
                return Err(RangeError::Order { index });
            }
            previous = Some(end);
        }
        Ok(Self(list))
    }
}

impl From<Ranges> for Vec<(Seq, Seq)> {
    fn from(ranges: Ranges) -> Self {
        ranges.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn seq(value: u64) -> Seq {
        Seq::new(value).unwrap()
    }

    #[test]
    fn one_range_too_many_is_refused_and_changes_nothing() {
        let mut ranges = Ranges::default();
        for index in 0..RANGES_MAX as u64 {
            assert_eq!(ranges.insert(seq(2 * index + 2)), Insert::New);
        }
        let before = ranges.clone();
        assert_eq!(ranges.insert(seq(1_000)), Insert::Full);
        assert_eq!(ranges, before);
        assert_eq!(ranges.insert(seq(3)), Insert::New, "joining two ranges always fits");
    }

    #[test]
    fn lists_from_outside_are_checked() {
        let list = |pairs: &[(u64, u64)]| pairs.iter().map(|&(a, b)| (seq(a), seq(b))).collect::<Vec<_>>();
        assert!(Ranges::try_from(list(&[(2, 3), (5, 5)])).is_ok());
        for bad in [&[(3, 2)][..], &[(2, 3), (4, 5)], &[(5, 6), (2, 3)], &[(2, 5), (4, 8)]] {
            assert!(Ranges::try_from(list(bad)).is_err(), "{bad:?}");
        }
        let many = (1..=65).map(|n| (seq(3 * n), seq(3 * n))).collect::<Vec<_>>();
        assert_eq!(Ranges::try_from(many), Err(RangeError::TooMany { count: 65 }));
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_set(numbers in prop::collection::vec(1_u64..120, 0..80), mark in 0_u64..60, last in 0_u64..130) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for number in numbers {
                let expected = if model.insert(number) { Insert::New } else { Insert::Duplicate };
                prop_assert_eq!(ranges.insert(seq(number)), expected);
            }
            for number in 1..130 {
                prop_assert_eq!(ranges.contains(seq(number)), model.contains(&number));
            }
            prop_assert_eq!(Ranges::try_from(Vec::from(ranges.clone())).unwrap(), ranges.clone());

            let missing: Vec<u64> = ranges.missing(Seq::new(mark), Seq::new(last))
                .flat_map(|(from, to)| from.value()..=to.value()).collect();
            let expected: Vec<u64> = (mark + 1..=last).filter(|n| !model.contains(n)).collect();
            prop_assert_eq!(missing, expected);

            for number in 1..130 {
                let touches = (number - 1..=number + 1).any(|n| model.contains(&n));
                prop_assert_eq!(ranges.opens(seq(number)), !touches);
            }
            let (from, to) = (mark.max(1), last.max(1));
            let mut there = ranges.clone();
            there.drop_from(seq(from));
            for mark in [0, last] {
                let lacking = model.iter().copied().filter(|n| *n > mark && *n >= from).max();
                prop_assert_eq!(ranges.highest_beyond(Seq::new(mark), &there), lacking.and_then(Seq::new));
            }
            let mut joined = ranges.clone();
            prop_assert!(joined.insert_span((seq(from), seq(to))));
            model.extend(from..=to);
            let all = |ranges: &Ranges| ranges.iter().flat_map(|(a, b)| a.value()..=b.value()).collect::<Vec<_>>();
            prop_assert_eq!(all(&joined), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(&Ranges::try_from(Vec::from(joined.clone())).unwrap(), &joined);
            joined.drop_from(seq(from));
            prop_assert_eq!(all(&joined), model.iter().copied().filter(|n| *n < from).collect::<Vec<_>>());
            model.retain(|n| ranges.contains(seq(*n)));

            if mark > 0 {
                ranges.drop_through(seq(mark));
                let left: Vec<u64> = ranges.iter().flat_map(|(a, b)| a.value()..=b.value()).collect();
                prop_assert_eq!(left, model.into_iter().filter(|n| *n > mark).collect::<Vec<_>>());
            }
        }
    }
}
