//! What a search remembers outside the journals: what was submitted, what of it was acknowledged, and what applications were
//! handed. Nothing restores it, so it shows what a restored journal forgot. It never tells a session anything.

use journal::{Direction, PeerState};
use messages::{MessageId, Seq};

use super::check::marks;
use super::end::Journal;
use super::facts::Facts;
use super::scope::{Side, id};
use super::violation::Violation;

/// One message that somebody submitted and that was committed.
#[derive(Debug, Clone, Copy, Hash)]
struct Sent {
    /// The place that it was given in the journal of that time.
    seq: Seq,
    /// Whoever submitted it was told that it is safe.
    told: bool,
    /// A restored journal was the only one that had it. No protocol brings it back.
    gone: bool,
    handed: Handed,
}

/// Whether the application of the other side was handed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Handed {
    Never,
    /// By the life that the journal remembers.
    Now,
    /// By a life that a restored journal forgot.
    Before {
        /// The sender heard something that only that life knew. If not, that life looks to everybody like a process that died before it
        /// did anything: the message comes again, and nobody can mark it. That is inherent.
        heard: bool,
    },
}

/// Everything that one side ever submitted, oldest first. The number of a message is its place here, from 1.
#[derive(Debug, Clone, Default, Hash)]
struct Ledger(Vec<Sent>);

/// What each side ever submitted.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct Ledgers([Ledger; 2]);

/// What is durable on both sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journals<'a>(pub(super) [Journal<'a>; 2]);

impl<'a> Journals<'a> {
    const fn end(&self, side: Side) -> Journal<'a> {
        self.0[side.at()]
    }

    /// Whether the marks of the two journals may contradict each other for a while. One of them was restored; only at the end they
    /// must agree again.
    pub(super) fn may_disagree(&self) -> bool {
        self.0.iter().any(|end| end.restored.is_some())
    }
}

/// What a side knew of its own when the copy was made that it was restored from.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Known {
    next: Seq,
    through: Option<Seq>,
}

impl Known {
    pub(super) fn of(streams: Option<&PeerState>) -> Self {
        let incoming = streams.and_then(|streams| streams.incoming.as_ref());
        let through = incoming.and_then(|row| row.ranges_there().last().max(row.mark_there(row.through)));
        Self { next: streams.map_or(Seq::FIRST, |streams| streams.outgoing.next), through }
    }
}

const fn first_id(side: Side) -> u128 {
    1_000 * (1 + side.at() as u128)
}

/// The message that has that number.
pub(super) fn message_id(side: Side, number: usize) -> MessageId {
    MessageId::from_u128(first_id(side) + number as u128)
}

/// The place of a message among those of `from`.
pub(super) fn number_of(from: Side, message: MessageId) -> Option<u8> {
    let number = message.uuid().as_u128().checked_sub(first_id(from) + 1)?;
    u8::try_from(number).ok()
}

impl Ledger {
    fn numbered(&self, side: Side) -> impl Iterator<Item = (MessageId, &Sent)> {
        (1..).zip(&self.0).map(move |(number, sent)| (message_id(side, number), sent))
    }
}

impl Ledgers {
    pub(super) fn next_number(&self, side: Side) -> usize {
        self.0[side.at()].0.len() + 1
    }

    pub(super) fn submitted(&mut self, side: Side, seq: Seq, told: bool) {
        self.0[side.at()].0.push(Sent { seq, told, gone: false, handed: Handed::Never });
    }

    /// Whether everything of `side` that can still come has come.
    pub(super) fn is_complete(&self, side: Side) -> bool {
        self.0[side.at()].0.iter().all(|sent| sent.gone || sent.handed != Handed::Never)
    }

    /// Judges that the application of `side`, which is as it was just before, is handed the message at that place, and notes it.
    pub(super) fn hand(&mut self, side: Side, end: Journal<'_>, seq: Seq, message: MessageId) -> Result<(), Violation> {
        let from = side.other();
        let row = end.disk.incoming(&id(from));
        let doubtful = row.is_some_and(|row| Some(seq) <= row.doubtful);
        let ledger = &mut self.0[from.at()];
        let known = ledger.numbered(from).position(|(known, _)| known == message);
        let number = known.ok_or(Violation::OfferedUnwritten { side, seq })?;
        // What no journal has any more cannot come; everything else that was submitted before must have come before.
        let skipped = ledger.0[..number].iter().any(|sent| !sent.gone && sent.handed == Handed::Never);
        let behind = end.taken.last().is_some_and(|last| usize::from(*last) > number);
        if skipped || behind {
            return Err(Violation::OutOfOrder { side, seq, taken: end.taken.len() as u64 });
        }
        let sent = &mut ledger.0[number];
        let unseen = match sent.handed {
            Handed::Never => true,
            Handed::Now => false,
            // What the server is handed are reports. They are true whenever they come, so it does not wait to be heard first.
            Handed::Before { heard } => doubtful || !heard || side == Side::Server,
        };
        if !unseen {
            return Err(Violation::OfferedAgain { side, seq });
        }
        sent.handed = Handed::Now;
        Ok(())
    }

