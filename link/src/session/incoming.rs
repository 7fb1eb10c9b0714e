//! The stream received from a peer: what is accepted, what is a duplicate, and when a message is settled.

use std::collections::{BTreeMap, BTreeSet};

use journal::{Change, Direction, HeaderRow, Incoming, Place, Row, Sworn, Work};
use messages::limits::RANGES_MAX;
use messages::{ChainHash, EndpointId, Message, Seq};

use super::effects::{Applied, Arrived, DeliveryTag, Disposition, Fault};
use super::{Freeze, Now, Session, Turn};

/// What a message turned out to be.
enum Verdict {
    /// New: to be journaled, at this place.
    Accept(Seq),
    /// Already here.
    Duplicate,
    /// Too far ahead to be remembered, or of a stream that was not announced; the sender sends it again.
    OutsideWindow,
    /// Of a journal that is superseded, or of a part of the stream that another journal has written since: it is nothing any more.
    Stale,
    /// The streams must stop.
    Freeze(Freeze),
}

impl Session {
    /// Takes in a message. It is acknowledged to the broker only with the commit that makes it durable here, or when it
    /// already was.
    pub(super) fn take_message(&mut self, now: Now, turn: &mut Turn, tag: DeliveryTag, message: Message) {
        let peer = message.header.from.clone();
        if message.header.to != self.identity.local || !self.peers.contains_key(&peer) {
            turn.effects.discard.push(tag);
            turn.effects.faults.push(Fault::Stranger { from: peer, to: message.header.to });
            return;
        }
        turn.effects.acknowledge.push(tag);
        if self.peers.get(&peer).is_some_and(|entry| entry.frozen.is_some()) {
            // Not taken: the sender keeps it, and sends it again when a person has decided.
            return;
        }
        match self.judge(&peer, &message) {
            Verdict::Accept(seq) => self.accept(now, turn, &peer, seq, message),
            Verdict::Stale => turn.effects.faults.push(Fault::Stale { peer: peer.clone() }),
            Verdict::Duplicate => {
                if let Some(entry) = self.peers.get_mut(&peer) {
                    entry.receiving.duplicates += 1;
                }
                self.report_soon(now, turn, &peer);
            }
            Verdict::OutsideWindow => {
                turn.effects.faults.push(Fault::OutsideWindow { peer: peer.clone(), seq: message.header.seq });
                self.report_soon(now, turn, &peer);
            }
            Verdict::Freeze(freeze) => self.freeze(now, turn, &peer, freeze),
        }
    }

    fn judge(&self, peer: &EndpointId, message: &Message) -> Verdict {
        let header = &message.header;
        // A journal that has never heard a status of the peer may be a new one under an old name. What waited in the broker
        // for the old one was perhaps done by it: nothing is taken before the peer has said what it knows. Its status is in
        // the same queue, before anything that it sends over its present connection.
        // A journal that was restored takes them, too: what it may have done before shows before they are offered.
        let agreed = |incoming: &&Incoming| incoming.own.is_some_and(|own| self.wrote(peer, own));
        let Some(incoming) = self.incoming(peer).filter(agreed) else { return Verdict::OutsideWindow };
        let seq = match incoming.place(header.incarnation, header.seq) {
            Place::Here(seq) => seq,
            Place::Superseded => return Verdict::Stale,
            Place::Unknown => return Verdict::OutsideWindow,
        };
        if Some(seq) <= incoming.through || incoming.ranges.contains(seq) {
            return Verdict::Duplicate;
        }
        let first = Seq::after(incoming.through);
        if seq.value() - first.value() >= u64::from(self.config.window) {
            return Verdict::OutsideWindow;
        }
        let before = if seq == first {
            Some(incoming.head).filter(|_| !incoming.unanchored)
        } else {
            seq.previous().and_then(|before| self.head_at(peer, incoming, before))
        };
        let after = self.link_beyond(peer, seq.next()).map(|link| link.previous);
        if before.is_some_and(|before| before != header.previous) || after.is_some_and(|after| after != message.hash) {
            return Verdict::Freeze(Freeze::Diverged { at: seq });
        }
        // One range stays free for the places that a superseded journal leaves behind: what was once reported is never given up.
        let held = incoming.ranges.iter().count();
        if seq != first && held + 1 >= RANGES_MAX && incoming.ranges.opens(seq) {
            return Verdict::OutsideWindow;
        }
        Verdict::Accept(seq)
    }

    /// The hash that the message after that place expects before it, as far as it is known without reading.
    pub(super) fn head_at(&self, peer: &EndpointId, incoming: &Incoming, seq: Seq) -> Option<ChainHash> {
        incoming.head_of_void(seq).or_else(|| self.link_beyond(peer, seq).map(|link| link.hash))
    }

    fn accept(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, seq: Seq, message: Message) {
        let header = &message.header;
        let Some(mut incoming) = self.incoming(peer).cloned() else { return };
        if incoming.sworn.is_none() && self.peers.get(peer).is_some_and(|entry| !entry.agreed) {
            incoming.sworn = Some(Sworn { through: incoming.through, ranges: incoming.ranges.clone() });
        }
        if header.incarnation == incoming.incarnation {
            incoming.epoch = incoming.epoch.max(header.epoch);
        }
        let is_next = seq == Seq::after(incoming.through);
        if is_next {
            incoming.through = Some(seq);
            incoming.head = message.hash;
            incoming.unanchored = false;
            self.join(peer, &mut incoming);
            turn.effects.offer.extend(incoming.through.map(|through| (peer.clone(), through)));
        } else {
            incoming.ranges.insert(seq);
        }
        // The mark first: what lies beyond it is remembered by the fold until the mark passes over it.
        self.change(turn, Change::Put(Row::Incoming(peer.clone(), incoming)));
        let row = HeaderRow::of(&message, now.wall_ms);
        self.change(turn, Change::Put(Row::Header(Direction::In, peer.clone(), seq, row)));
        turn.changes.push(Change::Put(Row::Body(Direction::In, peer.clone(), seq, message.body().to_vec())));
        if is_next {
            turn.effects.arrived.push(Arrived { seq, message, at_ms: now.wall_ms });
        }
        self.report_soon(now, turn, peer);
    }

