//! What happens when a journal was restored from an old copy, was lost, or was copied: who finds out, and how the two ends agree on
//! what is left. Nothing is guessed: what a lost journal may have carried out is handed on marked as perhaps done.
//!
//! - *The end that lost something* finds it out from any status of its peer, which knows more of this journal than the journal
//!   itself. It goes on under another name, from where its memory ends ([`Session::supersede`]). But a process that the peer has
//!   heard already cannot be such a copy: then a second one runs, and the streams stop for a person.
//! - *The other end* hears a name that it does not know, and asks. Only from an answer to its own question it takes the new journal
//!   over ([`Session::adopt`]): an old status that lay in the broker answers nothing.
//! - Before the two have agreed, nothing is taken ([`Session::establish`]).

use journal::{Change, Incoming, Outgoing, Row, Succession};
use messages::{EndpointId, Epoch, Incarnation, Lineage, Nonce, Origin, Seq, Status};

use super::effects::{Fault, ResolveError, Rewound};
use super::{Freeze, Now, Probe, Session, Turn};

impl Session {
    /// The name under which this endpoint's journal writes the stream to a peer.
    pub(super) fn own(&self, peer: &EndpointId) -> Incarnation {
        let written = self.streams(peer).and_then(|streams| streams.outgoing.lineage.as_ref());
        written.map_or(self.identity.incarnation, |lineage| lineage.current().incarnation)
    }

    /// Whether this endpoint's journal wrote a part of that stream under that name.
    pub(super) fn wrote(&self, peer: &EndpointId, name: Incarnation) -> bool {
        let written = self.streams(peer).and_then(|streams| streams.outgoing.lineage.as_ref());
        written.map_or(self.identity.incarnation == name, |lineage| lineage.contains(name))
    }

    pub(super) fn lineage(&self, peer: &EndpointId) -> Lineage {
        let written = self.streams(peer).and_then(|streams| streams.outgoing.lineage.clone());
        written.unwrap_or_else(|| Lineage::new(self.identity.incarnation))
    }

    /// What in a status shows that the peer knows more of this journal than the journal itself, or something else.
    pub(super) fn behind(&self, peer: &EndpointId, status: &Status) -> Option<Freeze> {
        let own = self.own(peer);
        let next = self.streams(peer).map_or(Seq::FIRST, |streams| streams.outgoing.next);
        if let Some(report) = &status.receiving {
            if report.superseded.contains(&own) {
                return Some(Freeze::Replaced { known: report.incarnation });
            }
            if report.incarnation == own {
                // Two copies that were both heard have written the same places. What this one wrote there is on no other disk, and
                // under another name it would count as received.
                if let Some(diverged) = self.contradiction(peer, report) {
                    return Some(diverged);
                }
                if report.epoch > self.identity.epoch {
                    return Some(Freeze::Superseded { epoch: self.identity.epoch, heard: report.epoch });
                }
                let (sent, reaches) = (next.previous(), report.ranges.last().max(report.through));
                if reaches > sent {
                    return Some(Freeze::RolledBack { sent, received: reaches });
                }
                let another = report.nonce.is_some_and(|nonce| nonce != self.identity.nonce);
                if another && report.epoch == self.identity.epoch {
                    return Some(Freeze::Doubled);
                }
            }
        }
        self.forgetful(peer, status)
    }