    /// After the journal of `side` was restored: what only its lost part had is gone, and what its application was handed by that part
    /// may come again.
    pub(super) fn forget_life(&mut self, ends: Journals<'_>, side: Side) {
        let remembered = ends.end(side).taken;
        let heard = shows_lost_life(ends, side);
        for (number, sent) in (0_u8..).zip(&mut self.0[side.other().at()].0) {
            if sent.handed == Handed::Now && !remembered.contains(&number) {
                sent.handed = Handed::Before { heard };
            }
        }
        // What this side had heard of a lost life of the other one, it may have forgotten as well.
        let still = shows_lost_life(ends, side.other());
        for sent in &mut self.0[side.at()].0 {
            if let Handed::Before { heard } = &mut sent.handed {
                *heard &= still;
            }
        }
        for from in Side::BOTH {
            let (sender, receiver) = (ends.end(from), ends.end(from.other()));
            let held = |message| sender.has(Direction::Out, message) || receiver.has(Direction::In, message);
            let held: Vec<bool> = self.0[from.at()].numbered(from).map(|(message, _)| held(message)).collect();
            for (sent, held) in self.0[from.at()].0.iter_mut().zip(held) {
                sent.gone |= !held && sent.handed == Handed::Never;
            }
        }
    }

    /// After `side` took in something that was sent by a lost life of the other side, perhaps that message. What was gone is there
    /// again if it was journaled now.
    pub(super) fn hear_of_lost_life(&mut self, ends: Journals<'_>, side: Side, message: Option<MessageId>) {
        let from = side.other();
        if shows_lost_life(ends, from) {
            for sent in &mut self.0[side.at()].0 {
                if let Handed::Before { heard } = &mut sent.handed {
                    *heard = true;
                }
            }
        }
        let number = message.and_then(|message| number_of(from, message)).map(usize::from);
        if let Some((message, sent)) = message.zip(number.and_then(|number| self.0[from.at()].0.get_mut(number))) {
            sent.gone &= !ends.end(side).has(Direction::In, message);
        }
    }

    /// P1: what was acknowledged is whole in a journal until the application of the other side was handed it. Settled is only what it
    /// was handed, and what is not settled is kept.
    pub(super) fn check_kept(&self, ends: Journals<'_>, side: Side) -> Result<(), Violation> {
        let (end, other) = (ends.end(side), ends.end(side.other()));
        let settled = end.disk.streams(&id(side.other())).and_then(|streams| streams.outgoing.settled);
        let there = if ends.may_disagree() { None } else { marks(other.disk.incoming(&id(side))).1 };
        for (message, sent) in self.0[side.at()].numbered(side) {
            let (seq, restored) = (sent.seq, end.restored.is_some());
            let open = sent.handed == Handed::Never && !sent.gone;
            if open && ((!restored && Some(seq) <= settled) || Some(seq) <= there) {
                return Err(Violation::SettledUntaken { side, seq });
            }
            // Nothing settled it, so the other side may still need it, whatever it was handed.
            let owed = sent.told && !restored && !ends.may_disagree() && Some(seq) > settled;
            if !(owed || open && sent.told) {
                continue;
            }
            let kept = end.has(Direction::Out, message);
            // Once its sender was restored, a message may be kept by its receiver alone.
            let came = restored && other.has(Direction::In, message);
            if !kept && !came {
                return Err(Violation::Lost { side, seq });
            }
        }
        Ok(())
    }
}

impl Ledgers {
    /// The same question as [`Self::check_kept`], answered from what is known of the endpoints without looking at them again.
    pub(super) fn are_kept(&self, side: Side, facts: [&Facts; 2]) -> bool {
        let (end, other) = (facts[side.at()], facts[side.other().at()]);
        let disagree = facts.iter().any(|facts| facts.restored);
        let there = if disagree { 0 } else { other.over };
        (0_u8..).zip(&self.0[side.at()].0).all(|(number, sent)| {
            let seq = sent.seq.value();
            let open = sent.handed == Handed::Never && !sent.gone;
            if open && ((!end.restored && seq <= end.settled) || seq <= there) {
                return false;
            }
            let owed = sent.told && !disagree && seq > end.settled;
            let kept = end.sent.has(number) || end.restored && other.got.has(number);
            kept || !(owed || open && sent.told)
        })
    }
}

/// Whether the other side has noted something that `side` did after its copy was made.
fn shows_lost_life(ends: Journals<'_>, side: Side) -> bool {
    let Some(known) = ends.end(side).restored else { return false };
    let streams = ends.end(side.other()).disk.streams(&id(side));
    let reported = streams.and_then(|streams| streams.outgoing.ranges.last().max(streams.outgoing.received));
    Known::of(streams).through >= Some(known.next) || reported > known.through
}