    /// Moves the mark over what is held right behind it.
    pub(super) fn join(&self, peer: &EndpointId, incoming: &mut Incoming) {
        if let Some(end) = incoming.ranges.take_next(incoming.through) {
            // Each link beyond the mark was checked against its neighbours when it came in.
            let head = self.head_at(peer, incoming, end);
            incoming.through = Some(end);
            incoming.unanchored = head.is_none();
            incoming.head = head.unwrap_or(incoming.head);
        }
        incoming.skip_voids();
    }

    /// Makes sure that the peer learns soon what is here.
    fn report_soon(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId) {
        let due = now.at.after(self.config.status_delay_ms);
        let every = self.config.status_every;
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let side = &mut entry.receiving;
        side.heard = Some(now.at);
        side.unreported += 1;
        side.status_due = Some(side.status_due.map_or(due, |set| set.min(due)));
        if side.unreported >= every && self.connected {
            self.publish_status(now, turn, peer, super::Probe::No);
        }
    }

    /// Records that the application has dealt with messages. The transaction was checked before. `answered` are those that the same
    /// transaction answers.
    pub(super) fn apply(
        &mut self,
        now: Now,
        turn: &mut Turn,
        applied: Vec<Applied>,
        answered: &BTreeSet<(EndpointId, Seq)>,
    ) {
        // One mark for all of a peer's: the last one. Work is recorded behind the mark that allows it.
        let mut marks = BTreeMap::new();
        for Applied { peer, seq, .. } in &applied {
            marks.insert(peer.clone(), *seq);
        }
        for (peer, last) in &marks {
            if let Some(mut incoming) = self.incoming(peer).cloned() {
                incoming.applied = Some(*last);
                incoming.skip_voids();
                self.change(turn, Change::Put(Row::Incoming(peer.clone(), incoming)));
            }
        }
        for Applied { peer, seq, disposition } in applied {
            match disposition {
                Disposition::Settle => {}
                Disposition::Hold => {
                    self.change(turn, Change::Put(Row::Work(peer, seq, Work::default())));
                }
                Disposition::Refuse(row) => {
                    let is_answered = answered.contains(&(peer.clone(), seq));
                    self.change(turn, Change::Put(Row::Header(Direction::In, peer.clone(), seq, *row)));
                    if is_answered {
                        // Its sender drops it only when it knows that it was refused.
                        self.change(turn, Change::Put(Row::Work(peer, seq, Work::default())));
                    }
                }
            }
        }
        for peer in marks.keys() {
            self.settle(now, turn, peer);
        }
    }

    /// Work whose answer the peer now has is settled.
    pub(super) fn settle_answered(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId) {
        let Some(streams) = self.streams(peer) else { return };
        let outgoing = &streams.outgoing;
        let arrived = |seq: Seq| Some(seq) <= outgoing.received || outgoing.ranges.contains(seq);
        let done: Vec<Seq> =
            streams.work.iter().filter(|(_, work)| work.answered.is_some_and(arrived)).map(|(seq, _)| *seq).collect();
        if done.is_empty() {
            return;
        }
        for seq in done {
            self.change(turn, Change::DeleteWork(peer.clone(), seq));
        }
        self.settle(now, turn, peer);
    }

    /// Moves the settled mark up to the first message whose outcome is still open.
    pub(super) fn settle(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId) {
        let Some(streams) = self.streams(peer) else { return };
        let Some(old) = streams.incoming.clone() else { return };
        let settled = match streams.work.first_key_value() {
            Some((open, _)) => open.previous().min(old.applied),
            None => old.applied,
        };
        if settled <= old.settled {
            return;
        }
        let incoming = Incoming { settled, ..old.clone() };
        self.change(turn, Change::Put(Row::Incoming(peer.clone(), incoming)));
        self.drop_span(turn, peer, old.settled, settled, Change::DropBodies, Direction::In);
        // The peer may drop its bodies now; it learns of it with the next status.
        let due = now.at.after(self.config.status_delay_ms);
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.receiving.status_due = Some(entry.receiving.status_due.map_or(due, |set| set.min(due)));
        }
        turn.effects.changed.push(peer.clone());
    }

    /// Takes in that the peer will never ask about anything up to `mark` again.
    pub(super) fn forget(&mut self, turn: &mut Turn, peer: &EndpointId, mark: Option<Seq>) {
        let Some(old) = self.incoming(peer).cloned() else { return };
        let forgotten = old.mark_here(mark).min(old.settled);
        if forgotten > old.forgotten {
            self.drop_span(turn, peer, old.forgotten, forgotten, Change::DropHeaders, Direction::In);
            let mut incoming = Incoming { forgotten, ..old };
            incoming.prune();
            self.change(turn, Change::Put(Row::Incoming(peer.clone(), incoming)));
        }
    }
}
