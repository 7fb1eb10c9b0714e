//! Two sessions, two disks and two queues between them: everything the protocol needs, without a clock or a socket. What the
//! queues do to the envelopes is up to the test.

use std::collections::{BTreeMap, VecDeque};

use journal::{Change, Direction, Key, MessageTable, Meta, Row, State, WriteAhead};
use link::session::{
    Applied, Config, DeliveryTag, Disposition, Effects, Fault, Identity, Input, Load, Millis, Now, Outbound, Published,
    Rewound, Session, Transaction,
};
use messages::{EndpointId, Epoch, Frame, Incarnation, Kind, Message, MessageId, Nonce, Seq, decode};

/// The rows of a journal. What a crash leaves.
#[derive(Clone, Default)]
pub(crate) struct Disk(BTreeMap<Vec<u8>, Row>);

impl Disk {
    pub(crate) fn write(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(row) => {
                    self.0.insert(row.key().bytes(), row.clone());
                }
                Change::DeleteApp(name) => self.remove(&Key::App(name.clone())),
                Change::DeleteWork(peer, seq) => {
                    self.remove(&Key::Message(MessageTable::Work, peer.clone(), *seq));
                }
                Change::DropBodies(direction, peer, from, to) => {
                    self.drop(*direction, MessageTable::SentBody, MessageTable::InboxBody, peer, (*from, *to));
                }
                Change::DropHeaders(direction, peer, from, to) => {
                    self.drop(*direction, MessageTable::SentHeader, MessageTable::InboxHeader, peer, (*from, *to));
                }
            }
        }
    }

    fn drop(
        &mut self,
        direction: Direction,
        out: MessageTable,
        inbox: MessageTable,
        peer: &EndpointId,
        (from, to): (Seq, Seq),
    ) {
        let table = if direction == Direction::Out { out } else { inbox };
        for seq in (from.value()..=to.value()).filter_map(Seq::new) {
            self.remove(&Key::Message(table, peer.clone(), seq));
        }
    }

    fn remove(&mut self, key: &Key) {
        self.0.remove(&key.bytes());
    }

    pub(crate) fn fold(&self) -> State {
        let mut state = State::default();
        for row in self.0.values() {
            state.put(row).expect("what a session wrote is legal");
        }
        state
    }

    fn message(&self, table: (MessageTable, MessageTable), peer: &EndpointId, seq: Seq) -> Option<Message> {
        let Some(Row::Header(_, _, _, header)) = self.0.get(&Key::Message(table.0, peer.clone(), seq).bytes()) else {
            return None;
        };
        let Some(Row::Body(_, _, _, body)) = self.0.get(&Key::Message(table.1, peer.clone(), seq).bytes()) else {
            return None;
        };
        Some(Message::restore(&header.header, body).expect("what was written can be read"))
    }

    pub(crate) fn sent(&self, peer: &EndpointId, seq: Seq) -> Option<Message> {
        self.message((MessageTable::SentHeader, MessageTable::SentBody), peer, seq)
    }

    pub(crate) fn received(&self, peer: &EndpointId, seq: Seq) -> Option<Message> {
        self.message((MessageTable::InboxHeader, MessageTable::InboxBody), peer, seq)
    }
}

/// One end.
#[derive(Clone)]
pub(crate) struct End {
    pub(crate) id: EndpointId,
    pub(crate) peer: EndpointId,
    pub(crate) config: Config,
    pub(crate) disk: Disk,
    pub(crate) session: Session,
    pub(crate) epoch: Epoch,
    pub(crate) incarnation: Incarnation,
    pub(crate) nonces: u64,
    /// What the application took, in order: the effects of the world outside.
    pub(crate) taken: Vec<(Seq, Vec<u8>)>,
    /// What of that was handed over as perhaps done before.
    pub(crate) doubted: Vec<Vec<u8>>,
    /// Held messages not yet answered.
    pub(crate) held: VecDeque<Seq>,
    pub(crate) resent: u64,
    pub(crate) statuses: Vec<usize>,
    pub(crate) faults: Vec<Fault>,
    /// Deliveries that went to the dead-letter queue.
    pub(crate) discarded: usize,
    submitted: u64,
    pub(crate) mark: String,
}

