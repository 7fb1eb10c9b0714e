//! A stream that this endpoint receives: its row, and how places of the sender's stream become places here. They are the same
//! until the sender's journal is superseded by another one. What the older journal had sent stays where it is, also what the newer
//! one does not remember; the newer one's messages get places far behind. So no place here is ever used twice, and every mark
//! moves forward only. It never reads a store.

use messages::limits::{ORIGINS_MAX, SUPERSEDED_MAX};
use messages::{Agreed, ChainHash, Epoch, Incarnation, Lineage, Origin, Ranges, Seq};
use serde::{Deserialize, Serialize};

/// Places here of a superseding journal begin at the next multiple of this, plus one. Round, so that people see what it is, and
/// farther than any stream comes.
const STRIDE: u64 = 1_000_000_000_000;

/// A stream that this endpoint receives. "Place" is a place here, unless it says "there": in the sender's own numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incoming {
    /// The peer's journal.
    pub incarnation: Incarnation,
    /// That journal under the name that it was made with, if the stream goes by another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Incarnation>,
    /// The highest opening of that journal that was heard of.
    pub epoch: Epoch,
    /// Everything up to here is on stable storage here.
    pub through: Option<Seq>,
    /// Hash of the header at `through`.
    pub head: ChainHash,
    /// What else is on stable storage here.
    pub ranges: Ranges,
    /// The application has applied everything up to here.
    pub applied: Option<Seq>,
    /// Everything up to here has its outcome on stable storage on both sides; bodies are dropped.
    pub settled: Option<Seq>,
    /// Everything up to here is dropped whole: the peer will never ask about it again.
    pub forgotten: Option<Seq>,
    /// The incarnation of this endpoint's own stream to the peer that the peer knew when it agreed to speak to this journal. Until
    /// it is the present one nothing is taken: it may have been meant for a journal that was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Incarnation>,
    /// The hash at `through` is not known: this journal took the stream over from there. The next message is believed about it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unanchored: bool,
    /// What a lost journal of this endpoint may have received and carried out: everything up to here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubtful: Option<Seq>,
    /// How often the peer has found this endpoint's journal to have lost something.
    #[serde(default)]
    pub losses: u32,
    /// What was here when the peer had last heard a process of this endpoint, if one that it has not heard has taken more since. Messages
    /// that lay in the broker must not hide from the peer that this journal is an old copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sworn: Option<Sworn>,
    /// How the sender's numbers become places here; nothing while they are the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Places without a message, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voids: Vec<Void>,
    /// Earlier journals of the peer, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Incarnation>,
}

/// What was here at some time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sworn {
    /// Everything up to here.
    pub through: Option<Seq>,
    /// What else.
    pub ranges: Ranges,
}

/// A part of the stream that one incarnation of the sender's journal wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// Who wrote it, and from where on, there.
    pub origin: Origin,
    /// What to add to a number there for the place here.
    pub shift: u64,
}

/// Places that hold no message: the sender lost what was there, or numbers were skipped. Both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Void {
    /// The first place.
    pub from: Seq,
    /// The last place.
    pub to: Seq,
    /// The hash that the message after it expects before it, where that is known.
    pub head: Option<ChainHash>,
}

/// What it means that another incarnation of the peer's journal is taken for the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// It is the same journal, and remembers all that was received of it.
    Continues,
    /// It is the same journal, and does not remember all of it: it was restored from an old copy.
    Forgot,
    /// It is another journal.
    Another,
}

/// What a number of the sender's stream is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This place.
    Here(Seq),
    /// Nothing any more: another journal wrote that part of the stream since.
    Superseded,
    /// Nothing yet: that journal was not announced.
    Unknown,
}

impl Incoming {
    /// A stream of which nothing has been received.
    #[must_use]
    pub fn new(incarnation: Incarnation, epoch: Epoch) -> Self {
        Self {
            incarnation,
            journal: None,
            epoch,
            through: None,
            head: ChainHash::START,
            ranges: Ranges::default(),
            applied: None,
            settled: None,
            forgotten: None,
            own: None,
            unanchored: false,
            doubtful: None,
            losses: 0,
            sworn: None,
            parts: Vec::new(),
            voids: Vec::new(),
            superseded: Vec::new(),
        }
    }

