//! The stream sent to a peer: numbering, publishing within the window, and resending exactly what a probe found missing.

use std::collections::{BTreeMap, BTreeSet};

use journal::{Change, Direction, HeaderRow, Outgoing, Row, Work};
use messages::limits::BODY_BYTES_MAX;
use messages::{EncodeError, EndpointId, Header, Message, Seq};

use super::effects::{Applied, Disposition, Fault, Load, Outbound, Publish, Published, TransactError, Transaction};
use super::{Effects, Millis, Now, Session, Turn};

/// Messages read from the journal at a time. Enough to keep the broker busy, few enough to keep in memory.
const LOAD_MAX: u64 = 256;

impl Session {
    /// Does as one what the application asks: messages applied, rows changed, messages sent.
    ///
    /// # Errors
    /// [`TransactError`]; nothing of it happened then, and the session is as before.
    pub fn transact(
        &mut self,
        now: Now,
        transaction: Transaction,
    ) -> Result<journal::WriteAhead<Effects>, TransactError> {
        self.check(&transaction)?;
        let mut turn = Turn::default();
        let answered: BTreeSet<_> =
            transaction.send.iter().filter_map(|sent| Some((sent.to.clone(), sent.answers?))).collect();
        self.apply(now, &mut turn, transaction.apply, &answered);
        turn.changes.extend(transaction.rows);
        turn.effects.may_wait = transaction.may_wait;
        for outbound in transaction.send {
            self.send(now, &mut turn, outbound)?;
        }
        Ok(journal::WriteAhead::new(turn.changes, turn.effects))
    }

    /// Everything that could make a transaction fail, so that none fails halfway.
    fn check(&self, transaction: &Transaction) -> Result<(), TransactError> {
        let mut applied = BTreeMap::new();
        let mut held = BTreeSet::new();
        for Applied { peer, seq, disposition } in &transaction.apply {
            let incoming = self.incoming(peer).ok_or_else(|| TransactError::UnknownPeer { peer: peer.clone() })?;
            let mark = applied.entry(peer.clone()).or_insert(incoming.applied);
            *mark = incoming.over_voids(*mark);
            if *seq != Seq::after(*mark) || Some(*seq) > incoming.through {
                return Err(TransactError::OutOfOrder { peer: peer.clone(), seq: *seq });
            }
            *mark = Some(*seq);
            match disposition {
                Disposition::Hold | Disposition::Refuse(_) => drop(held.insert((peer.clone(), *seq))),
                Disposition::Settle => {}
            }
        }
        for outbound in &transaction.send {
            let peer = &outbound.to;
            if !self.peers.contains_key(peer) {
                return Err(TransactError::UnknownPeer { peer: peer.clone() });
            }
            if outbound.body.len() > BODY_BYTES_MAX {
                return Err(EncodeError::BodyTooLarge { bytes: outbound.body.len() }.into());
            }
            let waiting = self.unsettled(peer);
            if transaction.admission && waiting >= self.config.outbox_max {
                return Err(TransactError::OutboxFull { peer: peer.clone(), waiting });
            }
            if let Some(seq) = outbound.answers {
                let open = self.streams(peer).and_then(|streams| streams.work.get(&seq));
                let known = open.is_some_and(|work| work.answered.is_none());
                if !known && !held.contains(&(peer.clone(), seq)) {
                    return Err(TransactError::NotHeld { peer: peer.clone(), seq });
                }
            }
        }
        Ok(())
    }

    fn unsettled(&self, peer: &EndpointId) -> u64 {
        self.streams(peer).map_or(0, |streams| streams.outgoing.next.value() - 1 - Seq::count(streams.outgoing.settled))
    }

    /// Numbers, journals and, where nothing stands before it, publishes one message.
    fn send(&mut self, now: Now, turn: &mut Turn, outbound: Outbound) -> Result<(), TransactError> {
        let peer = outbound.to;
        self.write_apart(turn, &peer);
        let outgoing = self.streams(&peer).map(|streams| streams.outgoing.clone()).unwrap_or_default();
        let seq = outgoing.next;
        let header = Header::new(self.identity.local.clone(), peer.clone(), self.own(&peer), self.identity.epoch)
            .numbered(seq, outgoing.head)
            .carrying(outbound.id, outbound.kind, outbound.cause, &outbound.body);
        let message = Message::new(header, &outbound.body)?;

        let row = HeaderRow::of(&message, now.wall_ms);
        self.change(turn, Change::Put(Row::Header(Direction::Out, peer.clone(), seq, row)));
        turn.changes.push(Change::Put(Row::Body(Direction::Out, peer.clone(), seq, outbound.body)));
        let outgoing = Outgoing { next: seq.next(), head: message.hash, ..outgoing };
        self.change(turn, Change::Put(Row::Outgoing(peer.clone(), outgoing)));
        if let Some(answers) = outbound.answers {
            self.change(turn, Change::Put(Row::Work(peer.clone(), answers, Work { answered: Some(seq) })));
        }
        if self.may_publish_next(&peer, seq) {
            self.publish_message(now, turn, &peer, &message);
        } else if self.connected && self.is_heard(&peer) {
            turn.effects.sealed.push(message);
        } else if !self.is_heard(&peer)
            && let Some(entry) = self.peers.get_mut(&peer)
        {
            // Nothing goes out before the peer has answered.
            entry.sending.probe_due.get_or_insert(now.at.after(self.config.probe_delay(0)));
        }
        turn.effects.changed.push(peer);
        Ok(())
    }