    /// Whether this journal had told the peer of more than it has: that it received something, or, at an agent, that something is over.
    /// A server that forgot how a report was settled only takes it again, and reports are true whenever they come.
    fn forgetful(&self, peer: &EndpointId, status: &Status) -> Option<Freeze> {
        let sending = &status.sending;
        let incoming = self.incoming(peer)?;
        let own = self.own(peer);
        if sending.toward != Some(own) || incoming.incarnation != sending.incarnation {
            return None;
        }
        let established = incoming.own == Some(own);
        // What the peer had settled with a lost journal is expected to be missing here at first, and only that.
        let excused = sending.settled_through.min(sending.doubtful_through).filter(|_| !established);
        let said = sending.acknowledged.max(sending.settled_through);
        // What was taken before the peer heard this process hides nothing.
        let sworn = incoming.as_sworn();
        let incoming = sworn.as_ref().unwrap_or(incoming);
        let found = incoming.mark_there(incoming.through);
        if said > found.max(excused) {
            return Some(Freeze::Forgetful { said, found });
        }
        let beyond = sending.acknowledged_beyond.highest_beyond(found.max(excused), &incoming.ranges_there());
        if let Some(said) = beyond {
            return Some(Freeze::Forgetful { said: Some(said), found });
        }
        let (said, found) = (sending.settled_through, incoming.mark_there(incoming.settled));
        (established && self.is_agent() && said > found).then_some(Freeze::Forgetful { said, found })
    }

    /// Takes from a status what is true whoever says it, also one that is not believed otherwise: that this journal is behind. Nothing
    /// old knows the future, and two ends that were both put back to older copies would ignore each other for ever. Returns whether
    /// it was so.
    pub(super) fn heed(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, status: &Status) -> bool {
        let stopped = self.peers.get(peer).is_some_and(|entry| entry.frozen.is_some());
        let Some(behind) = self.behind(peer, status).filter(|_| !stopped) else { return false };
        self.fell_behind(now, turn, peer, behind);
        true
    }

    /// Acts on what [`Self::behind`] found: goes on under another name, or stops.
    pub(super) fn fell_behind(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, behind: Freeze) {
        let diverged = matches!(behind, Freeze::Diverged { .. });
        if diverged || self.peers.get(peer).is_some_and(|entry| entry.agreed) {
            self.freeze(now, turn, peer, behind);
            return;
        }
        let from = self.own(peer);
        let to = from.successor(self.identity.nonce);
        turn.effects.faults.push(Fault::Superseding { peer: peer.clone(), behind, from, to });
        self.supersede(now, turn, peer, to);
    }