    /// A stream of which nothing has been received, and which several incarnations of the sender's journal have written.
    #[must_use]
    pub fn of(journal: Incarnation, lineage: &Lineage, epoch: Epoch) -> Self {
        let mut new = Self::new(lineage.current().incarnation, epoch);
        new.journal = Some(journal).filter(|journal| *journal != new.incarnation);
        if lineage.iter().count() > 1 || lineage.oldest().from > Seq::FIRST {
            new.parts = lineage.iter().map(|origin| Part { origin, shift: 0 }).collect();
            new.remember(lineage);
        }
        new
    }

    fn parts(&self) -> Vec<Part> {
        if self.parts.is_empty() {
            return vec![Part { origin: Lineage::new(self.incarnation).current(), shift: 0 }];
        }
        self.parts.clone()
    }

    /// The parts with the last place here of each; the last part has no end.
    fn spans(&self) -> Vec<(Part, Option<Seq>)> {
        let parts = self.parts();
        let ends = parts.iter().skip(1).map(|next| next.origin.from.previous()).chain([Seq::new(u64::MAX)]);
        parts.iter().zip(ends).map(|(part, end)| (*part, end.map(|end| shifted(end, part.shift)))).collect()
    }

    /// The place here of a message that the journal `incarnation` numbered `seq`.
    #[must_use]
    pub fn place(&self, incarnation: Incarnation, seq: Seq) -> Place {
        if self.parts.is_empty() && self.incarnation == incarnation {
            return Place::Here(seq);
        }
        let parts = self.parts();
        let part = parts.iter().rev().find(|part| part.origin.from <= seq);
        match part {
            Some(part) if part.origin.incarnation == incarnation => Place::Here(shifted(seq, part.shift)),
            Some(_) | None => {
                let known = parts.iter().any(|part| part.origin.incarnation == incarnation);
                if known || self.superseded.contains(&incarnation) { Place::Superseded } else { Place::Unknown }
            }
        }
    }

    /// A mark here, from one there.
    #[must_use]
    pub fn mark_here(&self, there: Option<Seq>) -> Option<Seq> {
        let there = there?;
        let parts = self.parts();
        let part = parts.iter().rev().find(|part| part.origin.from <= there)?;
        Some(shifted(there, part.shift))
    }

    /// A mark there, from one here: the last number of which everything before is within the mark.
    #[must_use]
    pub fn mark_there(&self, here: Option<Seq>) -> Option<Seq> {
        let mut mark = None;
        for (part, end) in self.spans() {
            let reached = here.min(end).filter(|reached| *reached >= shifted(part.origin.from, part.shift));
            match reached {
                Some(reached) => mark = Seq::new(reached.value() - part.shift),
                None => break,
            }
            if here < end {
                break;
            }
        }
        mark
    }

    /// The stream as it was when the peer had last heard a process of this endpoint, if it is more now.
    #[must_use]
    pub fn as_sworn(&self) -> Option<Self> {
        let Sworn { through, ranges } = self.sworn.clone()?;
        Some(Self { through, ranges, ..self.clone() })
    }

    /// What is held beyond the mark, in the sender's numbers.
    #[must_use]
    pub fn ranges_there(&self) -> Ranges {
        let mut ranges = Ranges::default();
        let mark = self.mark_there(self.through);
        for (part, end) in self.spans() {
            let start = shifted(part.origin.from, part.shift);
            for (from, to) in self.ranges.iter() {
                let (from, to) = (from.max(start), end.map_or(to, |end| end.min(to)));
                let there = |seq: Seq| Seq::new(seq.value().saturating_sub(part.shift));
                if let (true, Some(from), Some(to)) = (from <= to, there(from), there(to)) {
                    // Cutting and joining never makes more ranges than there are here.
                    let _fits = ranges.insert_span((from, to));
                }
            }
        }
        if let Some(mark) = mark {
            ranges.drop_through(mark);
        }
        ranges
    }

    /// The hash that is expected before the place after that one, if a void ends there and it is known.
    #[must_use]
    pub fn head_of_void(&self, end: Seq) -> Option<ChainHash> {
        self.voids.iter().find(|void| void.to == end).and_then(|void| void.head)
    }

