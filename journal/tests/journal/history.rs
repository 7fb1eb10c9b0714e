//! Histories for tests: what an endpoint and one peer do to a journal, step by step, as a pure function of a seed. So whoever
//! knows the seed and the number of steps knows every row that must be there. It never looks into a journal.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use journal::{
    Change, Direction, HeaderRow, Incoming, Key, MessageTable, Opening, Outgoing, Row, Store, StoreError, Work, put_app,
};
use messages::{EndpointId, Epoch, Header, Incarnation, Kind, Message, MessageId, Seq};

/// Every row that must be there, as bytes.
pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The row of the application that counts the steps.
pub(crate) const COUNT: &[u8] = b"count";

/// Pseudo-random numbers (SplitMix64), the same for the same seed everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }
}

pub(crate) fn endpoint() -> EndpointId {
    "web-01".parse().unwrap()
}

pub(crate) fn opening() -> Opening {
    Opening { endpoint: endpoint(), incarnation: Incarnation::from_u128(0xa), now_ms: 1_000 }
}

/// An endpoint, `web-01`, and its peer, the server.
pub(crate) struct History {
    seed: u64,
    pub(crate) peer: EndpointId,
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
    pub(crate) steps: u64,
    /// What all steps so far amount to, the meta row left out.
    pub(crate) rows: Rows,
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        let incoming = Incoming::new(Incarnation::from_u128(0xb), Epoch::FIRST);
        let outgoing = Outgoing::default();
        Self { seed, peer: EndpointId::Server, outgoing, incoming, steps: 0, rows: Rows::new() }
    }

    /// The history after that many steps.
    pub(crate) fn after(seed: u64, steps: u64) -> Self {
        let mut history = Self::new(seed);
        for _ in 0..steps {
            history.step();
        }
        history
    }

    fn message(&self, direction: Direction, body: &[u8]) -> Message {
        let (from, to, incarnation, seq, previous) = match direction {
            Direction::Out => (endpoint(), self.peer.clone(), 0xa, self.outgoing.next, self.outgoing.head),
            Direction::In => {
                let seq = Seq::after(self.incoming.through);
                (self.peer.clone(), endpoint(), 0xb, seq, self.incoming.head)
            }
        };
        // Not the journal's own epoch: that one depends on how often it was opened.
        let header = Header::new(from, to, Incarnation::from_u128(incarnation), Epoch::FIRST).numbered(seq, previous);
        let id = MessageId::from_u128(u128::from(seq.value()));
        Message::new(header.carrying(id, Kind::Refusal, None, body), body).unwrap()
    }

    fn message_rows(&self, direction: Direction, message: &Message) -> [Change; 2] {
        let (peer, seq) = (self.peer.clone(), message.header.seq);
        let header = HeaderRow::of(message, self.steps);
        let body = Row::Body(direction, peer.clone(), seq, message.body().to_vec());
        [Change::Put(Row::Header(direction, peer, seq, header)), Change::Put(body)]
    }

    fn outgoing_row(&self) -> Change {
        Change::Put(Row::Outgoing(self.peer.clone(), self.outgoing.clone()))
    }

    fn incoming_row(&self) -> Change {
        Change::Put(Row::Incoming(self.peer.clone(), self.incoming.clone()))
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, body: &[u8]) -> Vec<Change> {
        let message = self.message(Direction::Out, body);
        let mut changes = self.message_rows(Direction::Out, &message).to_vec();
        self.outgoing.next = message.header.seq.next();
        self.outgoing.head = message.hash;
        changes.push(self.outgoing_row());
        changes
    }

    /// Receives the next message of the peer.
    pub(crate) fn receive(&mut self, body: &[u8]) -> Vec<Change> {
        let message = self.message(Direction::In, body);
        let mut changes = self.message_rows(Direction::In, &message).to_vec();
        self.incoming.through = Some(message.header.seq);
        self.incoming.head = message.hash;
        changes.push(self.incoming_row());
        changes
    }

    /// Applies the next message received; nothing when there is none.
    pub(crate) fn work(&mut self) -> Option<Vec<Change>> {
        let next = Seq::after(self.incoming.applied);
        (Some(next) <= self.incoming.through).then(|| {
            self.incoming.applied = Some(next);
            vec![self.incoming_row(), Change::Put(Row::Work(self.peer.clone(), next, Work::default()))]
        })
    }

    /// Settles the next message applied and drops its body; nothing when there is none.
    pub(crate) fn settle(&mut self) -> Option<Vec<Change>> {
        let next = Seq::after(self.incoming.settled);
        (Some(next) <= self.incoming.applied).then(|| {
            self.incoming.settled = Some(next);
            let drop = Change::DropBodies(Direction::In, self.peer.clone(), next, next);
            vec![self.incoming_row(), Change::DeleteWork(self.peer.clone(), next), drop]
        })
    }

    /// Hears that the peer has everything sent, and that half of it is settled and the quarter before it forgotten.
    pub(crate) fn acknowledged(&mut self) -> Vec<Change> {
        let before = self.outgoing.clone();
        let last = Seq::count(before.next.previous());
        self.outgoing.received = Seq::new(last);
        self.outgoing.settled = before.settled.max(Seq::new(last / 2));
        self.outgoing.forgotten = before.forgotten.max(Seq::new(last / 4));
        let mut changes = vec![self.outgoing_row()];
        let newly = |old, new: Option<Seq>| new.filter(|new| Some(*new) > old).map(|new| (Seq::after(old), new));
        if let Some((from, to)) = newly(before.settled, self.outgoing.settled) {
            changes.push(Change::DropBodies(Direction::Out, self.peer.clone(), from, to));
        }
        if let Some((from, to)) = newly(before.forgotten, self.outgoing.forgotten) {
            changes.push(Change::DropHeaders(Direction::Out, self.peer.clone(), from, to));
        }
        changes
    }

    /// The changes of the next step. Most are small, some take several pieces in an engine.
    pub(crate) fn step(&mut self) -> Vec<Change> {
        let mut random = Random(self.seed ^ self.steps.wrapping_mul(0x0123_4567_89ab_cdef));
        let length = match random.below(40) {
            0 => 40_000 + random.below(80_000),
            1..=4 => random.below(8_000),
            _ => random.below(600),
        };
        let body = random.bytes(usize::try_from(length).unwrap());
        let mut changes = match random.below(20) {
            0..=7 => self.send(&body),
            8..=12 => self.receive(&body),
            13..=15 => self.work().unwrap_or_default(),
            16..=17 => self.settle().unwrap_or_default(),
            18 => self.acknowledged(),
            // Only the application's rows: no stream moves.
            _ => vec![put_app(format!("note/{}", random.below(30)).into_bytes(), body)],
        };
        if random.below(10) == 0 {
            changes.push(Change::DeleteApp(format!("note/{}", random.below(30)).into_bytes()));
        }
        self.steps += 1;
        changes.push(put_app(COUNT.to_vec(), self.steps.to_be_bytes().to_vec()));
        for change in &changes {
            write(&mut self.rows, change);
        }
        changes
    }
}

