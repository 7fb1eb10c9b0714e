//! What a server and three agents say to each other, step by step, as a pure function of a seed: real sessions on both sides, a
//! wire that loses nothing, and the rows that the server's journal must then hold. Whoever knows the seed and the number of
//! steps knows every row. It never looks into a journal.

use std::collections::{BTreeMap, VecDeque};

use journal::{Change, Direction, HeaderRow, Key, MessageTable, Opening, PeerState, Row, put_app};
use link::session::{
    Applied, Config, DeliveryTag, Disposition, Effects, Identity, Input, Millis, Now, Outbound, Session, Transaction,
};
use messages::{EndpointId, Epoch, Incarnation, Kind, MessageId, Nonce, Seq, decode};

use super::random::Random;

/// Every row that must be there, as bytes. The two that the journal keeps about itself are not among them.
pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

const AGENTS: [&str; 3] = ["a1", "a2", "a3"];

/// The row of the application that counts the steps.
const COUNT: &[u8] = b"count";

const NAMES_ARE_GOOD: &str = "the names are constants that are good";

/// Whose journal it is.
pub(super) fn opening() -> Opening {
    Opening { endpoint: EndpointId::Server, incarnation: Incarnation::from_u128(1), now_ms: 0 }
}

/// How many steps a store's rows say they hold.
pub(super) fn steps_of(rows: &Rows) -> u64 {
    let key = Key::App(COUNT.to_vec()).bytes();
    match rows.get(&key).map(|value| Row::decode(&key, value)) {
        Some(Ok(Row::App(_, count))) => count.try_into().map_or(0, u64::from_be_bytes),
        _ => 0,
    }
}

/// An agent: its session, and what is on its way to it.
struct Agent {
    session: Session,
    queue: VecDeque<Vec<u8>>,
}

/// The world after some steps.
pub(super) struct History {
    random: Random,
    server: Session,
    agents: BTreeMap<EndpointId, Agent>,
    /// On its way to the server.
    queue: VecDeque<Vec<u8>>,
    /// Messages that the server works on.
    held: VecDeque<(EndpointId, Seq)>,
    clock_ms: u64,
    /// The server's changes of this step.
    changes: Vec<Change>,
    ids: u128,
    /// Steps so far.
    pub(super) steps: u64,
    /// What the server's journal holds after them.
    pub(super) rows: Rows,
}

fn session(local: EndpointId, number: u64, peers: Vec<EndpointId>) -> Session {
    let incarnation = Incarnation::from_u128(u128::from(number));
    let identity = Identity { local, incarnation, epoch: Epoch::FIRST, nonce: Nonce::new(number * 1_000_000) };
    // A short history, so that headers are dropped as well.
    let config = Config { history: 8, status_every: 4, ..Config::default() };
    Session::recover(identity, config, journal::State::default(), peers, BTreeMap::new())
}

impl History {
    /// The world before the first step.
    pub(super) fn new(seed: u64) -> Self {
        let names: Vec<EndpointId> = AGENTS.iter().map(|name| name.parse().expect(NAMES_ARE_GOOD)).collect();
        let agent = |(name, number): (&EndpointId, u64)| {
            let session = session(name.clone(), number, vec![EndpointId::Server]);
            (name.clone(), Agent { session, queue: VecDeque::new() })
        };
        let mut history = Self {
            random: Random::new(seed, 1),
            server: session(EndpointId::Server, 1, names.clone()),
            agents: names.iter().zip(2..).map(agent).collect(),
            queue: VecDeque::new(),
            held: VecDeque::new(),
            clock_ms: 0,
            changes: Vec::new(),
            ids: 0,
            steps: 0,
            rows: Rows::new(),
        };
        history.everyone(&Input::Connected);
        history
    }

    /// Lets everyone hear of everyone: before that nothing is sent at once, and nobody here reads for a session what waits.
    fn meet(&mut self) {
        for _ in 0..4 {
            for id in self.agents.keys().cloned().collect::<Vec<_>>() {
                self.deliver_to(&id);
            }
            while let Some(bytes) = self.queue.pop_front() {
                let input = self.delivery(bytes);
                let effects = self.server.handle(self.now(), input);
                self.server_did(effects);
            }
            self.clock_ms += 25;
            self.everyone(&Input::TimedOut);
        }
    }