impl End {
    pub(crate) fn new(id: &str, peer: &str, config: Config) -> Self {
        let (id, peer): (EndpointId, EndpointId) = (id.parse().unwrap(), peer.parse().unwrap());
        let nonces = if id == EndpointId::Server { 1_000_000 } else { 2_000_000 };
        let incarnation = Incarnation::from_u128(u128::from(nonces));
        let mut disk = Disk::default();
        let epoch = Epoch::FIRST;
        let meta = Meta { endpoint: id.clone(), incarnation, epoch, created_ms: 0 };
        disk.write(&[Change::Put(Row::Meta(meta))]);
        let session = recover(&id, &peer, incarnation, epoch, nonces, &config, &disk);
        Self {
            id,
            peer,
            config,
            disk,
            session,
            epoch,
            incarnation,
            nonces,
            taken: Vec::new(),
            doubted: Vec::new(),
            held: VecDeque::new(),
            resent: 0,
            statuses: Vec::new(),
            faults: Vec::new(),
            discarded: 0,
            submitted: 0,
            mark: String::new(),
        }
    }

    /// The process dies and starts again; only the disk is left.
    pub(crate) fn restart(&mut self) {
        self.epoch = self.epoch.next();
        self.nonces += 1_000;
        let (endpoint, incarnation, epoch) = (self.id.clone(), self.incarnation, self.epoch);
        self.disk.write(&[Change::Put(Row::Meta(Meta { endpoint, incarnation, epoch, created_ms: 0 }))]);
        self.session = recover(&self.id, &self.peer, incarnation, epoch, self.nonces, &self.config, &self.disk);
        let state = self.disk.fold();
        let streams = state.peers.get(&self.peer).cloned().unwrap_or_default();
        // The application too knows only what it had recorded with its transactions.
        self.remember_work();
        let applied = Seq::count(streams.incoming.and_then(|incoming| incoming.applied));
        self.taken.retain(|(seq, _)| seq.value() <= applied);
    }

    /// What is held is what the journal says.
    fn remember_work(&mut self) {
        let streams = self.disk.fold().peers.get(&self.peer).cloned().unwrap_or_default();
        self.held = streams.work.iter().filter(|(_, work)| work.answered.is_none()).map(|(seq, _)| *seq).collect();
    }

    pub(crate) fn outbound(&mut self, answers: Option<Seq>) -> Outbound {
        self.submitted += 1;
        Outbound {
            to: self.peer.clone(),
            id: MessageId::from_u128(u128::from(self.submitted)),
            kind: Kind::Unknown(9),
            body: format!("{}-{}{}", self.id, self.submitted, self.mark).into_bytes(),
            cause: None,
            answers,
        }
    }

    /// What the application does next: take the next message, or answer the oldest held one.
    pub(crate) fn application(&mut self, now: Now, hold: bool) -> Option<WriteAhead<Effects>> {
        let peer = self.peer.clone();
        if let Some((seq, _)) = self.session.unapplied(&peer) {
            let message = self.disk.received(&peer, seq).expect("an offered message is on the disk");
            let disposition = if hold { Disposition::Hold } else { Disposition::Settle };
            let apply = vec![Applied { peer, seq, disposition }];
            let write = self.session.transact(now, Transaction { apply, ..Transaction::default() }).unwrap();
            self.taken.push((seq, message.body().to_vec()));
            if Some(seq) <= self.session.state().peers[&self.peer].incoming.as_ref().unwrap().doubtful {
                self.doubted.push(message.body().to_vec());
            }
            if hold {
                self.held.push_back(seq);
            }
            return Some(write);
        }
        let seq = self.held.pop_front()?;
        let send = vec![self.outbound(Some(seq))];
        Some(self.session.transact(now, Transaction { send, ..Transaction::default() }).unwrap())
    }
}

