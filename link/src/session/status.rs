//! Statuses: what is said of both streams, and what is concluded from what the peer says.
//!
//! A status may be old, repeated or out of order, so only two kinds of conclusion are drawn. Marks that are ahead of what is
//! known are taken from any status, because nothing old can know the future. That something is *missing* is concluded only
//! from the answer to a probe of this process, because such an answer was made after everything published before the probe
//! had arrived or was lost.

use journal::{Change, Incoming, Row};
use messages::{EndpointId, Frame, PROTOCOL_VERSION, ProbeId, Receiving, Sending, Seq, Status};

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
        let streams = self.streams(peer);
        let outgoing = streams.map(|streams| streams.outgoing.clone()).unwrap_or_default();
        let receiving = streams.and_then(|streams| streams.incoming.as_ref()).map(|incoming| Receiving {
            incarnation: incoming.incarnation,
            epoch: incoming.epoch,
            through: incoming.through,
            head: incoming.head,
            ranges: incoming.ranges.clone(),
            settled_through: incoming.settled,
        });
        Status {
            from: self.identity.local.clone(),
            to: peer.clone(),
            nonce: self.identity.nonce,
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            sending: Sending {
                incarnation: self.identity.incarnation,
                epoch: self.identity.epoch,
                lowest_kept: Seq::after(outgoing.forgotten),
                next: outgoing.next,
                head: outgoing.head,
                forget_through: outgoing.forgotten,
            },
            receiving,
            window: self.config.window,
            probe,
            answers: self.peers.get(peer).and_then(|entry| entry.receiving.answer),
            frozen: self.peers.get(peer).is_some_and(|entry| entry.frozen.is_some()),
            presence: self.presence.clone(),
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
        if self.peers.get(&peer).is_some_and(|entry| entry.frozen.is_some()) {
            return;
        }
        if !self.take_sender(now, turn, &peer, &status) {
            return;
        }
        self.forget(turn, &peer, status.sending.forget_through);
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.sending.peer_window = Some(status.window.max(1));
            entry.receiving.heard = Some(now.at);
            if status.presence.is_some() {
                entry.receiving.presence.clone_from(&status.presence);
            }
        }
        turn.effects.changed.push(peer.clone());
        if let Some(freeze) = self.contradiction(&peer, &status) {
            self.freeze(now, turn, &peer, freeze);
            return;
        }
        if let Some(report) = &status.receiving {
            self.received(now, turn, &peer, report);
        }
        if let Some(answered) = status.answers {
            self.conclude(now, &peer, answered);
        }
        self.pump(now, turn, &peer);
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
        let known = self.incoming(peer).cloned();
        if let Some(known) = &known {
            if known.incarnation != sending.incarnation {
                let (known, found) = (known.incarnation, sending.incarnation);
                self.freeze(now, turn, peer, Freeze::PeerReplaced { known, found });
                return false;
            }
            if sending.epoch < known.epoch {
                turn.effects.faults.push(Fault::Stale { peer: peer.clone() });
                // Nothing old knows the future: that this process is old too is true whoever says so. Two ends that were both
                // put back to older copies would otherwise ignore each other for ever.
                if let Some(freeze) = self.superseded(status) {
                    self.freeze(now, turn, peer, freeze);
                }
                return false;
            }
        }
        let heard = self.peers.get(peer).and_then(|entry| entry.receiving.nonce);
        if heard.is_some_and(|(epoch, nonce)| epoch == sending.epoch && nonce != status.nonce) {
            self.freeze(now, turn, peer, Freeze::Cloned);
            return false;
        }
        let restarted = heard.is_none_or(|(epoch, _)| epoch != sending.epoch);
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.receiving.nonce = Some((sending.epoch, status.nonce));
        }
        if known.as_ref().is_none_or(|known| known.epoch < sending.epoch) {
            let incoming = match known {
                Some(known) => Incoming { epoch: sending.epoch, ..known },
                None => Incoming::new(sending.incarnation, sending.epoch),
            };
            self.change(turn, Change::Put(Row::Incoming(peer.clone(), incoming)));
        }
        // A process in the place of another may know less than that one said: only its answer shows.
        let sent = self.streams(peer).is_some_and(|streams| streams.outgoing.next > Seq::FIRST);
        let replaced = sent && heard.is_some_and(|(epoch, _)| epoch != sending.epoch);
        if replaced || restarted && self.anything_unreceived(peer) {
            // The peer is back: no need to wait out a backoff that grew while it was away.
            if let Some(entry) = self.peers.get_mut(peer) {
                entry.sending.attempts = 0;
                entry.sending.fruitless = 0;
                entry.sending.unheard |= replaced;
                entry.sending.probe_due = Some(now.at);
            }
        }
        true
    }

    /// Whether the peer has heard of a later opening of this journal than this one.
    fn superseded(&self, status: &Status) -> Option<Freeze> {
        let report = status.receiving.as_ref().filter(|report| report.incarnation == self.identity.incarnation)?;
        let (epoch, heard) = (self.identity.epoch, report.epoch);
        (heard > epoch).then_some(Freeze::Superseded { epoch, heard })
    }

    /// What a status says that cannot be, or nothing.
    fn contradiction(&self, peer: &EndpointId, status: &Status) -> Option<Freeze> {
        let streams = self.streams(peer)?;
        let outgoing = &streams.outgoing;
        let probes = self.peers.get(peer).map(|entry| &entry.sending.probes)?;
        let asked = status.answers.and_then(|id| probes.iter().find(|asked| asked.id == id));
        let had = asked.and_then(|asked| asked.received);
        // A peer that heard this side's probe knows of the stream, so an answer always reports on it.
        let report = status.receiving.as_ref()?;
        if report.incarnation != self.identity.incarnation {
            return Some(Freeze::Replaced { known: report.incarnation });
        }
        if let Some(freeze) = self.superseded(status) {
            return Some(freeze);
        }
        let (sent, reaches) = (outgoing.next.previous(), report.ranges.last().max(report.through));
        if reaches > sent {
            return Some(Freeze::RolledBack { sent, received: reaches });
        }
        if let Some(at) = report.through {
            let ours = if Some(at) == sent {
                Some(outgoing.head)
            } else {
                self.peers.get(peer).and_then(|entry| entry.sending.recent.get(&at).copied())
            };
            if ours.is_some_and(|ours| ours != report.head) {
                return Some(Freeze::Diverged { at });
            }
        }
        if report.through < had {
            return Some(Freeze::PeerLostPart { received: had, found: report.through });
        }
        None
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
        let first = std::mem::take(&mut side.unheard);
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
        } else if first {
            let due = self.probe_due(now, peer, 0);
            if let Some(entry) = self.peers.get_mut(peer) {
                entry.sending.probe_due = due;
            }
        }
    }
}
