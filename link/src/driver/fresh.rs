//! Messages that came in a moment ago and are wanted soon: those that arrived, by the application, and those that wait for
//! room on the way to a peer. They would otherwise be read, checked and decoded once more. What finds no room here is read from the
//! journal: nothing depends on it. What arrived is here before it is on stable storage; what is to be sent, only then.

use std::collections::{BTreeMap, VecDeque};

use messages::{EndpointId, Message, Seq};

use crate::session::Arrived;

/// Bytes of messages that are kept, of all peers together. About what a burst brings while the application works on one batch.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a driver keeps.
#[derive(Default)]
pub(super) struct Kept {
    /// What arrived, for the application.
    pub(super) arrived: Fresh<Arrived>,
    /// What was journaled to be sent, and found no room in its window.
    pub(super) sealed: Fresh<Message>,
}

/// A message with its place in the stream that it is kept for.
pub(super) trait Placed {
    /// Its place.
    fn seq(&self) -> Seq;
    /// The message.
    fn message(&self) -> &Message;
}

impl Placed for Arrived {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn message(&self) -> &Message {
        &self.message
    }
}

impl Placed for Message {
    fn seq(&self) -> Seq {
        self.header.seq
    }

    fn message(&self) -> &Message {
        self
    }
}

/// Kept messages by peer, lowest first.
pub(super) struct Fresh<T> {
    peers: BTreeMap<EndpointId, VecDeque<T>>,
    bytes: usize,
}

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self { peers: BTreeMap::new(), bytes: 0 }
    }
}

impl<T: Placed> Fresh<T> {
    /// Keeps one that the journal has or is about to have, while there is room. It is of the stream shared with that peer.
    pub(super) fn keep(&mut self, peer: &EndpointId, placed: T) {
        let bytes = size(&placed);
        if self.bytes + bytes <= BYTES_MAX {
            self.bytes += bytes;
            match self.peers.get_mut(peer) {
                Some(kept) => kept.push_back(placed),
                None => drop(self.peers.insert(peer.clone(), VecDeque::from([placed]))),
            }
        }
    }

    /// Takes out what is kept from that place on without a gap, up to `to` and while it is less than that many bytes. What lies before
    /// is not wanted any more.
    pub(super) fn take(&mut self, peer: &EndpointId, (from, to): (Seq, Seq), bytes_max: usize) -> Vec<T> {
        let Some(kept) = self.peers.get_mut(peer) else { return Vec::new() };
        let (mut taken, mut expected, mut bytes) = (Vec::new(), from, 0);
        while let Some(first) = kept.front().map(Placed::seq)
            && first <= expected
            && (first < from || (first <= to && bytes < bytes_max))
            && let Some(placed) = kept.pop_front()
        {
            self.bytes -= size(&placed);
            if first == expected {
                bytes += size(&placed);
                expected = first.next();
                taken.push(placed);
            }
        }
        if kept.is_empty() {
            self.peers.remove(peer);
        }
        taken
    }

    /// The lowest place that is kept of a peer.
    pub(super) fn first(&self, peer: &EndpointId) -> Option<Seq> {
        self.peers.get(peer)?.front().map(Placed::seq)
    }

    /// Keeps nothing any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn size(placed: &impl Placed) -> usize {
    placed.message().frame.bytes().len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use messages::{ChainHash, Epoch, Header, Incarnation, Kind, MessageId};

    fn arrived(seq: u64, bytes: usize) -> Arrived {
        let seq = Seq::new(seq).unwrap();
        let body = vec![0; bytes];
        let header = Header::new(EndpointId::Server, EndpointId::Server, Incarnation::from_u128(1), Epoch::FIRST)
            .numbered(seq, ChainHash::START)
            .carrying(MessageId::from_u128(1), Kind::Unknown(1), None, &body);
        Arrived { seq, message: Message::new(header, &body).unwrap(), at_ms: 0 }
    }

    fn taken(fresh: &mut Fresh<Arrived>, from: u64, to: u64, bytes_max: usize) -> Vec<u64> {
        let span = (Seq::new(from).unwrap(), Seq::new(to).unwrap());
        fresh.take(&EndpointId::Server, span, bytes_max).iter().map(|arrived| arrived.seq.value()).collect()
    }

    #[test]
    fn what_is_taken_has_no_gap_and_begins_where_it_was_asked() {
        let mut fresh = Fresh::default();
        [3, 4, 5, 7, 8].into_iter().for_each(|seq| fresh.keep(&EndpointId::Server, arrived(seq, 10)));
        assert_eq!(taken(&mut fresh, 1, 9, 10_000), [0; 0], "the journal has what comes first");
        assert_eq!(fresh.first(&EndpointId::Server), Seq::new(3));
        assert_eq!(taken(&mut fresh, 4, 9, 10_000), [4, 5]);
        assert_eq!(taken(&mut fresh, 6, 9, 10_000), [0; 0]);
        assert_eq!(taken(&mut fresh, 7, 7, 10_000), [7]);
        assert_eq!(taken(&mut fresh, 8, 9, 10_000), [8]);
        assert_eq!((fresh.first(&EndpointId::Server), fresh.bytes), (None, 0));
    }

    #[test]
    fn it_is_bounded_in_bytes_and_gives_at_least_one() {
        let mut fresh = Fresh::default();
        for seq in 1..=100 {
            fresh.keep(&EndpointId::Server, arrived(seq, 200 * 1024));
        }
        assert!(fresh.bytes <= BYTES_MAX && fresh.peers[&EndpointId::Server].len() < 21);
        assert_eq!(taken(&mut fresh, 1, 100, 1), [1]);
        assert_eq!(taken(&mut fresh, 2, 100, 300 * 1024), [2, 3]);
    }
}
