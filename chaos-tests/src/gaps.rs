//! Very many journaled messages of which three are missing at the other end: what putting that right costs, over real
//! journals on disk and the session that ships. It leaves nothing to chance and measures nothing but its own process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use journal::{Commit, Direction, Engine, Journal, OpenError, Opening, SegmentStore, SledStore, State, Store};
use link::session::{
    Config, DeliveryTag, Effects, Identity, Input, Load, Millis, Now, Outbound, Published, Session, TransactError,
    Transaction,
};
use messages::{DecodeError, EndpointId, Envelope, Frame, Incarnation, Kind, MessageId, Nonce, Seq, decode};

/// Bytes that an exchange may take, so that it does not grow with what was sent.
pub const EXCHANGE_BYTES_MAX: usize = 2 * 1024;

/// Messages that are lost.
pub const LOST: u64 = 3;

/// Commits under way at a time, so that syncs are shared.
const UNDER_WAY: usize = 512;

/// A delivery of the one connection.
const TAG: DeliveryTag = DeliveryTag { connection: 1, tag: 1 };

/// Exchanges after which it is given up, and the time between them: longer than a probe waits for its answer.
const ROUNDS_MAX: u64 = 200;
const ROUND_MS: u64 = 2_000;

/// Bytes read from a journal at a time.
const LOAD_BYTES: usize = 4 * 1024 * 1024;

/// Where a journal has its engine's files.
const STORE: &str = "store";