    fn deliver_to(&mut self, id: &EndpointId) {
        let now = self.now();
        let waiting = self.agents.get_mut(id).map(|agent| std::mem::take(&mut agent.queue)).unwrap_or_default();
        for bytes in waiting {
            let input = self.delivery(bytes);
            self.agent_did(id, |session| Some(session.handle(now, input)));
        }
    }

    /// The world after that many steps.
    pub(super) fn after(seed: u64, steps: u64) -> Self {
        let mut history = Self::new(seed);
        while history.steps < steps {
            history.step();
        }
        history
    }

    /// One more step: what the server is to commit as one.
    pub(super) fn step(&mut self) -> Vec<Change> {
        if self.steps == 0 {
            self.meet();
        }
        match self.random.below(16) {
            0..=3 => self.send(),
            4..=6 => self.agent_works(),
            7..=10 => self.server_receives(),
            11..=13 => self.server_applies(),
            14 => self.note(),
            _ => {
                self.clock_ms += 25 + self.random.below(2_000);
                self.everyone(&Input::TimedOut);
            }
        }
        self.steps += 1;
        self.changes.push(put_app(COUNT.to_vec(), self.steps.to_be_bytes().to_vec()));
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            write(&mut self.rows, change);
        }
        changes
    }

    /// The marks of the streams, by peer.
    pub(super) fn peers(&self) -> &BTreeMap<EndpointId, PeerState> {
        &self.server.state().peers
    }

    fn now(&self) -> Now {
        Now { at: Millis(self.clock_ms), wall_ms: self.clock_ms }
    }

    fn everyone(&mut self, input: &Input) {
        let now = self.now();
        let effects = self.server.handle(now, input.clone());
        self.server_did(effects);
        for agent in self.agents.values_mut() {
            let (_, effects) = agent.session.handle(now, input.clone()).committed_elsewhere();
            self.queue.extend(effects.publish.into_iter().map(|publish| publish.frame.bytes().to_vec()));
        }
    }

    fn server_did(&mut self, write: journal::WriteAhead<Effects>) {
        let (changes, effects) = write.committed_elsewhere();
        self.changes.extend(changes);
        for publish in effects.publish {
            if let Some(agent) = self.agents.get_mut(&publish.to) {
                agent.queue.push_back(publish.frame.bytes().to_vec());
            }
        }
    }

    fn server_transacts(&mut self, transaction: Transaction) {
        let effects = self.server.transact(self.now(), transaction);
        self.server_did(effects.expect("the transaction is made from what the session itself says"));
    }

    /// Most bodies are small, some take several pieces in an engine.
    fn body(&mut self) -> Vec<u8> {
        let length = match self.random.below(40) {
            0 => 40_000 + self.random.below(80_000),
            1..=4 => self.random.below(8_000),
            _ => self.random.below(600),
        };
        self.random.bytes(usize::try_from(length).expect("it is small"))
    }

    fn outbound(&mut self, to: EndpointId, answers: Option<Seq>) -> Outbound {
        self.ids += 1;
        let (id, body) = (MessageId::from_u128(self.ids), self.body());
        Outbound { to, id, kind: Kind::Refusal, body, cause: None, answers }
    }

    fn some_agent(&mut self) -> EndpointId {
        AGENTS[self.random.index(AGENTS.len())].parse().expect(NAMES_ARE_GOOD)
    }

    /// New work: a row of the application and a message for an agent or two, and the answer to something held.
    fn send(&mut self) {
        let mut send = Vec::new();
        for _ in 0..=self.random.below(2) {
            let to = self.some_agent();
            send.push(self.outbound(to, None));
        }
        if let Some((peer, seq)) = self.held.pop_front() {
            send.push(self.outbound(peer, Some(seq)));
        }
        let rows = vec![put_app(format!("job/{}", self.random.below(40)).into_bytes(), self.body())];
        self.server_transacts(Transaction { send, rows, ..Transaction::default() });
    }

    /// Only the application's rows: no stream moves.
    fn note(&mut self) {
        let name = format!("job/{}", self.random.below(40)).into_bytes();
        let change = if self.random.below(2) == 0 { Change::DeleteApp(name) } else { put_app(name, self.body()) };
        self.server_transacts(Transaction { rows: vec![change], ..Transaction::default() });
    }

    fn delivery(&mut self, bytes: Vec<u8>) -> Input {
        self.ids += 1;
        let tag = DeliveryTag { connection: 1, tag: u64::try_from(self.ids).expect("there are few") };
        Input::Delivered(tag, Box::new(decode(bytes).expect("a session published it")))
    }

    /// An agent takes what waits for it, works on it and reports.
    fn agent_works(&mut self) {
        let (id, now) = (self.some_agent(), self.now());
        self.deliver_to(&id);
        let unapplied = self.agents.get(&id).and_then(|agent| agent.session.unapplied(&EndpointId::Server));
        for seq in unapplied.into_iter().flat_map(|(from, to)| from.value()..=to.value()).filter_map(Seq::new) {
            let holds = self.random.below(3) > 0;
            let disposition = if holds { Disposition::Hold } else { Disposition::Settle };
            let apply = vec![Applied { peer: EndpointId::Server, seq, disposition }];
            let send = vec![self.outbound(EndpointId::Server, holds.then_some(seq))];
            let transaction = Transaction { apply, send, ..Transaction::default() };
            self.agent_did(&id, |session| session.transact(now, transaction).ok());
        }
    }

    fn agent_did(&mut self, id: &EndpointId, act: impl FnOnce(&mut Session) -> Option<journal::WriteAhead<Effects>>) {
        let Some(write) = self.agents.get_mut(id).and_then(|agent| act(&mut agent.session)) else { return };
        let (_, effects) = write.committed_elsewhere();
        self.queue.extend(effects.publish.into_iter().map(|publish| publish.frame.bytes().to_vec()));
    }

    fn server_receives(&mut self) {
        for _ in 0..=self.random.below(6) {
            let Some(bytes) = self.queue.pop_front() else { return };
            let input = self.delivery(bytes);
            let effects = self.server.handle(self.now(), input);
            self.server_did(effects);
        }
    }

    /// The server deals with what it received: with most of it at once, with some of it later, and some it refuses.
    fn server_applies(&mut self) {
        let peer = self.some_agent();
        let Some((from, to)) = self.server.unapplied(&peer) else { return self.send() };
        let mut apply = Vec::new();
        for seq in (from.value()..=to.value()).take(3).filter_map(Seq::new) {
            let disposition = match self.random.below(6) {
                0 => {
                    self.held.push_back((peer.clone(), seq));
                    Disposition::Hold
                }
                1 => self.refused(&peer, seq).map_or(Disposition::Settle, |row| Disposition::Refuse(Box::new(row))),
                _ => Disposition::Settle,
            };
            apply.push(Applied { peer: peer.clone(), seq, disposition });
        }
        self.server_transacts(Transaction { apply, ..Transaction::default() });
    }

    fn refused(&self, peer: &EndpointId, seq: Seq) -> Option<HeaderRow> {
        let key = Key::Message(MessageTable::InboxHeader, peer.clone(), seq).bytes();
        let Ok(Row::Header(_, _, _, row)) = Row::decode(&key, self.rows.get(&key)?) else { return None };
        Some(HeaderRow { refused: Some("nobody asked for it".to_owned()), ..row })
    }
}

