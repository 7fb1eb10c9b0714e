//! Which journal wrote which part of a stream. A journal that was restored from an old copy goes on in a new incarnation, from
//! the place where its memory ends; what lies before that place is still the older one's. Never says what a receiver did
//! with it.

use serde::{Deserialize, Serialize};

use crate::limits::ORIGINS_MAX;
use crate::{ChainHash, Incarnation, Seq};

/// The part of a stream that one incarnation wrote: from a place on, until the next part begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The first place of the part.
    pub from: Seq,
    /// Who wrote it.
    pub incarnation: Incarnation,
    /// The hash of the header before it.
    pub previous: ChainHash,
}

/// The parts of a stream, the oldest first: at least one, at most [`ORIGINS_MAX`], each beginning after the one before. Older
/// parts are dropped when there are too many.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Origin>", into = "Vec<Origin>")]
pub struct Lineage(Vec<Origin>);

/// Why a list from outside is no lineage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineageError {
    /// There is nothing in it.
    #[error("a stream has at least one part")]
    Empty,
    /// More parts than allowed.
    #[error("{count} parts, at most {ORIGINS_MAX} are allowed")]
    TooMany {
        /// Parts in the list.
        count: usize,
    },
    /// A part does not begin after the one before it, or its incarnation had a part already.
    #[error("part {index} is out of order")]
    Order {
        /// Place in the list, from 0.
        index: usize,
    },
}

/// How far two accounts of one stream are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreed {
    /// To its end.
    Wholly,
    /// Up to this place, included; nowhere if it is nothing.
    Through(Option<Seq>),
}

impl Lineage {
    /// A stream that one incarnation writes from its first place on.
    #[must_use]
    pub fn new(incarnation: Incarnation) -> Self {
        Self(vec![Origin { from: Seq::FIRST, incarnation, previous: ChainHash::START }])
    }

    /// The parts, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Origin> + '_ {
        self.0.iter().copied()
    }

    /// The part that is being written.
    #[must_use]
    pub fn current(&self) -> Origin {
        *self.0.last().expect("a lineage has at least one part")
    }

    /// The oldest part that is remembered.
    #[must_use]
    pub fn oldest(&self) -> Origin {
        *self.0.first().expect("a lineage has at least one part")
    }

    /// The part that a place is in; the oldest one for places before it.
    #[must_use]
    pub fn at(&self, seq: Seq) -> Origin {
        self.0.iter().rev().find(|origin| origin.from <= seq).copied().unwrap_or_else(|| self.oldest())
    }

    /// A mark in the stream as that incarnation knew it, cut off where another one went on: what was there beyond is something else.
    #[must_use]
    pub fn within(&self, incarnation: Incarnation, mark: Option<Seq>) -> Option<Seq> {
        let next = self.0.iter().skip_while(|origin| origin.incarnation != incarnation).nth(1);
        next.map_or(mark, |next| mark.min(next.from.previous()))
    }

    /// Whether the incarnation wrote any part.
    #[must_use]
    pub fn contains(&self, incarnation: Incarnation) -> bool {
        self.0.iter().any(|origin| origin.incarnation == incarnation)
    }

    /// Lets another incarnation write from a place on. What was written from there on before is no part of the stream any more.
    pub fn supersede(&mut self, origin: Origin) {
        self.0.retain(|older| older.from < origin.from);
        self.0.push(origin);
        let excess = self.0.len().saturating_sub(ORIGINS_MAX);
        self.0.drain(..excess);
    }

    /// Whether there is room only for what must have it: a journal that was restored must go on in a part of its own.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() >= ORIGINS_MAX - ORIGINS_MAX / 4
    }

    /// How far this account of a stream and another are the same. Where one of them begins later, it is believed about what
    /// lies before if they agree where it begins.
    #[must_use]
    pub fn agreed(&self, other: &Self) -> Agreed {
        let start = self.oldest().from.max(other.oldest().from);
        if self.at(start).incarnation != other.at(start).incarnation {
            return Agreed::Through(None);
        }
        let mut borders: Vec<Seq> = self.iter().chain(other.iter()).map(|origin| origin.from).collect();
        borders.sort_unstable();
        let differs = |border: &Seq| *border > start && self.at(*border).incarnation != other.at(*border).incarnation;
        match borders.into_iter().find(differs) {
            Some(border) => Agreed::Through(border.previous()),
            None => Agreed::Wholly,
        }
    }
}