/// What a change does to rows, said again independently of the journal.
pub(crate) fn write(rows: &mut Rows, change: &Change) {
    let mut drop = |table, peer: &EndpointId, from: Seq, to: Seq| {
        for seq in from.value()..=to.value() {
            rows.remove(&Key::Message(table, peer.clone(), Seq::new(seq).unwrap()).bytes());
        }
    };
    match change {
        Change::Put(row) => {
            let (key, value) = row.encode();
            rows.insert(key, value);
        }
        Change::DeleteApp(name) => {
            rows.remove(&Key::App(name.clone()).bytes());
        }
        Change::DeleteWork(peer, seq) => drop(MessageTable::Work, peer, *seq, *seq),
        Change::DropBodies(Direction::Out, peer, from, to) => drop(MessageTable::SentBody, peer, *from, *to),
        Change::DropBodies(Direction::In, peer, from, to) => drop(MessageTable::InboxBody, peer, *from, *to),
        Change::DropHeaders(Direction::Out, peer, from, to) => drop(MessageTable::SentHeader, peer, *from, *to),
        Change::DropHeaders(Direction::In, peer, from, to) => drop(MessageTable::InboxHeader, peer, *from, *to),
    }
}

/// Every row of a store but the two that the journal keeps about itself.
pub(crate) fn rows_of(store: &dyn Store) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    store.scan(&[0], &[0xff], &mut |key, value| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })?;
    rows.remove(&Key::Meta.bytes());
    rows.remove(&Key::Totals.bytes());
    Ok(rows)
}