    /// Whether nothing that was journaled earlier, and nothing that is to be resent, must go before this message.
    fn may_publish_next(&self, peer: &EndpointId, seq: Seq) -> bool {
        let Some(entry) = self.peers.get(peer) else { return false };
        let side = &entry.sending;
        self.connected
            && entry.frozen.is_none()
            && self.is_heard(peer)
            && side.loading.is_none()
            && side.missing.is_empty()
            && Seq::after(side.published) == seq
            && Some(seq) <= self.publish_limit(peer)
    }

    /// Whether the peer has heard this process. Before that nothing is sent: it would not be taken.
    #[must_use]
    pub fn is_heard(&self, peer: &EndpointId) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.agreed)
    }

    /// The last place that the window lets out.
    fn publish_limit(&self, peer: &EndpointId) -> Option<Seq> {
        let outgoing = self.streams(peer).map(|streams| &streams.outgoing)?;
        let peer_window = self.peers.get(peer).and_then(|entry| entry.sending.peer_window).unwrap_or(u32::MAX);
        let window = u64::from(self.config.window.min(peer_window));
        outgoing.next.previous().min(Seq::new(Seq::count(outgoing.received) + window))
    }

    fn publish_message(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, message: &Message) {
        let seq = message.header.seq;
        let delay = self.config.probe_delay(0);
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let side = &mut entry.sending;
        let what = if Some(seq) <= side.published {
            side.resent += 1;
            Published::Resent(seq)
        } else {
            side.published = Some(seq);
            Published::Message(seq)
        };
        side.recent.insert(seq, message.hash);
        side.probe_due.get_or_insert(now.at.after(delay));
        turn.effects.publish.push(Publish { to: peer.clone(), what, frame: message.frame.clone() });
    }

    /// Asks for the next messages that may go out: first what is missing, then what was never published.
    pub(super) fn pump(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId) {
        let limit = self.publish_limit(peer);
        let connected = self.connected && self.is_heard(peer);
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let side = &mut entry.sending;
        if !connected || entry.frozen.is_some() || side.loading.is_some() {
            return;
        }
        let next = match side.missing.pop_front() {
            Some((from, to)) => {
                let end = to.value().min(from.value() + LOAD_MAX - 1);
                let end = Seq::new(end).unwrap_or(to);
                if end < to {
                    side.missing.push_front((end.next(), to));
                }
                Some((from, end))
            }
            None => {
                let from = Seq::after(side.published);
                let end = Seq::new(from.value() + LOAD_MAX - 1).min(limit);
                end.filter(|end| from <= *end).map(|end| (from, end))
            }
        };
        if let Some((from, to)) = next {
            side.loading = Some((from, to));
            turn.effects.load.push(Load { peer: peer.clone(), from, to });
        } else if side.probe_due.is_none() {
            let due = self.probe_due(now, peer, 0);
            if let Some(entry) = self.peers.get_mut(peer) {
                entry.sending.probe_due = due;
            }
        }
    }

    /// Publishes what was read from the journal.
    pub(super) fn loaded(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, messages: Vec<Message>) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let Some((from, to)) = entry.sending.loading.take() else { return };
        if !self.connected || entry.frozen.is_some() {
            return;
        }
        let resending = Some(from) <= entry.sending.published;
        let outgoing = self.streams(peer).map(|streams| streams.outgoing.clone()).unwrap_or_default();
        let mut expected = Some(from);
        let mut last = None;
        for message in messages {
            let seq = message.header.seq;
            // It may have been received while it was being read.
            if Some(seq) > outgoing.received && !outgoing.ranges.contains(seq) {
                // What was received and settled meanwhile may be gone; what the peer still lacks may not.
                let before = outgoing.received.max(expected.and_then(Seq::previous));
                if outgoing.ranges.missing(before, seq.previous()).next().is_some() {
                    turn.effects.faults.push(Fault::Unreadable { peer: peer.clone(), seq: expected.unwrap_or(from) });
                }
                self.publish_message(now, turn, peer, &message);
            }
            expected = Some(seq.next());
            last = Some(seq);
        }
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let side = &mut entry.sending;
        match last {
            // The read was cut short by its size: the rest is asked for again.
            Some(last) if last < to && resending => side.missing.push_front((last.next(), to)),
            Some(last) => side.published = side.published.max(Some(last)),
            None => {
                // Settled while it was being read, or gone: probing shows which, and does not hurry.
                side.published = side.published.max(Some(to));
                if Some(to) > outgoing.received {
                    turn.effects.faults.push(Fault::Unreadable { peer: peer.clone(), seq: from });
                }
            }
        }
        if resending && side.missing.is_empty() && last.is_some() {
            // A probe behind what was resent tells whether it arrived. A peer that answers but takes nothing, because it
            // has stopped the stream, is not asked ever faster.
            let delay = side.fruitless.checked_sub(2).map_or(0, |again| self.config.probe_delay(again));
            side.probe_due = Some(now.at.after(delay));
        }
        self.pump(now, turn, peer);
    }

    /// Takes in that the peer has everything up to `through`, and the ranges beyond it.
    pub(super) fn received(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, report: &messages::Receiving) {
        let Some(streams) = self.streams(peer) else { return };
        let old = streams.outgoing.clone();
        // What the peer once had it has still, and more: this is an old word, or its journal was restored from an old copy. Then it
        // finds out from what this end says that it had; that must not be forgotten here.
        let (through, ranges) = report.sworn_marks();
        if through < old.received || old.ranges.highest_beyond(through, ranges).is_some() {
            return;
        }
        let settled = report.settled_through.min(through).max(old.settled);
        let history = Seq::new(Seq::count(settled).saturating_sub(self.config.history));
        let forgotten = history.max(old.forgotten);
        let new = Outgoing { received: through, ranges: ranges.clone(), settled, forgotten, ..old.clone() };
        if new == old {
            return;
        }
        self.change(turn, Change::Put(Row::Outgoing(peer.clone(), new.clone())));
        self.drop_span(turn, peer, old.settled, new.settled, Change::DropBodies, Direction::Out);
        self.drop_span(turn, peer, old.forgotten, new.forgotten, Change::DropHeaders, Direction::Out);
        let due = self.probe_due(now, peer, 0);
        if let Some(entry) = self.peers.get_mut(peer) {
            let side = &mut entry.sending;
            side.recent = side.recent.split_off(&Seq::after(new.received));
            side.published = side.published.max(new.received);
            side.attempts = 0;
            side.fruitless = 0;
            side.probe_due = due;
        }
        self.settle_answered(now, turn, peer);
        turn.effects.changed.push(peer.clone());
    }

    /// Records the drop of a span that a mark has just passed.
    pub(super) fn drop_span(
        &mut self,
        turn: &mut Turn,
        peer: &EndpointId,
        old: Option<Seq>,
        new: Option<Seq>,
        change: fn(Direction, EndpointId, Seq, Seq) -> Change,
        direction: Direction,
    ) {
        let Some(new) = new.filter(|new| Some(*new) > old) else { return };
        let span = (Seq::after(old), new);
        let spans = match (direction, self.incoming(peer)) {
            (Direction::In, Some(incoming)) => incoming.without_voids(span),
            (Direction::In | Direction::Out, _) => vec![span],
        };
        for (from, to) in spans {
            self.change(turn, change(direction, peer.clone(), from, to));
        }
    }

    /// Whether the peer is not known to have everything that was numbered for it.
    pub(super) fn anything_unreceived(&self, peer: &EndpointId) -> bool {
        self.streams(peer).is_some_and(|streams| streams.outgoing.received < streams.outgoing.next.previous())
    }

    /// When to ask the peer next, after that many probes without progress: soon while it may miss something, now and then
    /// while the outcome of something is open, lest a lost status leave bodies here for ever.
    pub(super) fn probe_due(&self, now: Now, peer: &EndpointId, attempts: u32) -> Option<Millis> {
        let outgoing = &self.streams(peer)?.outgoing;
        let last = outgoing.next.previous();
        if outgoing.received < last {
            Some(now.at.after(self.config.probe_delay(attempts)))
        } else if outgoing.settled < last {
            Some(now.at.after(self.config.probe_max_ms))
        } else {
            None
        }
    }

    /// Something published may not have arrived: ask soon, but not ever faster.
    pub(super) fn probe_soon(&mut self, now: Now, peer: &EndpointId) {
        let unreceived = self.anything_unreceived(peer);
        let Some(entry) = self.peers.get_mut(peer) else { return };
        if unreceived {
            let side = &mut entry.sending;
            // A tenth of the usual delay at first, so that a queue declared again is used at once.
            let due = now.at.after(self.config.probe_delay(side.attempts) / 10);
            side.probe_due = Some(side.probe_due.map_or(due, |set| set.min(due)));
        }
    }
}