impl TryFrom<Vec<Origin>> for Lineage {
    type Error = LineageError;

    fn try_from(list: Vec<Origin>) -> Result<Self, LineageError> {
        if list.is_empty() {
            return Err(LineageError::Empty);
        }
        if list.len() > ORIGINS_MAX {
            return Err(LineageError::TooMany { count: list.len() });
        }
        for (index, origin) in list.iter().enumerate() {
            let before = &list[..index];
            let follows = before.last().is_none_or(|last| last.from < origin.from);
            if !follows || before.iter().any(|older| older.incarnation == origin.incarnation) {
                return Err(LineageError::Order { index });
            }
        }
        Ok(Self(list))
    }
}

impl From<Lineage> for Vec<Origin> {
    fn from(lineage: Lineage) -> Self {
        lineage.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lineage(parts: &[(u64, u128)]) -> Lineage {
        let origin = |&(from, incarnation): &(u64, u128)| Origin {
            from: Seq::new(from).unwrap(),
            incarnation: Incarnation::from_u128(incarnation),
            previous: ChainHash::START,
        };
        Lineage::try_from(parts.iter().map(origin).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn two_accounts_agree_up_to_where_the_first_branch_begins() {
        let through = |seq| Agreed::Through(Seq::new(seq));
        let old = lineage(&[(1, 1)]);
        assert_eq!(old.agreed(&old), Agreed::Wholly);
        assert_eq!(old.agreed(&lineage(&[(1, 1), (51, 2)])), through(50));
        assert_eq!(lineage(&[(1, 1), (51, 2)]).agreed(&lineage(&[(1, 1), (40, 3)])), through(39));
        assert_eq!(lineage(&[(1, 1), (51, 2)]).agreed(&lineage(&[(1, 1), (51, 2), (60, 3)])), through(59));
        assert_eq!(old.agreed(&lineage(&[(1, 9)])), through(0), "a stranger's stream shares nothing");
        assert_eq!(old.agreed(&lineage(&[(51, 2), (60, 3)])), through(0), "nothing is known of what lies before");
        assert_eq!(lineage(&[(1, 1), (51, 2)]).agreed(&lineage(&[(51, 2), (60, 3)])), through(59));
    }

    #[test]
    fn what_is_superseded_is_no_part_any_more() {
        let mut found = lineage(&[(1, 1), (51, 2), (60, 3)]);
        found.supersede(Origin { from: Seq::new(55).unwrap(), ..lineage(&[(1, 4)]).current() });
        assert_eq!(found, lineage(&[(1, 1), (51, 2), (55, 4)]));
        let within = |incarnation, mark| found.within(Incarnation::from_u128(incarnation), Seq::new(mark));
        assert_eq!((within(1, 60), within(2, 52), within(2, 60)), (Seq::new(50), Seq::new(52), Seq::new(54)));
        assert_eq!(within(4, 60), Seq::new(60), "it is being written");
        found.supersede(Origin { from: Seq::FIRST, ..lineage(&[(1, 5)]).current() });
        assert_eq!(lineage(&[(1, 1), (2, 5)]).within(Incarnation::from_u128(1), Seq::new(9)), Seq::new(1));
        let mut found = lineage(&[(1, 1), (51, 2), (55, 4)]);
        for part in 5..40 {
            found.supersede(Origin { from: Seq::new(part * 100).unwrap(), ..lineage(&[(1, part.into())]).current() });
        }
        assert_eq!(found.iter().count(), ORIGINS_MAX);
        assert_eq!(found.current().incarnation, Incarnation::from_u128(39));
    }

    #[test]
    fn lists_from_outside_are_checked() {
        assert_eq!(Lineage::try_from(Vec::new()), Err(LineageError::Empty));
        let part = lineage(&[(3, 1)]).current();
        assert_eq!(Lineage::try_from(vec![part, part]), Err(LineageError::Order { index: 1 }));
        let again = Origin { from: Seq::new(9).unwrap(), ..part };
        assert_eq!(Lineage::try_from(vec![part, again]), Err(LineageError::Order { index: 1 }));
        let many = vec![part; ORIGINS_MAX + 1];
        assert_eq!(Lineage::try_from(many), Err(LineageError::TooMany { count: ORIGINS_MAX + 1 }));
    }
}
