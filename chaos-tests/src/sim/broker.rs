//! A broker: one queue per endpoint, confirms and returns, one active consumer per queue. It takes note of what became of each
//! copy of a message, so that a checker can tell which repetition had a reason. It decides nothing by chance.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use link::session::DeliveryTag;

/// One handing-over of a message to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CopyId(pub(crate) u64);

/// Something in a queue.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) bytes: Arc<Vec<u8>>,
    /// Nothing for what is no message.
    pub(crate) copy: Option<CopyId>,
    /// The publisher's wall clock. No part of the protocol; a planted fault looks at it.
    pub(crate) wall_ms: u64,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// One more of it is in a queue.
    Queued,
    /// One of it is gone without having been delivered.
    Destroyed,
    /// It is out of the order in which it was published.
    Displaced,
}

/// One queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    pub(crate) declared: bool,
    pub(crate) ready: VecDeque<Item>,
    /// Held back until then.
    pub(crate) held: Vec<(u64, Item)>,
    pub(crate) unacked: BTreeMap<DeliveryTag, Item>,
    /// Consumers by node and connection; the first is the active one.
    pub(crate) consumers: Vec<(usize, u64)>,
}

/// The broker.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    pub(crate) up: bool,
    pub(crate) blocked: bool,
    /// By seat.
    pub(crate) queues: Vec<Queue>,
    connections: u64,
    tags: u64,
    copies: u64,
    /// What every queue held at some time in the past.
    snapshot: Option<Vec<VecDeque<Item>>>,
    /// What became of copies since it was last asked for.
    pub(crate) fates: Vec<(CopyId, Fate)>,
}

impl Broker {
    pub(crate) fn new(seats: usize) -> Self {
        Self { up: true, queues: vec![Queue::default(); seats], ..Self::default() }
    }

    /// A new connection of that node, which consumes its queue.
    pub(crate) fn connect(&mut self, node: usize, seat: usize) -> u64 {
        self.connections += 1;
        self.queues[seat].consumers.push((node, self.connections));
        self.connections
    }

    /// A connection is gone: what it did not acknowledge is back in its place.
    pub(crate) fn disconnect(&mut self, seat: usize, connection: u64) {
        let queue = &mut self.queues[seat];
        queue.consumers.retain(|(_, held)| *held != connection);
        let tags: Vec<DeliveryTag> = queue.unacked.keys().copied().filter(|tag| tag.connection == connection).collect();
        for tag in tags.into_iter().rev() {
            if let Some(item) = queue.unacked.remove(&tag) {
                queue.ready.push_front(item);
            }
        }
    }

    pub(crate) fn is_connected(&self, seat: usize, connection: u64) -> bool {
        self.queues[seat].consumers.iter().any(|(_, held)| *held == connection)
    }

    /// A name for what is being handed over.
    pub(crate) fn copy(&mut self) -> CopyId {
        self.copies += 1;
        CopyId(self.copies)
    }

    pub(crate) fn enqueue(&mut self, seat: usize, item: Item) {
        self.note(&item, Fate::Queued);
        self.queues[seat].ready.push_back(item);
    }

    /// Whether that node would be delivered something now.
    pub(crate) fn may_deliver(&self, node: usize, seat: usize, prefetch: usize) -> bool {
        let queue = &self.queues[seat];
        queue.consumers.first().is_some_and(|(active, _)| *active == node)
            && !queue.ready.is_empty()
            && queue.unacked.len() < prefetch
    }

    /// The next delivery to the active consumer.
    pub(crate) fn deliver(&mut self, seat: usize) -> Option<(DeliveryTag, Item)> {
        let (_, connection) = *self.queues[seat].consumers.first()?;
        let item = self.queues[seat].ready.pop_front()?;
        self.tags += 1;
        let tag = DeliveryTag { connection, tag: self.tags };
        self.queues[seat].unacked.insert(tag, item.clone());
        Some((tag, item))
    }

    /// Takes an acknowledgement. Nothing for one of an earlier connection.
    pub(crate) fn settle(&mut self, seat: usize, tag: DeliveryTag) -> Option<Item> {
        self.queues[seat].unacked.remove(&tag)
    }

    pub(crate) fn note(&mut self, item: &Item, fate: Fate) {
        self.fates.extend(item.copy.map(|copy| (copy, fate)));
    }

    /// Loses what is at that place of a queue.
    pub(crate) fn lose(&mut self, seat: usize, at: usize) {
        if let Some(item) = self.queues[seat].ready.remove(at) {
            self.note(&item, Fate::Destroyed);
        }
    }

    /// Delivers what is at that place twice, the second time later.
    pub(crate) fn duplicate(&mut self, seat: usize, at: usize, later: usize) {
        if let Some(item) = self.queues[seat].ready.get(at).cloned() {
            self.note(&item, Fate::Queued);
            let queue = &mut self.queues[seat].ready;
            let place = (at + 1 + later).min(queue.len());
            queue.insert(place, item);
        }
    }