/// Whether rows are dropped that a peer has.
pub(super) fn drops_rows(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::DropBodies(..) | Change::DropHeaders(..)))
}

/// What a change does to rows, said again independently of the journal.
fn write(rows: &mut Rows, change: &Change) {
    let mut drop = |table, peer: &EndpointId, from: Seq, to: Seq| {
        for seq in (from.value()..=to.value()).filter_map(Seq::new) {
            rows.remove(&Key::Message(table, peer.clone(), seq).bytes());
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_history_holds_every_kind_of_row_and_drops_rows() {
        let mut history = History::new(7);
        let (mut tables, mut drops) = (std::collections::BTreeSet::new(), 0);
        for _ in 0..300 {
            let changes = history.step();
            drops += u32::from(drops_rows(&changes));
            tables.extend(history.rows.keys().map(|key| key[0]));
        }
        // Two tables are the journal's own: what journal it is, and what everything adds up to.
        assert_eq!(tables.len(), journal::Table::ALL.len() - 2, "{tables:?}");
        assert!(drops > 20, "{drops}");
        assert_eq!(steps_of(&history.rows), 300);
        assert!(history.rows == History::after(7, 300).rows);
        assert!(history.rows != History::after(8, 300).rows);
    }

    #[test]
    fn the_sessions_of_a_history_stay_in_step() {
        let history = History::after(3, 400);
        for agent in history.agents.values() {
            let view = agent.session.view(&EndpointId::Server, Millis(history.clock_ms)).unwrap();
            assert!(view.frozen.is_none(), "{view:?}");
        }
    }
}
