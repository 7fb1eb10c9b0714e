//! What a search remembers outside the journals: what was submitted, what of it was acknowledged, and what applications were
//! handed. Nothing restores it, so it shows what a restored journal forgot. It never tells a session anything.

use journal::{Direction, PeerState};
use messages::{MessageId, Seq};

use super::violation::Violation;
use super::world::{Side, World, id};

/// One message that somebody submitted and that was committed.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Sent {
    /// The place that it was given in the journal of that time.
    seq: Seq,
    /// Whoever submitted it was told that it is safe.
    pub(super) told: bool,
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
pub(super) struct Ledger(Vec<Sent>);

/// What a side knew of its own when the copy was made that it was restored from.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Known {
    next: Seq,
    through: Option<Seq>,
}

impl Known {
    pub(super) fn of(streams: &PeerState) -> Self {
        let incoming = streams.incoming.as_ref();
        let through = incoming.and_then(|row| row.ranges_there().last().max(row.mark_there(row.through)));
        Self { next: streams.outgoing.next, through }
    }
}

/// The message that has that number.
pub(super) fn message_id(side: Side, number: usize) -> MessageId {
    MessageId::from_u128(1_000 * (1 + side.at() as u128) + number as u128)
}

impl Ledger {
    pub(super) fn next_number(&self) -> usize {
        self.0.len() + 1
    }

    pub(super) fn submitted(&mut self, seq: Seq) {
        self.0.push(Sent { seq, told: false, gone: false, handed: Handed::Never });
    }

    pub(super) fn told(&mut self) {
        if let Some(sent) = self.0.last_mut() {
            sent.told = true;
        }
    }

    fn numbered(&self, side: Side) -> impl Iterator<Item = (MessageId, &Sent)> {
        (1..).zip(&self.0).map(move |(number, sent)| (message_id(side, number), sent))
    }

    /// Whether everything that can still come has come.
    pub(super) fn is_complete(&self) -> bool {
        self.0.iter().all(|sent| sent.gone || sent.handed != Handed::Never)
    }
}

impl World {
    /// Judges that the application of `side` is handed the message at that place, and notes it.
    pub(super) fn hand(&mut self, side: Side, seq: Seq, message: MessageId) -> Result<(), Violation> {
        let from = side.other();
        let row = self.end(side).disk.streams(&id(from)).incoming;
        let doubtful = row.is_some_and(|row| Some(seq) <= row.doubtful);
        let ledger = &mut self.ledgers[from.at()];
        let known = ledger.numbered(from).position(|(known, _)| known == message);
        let number = known.ok_or(Violation::OfferedUnwritten { side, seq })?;
        // What no journal has any more cannot come; everything else that was submitted before must have come before.
        let skipped = ledger.0[..number].iter().any(|sent| !sent.gone && sent.handed == Handed::Never);
        let taken = &self.end(side).taken;
        let behind = taken.last().is_some_and(|last| usize::from(*last) > number);
        if skipped || behind {
            return Err(Violation::OutOfOrder { side, seq, taken: taken.len() as u64 });
        }
        let sent = &mut self.ledgers[from.at()].0[number];
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

    /// The number of a message among those of `from`.
    pub(super) fn number(&self, from: Side, message: MessageId) -> Option<u8> {
        let place = self.ledgers[from.at()].numbered(from).position(|(known, _)| known == message);
        place.and_then(|place| u8::try_from(place).ok())
    }

    /// After the journal of `side` was restored: what only its lost part had is gone, and what its application was handed by that part
    /// may come again.
    pub(super) fn forget_life(&mut self, side: Side) {
        let remembered = self.end(side).taken.clone();
        let heard = self.shows_lost_life(side);
        for (number, sent) in (0_u8..).zip(&mut self.ledgers[side.other().at()].0) {
            if sent.handed == Handed::Now && !remembered.contains(&number) {
                sent.handed = Handed::Before { heard };
            }
        }
        // What this side had heard of a lost life of the other one, it may have forgotten as well.
        let still = self.shows_lost_life(side.other());
        for sent in &mut self.ledgers[side.at()].0 {
            if let Handed::Before { heard } = &mut sent.handed {
                *heard &= still;
            }
        }
        for from in Side::BOTH {
            let (sender, receiver) = (self.end(from), self.end(from.other()));
            let held = |message| {
                sender.disk.holds_id(Direction::Out, message) || receiver.disk.holds_id(Direction::In, message)
            };
            let held: Vec<bool> = self.ledgers[from.at()].numbered(from).map(|(message, _)| held(message)).collect();
            for (sent, held) in self.ledgers[from.at()].0.iter_mut().zip(held) {
                sent.gone |= !held && sent.handed == Handed::Never;
            }
        }
    }

    /// After the other side took in what a lost life of `side` had sent.
    pub(super) fn hear_of_lost_life(&mut self, side: Side) {
        if self.shows_lost_life(side) {
            for sent in &mut self.ledgers[side.other().at()].0 {
                if let Handed::Before { heard } = &mut sent.handed {
                    *heard = true;
                }
            }
        }
    }

    /// Whether the other side has noted something that `side` did after its copy was made.
    fn shows_lost_life(&self, side: Side) -> bool {
        let Some(known) = self.end(side).restored else { return false };
        let streams = self.end(side.other()).disk.streams(&id(side));
        let outgoing = &streams.outgoing;
        let there = Known::of(&streams).through;
        there >= Some(known.next) || outgoing.ranges.last().max(outgoing.received) > known.through
    }

    /// P1: what was acknowledged is whole in a journal until the application of the other side was handed it. Settled is only what it
    /// was handed.
    pub(super) fn check_kept(&self, side: Side) -> Result<(), Violation> {
        let (end, other) = (self.end(side), self.end(side.other()));
        let settled = end.disk.streams(&id(side.other())).outgoing.settled;
        for (message, sent) in self.ledgers[side.at()].numbered(side) {
            if sent.handed != Handed::Never || sent.gone {
                continue;
            }
            let seq = sent.seq;
            if end.restored.is_none() && Some(seq) <= settled {
                return Err(Violation::SettledUntaken { side, seq });
            }
            let kept = end.disk.holds_id(Direction::Out, message);
            // Once its sender was restored, a message may be kept by its receiver alone.
            let came = end.restored.is_some() && other.disk.holds_id(Direction::In, message);
            if sent.told && !kept && !came {
                return Err(Violation::Lost { side, seq });
            }
        }
        Ok(())
    }
}