    /// A mark, moved over the places behind it that hold nothing.
    #[must_use]
    pub fn over_voids(&self, mark: Option<Seq>) -> Option<Seq> {
        let mut mark = mark;
        for void in &self.voids {
            if void.from <= Seq::after(mark) {
                mark = mark.max(Some(void.to));
            }
        }
        mark
    }

    /// Moves the applied mark over what holds nothing.
    pub fn skip_voids(&mut self) {
        self.applied = self.over_voids(self.applied).min(self.through);
    }

    /// The pieces of a span that may hold messages.
    #[must_use]
    pub fn without_voids(&self, (from, to): (Seq, Seq)) -> Vec<(Seq, Seq)> {
        let mut pieces = Vec::new();
        let mut next = from;
        for void in self.voids.iter().filter(|void| void.to >= from && void.from <= to) {
            if let Some(before) = void.from.previous().filter(|before| next <= *before) {
                pieces.push((next, before));
            }
            next = next.max(void.to.next());
        }
        if next <= to {
            pieces.push((next, to));
        }
        pieces
    }

    /// The row after another incarnation of the peer's journal, which was made as `journal` and wrote `lineage`, was taken for the
    /// peer's. What it does not remember stays: it was received, and it counts.
    #[must_use]
    pub fn adopt(&self, journal: Incarnation, lineage: &Lineage, epoch: Epoch) -> (Self, Succession) {
        let known: Vec<Origin> = self.parts().iter().map(|part| part.origin).collect();
        // A row's parts are in order as they were written; if damage made them something else, nothing is shared.
        let shared = match Lineage::try_from(known).map(|known| known.agreed(lineage)) {
            Ok(Agreed::Wholly) => {
                return (Self { epoch: self.epoch.max(epoch), ..self.clone() }, Succession::Continues);
            }
            Ok(Agreed::Through(shared)) => shared,
            Err(_) => None,
        };
        let incarnation = lineage.current().incarnation;
        // With its parts written out, since a row without any has one under its present name.
        let parts = self.parts();
        let mut new = Self { incarnation, journal: Some(journal), epoch, parts, ..self.clone() };
        new.remember(lineage);
        let branch = Seq::after(shared);
        let end = self.mark_here(shared);
        let reach = self.ranges.last().max(self.through);
        let lost = reach > end;
        let base = (Seq::count(reach) / STRIDE + 1).saturating_mul(STRIDE);
        let mut parts = self.parts();
        parts.retain(|part| part.origin.from < branch);
        let going_on = parts.last().map_or(0, |part| part.shift);
        let shift = if lost { base.saturating_sub(Seq::count(shared)) } else { going_on };
        let newer = lineage.iter().filter(|origin| origin.from > branch);
        let first = Origin { from: branch, ..lineage.at(branch) };
        parts.extend([first].into_iter().chain(newer).map(|origin| Part { origin, shift }));
        let excess = parts.len().saturating_sub(ORIGINS_MAX);
        parts.drain(..excess);
        new.parts = parts;
        if let Some(base) = Seq::new(base).filter(|_| lost) {
            let head = lineage.iter().find(|origin| origin.from == branch).map(|origin| origin.previous);
            new.close(end, base, head);
        }
        let succession = if self.made_as() != journal {
            Succession::Another
        } else if lost {
            Succession::Forgot
        } else {
            Succession::Continues
        };
        (new, succession)
    }

    /// The peer's journal, under the name that it was made with.
    #[must_use]
    pub fn made_as(&self) -> Incarnation {
        self.journal.unwrap_or(self.incarnation)
    }

    fn remember(&mut self, lineage: &Lineage) {
        let now = self.incarnation;
        let older = self.parts().into_iter().map(|part| part.origin.incarnation);
        for incarnation in older.chain(lineage.iter().map(|origin| origin.incarnation)) {
            if incarnation != now && !self.superseded.contains(&incarnation) {
                self.superseded.push(incarnation);
            }
        }
        self.superseded.retain(|incarnation| *incarnation != now);
        let excess = self.superseded.len().saturating_sub(SUPERSEDED_MAX);
        self.superseded.drain(..excess);
    }