/// Why the figures cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GapsError {
    /// A journal cannot be opened.
    #[error("a journal cannot be opened")]
    Open(#[from] OpenError),
    /// A journal does not take a commit.
    #[error("a journal does not take a commit")]
    Commit(#[from] journal::CommitError),
    /// A journal cannot be read.
    #[error("a journal cannot be read")]
    Read(#[from] journal::ReadError),
    /// The store of a journal cannot be opened or read.
    #[error("the store of a journal cannot be opened or read")]
    Store(#[from] journal::StoreError),
    /// A session refuses a message.
    #[error("a session refuses a message")]
    Transact(#[from] TransactError),
    /// What was published cannot be decoded.
    #[error("what was published cannot be decoded")]
    Decode(#[from] DecodeError),
    /// The operating system refused.
    #[error("the operating system refused")]
    Io(#[from] std::io::Error),
}

/// What it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Cost {
    /// Messages in the sender's journal.
    pub messages: u64,
    /// Bytes of the probe and of its answer.
    pub exchange_bytes: usize,
    /// Messages sent again.
    pub resent: u64,
    /// Messages that the receiver has in the end, without a gap.
    pub received: u64,
}

impl Cost {
    /// Whether it is what was promised.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.exchange_bytes < EXCHANGE_BYTES_MAX && self.resent == LOST && self.received == self.messages
    }
}

/// One endpoint with its journal on disk.
struct End {
    journal: Journal,
    session: Session,
    peer: EndpointId,
    under_way: VecDeque<Commit<Effects>>,
}

fn config() -> Config {
    // Nothing but the window is in the way of a million unsettled messages.
    Config { window: 1 << 20, status_every: u32::MAX, outbox_max: u64::MAX, ..Config::default() }
}

const fn now(at: u64) -> Now {
    Now { at: Millis(at), wall_ms: at }
}

/// Opens a journal as its endpoint does.
fn open(dir: &Path, endpoint: EndpointId, engine: Engine) -> Result<(Journal, State), OpenError> {
    let incarnation = Incarnation::from_u128(if endpoint == EndpointId::Server { 1 } else { 2 });
    Journal::open_as(dir, &Opening { endpoint, incarnation, now_ms: 0 }, engine)
}

impl End {
    fn open(dir: &Path, local: &EndpointId, peer: &EndpointId, engine: Engine) -> Result<Self, GapsError> {
        let (journal, state) = open(dir, local.clone(), engine)?;
        let meta = journal.meta().clone();
        let nonce = Nonce::new(if *local == EndpointId::Server { 1 << 32 } else { 2 << 32 });
        let identity = Identity { local: local.clone(), incarnation: meta.incarnation, epoch: meta.epoch, nonce };
        let session = Session::recover(identity, config(), state, [peer.clone()], BTreeMap::new());
        Ok(Self { journal, session, peer: peer.clone(), under_way: VecDeque::new() })
    }

    fn input(&mut self, at: u64, input: Input) -> Result<Effects, GapsError> {
        let write = self.session.handle(now(at), input);
        Ok(self.journal.commit(write).wait()?)
    }

    /// As [`Self::input`], but without waiting for the sync. Gives the effects of an earlier one.
    fn input_soon(&mut self, at: u64, input: Input) -> Result<Option<Effects>, GapsError> {
        let write = self.session.handle(now(at), input);
        self.soon(write)
    }

    fn submit(&mut self, number: u64) -> Result<Option<Effects>, GapsError> {
        let outbound = Outbound {
            to: self.peer.clone(),
            id: MessageId::from_u128(u128::from(number)),
            kind: Kind::Unknown(9),
            body: format!("step {number} of the nightly backup ended with code 0 after {} ms", number % 60_000).into(),
            cause: None,
            answers: None,
        };
        let write = self.session.transact(now(0), Transaction { send: vec![outbound], ..Transaction::default() })?;
        self.soon(write)
    }

    fn soon(&mut self, write: journal::WriteAhead<Effects>) -> Result<Option<Effects>, GapsError> {
        self.under_way.push_back(self.journal.commit(write));
        if self.under_way.len() < UNDER_WAY {
            return Ok(None);
        }
        Ok(self.under_way.pop_front().map(Commit::wait).transpose()?)
    }

    /// Messages that it has without a gap, where there is none left behind them.
    fn received(&self) -> u64 {
        let streams = self.session.state().peers.get(&self.peer).and_then(|streams| streams.incoming.clone());
        Seq::count(streams.filter(|row| row.ranges.is_empty()).and_then(|row| row.through))
    }

    fn finish(&mut self) -> Result<Vec<Effects>, GapsError> {
        Ok(self.under_way.drain(..).map(Commit::wait).collect::<Result<_, _>>()?)
    }
}

fn deliver(end: &mut End, at: u64, frame: &Frame) -> Result<Option<Effects>, GapsError> {
    end.input_soon(at, Input::Delivered(TAG, Box::new(decode(frame.bytes().to_vec())?)))
}

/// Journals that many messages at a server, loses three of them on the way to an agent, and lets the two put it right. The
/// journals are left in `dir`, closed.
///
/// # Errors
/// [`GapsError`]
pub fn reconcile(dir: &Path, messages: u64, engine: Engine, say: &mut dyn FnMut(&str)) -> Result<Cost, GapsError> {
    let lost = BTreeSet::from([messages / 20, messages / 2, messages - 1]);
    reconcile_without(dir, messages, &lost, engine, say)
}

/// The same with these messages lost.
///
/// # Errors
/// [`GapsError`]
pub fn reconcile_without(
    dir: &Path,
    messages: u64,
    lost: &BTreeSet<u64>,
    engine: Engine,
    say: &mut dyn FnMut(&str),
) -> Result<Cost, GapsError> {
    let agent = EndpointId::Agent("a1".parse().expect("it is a name"));
    let mut server = End::open(&dir.join("server"), &EndpointId::Server, &agent, engine)?;
    let mut agent = End::open(&dir.join("agent"), &agent, &EndpointId::Server, engine)?;

    meet(&mut server, &mut agent)?;
    say(&format!("both journals are open; messages are journaled and delivered, all but {}", lost.len()));
    for number in 1..=messages {
        let done = server.submit(number)?;
        hand_over(done, &mut agent, lost)?;
    }
    for done in server.finish()? {
        hand_over(Some(done), &mut agent, lost)?;
    }
    agent.finish()?;
    say("every message is journaled; the connection is lost and comes back");
    server.input(0, Input::Disconnected)?;
    agent.input(0, Input::Disconnected)?;

    let mut exchange = Exchange::default();
    exchange.run(&mut server, &mut agent, messages)?;
    let received = agent.received();
    Ok(Cost { messages, exchange_bytes: exchange.bytes, resent: exchange.resent, received })
}

/// Lets the two hear each other: before that nothing is published.
fn meet(server: &mut End, agent: &mut End) -> Result<(), GapsError> {
    let mut ends = [server, agent];
    let mut inboxes = [Vec::new(), Vec::new()];
    for (from, end) in ends.iter_mut().enumerate() {
        inboxes[1 - from].extend(end.input(0, Input::Connected)?.publish);
    }
    // Each round is longer than a status may wait, and there are more rounds than they need.
    for at in (1..=20).map(|round| round * 30) {
        for (here, end) in ends.iter_mut().enumerate() {
            for publish in std::mem::take(&mut inboxes[here]) {
                let envelope = decode(publish.frame.bytes().to_vec())?;
                let said = end.input(at, Input::Delivered(TAG, Box::new(envelope)))?;
                inboxes[1 - here].extend(said.publish);
            }
            inboxes[1 - here].extend(end.input(at, Input::TimedOut)?.publish);
        }
    }
    Ok(())
}

fn hand_over(done: Option<Effects>, agent: &mut End, lost: &BTreeSet<u64>) -> Result<(), GapsError> {
    for publish in done.into_iter().flat_map(|effects| effects.publish) {
        if let Published::Message(seq) = publish.what
            && !lost.contains(&seq.value())
        {
            deliver(agent, 0, &publish.frame)?;
        }
    }
    Ok(())
}

/// What goes to and fro after the connection is back, until the receiver has everything.
#[derive(Default)]
struct Exchange {
    bytes: usize,
    resent: u64,
}

impl Exchange {
    fn run(&mut self, server: &mut End, agent: &mut End, messages: u64) -> Result<(), GapsError> {
        // Both come back and ask, and both answer. More than a status can name takes more than one exchange.
        let again = (1..ROUNDS_MAX).map(|round| (1_100 + round * ROUND_MS, Input::TimedOut));
        for (at, input) in [(1_000, Input::Connected), (1_100, Input::TimedOut)].into_iter().chain(again) {
            let mut loads = VecDeque::new();
            let said = server.input(at, input.clone())?;
            let answered = agent.input(at, input)?;
            loads.extend(said.load.iter().cloned());
            self.carry(agent, at, said)?;
            for publish in answered.publish {
                self.bytes += publish.frame.bytes().len();
                let envelope: Envelope = decode(publish.frame.bytes().to_vec())?;
                loads.extend(server.input(at, Input::Delivered(TAG, Box::new(envelope)))?.load);
            }
            while let Some(Load { peer, from, to }) = loads.pop_front() {
                let messages = server.journal.messages(Direction::Out, &peer, (from, to), LOAD_BYTES)?;
                let messages = messages.into_iter().map(|(_, message)| message).collect();
                let effects = server.input(at, Input::Loaded(peer, messages))?;
                loads.extend(effects.load.iter().cloned());
                self.carry(agent, at, effects)?;
            }
            if agent.received() == messages {
                break;
            }
        }
        Ok(())
    }

    fn carry(&mut self, agent: &mut End, at: u64, effects: Effects) -> Result<(), GapsError> {
        for publish in effects.publish {
            match publish.what {
                Published::Status => self.bytes += publish.frame.bytes().len(),
                Published::Message(_) | Published::Resent(_) => self.resent += 1,
                Published::Log => {}
            }
            deliver(agent, at, &publish.frame)?;
        }
        agent.finish()?;
        Ok(())
    }
}

/// How much of an opening is done, to tell whose memory it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The engine alone is opened.
    Engine,
    /// And every row is read through it.
    Rows,
    /// The journal is opened, as its endpoint does.
    Journal,
}

impl Part {
    /// Every part, the smallest first.
    pub const ALL: [Self; 3] = [Self::Engine, Self::Rows, Self::Journal];

    /// As it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Rows => "rows",
            Self::Journal => "journal",
        }
    }
}

/// What opening a journal took, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Opened {
    /// What was done.
    pub part: Part,
    /// From the call to what it gives.
    pub time: Duration,
    /// The most memory that the process ever had, in KiB.
    pub peak_kib: u64,
    /// Of that, before anything was opened.
    pub before_kib: u64,
    /// Bytes of the journal on disk.
    pub bytes: u64,
    /// Rows; none where they were not read.
    pub rows: u64,
}

