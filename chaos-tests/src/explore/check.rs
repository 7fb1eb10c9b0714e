//! The promises, as questions to one world, and when a world has come to its end. What a restored journal costs is in
//! two places: [`Ends::may_disagree`] here, and the ledger. Streams stop in no world: no two copies of a journal run at once.

use journal::Incoming;
use messages::{Envelope, Seq};

use super::disk::Disk;
use super::end::End;
use super::ledger::{Journals, Ledgers};
use super::scope::{Scope, Side, id};
use super::violation::Violation;

/// The two endpoints of a world.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a>(pub(super) [&'a End; 2]);

impl<'a> Ends<'a> {
    pub(super) const fn end(&self, side: Side) -> &'a End {
        self.0[side.at()]
    }

    /// Asks for every promise.
    ///
    /// # Errors
    /// [`Violation`]
    pub(super) fn check(&self, ledgers: &Ledgers) -> Result<(), Violation> {
        for side in Side::BOTH {
            ledgers.check_kept(self.journals(), side)?;
            self.check_beliefs(side)?;
            if let Some(freeze) = self.end(side).session.frozen(&id(side.other())) {
                return Err(Violation::StoppedWithoutCause { side, reason: freeze.to_string() });
            }
        }
        Ok(())
    }

    /// What a side believes to be at the other one is there.
    fn check_beliefs(&self, side: Side) -> Result<(), Violation> {
        if self.may_disagree() {
            return Ok(());
        }
        let Some(streams) = self.end(side).disk.streams(&id(side.other())) else { return Ok(()) };
        let outgoing = &streams.outgoing;
        let incoming = self.end(side.other()).disk.incoming(&id(side));
        let (through, settled) = marks(incoming);
        if outgoing.received > through {
            return Err(Violation::Belief { side, what: "received" });
        }
        if outgoing.ranges.last().is_some() {
            let beyond = incoming.map(Incoming::ranges_there).unwrap_or_default();
            let there = |seq| Some(seq) <= through || beyond.contains(seq);
            let ranges = outgoing.ranges.iter().flat_map(|(from, to)| from.value()..=to.value());
            if !ranges.filter_map(Seq::new).all(there) {
                return Err(Violation::Belief { side, what: "received" });
            }
        }
        if outgoing.settled > settled {
            return Err(Violation::Belief { side, what: "settled" });
        }
        Ok(())
    }

    /// Whether everything that can be wished for has come: all is submitted, handed over and settled, and both ends know each other
    /// and agree about it.
    pub(super) fn is_at_its_end(&self, ledgers: &Ledgers, scope: &Scope) -> bool {
        Side::BOTH.into_iter().all(|side| ledgers.is_complete(side) && self.is_settled(side, scope))
    }

    /// Whether a restored journal goes on under another name.
    pub(super) fn is_healed(&self) -> bool {
        Side::BOTH.into_iter().any(|side| {
            let end = self.end(side);
            end.restored.is_some() && end.session.name_towards(&id(side.other())) != end.session.identity().incarnation
        })
    }

    /// Whether everything that this side sends is received, taken and settled, on both sides, and both know it.
    fn is_settled(&self, side: Side, scope: &Scope) -> bool {
        let (peer, end, other) = (id(side.other()), self.end(side), self.end(side.other()));
        let Some(streams) = end.disk.streams(&peer) else { return false };
        let (last, outgoing) = (streams.outgoing.next.previous(), &streams.outgoing);
        if !streams.work.is_empty() || !end.held.is_empty() {
            return false;
        }
        let theirs = other.disk.incoming(&id(side));
        let own = end.session.name_towards(&peer);
        let known = theirs.is_some_and(|row| row.incarnation == own && row.losses == outgoing.losses);
        // A server with nothing to say may stay unheard: what its agent says shows whether its journal forgot anything.
        // An agent whose journal was restored after its answers had arrived does not send them again, and one whose server was
        // restored may be asked twice.
        let all = (side == Side::Agent && self.may_disagree()) || last == Seq::new(scope.sends(side));
        known
            && all
            && (side == Side::Server || end.session.heard(&peer))
            && marks(theirs) == (last, last)
            && (outgoing.received, outgoing.settled) == (last, last)
    }

    pub(super) fn journals(&self) -> Journals<'a> {
        Journals(self.0.map(End::journal))
    }

    fn may_disagree(&self) -> bool {
        self.journals().may_disagree()
    }
}

/// A status says nothing that is not committed.
pub(super) fn check_claim(side: Side, disk: &Disk, envelope: &Envelope) -> Result<(), Violation> {
    let Envelope::Status(status) = envelope else { return Ok(()) };
    let streams = disk.streams(&id(side.other())).cloned().unwrap_or_default();
    let claim = |what| Err(Violation::Claim { side, what });
    if status.sending.next > streams.outgoing.next || status.sending.forget_through > streams.outgoing.forgotten {
        return claim("messages sent");
    }
    let Some(said) = &status.receiving else { return Ok(()) };
    let Some(row) = &streams.incoming else { return claim("a stream") };
    let (through, settled) = marks(Some(row));
    let beyond = row.ranges_there();
    let there = |seq| Some(seq) <= through || beyond.contains(seq);
    let ranges = said.ranges.iter().flat_map(|(from, to)| from.value()..=to.value()).filter_map(Seq::new);
    if said.through > through || ranges.into_iter().any(|seq| !there(seq)) {
        return claim("messages received");
    }
    if said.settled_through > settled { claim("messages settled") } else { Ok(()) }
}

/// The received and the settled mark, in the sender's numbers.
pub(super) fn marks(row: Option<&Incoming>) -> (Option<Seq>, Option<Seq>) {
    row.map_or((None, None), |row| (row.mark_there(row.through), row.mark_there(row.settled)))
}