    /// Declares every place after `end` and up to `base` that holds no message void, and moves the mark over them if nothing is missing
    /// before.
    fn close(&mut self, end: Option<Seq>, base: Seq, head: Option<ChainHash>) {
        let held = self.ranges.clone();
        for (from, to) in held.missing(self.through.max(end), Some(base)) {
            self.voids.push(Void { from, to, head: head.filter(|_| to == base) });
        }
        // Some lie before what an earlier succession declared void.
        self.voids.sort_unstable_by_key(|void| void.from);
        if self.through >= end {
            self.through = Some(base);
            self.ranges = Ranges::default();
            self.unanchored = head.is_none();
            self.head = head.unwrap_or(ChainHash::START);
        } else {
            // If there is no room for one range more, the last ones before it are fetched again.
            while !self.ranges.insert_span((Seq::after(end), base)) {
                let last = self.ranges.iter().rev().find(|(from, _)| Some(*from) <= end);
                self.ranges.drop_from(last.map_or(Seq::after(end), |(from, _)| from));
            }
        }
        self.skip_voids();
    }

    /// The row after the peer agreed to speak to this journal, whose stream to the peer is `own`. Everything up to `settled` is over, by
    /// the peer's word, and what is not here of it never comes; everything up to `doubtful` may have been carried out by a journal that
    /// was lost. Both are numbers there.
    #[must_use]
    pub fn establish(&self, own: Incarnation, settled: Option<Seq>, doubtful: Option<Seq>, losses: u32) -> Self {
        let doubtful = self.mark_here(doubtful);
        let mut new = Self { own: Some(own), doubtful, losses, ..self.clone() };
        let over = self.mark_here(settled);
        if over > new.through {
            let held = new.ranges.clone();
            let voids = held.missing(new.through, over).map(|(from, to)| Void { from, to, head: None });
            new.voids.extend(voids);
            new.through = over;
            new.unanchored = true;
            if let Some(over) = over {
                new.ranges.drop_through(over);
            }
        }
        new.voids.sort_unstable_by_key(|void| void.from);
        new.skip_voids();
        new
    }

    /// Passes over what the application has not dealt with yet, up to a place.
    pub fn pass(&mut self, over: Option<Seq>) {
        self.applied = self.applied.max(over).min(self.through);
        self.skip_voids();
    }

    /// Forgets the voids that no mark has still to move over.
    pub fn prune(&mut self) {
        let forgotten = self.forgotten;
        self.voids.retain(|void| Some(void.to) > forgotten);
    }
}

fn shifted(seq: Seq, shift: u64) -> Seq {
    Seq::new(seq.value().saturating_add(shift)).unwrap_or(seq)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seq(value: u64) -> Seq {
        Seq::new(value).unwrap()
    }

    fn lineage(parts: &[(u64, u128)]) -> Lineage {
        let origin = |&(from, name): &(u64, u128)| Origin {
            from: seq(from),
            incarnation: Incarnation::from_u128(name),
            previous: ChainHash::START,
        };
        Lineage::try_from(parts.iter().map(origin).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_hole_before_an_earlier_void_is_left_out_like_every_other() {
        let made = Incarnation::from_u128(1);
        let mut row = Incoming::new(made, Epoch::FIRST);
        row.through = Seq::new(4);
        row.ranges.insert(seq(7));
        // The first successor may still send message 5, the second has nothing of this stream.
        let (row, _) = row.adopt(made, &lineage(&[(1, 1), (6, 2)]), Epoch::FIRST);
        assert_eq!(row.without_voids((seq(1), seq(STRIDE))), [(seq(1), seq(5)), (seq(7), seq(7))]);
        let (row, _) = row.adopt(made, &lineage(&[(1, 3)]), Epoch::FIRST);
        assert_eq!(row.through, Seq::new(2 * STRIDE));
        assert_eq!(row.without_voids((seq(1), seq(2 * STRIDE))), [(seq(1), seq(4)), (seq(7), seq(7))]);
        assert_eq!(row.over_voids(Seq::new(4)), Seq::new(6));
        assert_eq!(row.over_voids(Seq::new(7)), Seq::new(2 * STRIDE));
    }
}