fn recover(
    id: &EndpointId,
    peer: &EndpointId,
    incarnation: Incarnation,
    epoch: Epoch,
    nonce: u64,
    config: &Config,
    disk: &Disk,
) -> Session {
    let state = disk.fold();
    let mut recent = BTreeMap::new();
    if let Some(streams) = state.peers.get(peer)
        && let (from, Some(to)) = Session::recent_span(config, streams)
    {
        let span = (from.value()..=to.value()).filter_map(Seq::new);
        let hashes = span.filter_map(|seq| disk.sent(peer, seq).map(|message| (seq, message.hash))).collect();
        recent.insert(peer.clone(), hashes);
    }
    let identity = Identity { local: id.clone(), incarnation, epoch, nonce: Nonce::new(nonce) };
    Session::recover(identity, config.clone(), state, [peer.clone()], recent)
}

/// Both ends and the broker between them.
pub(crate) struct Pair {
    pub(crate) now: u64,
    pub(crate) server: End,
    pub(crate) agent: End,
    /// Towards the server, towards the agent.
    pub(crate) queues: [VecDeque<Frame>; 2],
    tags: u64,
    /// Message bytes published, first time and again, by direction.
    pub(crate) published: [Vec<Published>; 2],
    /// Everything that was ever published, oldest first: a broker may have kept any of it.
    pub(crate) archive: [Vec<Frame>; 2],
    /// Whether reads of the journal wait in `loads` until [`Self::load`], as they do behind a driver.
    pub(crate) loads_wait: bool,
    /// What each side has asked its journal for, by its outbox.
    pub(crate) loads: [VecDeque<Load>; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Server,
    Agent,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Server, Self::Agent];

    pub(crate) fn inbox(self) -> usize {
        match self {
            Self::Server => 0,
            Self::Agent => 1,
        }
    }

    pub(crate) fn outbox(self) -> usize {
        1 - self.inbox()
    }
}

impl Pair {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            now: 1,
            server: End::new("server", "web-01", config.clone()),
            agent: End::new("web-01", "server", config.clone()),
            queues: Default::default(),
            tags: 0,
            published: Default::default(),
            archive: Default::default(),
            loads_wait: false,
            loads: Default::default(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now { at: Millis(self.now), wall_ms: self.now }
    }

