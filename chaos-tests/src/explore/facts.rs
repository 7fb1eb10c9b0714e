//! What the promises ask of an endpoint, in a few numbers that are worked out once for each endpoint: there are many times as many
//! worlds. It only says quickly that all is well; what is wrong is said by [`Ends::check`](super::Ends::check), which is asked whenever
//! this does not say so.

use journal::{Direction, Incoming};
use messages::{Ranges, Seq};

use super::check::marks;
use super::end::End;
use super::ledger::{Ledgers, number_of};
use super::scope::{Side, id};

/// A set of small numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Few(u32);

impl Few {
    pub(super) const fn has(self, number: u8) -> bool {
        number < 32 && self.0 >> number & 1 == 1
    }

    fn of(ranges: &Ranges) -> Self {
        Self(ranges.iter().flat_map(|(from, to)| from.value()..=to.value()).fold(0, |bits, seq| bits | bit(seq)))
    }

    fn through(mark: u64) -> Self {
        Self((0..=mark).fold(0, |bits, seq| bits | bit(seq)))
    }

    const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

fn bit(number: u64) -> u32 {
    assert!(number < 32, "nobody sends so many messages in a small world");
    1 << number
}

/// What the promises ask of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) restored: bool,
    frozen: bool,
    /// What it believes to be received and settled at the other side.
    received: u64,
    pub(super) settled: u64,
    beyond: Few,
    /// What it has received and settled of the other side's stream.
    through: u64,
    pub(super) over: u64,
    held: Few,
    /// The messages that it has whole, by their places in the ledgers.
    pub(super) sent: Few,
    pub(super) got: Few,
    /// As far as it alone can tell nothing is left to be done.
    pub(super) done: bool,
}

impl Facts {
    pub(super) fn of(side: Side, end: &End) -> Self {
        let peer = id(side.other());
        let streams = end.disk.streams(&peer);
        let outgoing = streams.map(|streams| streams.outgoing.clone()).unwrap_or_default();
        let incoming = end.disk.incoming(&peer);
        let (through, over) = marks(incoming);
        let whole = |direction, from: Side| {
            let numbers = end.disk.whole(direction).filter_map(|message| number_of(from, message));
            Few(numbers.fold(0, |bits, number| bits | bit(u64::from(number))))
        };
        let last = outgoing.next.previous();
        Self {
            restored: end.restored.is_some(),
            frozen: end.session.frozen(&peer).is_some(),
            received: Seq::count(outgoing.received),
            settled: Seq::count(outgoing.settled),
            beyond: Few::of(&outgoing.ranges),
            through: Seq::count(through),
            over: Seq::count(over),
            held: Few::of(&incoming.map(Incoming::ranges_there).unwrap_or_default()),
            sent: whole(Direction::Out, side),
            got: whole(Direction::In, side.other()),
            done: streams.is_some_and(|streams| streams.work.is_empty())
                && end.held.is_empty()
                && (outgoing.received, outgoing.settled) == (last, last)
                && (side == Side::Server || end.session.heard(&peer)),
        }
    }
}

/// Whether every promise is kept.
pub(super) fn all_is_well(facts: [&Facts; 2], ledgers: &Ledgers) -> bool {
    let agree = !facts.iter().any(|facts| facts.restored);
    Side::BOTH.into_iter().all(|side| {
        let (end, other) = (facts[side.at()], facts[side.other().at()]);
        let believed = end.received <= other.through
            && end.settled <= other.over
            && (end.beyond == Few::default()
                || end.beyond.is_within(Few(Few::through(other.through).0 | other.held.0)));
        !end.frozen && (!agree || believed) && ledgers.are_kept(side, facts)
    })
}
