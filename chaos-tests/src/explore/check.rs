//! The promises, as questions to one world, and when a world has come to its end. What a restored journal may cost today is in
//! one place, [`World::stopped_as_declared`] and [`World::may_disagree`]; everything else holds for every world.

use journal::Direction;
use messages::{Envelope, Seq};

use super::violation::Violation;
use super::world::{Scope, Side, World, id};

impl World {
    /// Asks for every promise.
    ///
    /// # Errors
    /// [`Violation`]
    pub(super) fn check(&self) -> Result<(), Violation> {
        for side in Side::BOTH {
            self.check_kept(side)?;
            self.check_beliefs(side)?;
            if let Some(freeze) = self.end(side).session.frozen(&id(side.other()))
                && !self.stopped_as_declared()
            {
                return Err(Violation::StoppedWithoutCause { side, reason: freeze.to_string() });
            }
        }
        Ok(())
    }

    /// P1: what was acknowledged is in the journal until it is settled, and settled is what the other side has taken.
    fn check_kept(&self, side: Side) -> Result<(), Violation> {
        let (end, other) = (self.end(side), self.end(side.other()));
        let outgoing = end.disk.streams(&id(side.other())).outgoing;
        let (told, settled) = (Seq::count(end.told), Seq::count(outgoing.settled));
        if let Some(seq) = (settled + 1..=told).filter_map(Seq::new).find(|seq| !end.disk.holds(Direction::Out, *seq)) {
            return Err(Violation::Lost { side, seq });
        }
        match outgoing.settled {
            Some(seq) if other.taken.len() < usize::try_from(settled).unwrap_or(usize::MAX) && !self.may_disagree() => {
                Err(Violation::SettledUntaken { side, seq })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What a side believes to be at the other one is there.
    fn check_beliefs(&self, side: Side) -> Result<(), Violation> {
        if self.may_disagree() {
            return Ok(());
        }
        let outgoing = self.end(side).disk.streams(&id(side.other())).outgoing;
        let incoming = self.end(side.other()).disk.streams(&id(side)).incoming;
        let (through, settled) = incoming.as_ref().map_or((None, None), |row| (row.through, row.settled));
        let there = |seq| Some(seq) <= through || incoming.as_ref().is_some_and(|row| row.ranges.contains(seq));
        let ranges = outgoing.ranges.iter().flat_map(|(from, to)| from.value()..=to.value()).filter_map(Seq::new);
        if outgoing.received > through || ranges.into_iter().any(|seq| !there(seq)) {
            return Err(Violation::Belief { side, what: "received" });
        }
        if outgoing.settled > settled {
            return Err(Violation::Belief { side, what: "settled" });
        }
        Ok(())
    }

    /// A status says nothing that is not committed.
    pub(super) fn check_claim(&self, side: Side, envelope: &Envelope) -> Result<(), Violation> {
        let Envelope::Status(status) = envelope else { return Ok(()) };
        let streams = self.end(side).disk.streams(&id(side.other()));
        let claim = |what| Err(Violation::Claim { side, what });
        if status.sending.next > streams.outgoing.next || status.sending.forget_through > streams.outgoing.forgotten {
            return claim("messages sent");
        }
        let Some(said) = &status.receiving else { return Ok(()) };
        let Some(row) = &streams.incoming else { return claim("a stream") };
        let there = |seq| Some(seq) <= row.through || row.ranges.contains(seq);
        let ranges = said.ranges.iter().flat_map(|(from, to)| from.value()..=to.value()).filter_map(Seq::new);
        if said.through > row.through || ranges.into_iter().any(|seq| !there(seq)) {
            return claim("messages received");
        }
        if said.settled_through > row.settled { claim("messages settled") } else { Ok(()) }
    }

    /// Whether everything that can be wished for has come, or the end has come in a way that is declared.
    pub(super) fn is_at_its_end(&self, scope: &Scope) -> bool {
        (self.is_stopped() && self.stopped_as_declared())
            || Side::BOTH.into_iter().all(|side| self.is_settled(side, scope))
    }

    /// Whether a side has stopped its streams.
    pub(super) fn is_stopped(&self) -> bool {
        Side::BOTH.into_iter().any(|side| self.end(side).session.frozen(&id(side.other())).is_some())
    }

    /// Whether everything that this side sends is received, taken and settled, on both sides, and both know it.
    fn is_settled(&self, side: Side, scope: &Scope) -> bool {
        let (end, other) = (self.end(side), self.end(side.other()));
        let streams = end.disk.streams(&id(side.other()));
        let (outgoing, last) = (streams.outgoing, Seq::new(scope.sends(side)));
        let theirs = other.disk.streams(&id(side)).incoming;
        let agree = theirs.map_or((None, None), |row| (row.through, row.settled)) == (last, last);
        if self.may_disagree() {
            // It has nothing open by its own books.
            return outgoing.settled == outgoing.next.previous() && streams.work.is_empty();
        }
        let mine = outgoing.next.previous() == last && outgoing.received == last && outgoing.settled == last;
        mine && agree && streams.work.is_empty()
    }

    /// Whether streams may be stopped, with a reason that people see: today that is how a restored journal ends.
    fn stopped_as_declared(&self) -> bool {
        self.ends.iter().any(|end| end.rolled_back)
    }

    /// Whether the marks of the two journals may contradict each other. Today nothing brings them together again after one of
    /// them was restored: the one that lost something is stopped as soon as the other one asks, and asks for nothing itself.
    fn may_disagree(&self) -> bool {
        self.ends.iter().any(|end| end.rolled_back)
    }
}