    pub(crate) fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Server => &mut self.server,
            Side::Agent => &mut self.agent,
        }
    }

    pub(crate) fn input(&mut self, side: Side, input: Input) {
        let now = self.now();
        let write = self.end(side).session.handle(now, input);
        self.commit(side, write);
    }

    pub(crate) fn commit(&mut self, side: Side, write: WriteAhead<Effects>) {
        let (changes, effects) = write.committed_elsewhere();
        self.end(side).disk.write(&changes);
        self.act(side, effects);
    }

    /// The process dies after its changes became durable and before it did anything.
    pub(crate) fn commit_and_die(&mut self, side: Side, write: WriteAhead<Effects>) {
        let (changes, _) = write.committed_elsewhere();
        self.end(side).disk.write(&changes);
        self.restart(side);
    }

    /// The process ends; the next one knows nothing of what this one was reading.
    pub(crate) fn forget_process(&mut self, side: Side) {
        self.loads[side.outbox()].clear();
        self.end(side).restart();
    }

    pub(crate) fn restart(&mut self, side: Side) {
        self.forget_process(side);
        self.input(side, Input::Connected);
    }

    pub(crate) fn act(&mut self, side: Side, effects: Effects) {
        for publish in effects.publish {
            match publish.what {
                Published::Resent(_) => self.end(side).resent += 1,
                Published::Status => self.end(side).statuses.push(publish.frame.bytes().len()),
                Published::Message(_) | Published::Log => {}
            }
            self.published[side.outbox()].push(publish.what);
            self.archive[side.outbox()].push(publish.frame.clone());
            self.queues[side.outbox()].push_back(publish.frame);
        }
        if effects.rewound.contains(&Rewound::Own(self.end(side).peer.clone())) {
            self.end(side).remember_work();
        }
        self.end(side).faults.extend(effects.faults);
        self.end(side).discarded += effects.discard.len();
        self.loads[side.outbox()].extend(effects.load);
        while !self.loads_wait && self.load(side, usize::MAX) {}
    }

    /// Answers the oldest read of that side's journal, with at most that many messages. False when there was none.
    pub(crate) fn load(&mut self, side: Side, most: usize) -> bool {
        let Some(Load { peer, from, to }) = self.loads[side.outbox()].pop_front() else { return false };
        let span = (from.value()..=to.value()).filter_map(Seq::new);
        let disk = &self.end(side).disk;
        let messages = span.filter_map(|seq| disk.sent(&peer, seq)).take(most).collect();
        self.input(side, Input::Loaded(peer, messages));
        true
    }

    pub(crate) fn connect(&mut self) {
        for side in Side::BOTH {
            self.input(side, Input::Connected);
        }
    }

    pub(crate) fn disconnect(&mut self) {
        for side in Side::BOTH {
            self.input(side, Input::Disconnected);
        }
    }

    pub(crate) fn submit(&mut self, side: Side) {
        let now = self.now();
        let end = self.end(side);
        let send = vec![end.outbound(None)];
        let write = end.session.transact(now, Transaction { send, ..Transaction::default() }).unwrap();
        self.commit(side, write);
    }

    /// The envelope at that place of a queue is delivered.
    pub(crate) fn deliver(&mut self, side: Side, frame: &Frame) {
        self.tags += 1;
        let tag = DeliveryTag { connection: 1, tag: self.tags };
        let envelope = decode(frame.bytes().to_vec()).unwrap();
        self.input(side, Input::Delivered(tag, Box::new(envelope)));
    }

    /// Delivers all that waits, lets the applications work and time pass, until nothing happens any more.
    pub(crate) fn settle(&mut self, hold: bool) {
        for _ in 0..400_000 {
            let mut idle = true;
            for side in Side::BOTH {
                while let Some(frame) = self.queues[side.inbox()].pop_front() {
                    self.deliver(side, &frame);
                    idle = false;
                }
                while self.load(side, usize::MAX) {
                    idle = false;
                }
                let now = self.now();
                let hold = hold && side == Side::Agent;
                if let Some(write) = self.end(side).application(now, hold) {
                    self.commit(side, write);
                    idle = false;
                }
            }
            if idle {
                let frozen = |fault: &Fault| matches!(fault, Fault::Frozen { .. });
                let stopped = self.server.faults.iter().chain(&self.agent.faults).any(frozen);
                assert!(!stopped, "a stream is frozen: {}", self.describe());
                let heartbeat = self.now + self.agent.config.heartbeat_ms / 2;
                let due = Side::BOTH.into_iter().filter_map(|side| self.end(side).session.next_timeout()).min();
                match due {
                    // An agent's heartbeat goes on for ever; nothing else may.
                    Some(due) if due.0 <= heartbeat || !self.converged() => {
                        self.now = self.now.max(due.0);
                        for side in Side::BOTH {
                            self.input(side, Input::TimedOut);
                        }
                    }
                    Some(_) | None => return,
                }
            }
        }
        panic!("does not come to rest: {}", self.describe());
    }

    pub(crate) fn converged(&self) -> bool {
        self.server
            .session
            .state()
            .peers
            .get(&self.server.peer)
            .is_none_or(|streams| streams.outgoing.settled == streams.outgoing.next.previous())
            && self
                .agent
                .session
                .state()
                .peers
                .get(&self.agent.peer)
                .is_none_or(|streams| streams.outgoing.settled == streams.outgoing.next.previous())
    }

    pub(crate) fn describe(&self) -> String {
        let at = Millis(self.now);
        format!(
            "{:#?}\n{:#?}\nfaults {:?} {:?}",
            self.server.session.view(&self.server.peer, at),
            self.agent.session.view(&self.agent.peer, at),
            self.server.faults,
            self.agent.faults
        )
    }
}

impl Pair {
    /// Like [`Self::settle`], for streams that are expected to stop rather than to converge.
    pub(crate) fn settle_some(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for side in Side::BOTH {
                while let Some(frame) = self.queues[side.inbox()].pop_front() {
                    self.deliver(side, &frame);
                }
                let now = self.now();
                while let Some(write) = self.end(side).application(now, false) {
                    self.commit(side, write);
                }
            }
            self.now += 1_000;
            for side in Side::BOTH {
                self.input(side, Input::TimedOut);
            }
        }
    }
}