/// Opens the server's journal in this process, which should have done nothing before, and says what it took.
///
/// # Errors
/// [`GapsError`]
pub fn measure_opening(dir: &Path, engine: Engine, part: Part) -> Result<Opened, GapsError> {
    let dir = dir.join("server");
    let before_kib = peak_kib()?;
    let began = Instant::now();
    let store: Box<dyn Store> = match (part, engine) {
        (Part::Journal, _) => {
            let (journal, state) = open(&dir, EndpointId::Server, engine)?;
            let (time, rows) = (began.elapsed(), state.totals.rows);
            let bytes = journal.store().size()?;
            return Ok(Opened { part, time, peak_kib: peak_kib()?, before_kib, bytes, rows });
        }
        (Part::Engine | Part::Rows, Engine::Sled) => Box::new(SledStore::open(&dir.join(STORE))?),
        (Part::Engine | Part::Rows, Engine::Segments) => Box::new(SegmentStore::open(&dir.join(STORE))?),
    };
    let rows = if part == Part::Rows { count(store.as_ref())? } else { 0 };
    let time = began.elapsed();
    Ok(Opened { part, time, peak_kib: peak_kib()?, before_kib, bytes: store.size()?, rows })
}

fn count(store: &dyn Store) -> Result<u64, GapsError> {
    let mut rows = 0;
    store.scan_undisturbed(&[0], &[0xff], &mut |_, _| {
        rows += 1;
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

fn peak_kib() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    number.ok_or_else(|| std::io::Error::other("/proc/self/status has no VmHWM"))
}