    /// Lets something overtake what is before it.
    pub(crate) fn overtake(&mut self, seat: usize, from: usize, to: usize) {
        if from <= to {
            return;
        }
        if let Some(item) = self.queues[seat].ready.remove(from) {
            self.queues[seat].ready.insert(to, item);
        }
        let overtaken: Vec<Item> = self.queues[seat].ready.range(to + 1..=from).cloned().collect();
        for item in overtaken {
            self.note(&item, Fate::Displaced);
        }
    }

    /// Holds something back until then.
    pub(crate) fn hold(&mut self, seat: usize, at: usize, until: u64) {
        if let Some(item) = self.queues[seat].ready.remove(at) {
            self.note(&item, Fate::Displaced);
            self.queues[seat].held.push((until, item));
        }
    }

    /// Lets go what was held back until now.
    pub(crate) fn release(&mut self, now: u64) {
        for queue in &mut self.queues {
            let mut rest = Vec::new();
            for (until, item) in queue.held.drain(..) {
                if until <= now {
                    queue.ready.push_back(item);
                } else {
                    rest.push((until, item));
                }
            }
            queue.held = rest;
        }
    }

    /// When something is let go next.
    pub(crate) fn next_release(&self) -> Option<u64> {
        self.queues.iter().flat_map(|queue| queue.held.iter().map(|(until, _)| *until)).min()
    }

    pub(crate) fn purge(&mut self, seat: usize) {
        for item in std::mem::take(&mut self.queues[seat].ready) {
            self.note(&item, Fate::Destroyed);
        }
    }

    /// Loses all connections. Messages stay.
    pub(crate) fn drop_connections(&mut self) {
        for seat in 0..self.queues.len() {
            for (_, connection) in self.queues[seat].consumers.clone() {
                self.disconnect(seat, connection);
            }
        }
    }

    /// Loses everything, topology included.
    pub(crate) fn wipe(&mut self) {
        self.drop_connections();
        for seat in 0..self.queues.len() {
            self.empty(seat);
            self.queues[seat].declared = false;
        }
    }

    fn empty(&mut self, seat: usize) {
        self.purge(seat);
        for (_, item) in std::mem::take(&mut self.queues[seat].held) {
            self.note(&item, Fate::Destroyed);
        }
    }

    /// Remembers what every queue holds, in the order in which it would be delivered.
    pub(crate) fn take_snapshot(&mut self) {
        let all = self.queues.iter().map(|queue| queue.unacked.values().chain(&queue.ready).cloned().collect());
        self.snapshot = Some(all.collect());
    }

    /// Comes back as it was. False when nothing was remembered.
    pub(crate) fn restore_snapshot(&mut self) -> bool {
        let Some(snapshot) = self.snapshot.take() else { return false };
        self.drop_connections();
        for (seat, items) in snapshot.into_iter().enumerate() {
            self.empty(seat);
            for item in items {
                self.note(&item, Fate::Queued);
                self.queues[seat].ready.push_back(item);
            }
        }
        true
    }

    /// Whether nothing waits anywhere.
    pub(crate) fn is_drained(&self, seat: usize) -> bool {
        let queue = &self.queues[seat];
        queue.ready.is_empty() && queue.held.is_empty() && queue.unacked.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn item(broker: &mut Broker, byte: u8) -> Item {
        Item { bytes: Arc::new(vec![byte]), copy: Some(broker.copy()), wall_ms: 0 }
    }

    fn copies(broker: &Broker) -> Vec<u64> {
        broker.queues[0].ready.iter().filter_map(|item| item.copy).map(|copy| copy.0).collect()
    }

    #[test]
    fn a_lost_connection_puts_deliveries_back_in_their_order() {
        let mut broker = Broker::new(1);
        for byte in 1..=3 {
            let item = item(&mut broker, byte);
            broker.enqueue(0, item);
        }
        let connection = broker.connect(0, 0);
        broker.deliver(0).unwrap();
        broker.deliver(0).unwrap();
        broker.disconnect(0, connection);
        assert_eq!(copies(&broker), [1, 2, 3]);
    }

    #[test]
    fn what_is_overtaken_is_said_to_be_displaced() {
        let mut broker = Broker::new(1);
        for byte in 1..=3 {
            let item = item(&mut broker, byte);
            broker.enqueue(0, item);
        }
        broker.fates.clear();
        broker.overtake(0, 2, 0);
        assert_eq!(copies(&broker), [3, 1, 2]);
        assert_eq!(broker.fates, [(CopyId(1), Fate::Displaced), (CopyId(2), Fate::Displaced)]);
    }

    #[test]
    fn an_old_snapshot_brings_back_the_past_and_loses_the_present() {
        let mut broker = Broker::new(1);
        let old = item(&mut broker, 1);
        broker.enqueue(0, old);
        broker.take_snapshot();
        broker.lose(0, 0);
        let new = item(&mut broker, 2);
        broker.enqueue(0, new);
        assert!(broker.restore_snapshot());
        assert_eq!(copies(&broker), [1]);
    }
}
