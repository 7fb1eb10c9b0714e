//! Statuses: what is said of both streams, and what is concluded from what the peer says.
//!
//! A status may be old, repeated or out of order, so only two kinds of conclusion are drawn. Marks that are ahead of what is
//! known are taken from any status, because nothing old can know the future. That something is *missing* is concluded only
//! from the answer to a probe of this process, because such an answer was made after everything published before the probe
//! had arrived or was lost.

use journal::{Change, Incoming, Row};
use messages::{EndpointId, Frame, PROTOCOL_VERSION, ProbeId, Receiving, Sending, Seq, Status, Sworn};

use super::effects::{Fault, Publish, Published};
use super::{Asked, Freeze, Now, Probe, Session, Turn};

/// Probes without an answer that are remembered. An answer to any of them is good evidence; more would only grow while the
/// peer is away.
const PROBES_MAX: usize = 8;

impl Session {
    /// Says what is here and, if asked to, asks for an answer.
    pub(super) fn publish_status(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, probe: Probe) {
        if !self.connected {
            return;
        }
        let probe = match probe {
            Probe::Yes => Some(self.note_probe(now, peer)),
            Probe::No => None,
        };
        let status = self.status(peer, probe);
        let heartbeat = self.identity.local.agent().map(|_| now.at.after(self.config.heartbeat_ms));
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.receiving.unreported = 0;
            entry.receiving.answer = None;
            entry.receiving.status_due = heartbeat;
        }
        // A status has a bounded number of small fields; only absurd presence facts could make it too large.
        if let Ok(frame) = Frame::status(&status) {
            turn.effects.publish.push(Publish { to: peer.clone(), what: Published::Status, frame });
        }
    }

    fn note_probe(&mut self, now: Now, peer: &EndpointId) -> ProbeId {
        let id = self.next_probe;
        self.next_probe = id.next();
        let attempts = self.peers.get(peer).map_or(0, |entry| entry.sending.attempts);
        let due = self.probe_due(now, peer, attempts);
        let received = self.streams(peer).and_then(|streams| streams.outgoing.received);
        if let Some(entry) = self.peers.get_mut(peer) {
            let side = &mut entry.sending;
            if side.probes.len() == PROBES_MAX {
                side.probes.pop_front();
            }
            // It is evidence only for what was published before it: not for what still waits to be resent.
            let resending = side.loading.filter(|(from, _)| Some(*from) <= side.published);
            let waiting = side.missing.front().copied().into_iter().chain(resending).map(|(from, _)| from).min();
            let evident = waiting.map_or(side.published, Seq::previous);
            side.probes.push_back(Asked { id, published: evident, received });
            side.attempts = attempts.saturating_add(1);
            side.probe_due = due;
        }
        id
    }

    fn status(&self, peer: &EndpointId, probe: Option<ProbeId>) -> Status {
        let receiving = self.incoming(peer).map(|incoming| self.receiving(peer, incoming));
        Status {
            from: self.identity.local.clone(),
            to: peer.clone(),
            nonce: self.identity.nonce,
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            sending: self.sending(peer),
            receiving,
            window: self.config.window,
            probe,
            answers: self.peers.get(peer).and_then(|entry| entry.receiving.answer),
            frozen: self.peers.get(peer).is_some_and(|entry| entry.frozen.is_some()),
            presence: self.presence.clone(),
        }
    }

    fn sending(&self, peer: &EndpointId) -> Sending {
        let outgoing = self.streams(peer).map(|streams| streams.outgoing.clone()).unwrap_or_default();
        Sending {
            incarnation: self.own(peer),
            journal: Some(self.identity.incarnation).filter(|journal| *journal != self.own(peer)),
            lineage: outgoing.lineage,
            epoch: self.identity.epoch,
            lowest_kept: Seq::after(outgoing.forgotten),
            next: outgoing.next,
            head: outgoing.head,
            forget_through: outgoing.forgotten,
            toward: outgoing.peer,
            acknowledged: outgoing.received,
            acknowledged_beyond: outgoing.ranges,
            settled_through: outgoing.settled,
            doubtful_through: outgoing.doubtful,
            losses: outgoing.losses,
        }
    }

    fn receiving(&self, peer: &EndpointId, incoming: &Incoming) -> Receiving {
        let heard = self.peers.get(peer).and_then(|entry| entry.receiving.nonce);
        let sworn = incoming.as_sworn();
        let sworn = sworn.map(|then| Sworn { through: then.mark_there(then.through), ranges: then.ranges_there() });
        Receiving {
            incarnation: incoming.incarnation,
            epoch: incoming.epoch,
            nonce: heard.filter(|(epoch, _)| *epoch == incoming.epoch).map(|(_, nonce)| nonce),
            superseded: incoming.superseded.clone(),
            through: incoming.mark_there(incoming.through),
            head: incoming.head,
            unanchored: incoming.unanchored,
            ranges: incoming.ranges_there(),
            settled_through: incoming.mark_there(incoming.settled),
            sworn,
        }
    }

    /// Takes in what a peer says.
    pub(super) fn take_status(&mut self, now: Now, turn: &mut Turn, status: Status) {
        let peer = status.from.clone();
        if status.to != self.identity.local || !self.peers.contains_key(&peer) {
            turn.effects.faults.push(Fault::Stranger { from: peer, to: status.to });
            return;
        }
        if let Some(entry) = self.peers.get_mut(&peer)
            && entry.receiving.peer_frozen != status.frozen
        {
            entry.receiving.peer_frozen = status.frozen;
            turn.effects.changed.push(peer.clone());
        }
        if let Some(probe) = status.probe {
            // A stopped stream is answered too, and so is an older process: from the answer it learns what it is.
            self.answer(now, turn, &peer, probe);
        }
        if !self.take_sender(now, turn, &peer, &status) {
            return;
        }
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.sending.peer_window = Some(status.window.max(1));
            entry.receiving.heard = Some(now.at);
            if status.presence.is_some() {
                entry.receiving.presence.clone_from(&status.presence);
            }
        }
        turn.effects.changed.push(peer.clone());
        if self.heed(now, turn, &peer, &status) {
            return;
        }
        self.establish(now, turn, &peer, &status);
        self.forget(turn, &peer, status.sending.forget_through);
        self.take_report(now, turn, &peer, &status);
        self.pump(now, turn, &peer);
    }

    /// Takes in what the peer has of the stream sent to it.
    fn take_report(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, status: &Status) {
        let own = self.own(peer);
        // A peer that knows this journal under an older name, or another one, has still to take it over.
        let Some(report) = status.receiving.as_ref().filter(|report| report.incarnation == own) else {
            self.ask_again(now, peer);
            return;
        };
        if report.nonce == Some(self.identity.nonce)
            && let Some(entry) = self.peers.get_mut(peer).filter(|entry| !entry.agreed)
        {
            entry.agreed = true;
            let incoming = self.incoming(peer).cloned();
            let through = incoming.as_ref().and_then(|incoming| incoming.through);
            turn.effects.offer.extend(through.map(|through| (peer.clone(), through)));
            if let Some(incoming) = incoming.filter(|incoming| incoming.sworn.is_some()) {
                let incoming = Incoming { sworn: None, ..incoming };
                self.change(turn, Change::Put(Row::Incoming(peer.clone(), incoming)));
            }
        }
        if let Some((received, found)) = self.peer_lost_part(peer, status, report) {
            turn.effects.faults.push(Fault::PeerBehind { peer: peer.clone(), received, found });
            return;
        }
        self.received(now, turn, peer, report);
        // A process that was not heard has more than it swears to: its answer is not the last word on what is missing.
        if let Some(answered) = status.answers.filter(|_| report.sworn.is_none()) {
            self.conclude(now, peer, answered);
        }
    }

    /// The word that would tell the peer this journal's new name may be lost: it is said again, even if nothing else is to be said.
    fn ask_again(&mut self, now: Now, peer: &EndpointId) {
        let delay = self.config.probe_delay(0);
        if let Some(entry) = self.peers.get_mut(peer).filter(|entry| !entry.agreed) {
            entry.sending.probe_due.get_or_insert(now.at.after(delay));
        }
    }

    fn answer(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, probe: ProbeId) {
        let every = self.config.status_every;
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let side = &mut entry.receiving;
        // Of many probes that waited in a queue, the last one's answer is enough, so answers wait for the end of a burst.
        side.answer = Some(probe);
        side.unreported += 1;
        side.status_due = Some(now.at);
        if side.unreported >= every || entry.frozen.is_some() {
            self.publish_status(now, turn, peer, Probe::No);
        }
    }

    /// Checks which process of which journal speaks. Returns whether the rest of the status may be believed.
    fn take_sender(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, status: &Status) -> bool {
        let sending = &status.sending;
        let Some(lineage) = sending.parts() else {
            turn.effects.faults.push(Fault::Garbled { reason: format!("a status of {peer} contradicts itself") });
            return false;
        };
        match self.incoming(peer).cloned() {
            Some(known) if known.incarnation != sending.incarnation => {
                return self.another_journal(now, turn, peer, status);
            }
            Some(_) if self.peers.get(peer).is_some_and(|entry| entry.frozen.is_some()) => return false,
            Some(known) if sending.epoch < known.epoch => {
                turn.effects.faults.push(Fault::Stale { peer: peer.clone() });
                self.heed(now, turn, peer, status);
                return false;
            }
            Some(known) => {
                if known.epoch < sending.epoch {
                    let incoming = Incoming { epoch: sending.epoch, ..known };
                    self.change(turn, Change::Put(Row::Incoming(peer.clone(), incoming)));
                }
            }
            None => {
                let incoming = Incoming::of(sending.made_as(), &lineage, sending.epoch);
                self.change(turn, Change::Put(Row::Incoming(peer.clone(), incoming)));
            }
        }
        self.knows_peer(turn, peer, sending.incarnation);
        self.take_process(now, turn, peer, status)
    }

    /// Notes which journal of the peer the marks of the outgoing stream speak of.
    fn knows_peer(&mut self, turn: &mut Turn, peer: &EndpointId, incarnation: messages::Incarnation) {
        let outgoing = self.streams(peer).map(|streams| streams.outgoing.clone()).unwrap_or_default();
        if outgoing.peer != Some(incarnation) {
            let outgoing = journal::Outgoing { peer: Some(incarnation), ..outgoing };
            self.change(turn, Change::Put(Row::Outgoing(peer.clone(), outgoing)));
        }
    }

    /// Checks which process of the known journal speaks. Returns whether it is to be believed.
    fn take_process(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, status: &Status) -> bool {
        let (epoch, fresh) = (status.sending.epoch, self.is_fresh(peer, status));
        let unreceived = self.anything_unreceived(peer);
        let heard = self.peers.get(peer).and_then(|entry| entry.receiving.nonce);
        let another = heard.is_some_and(|(heard, nonce)| heard == epoch && nonce != status.nonce);
        if another && self.heed(now, turn, peer, status) {
            return false;
        }
        let Some(entry) = self.peers.get_mut(peer) else { return false };
        match heard {
            Some(_) if another => {
                // Two processes in one opening: the machine was copied, or restored from a copy. Whichever of them hears that the
                // other is known draws its conclusion. Only if the other one still answers, it is for a person.
                if entry.receiving.rival != Some(status.nonce) {
                    entry.receiving.rival = Some(status.nonce);
                    entry.sending.probes.clear();
                    self.publish_status(now, turn, peer, Probe::Yes);
                }
                false
            }
            Some((heard, _)) if heard == epoch => {
                if entry.receiving.rival.is_some() && fresh {
                    self.freeze(now, turn, peer, Freeze::Cloned);
                    return false;
                }
                true
            }
            Some(_) | None => {
                entry.receiving.nonce = Some((epoch, status.nonce));
                entry.receiving.rival = None;
                if unreceived {
                    // The peer is back: no need to wait out a backoff that grew while it was away.
                    entry.sending.attempts = 0;
                    entry.sending.fruitless = 0;
                    entry.sending.probe_due = Some(now.at);
                }
                true
            }
        }
    }

    /// What a report says that cannot be, or nothing.
    pub(super) fn contradiction(&self, peer: &EndpointId, report: &Receiving) -> Option<Freeze> {
        let outgoing = &self.streams(peer)?.outgoing;
        let at = report.through.filter(|_| !report.unanchored)?;
        let ours = if Some(at) == outgoing.next.previous() {
            Some(outgoing.head)
        } else {
            self.peers.get(peer).and_then(|entry| entry.sending.recent.get(&at).copied())
        };
        ours.is_some_and(|ours| ours != report.head).then_some(Freeze::Diverged { at })
    }

    /// Whether the answer to a probe has less than the peer was known to have when the probe was published.
    fn peer_lost_part(
        &self,
        peer: &EndpointId,
        status: &Status,
        report: &Receiving,
    ) -> Option<(Option<Seq>, Option<Seq>)> {
        let probes = self.peers.get(peer).map(|entry| &entry.sending.probes)?;
        let asked = status.answers.and_then(|id| probes.iter().find(|asked| asked.id == id))?;
        let (through, _) = report.sworn_marks();
        (through < asked.received).then_some((asked.received, through))
    }

    /// Draws the conclusion from the answer to a probe: whatever had been published before it and is not there, is lost.
    fn conclude(&mut self, now: Now, peer: &EndpointId, answered: ProbeId) {
        let outgoing = self.streams(peer).map(|streams| streams.outgoing.clone()).unwrap_or_default();
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let side = &mut entry.sending;
        let Some(at) = side.probes.iter().position(|asked| asked.id == answered) else { return };
        let published = side.probes[at].published;
        side.probes.drain(..=at);
        side.attempts = 0;
        // Everything still to be resent is found missing again, so the list is made anew.
        side.missing = outgoing.ranges.missing(outgoing.received, published).collect();
        if !side.missing.is_empty() {
            side.fruitless = side.fruitless.saturating_add(1);
            // Answers to later probes were made before any of this arrives again: they are no evidence for it.
            side.probes.clear();
        }
        if let (Some((from, to)), Some(first)) = (side.loading, side.missing.front().copied())
            && Some(from) <= side.published
            && first.0 >= from
        {
            // That part is on its way from the journal already.
            side.missing.pop_front();
            if to < first.1 {
                side.missing.push_front((to.next(), first.1));
            }
        }
        if side.missing.is_empty() && outgoing.received < side.published {
            side.probe_due = Some(now.at.after(self.config.probe_delay(0)));
        }
    }
}