    /// Lets the stream to a peer go on under another name, from where this journal's memory of it ends. What the peer has of it
    /// beyond, stays with the peer.
    pub(super) fn supersede(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, to: Incarnation) {
        let mut outgoing = self.streams(peer).map(|streams| streams.outgoing.clone()).unwrap_or_default();
        let mut lineage = self.lineage(peer);
        lineage.supersede(Origin { from: outgoing.next, incarnation: to, previous: outgoing.head });
        outgoing.lineage = Some(lineage);
        self.change(turn, Change::Put(Row::Outgoing(peer.clone(), outgoing)));
        self.start_over(peer);
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.frozen = None;
            entry.agreed = false;
            entry.apart = true;
        }
        turn.effects.changed.push(peer.clone());
        self.publish_status(now, turn, peer, Probe::Yes);
    }

    /// Forgets what questions and answers with an earlier journal had come to.
    fn start_over(&mut self, peer: &EndpointId) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let side = &mut entry.sending;
        side.missing.clear();
        side.probes.clear();
        side.attempts = 0;
        side.fruitless = 0;
        side.peer_window = None;
        entry.receiving.rival = None;
    }

    /// Whether a status answers a question that this process asked since it last changed its mind about who the peer is.
    pub(super) fn is_fresh(&self, peer: &EndpointId, status: &Status) -> bool {
        let Some(entry) = self.peers.get(peer) else { return false };
        status.answers.is_some_and(|id| entry.sending.probes.iter().any(|asked| asked.id == id))
    }

    /// A journal speaks that is not the one known under the peer's name. Returns whether it is taken for the peer's now.
    pub(super) fn another_journal(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, status: &Status) -> bool {
        let found = status.sending.incarnation;
        let fresh = self.is_fresh(peer, status);
        let Some(known) = self.incoming(peer).cloned() else { return false };
        if known.superseded.contains(&found) {
            turn.effects.faults.push(Fault::Stale { peer: peer.clone() });
            // It is told, so that a process that is still alive learns what it is.
            self.report_now(now, peer);
            self.heed(now, turn, peer, status);
            return false;
        }
        let lineage = status.sending.parts().filter(|_| fresh);
        let Some(lineage) = lineage else {
            turn.effects.faults.push(Fault::Unproven { peer: peer.clone(), found });
            self.ask_now(now, turn, peer);
            return false;
        };
        self.adopt(now, turn, peer, &known, &lineage, status);
        true
    }

    /// Takes another journal for the peer's. What the older one sent and the new one does not remember stays; what was sent to it and
    /// is not settled is sent again, marked as perhaps done.
    fn adopt(
        &mut self,
        now: Now,
        turn: &mut Turn,
        peer: &EndpointId,
        known: &Incoming,
        lineage: &Lineage,
        status: &Status,
    ) {
        let (incoming, succession) = known.adopt(status.sending.made_as(), lineage, status.sending.epoch);
        let (from, found) = (known.incarnation, incoming.incarnation);
        let through = incoming.through.filter(|_| incoming.through > known.through);
        self.change(turn, Change::Put(Row::Incoming(peer.clone(), incoming)));
        turn.effects.offer.extend(through.map(|through| (peer.clone(), through)));

        let mut outgoing = self.streams(peer).map(|streams| streams.outgoing.clone()).unwrap_or_default();
        let written = self.lineage(peer);
        let report = status.receiving.as_ref().filter(|report| written.contains(report.incarnation));
        // Messages that lay in the broker may have come to it since it was restored: what it had then shows whether anything is lost.
        // What it has of a part that another one has replaced since is nothing of this stream.
        let (sworn, beyond) = report.map_or((None, None), |report| {
            let (mark, ranges) = report.sworn_marks();
            (written.within(report.incarnation, mark), Some(ranges.clone()))
        });
        let sworn = sworn.min(outgoing.next.previous());
        let lacks = outgoing.ranges.highest_beyond(sworn, &beyond.unwrap_or_default()).is_some();
        // Only agents are held to what they had said to be over, see `forgetful`.
        let over = report.and_then(|report| written.within(report.incarnation, report.settled_through));
        let forgot = !self.is_agent() && over < outgoing.settled;
        outgoing.peer = Some(found);
        // Whatever was published may have been taken, although no word of that came here.
        let published = self.peers.get(peer).and_then(|entry| entry.sending.published).max(outgoing.received);
        let lost = match succession {
            Succession::Continues => sworn < outgoing.received || lacks || forgot,
            Succession::Forgot => true,
            Succession::Another => published.is_some(),
        };
        if lost {
            // It has more, perhaps: it says so when it has heard that it is heard.
            outgoing.received = sworn.max(outgoing.settled);
            outgoing.ranges = messages::Ranges::default();
            // A process with a smaller window does not know how far an earlier one had come.
            outgoing.doubtful = published.max(outgoing.doubtful);
            outgoing.losses = outgoing.losses.saturating_add(1);
            let doubtful = outgoing.doubtful;
            turn.effects.rewound.push(Rewound::Peers(peer.clone()));
            turn.effects.faults.push(Fault::PeerSuperseded { peer: peer.clone(), known: from, found, doubtful });
        }
        self.change(turn, Change::Put(Row::Outgoing(peer.clone(), outgoing)));
        self.start_over(peer);
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.frozen = None;
            entry.receiving.nonce = Some((status.sending.epoch, status.nonce));
            entry.sending.probe_due = Some(now.at);
        }
        self.settle(now, turn, peer);
        turn.effects.changed.push(peer.clone());
    }

    /// A process that the peer has not heard writes in a part of its own. If its journal is an old copy, the peer has other messages in
    /// those places, and must not take one for the other. A journal that was made by this process is no copy.
    pub(super) fn write_apart(&mut self, turn: &mut Turn, peer: &EndpointId) {
        let outgoing = self.streams(peer).map(|streams| streams.outgoing.clone()).unwrap_or_default();
        let Some(entry) = self.peers.get(peer) else { return };
        if entry.agreed || entry.apart || self.identity.epoch == Epoch::FIRST {
            return;
        }
        let mut lineage = self.lineage(peer);
        let second = lineage.iter().nth(1).map(|origin| origin.from);
        if lineage.is_full() && second > Some(Seq::after(outgoing.received)) {
            // The peer may still need to know of the oldest part. Only after as many restarts without a word of the peer.
            return;
        }
        let incarnation = lineage.current().incarnation.successor(self.identity.nonce);
        lineage.supersede(Origin { from: outgoing.next, incarnation, previous: outgoing.head });
        self.change(turn, Change::Put(Row::Outgoing(peer.clone(), Outgoing { lineage: Some(lineage), ..outgoing })));
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.apart = true;
        }
    }

    /// The peer speaks to this very journal: from now on its messages are taken. Learns what a lost journal had of them.
    pub(super) fn establish(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, status: &Status) {
        let own = self.own(peer);
        let Some(old) = self.incoming(peer).filter(|incoming| incoming.own != Some(own)).cloned() else { return };
        if status.sending.toward != Some(own) {
            return;
        }
        let sending = &status.sending;
        let mut new = old.establish(own, sending.settled_through, sending.doubtful_through, sending.losses);
        self.join(peer, &mut new);
        let over = new.mark_here(sending.settled_through);
        if self.is_agent() {
            // A lost journal has done it. What a server holds are reports, true whenever they come, and its application may have them
            // in hand.
            new.pass(over);
        }
        let lost = new.losses != old.losses;
        if let Some(over) = over.filter(|over| Some(*over) > old.through) {
            turn.effects.faults.push(Fault::Truncated { peer: peer.clone(), from: Seq::after(old.through), over });
        }
        let through = new.through.filter(|_| new.through > old.through);
        self.change(turn, Change::Put(Row::Incoming(peer.clone(), new)));
        turn.effects.offer.extend(through.map(|through| (peer.clone(), through)));
        let ended: Vec<Seq> = self
            .streams(peer)
            .map(|streams| streams.work.keys().copied().filter(|seq| Some(*seq) <= over).collect())
            .unwrap_or_default();
        for seq in ended {
            self.change(turn, Change::DeleteWork(peer.clone(), seq));
        }
        self.settle(now, turn, peer);
        if lost {
            turn.effects.rewound.push(Rewound::Own(peer.clone()));
        }
        self.report_now(now, peer);
    }

    /// Asks the peer, once for all that just came in. The timers of stopped streams are dead, so there it is done at once.
    fn ask_now(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId) {
        match self.peers.get_mut(peer) {
            Some(entry) if entry.frozen.is_none() => entry.sending.probe_due = Some(now.at),
            Some(_) => self.publish_status(now, turn, peer, Probe::Yes),
            None => {}
        }
    }

    fn report_now(&mut self, now: Now, peer: &EndpointId) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.receiving.status_due = Some(now.at);
        }
    }

    /// What a person decided about stopped streams: this journal is the one that counts. It goes on under another name, which the
    /// other end takes over; whichever process speaks next is the peer. `fresh` is 64 random bits.
    ///
    /// # Errors
    /// [`ResolveError`]; nothing happened then.
    pub fn resolve(
        &mut self,
        now: Now,
        peer: &EndpointId,
        fresh: Nonce,
    ) -> Result<journal::WriteAhead<super::Effects>, ResolveError> {
        let entry = self.peers.get_mut(peer).ok_or_else(|| ResolveError::UnknownPeer { peer: peer.clone() })?;
        match &entry.frozen {
            None => return Err(ResolveError::NotStopped { peer: peer.clone() }),
            Some(Freeze::Diverged { at }) => return Err(ResolveError::Diverged { peer: peer.clone(), at: *at }),
            Some(Freeze::NotWhole { at }) => return Err(ResolveError::NotWhole { peer: peer.clone(), at: *at }),
            Some(_) => {}
        }
        entry.receiving.nonce = None;
        let mut turn = Turn::default();
        let to = self.own(peer).successor(fresh);
        self.supersede(now, &mut turn, peer, to);
        Ok(journal::WriteAhead::new(turn.changes, turn.effects))
    }
}
