//! The driver: one task that feeds the session and carries out what it asks. It decides nothing itself. Effects are carried
//! out in the order of their commits, each after the sync that covers it. What happens while commits are under way is gathered
//! into the next one, so the busier an endpoint is the more one commit covers.

mod carry;
mod fresh;
mod gather;
mod logs;
mod offer;
mod outages;
mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use journal::{CommitError, Direction, Journal, PeerState, State};
use messages::{ChainHash, EndpointId, Frame, LogDatagram, Nonce, Seq, decode};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use self::fresh::Kept;
use self::gather::{Gathered, Haste};
use crate::endpoint::{
    Endpoint, EndpointView, LOGS_MAX, LinkState, REQUESTS_MAX, Request, ResolveFailure, Rewinds, SubmitError,
    Transacting, WORK_MAX, Work,
};
use crate::service::random;
use crate::session::{Config, Effects, Identity, Input, Load, Millis, Now, Publish, Published, Session, Transaction};
use crate::wire::{Wire, WireCommand, WireEvent};

/// Commits under way at most: one that is being synced, and one that the writer finds when it is done. What happens meanwhile is
/// gathered into the next.
const COMMITS_MAX: usize = 2;
/// Commands that wait for the transport beyond which no new work and no reading from the journal is begun.
const BACKLOG_MAX: usize = 4_096;
/// Events, and requests, that are taken in one after the other before commits and the transport are looked at again.
const TAKEN_MAX: usize = 256;
/// Bytes of messages read from the journal at a time.
const LOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why an endpoint stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The journal failed. Start again: opening it verifies what is there.
    #[error("the journal failed; the endpoint has stopped, nothing that was acknowledged is lost")]
    Journal(#[from] CommitError),
    /// The journal cannot be read.
    #[error("the journal cannot be read; the endpoint has stopped")]
    Read(#[from] journal::ReadError),
    /// The transport is gone.
    #[error("the transport has stopped")]
    Transport,
}

/// What an endpoint is made of.
pub struct Parts {
    /// The open journal.
    pub journal: Journal,
    /// What its rows amount to.
    pub state: State,
    /// The way to the broker.
    pub wire: Wire,
    /// The peers that are known.
    pub peers: Vec<EndpointId>,
    /// Limits and delays.
    pub config: Config,
    /// 64 fresh random bits.
    pub nonce: Nonce,
}

/// An endpoint: the application's handle, and the driver, which must be run.
///
/// # Errors
/// [`RunError::Read`]
pub fn endpoint(parts: Parts) -> Result<(Endpoint, Driver), RunError> {
    let Parts { journal, state, wire, peers, config, nonce } = parts;
    let meta = journal.meta().clone();
    let mut recent = BTreeMap::new();
    for (peer, streams) in state.peers.iter().filter(|(peer, _)| peers.contains(peer)) {
        recent.insert(peer.clone(), recent_hashes(&journal, &config, peer, streams)?);
    }
    let identity = Identity { local: meta.endpoint.clone(), incarnation: meta.incarnation, epoch: meta.epoch, nonce };
    let session = Session::recover(identity, config, state, peers, recent);
    let (requests, request_queue) = mpsc::channel(REQUESTS_MAX);
    let (work_sender, work) = mpsc::channel(WORK_MAX);
    let (log_sender, logs) = mpsc::channel(LOGS_MAX);
    let (rewound_sender, rewound) = mpsc::channel(1);
    let rewinds = Rewinds::default();
    let (change_sender, changes) = watch::channel(0);
    let (connected_sender, connected) = watch::channel(false);
    let (heard_sender, heard) = watch::channel(false);
    let endpoint = Endpoint {
        local: meta.endpoint,
        requests,
        work: Mutex::new(work).into(),
        logs: Mutex::new(logs).into(),
        rewinds: rewinds.clone(),
        rewound: Mutex::new(rewound).into(),
        changes,
        connected,
        heard,
    };
    let unapplied = session.peers().filter_map(|peer| Some((peer.clone(), session.unapplied(peer)?.1)));
    let durable: BTreeMap<EndpointId, Seq> = unapplied.collect();
    let waiting = durable.keys().cloned().collect();
    let driver = Driver {
        session,
        journal,
        wire,
        requests: request_queue,
        work: work_sender,
        logs: log_sender,
        rewinds,
        rewound: rewound_sender,
        changes: change_sender,
        connected: connected_sender,
        heard: heard_sender,
        gathered: Gathered::default(),
        commits: FuturesOrdered::new(),
        backlog: VecDeque::new(),
        loads: VecDeque::new(),
        waiting,
        durable,
        kept: Kept::default(),
        rewinding: 0,
        out: BTreeMap::new(),
        confirmed: BTreeMap::new(),
        link: LinkState { since_ms: wall_ms(), ..LinkState::default() },
        started: Instant::now(),
    };
    Ok((endpoint, driver))
}

fn recent_hashes(
    journal: &Journal,
    config: &Config,
    peer: &EndpointId,
    streams: &PeerState,
) -> Result<BTreeMap<Seq, ChainHash>, RunError> {
    let mut hashes = BTreeMap::new();
    if let (from, Some(to)) = Session::recent_span(config, streams) {
        for seq in (from.value()..=to.value()).filter_map(Seq::new) {
            if let Some(row) = journal.header(Direction::Out, peer, seq)? {
                hashes.insert(seq, row.hash());
            }
        }
    }
    Ok(hashes)
}

/// Milliseconds since 1970, for people.
#[must_use]
pub fn wall_ms() -> u64 {
    // The one place that reads the wall clock for the protocol; what it says is only ever shown.
    #[allow(clippy::disallowed_methods)]
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What happened next.
enum Turn {
    /// A commit is on stable storage.
    Done(Vec<(Effects, Reply)>),
    Event(WireEvent),
    /// Bytes of a piece of a log.
    Log(Vec<u8>),
    /// Nothing when every handle of the application is gone.
    Request(Option<Request>),
    TimedOut,
    /// There is room again somewhere.
    Room,
    Stopped,
}

/// Who waits for a commit.
enum Reply {
    Nobody,
    Submitter(oneshot::Sender<Result<(), SubmitError>>),
    Resolver(oneshot::Sender<Result<(), ResolveFailure>>),
}

impl Reply {
    /// Says that it is on stable storage. A caller that went away does not need to know.
    fn done(self) {
        match self {
            Self::Nobody => {}
            Self::Submitter(reply) => drop(reply.send(Ok(()))),
            Self::Resolver(reply) => drop(reply.send(Ok(()))),
        }
    }
}

/// Runs an endpoint.
pub struct Driver {
    session: Session,
    journal: Journal,
    wire: Wire,
    requests: mpsc::Receiver<Request>,
    work: mpsc::Sender<Work>,
    logs: mpsc::Sender<LogDatagram>,
    rewinds: Rewinds,
    rewound: mpsc::Sender<()>,
    changes: watch::Sender<u64>,
    connected: watch::Sender<bool>,
    heard: watch::Sender<bool>,
    gathered: Gathered,
    commits: FuturesOrdered<journal::Commit<Vec<(Effects, Reply)>>>,
    /// Commands that the transport has not taken yet.
    backlog: VecDeque<WireCommand>,
    /// Reads that wait until the backlog is short.
    loads: VecDeque<Load>,
    /// Peers with messages that the application has not dealt with.
    waiting: BTreeSet<EndpointId>,
    /// Received messages that are on stable storage, by peer: only these are read from the journal. What is in memory is lent before.
    durable: BTreeMap<EndpointId, Seq>,
    kept: Kept,
    /// Inputs on their way to the disk that show a journal to be lost or restored. Meanwhile nothing is lent: the application hears of that
    /// before it gets what comes after it.
    rewinding: usize,
    /// Peers whose messages are at the application, with the last one.
    out: BTreeMap<EndpointId, Seq>,
    confirmed: BTreeMap<EndpointId, Seq>,
    link: LinkState,
    started: Instant,
}

impl Driver {
    /// Runs until told to shut down, or until something fails for good. Commits under way are finished first.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), RunError> {
        let mut applications = true;
        while !*shutdown.borrow_and_update() {
            self.offer()?;
            self.load()?;
            self.flush();
            self.hand_over();
            let turn = match self.next(applications, &mut shutdown).await {
                // Both were told to stop, and the transport was the quicker of the two.
                Err(RunError::Transport) if *shutdown.borrow() => break,
                turn => turn?,
            };
            match turn {
                Turn::Done(done) => self.done(done),
                Turn::Event(event) => self.event(event),
                Turn::Log(bytes) => self.log(bytes),
                Turn::Request(Some(request)) => self.request(request),
                Turn::Request(None) => applications = false,
                Turn::TimedOut => self.input(Input::TimedOut),
                Turn::Room => {}
                Turn::Stopped => break,
            }
            self.take_what_waits();
        }
        self.flush_all();
        while let Some(done) = self.commits.next().await {
            for (_, reply) in done? {
                reply.done();
            }
        }
        Ok(())
    }

    /// Takes in what has happened already, so that one commit covers it. Neither side keeps the other one waiting: both have places
    /// in it.
    fn take_what_waits(&mut self) {
        for _ in 0..TAKEN_MAX {
            if !self.gathered.has_room() {
                return;
            }
            let Ok(event) = self.wire.events.try_recv() else { break };
            self.event(event);
        }
        for _ in 0..TAKEN_MAX {
            if !self.is_calm() {
                return;
            }
            let Ok(request) = self.requests.try_recv() else { break };
            self.request(request);
        }
    }

    /// Whether new work may be begun.
    fn is_calm(&self) -> bool {
        self.gathered.has_room() && self.backlog.len() < BACKLOG_MAX
    }

    /// Waits for the next thing to happen. Every branch is cancel-safe.
    async fn next(&mut self, applications: bool, shutdown: &mut watch::Receiver<bool>) -> Result<Turn, RunError> {
        let (room, calm) = (self.gathered.has_room(), self.is_calm());
        let due = self.session.next_timeout();
        let waits = self.gathered.waits_until().filter(|_| self.commits.len() < COMMITS_MAX);
        let work_waits = self.work.capacity() == 0 && self.waiting.iter().any(|peer| !self.out.contains_key(peer));
        Ok(tokio::select! {
            Some(done) = self.commits.next(), if !self.commits.is_empty() => {
                Turn::Done(done?)
            }
            sent = send_next(&self.wire.commands, &mut self.backlog), if !self.backlog.is_empty() => {
                sent?;
                Turn::Room
            }
            event = self.wire.events.recv(), if room => Turn::Event(event.ok_or(RunError::Transport)?),
            // Nobody waits for it but its agent, which sends no more until the application has taken what it sent.
            Some(bytes) = self.wire.logs.recv(), if self.logs.capacity() > 0 => Turn::Log(bytes),
            request = self.requests.recv(), if calm && applications => Turn::Request(request),
            // Room again for work: it is offered before the next wait.
            _ = self.work.reserve(), if work_waits => Turn::Room,
            () = sleep_until(self.started, due), if room && due.is_some() => Turn::TimedOut,
            // What was gathered waits no longer.
            () = sleep_to(waits), if waits.is_some() => Turn::Room,
            changed = shutdown.changed() => if changed.is_err() { Turn::Stopped } else { Turn::Room },
        })
    }

    fn now(&self) -> Now {
        let at = Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
        Now { at, wall_ms: wall_ms() }
    }

    fn input(&mut self, input: Input) {
        self.sized_input(input, 0);
    }

    fn sized_input(&mut self, input: Input, bytes: usize) {
        let write = self.session.handle(self.now(), input);
        self.gather(write, Reply::Nobody, bytes, Haste::Now);
    }

    fn event(&mut self, event: WireEvent) {
        match event {
            WireEvent::Up { connection } => {
                tracing::info!(connection, "Connected to the broker.");
                self.link_is_up();
                self.input(Input::Connected);
            }
            WireEvent::Down { reason, expected: true } => {
                tracing::info!(%reason, "Not connected yet.");
                self.link_is_down(reason);
                self.input(Input::Disconnected);
            }
            WireEvent::Down { reason, expected: false } => {
                if self.link.connected || self.link.detail.as_ref() != Some(&reason) {
                    tracing::warn!(%reason, "No connection to the broker; work goes on, messages wait in the journal.");
                }
                self.link_is_down(reason);
                self.input(Input::Disconnected);
            }
            WireEvent::Delivery { tag, bytes } => {
                let size = bytes.len();
                match decode(bytes) {
                    Ok(envelope) => self.sized_input(Input::Delivered(tag, Box::new(envelope)), size),
                    Err(error) => self.input(Input::Garbled(tag, error.into())),
                }
            }
            WireEvent::Confirmed(all) => {
                for (to, what) in all {
                    self.confirmed(to, what);
                }
            }
            WireEvent::Refused { to, what, refusal } => {
                tracing::debug!(peer = %to, ?what, ?refusal, "The broker did not take a publish.");
                match what {
                    Published::Message(_) | Published::Resent(_) | Published::Status => self.input(Input::Trouble(to)),
                    // It says nothing of the messages, and its sender asks by itself.
                    Published::Log => {}
                }
            }
            WireEvent::Blocked(reason) => {
                if let Some(reason) = &reason {
                    tracing::warn!(%reason, "The broker blocks publishing; messages wait in the journal.");
                }
                self.link.detail = reason.map(|reason| format!("publishing is blocked: {reason}"));
            }
        }
    }

    fn confirmed(&mut self, to: EndpointId, what: Published) {
        match what {
            Published::Message(seq) | Published::Resent(seq) => {
                let mark = self.confirmed.entry(to).or_insert(seq);
                *mark = (*mark).max(seq);
            }
            Published::Status | Published::Log => {}
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Transact(transaction, waiting) => self.transact(transaction, waiting),
            Request::Resolve(peer, reply) => self.resolve(&peer, reply),
            Request::View(peer, reply) => {
                let _ = reply.send(self.view(&peer));
            }
            Request::Views(reply) => {
                let _ = reply.send(self.session.peers().filter_map(|peer| self.view(peer)).collect());
            }
            Request::Link(reply) => {
                let _ = reply.send(LinkState { resent: self.resent(), ..self.link.clone() });
            }
            Request::Log(to, log) => {
                if self.link.connected
                    && let Ok(frame) = Frame::log(&log)
                {
                    self.backlog.push_back(WireCommand::Publish(Publish { to, what: Published::Log, frame }));
                }
            }
            Request::Present(presence) => self.input(Input::Present(presence)),
        }
    }

    fn transact(&mut self, transaction: Transaction, waiting: Transacting) {
        let Transacting { taken, done } = waiting;
        let bytes = transaction.send.iter().map(|sent| sent.body.len()).sum();
        let haste = if transaction.unhurried { Haste::None } else { Haste::Now };
        let applied: Vec<_> = transaction.apply.iter().map(|applied| (applied.peer.clone(), applied.seq)).collect();
        match self.session.transact(self.now(), transaction) {
            Ok(write) => {
                for (peer, seq) in applied {
                    if self.out.get(&peer).is_some_and(|last| *last <= seq) {
                        self.out.remove(&peer);
                        self.waiting.insert(peer);
                    }
                }
                self.gather(write, Reply::Submitter(done), bytes, haste);
                // Whoever went away does not need to know.
                taken.map(|taken| taken.send(Ok(())));
            }
            Err(error) => drop(match taken {
                Some(taken) => taken.send(Err(error)).ok(),
                None => done.send(Err(error.into())).ok(),
            }),
        }
    }

    fn resolve(&mut self, peer: &EndpointId, reply: oneshot::Sender<Result<(), ResolveFailure>>) {
        let fresh = random().map(|bytes| Nonce::new(u64::from_be_bytes(bytes))).map_err(ResolveFailure::Random);
        let now = self.now();
        match fresh.and_then(|fresh| Ok(self.session.resolve(now, peer, fresh)?)) {
            Ok(write) => {
                tracing::warn!(%peer, "A person decided: this journal goes on under another name.");
                self.gather(write, Reply::Resolver(reply), 0, Haste::Now);
            }
            Err(failure) => {
                let _ = reply.send(Err(failure));
            }
        }
    }

    fn view(&self, peer: &EndpointId) -> Option<EndpointView> {
        let streams = self.session.view(peer, self.now().at)?;
        Some(EndpointView { streams, confirmed: self.confirmed.get(peer).copied() })
    }

    fn resent(&self) -> u64 {
        let at = self.now().at;
        self.session.peers().filter_map(|peer| self.session.view(peer, at)).map(|view| view.resent).sum()
    }
}

/// Hands the transport the next command. The command is taken from the backlog only when there is room for it.
async fn send_next(commands: &mpsc::Sender<WireCommand>, backlog: &mut VecDeque<WireCommand>) -> Result<(), RunError> {
    let permit = commands.reserve().await.map_err(|_| RunError::Transport)?;
    if let Some(command) = backlog.pop_front() {
        permit.send(command);
    }
    Ok(())
}

async fn sleep_to(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(started: Instant, due: Option<Millis>) {
    match due {
        Some(due) => tokio::time::sleep_until((started + Duration::from_millis(due.0)).into()).await,
        None => std::future::pending().await,
    }
}
