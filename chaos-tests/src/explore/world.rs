//! The world of a search: two endpoints with their journals, two queues between them, and what may still go wrong. It holds
//! nothing that two worlds with the same future could differ in.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use journal::Meta;
use link::session::{Config, Identity, Millis, Session, Timers};
use messages::{EndpointId, Envelope, Epoch, Frame, Incarnation, Nonce, ProbeId, Seq, decode};

use super::disk::Disk;
use super::ledger::{Known, Ledger};
use super::plant::Plant;
use super::violation::Violation;

/// When the timers of each kind go off. They are far enough apart to be fired one by one.
pub(super) const TIMERS: Timers = Timers { status: Millis(1), ask: Millis(2), probe: Millis(4), heartbeat: Millis(8) };

/// Stands for every probe whose answer nobody waits for any more.
const DEAD: ProbeId = ProbeId::new(u64::MAX);

/// One of the two endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The server.
    Server,
    /// The agent.
    Agent,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Server, Self::Agent];

    pub(super) const fn at(self) -> usize {
        match self {
            Self::Server => 0,
            Self::Agent => 1,
        }
    }

    pub(super) const fn other(self) -> Self {
        match self {
            Self::Server => Self::Agent,
            Self::Agent => Self::Server,
        }
    }
}

/// What may go wrong, and how often, in one world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Budget {
    /// A process dies, idle or between a commit and what was to follow it.
    pub crashes: u8,
    /// The broker loses everything: noticed, with both connections, or silently.
    pub wipes: u8,
    /// An endpoint's journal is restored from a copy of any earlier commit.
    pub rollbacks: u8,
    /// An envelope comes twice.
    pub duplicates: u8,
    /// Two neighbours in a queue change places.
    pub reorders: u8,
    /// One envelope is lost silently.
    pub losses: u8,
    /// An endpoint loses its connection; the broker keeps what it has.
    pub disconnects: u8,
}

impl Budget {
    /// Every way to share it between the two endpoints.
    pub(super) fn shares(self) -> Vec<[Self; 2]> {
        let fields: [fn(&mut Self) -> &mut u8; 6] = [
            |budget| &mut budget.crashes,
            |budget| &mut budget.rollbacks,
            |budget| &mut budget.duplicates,
            |budget| &mut budget.reorders,
            |budget| &mut budget.losses,
            |budget| &mut budget.disconnects,
        ];
        let mut shares = vec![[self, Self { wipes: 0, ..self }]];
        for field in fields {
            let all = *field(&mut self.clone());
            let split = shares.into_iter().flat_map(|[server, agent]| {
                (0..=all).map(move |part| {
                    let (mut server, mut agent) = (server, agent);
                    (*field(&mut server), *field(&mut agent)) = (part, all - part);
                    [server, agent]
                })
            });
            shares = split.collect();
        }
        shares
    }
}

/// What a search is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Scope {
    /// Messages in all. Half of them, rounded down, are the agent's answers to held work; the server sends the others.
    pub messages: u8,
    /// What may go wrong.
    pub budget: Budget,
    /// Statuses in a queue beyond which no timer makes another one.
    pub statuses: u8,
    /// Whether a read of the journal may come back short, so that the rest is asked for again.
    pub short_reads: bool,
    /// Whether probes that wait for a delay go off only while nothing is on its way. Otherwise the broker may take longer than
    /// they. Probes that are due at once go off at any moment in either world.
    pub patient: bool,
}

impl Scope {
    /// Messages that an endpoint sends.
    pub(super) const fn sends(&self, side: Side) -> u64 {
        match side {
            Side::Server => (self.messages - self.messages / 2) as u64,
            Side::Agent => (self.messages / 2) as u64,
        }
    }
}

/// An envelope on its way. The ids of probes are kept apart, since they are renamed all the time.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// The envelope without them, and a hash of it.
    parcel: Arc<(Envelope, u64)>,
    pub(super) probe: Option<ProbeId>,
    answers: Option<ProbeId>,
    /// Its sender's journal was restored since.
    pub(super) of_lost_life: bool,
}

impl Hash for Flight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.parcel.1, self.probe, self.answers, self.of_lost_life).hash(state);
    }
}

impl Flight {
    pub(super) fn new(frame: &Frame) -> Result<Self, Violation> {
        let mut envelope = decode(frame.bytes().to_vec()).map_err(|_| Violation::Unreadable)?;
        let mut hasher = DefaultHasher::new();
        let (mut probe, mut answers) = (None, None);
        match &mut envelope {
            Envelope::Status(status) => {
                (probe, answers) = (status.probe.take(), status.answers.take());
                Frame::status(status).map_err(|_| Violation::Unreadable)?.bytes().hash(&mut hasher);
            }
            Envelope::Message(_) | Envelope::Log(_) => frame.bytes().hash(&mut hasher),
        }
        Ok(Self { parcel: Arc::new((envelope, hasher.finish())), probe, answers, of_lost_life: false })
    }

    pub(super) fn envelope(&self) -> Envelope {
        match &self.parcel.0 {
            Envelope::Status(status) => {
                let mut status = status.clone();
                (status.probe, status.answers) = (self.probe, self.answers);
                Envelope::Status(status)
            }
            other => other.clone(),
        }
    }

    pub(super) fn carried(&self) -> &Envelope {
        &self.parcel.0
    }
}

/// A copy of an endpoint's journal. What its application remembers is in the same journal.
#[derive(Debug, Clone, Hash)]
pub(super) struct Copy {
    pub(super) disk: Disk,
    pub(super) taken: Vec<u8>,
}

/// One endpoint.
#[derive(Debug, Clone, Hash)]
pub struct End {
    pub(super) session: Session,
    pub(super) connected: bool,
    pub(super) disk: Disk,
    /// What the session wants to read from its journal.
    pub(super) loads: VecDeque<(Seq, Seq)>,
    /// The messages that the application has taken, as its journal remembers them: their places in the ledger, in order.
    pub(super) taken: Vec<u8>,
    /// Places of messages that the application of this process works on and has not answered.
    pub(super) held: Vec<Seq>,
    pub(super) processes: u8,
    /// What the copy knew that the journal was last restored from.
    pub(super) restored: Option<Known>,
    /// At most one copy of a journal is kept, of either endpoint.
    pub(super) copy: Option<Arc<Copy>>,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct World {
    pub(super) ends: [Arc<End>; 2],
    /// What waits for each endpoint.
    pub(super) queues: [VecDeque<Flight>; 2],
    /// What may still go wrong with each endpoint and the queue that it reads. Only wipes are of both: they are the server's.
    pub(super) left: [Budget; 2],
    /// What each endpoint's application submitted.
    pub(super) ledgers: [Ledger; 2],
}

pub(super) fn config() -> Config {
    Config {
        window: 4,
        history: 0,
        status_delay_ms: TIMERS.status.0,
        probe_first_ms: TIMERS.probe.0,
        probe_max_ms: TIMERS.probe.0,
        heartbeat_ms: TIMERS.heartbeat.0,
        ..Config::default()
    }
}

pub(super) fn id(side: Side) -> EndpointId {
    match side {
        Side::Server => EndpointId::Server,
        Side::Agent => EndpointId::Agent("a".parse().expect("it is a name")),
    }
}

impl End {
    fn new(side: Side) -> Self {
        let incarnation = Incarnation::from_u128(1 + side.at() as u128);
        let meta = Meta { endpoint: id(side), incarnation, epoch: Epoch::FIRST, created_ms: 0 };
        let disk = Disk::new(meta);
        let session = recover(side, &disk, 0).expect("an empty journal contradicts nothing");
        Self {
            session,
            connected: false,
            disk,
            loads: VecDeque::new(),
            taken: Vec::new(),
            held: Vec::new(),
            processes: 1,
            restored: None,
            copy: None,
        }
    }

    /// The process ends and the next one starts. Only the journal is left.
    pub(super) fn restart(&mut self, side: Side, plant: Option<Plant>) -> Result<(), Violation> {
        if let Some(meta) = &mut self.disk.state.meta {
            meta.epoch = meta.epoch.next();
        }
        if plant == Some(Plant::MarkLostOnCrash)
            && let Some(streams) = self.disk.state.peers.get_mut(&id(side.other()))
            && let Some(incoming) = &mut streams.incoming
        {
            incoming.through = incoming.applied;
            self.disk.state = self.disk.replay().map_err(Violation::Illegal)?;
        }
        self.session = recover(side, &self.disk, self.processes)?;
        self.processes += 1;
        self.connected = false;
        self.loads.clear();
        let work = self.disk.streams(&id(side.other())).work;
        self.held = work.iter().filter(|(_, work)| work.answered.is_none()).map(|(seq, _)| *seq).collect();
        Ok(())
    }
}

fn recover(side: Side, disk: &Disk, process: u8) -> Result<Session, Violation> {
    let state = disk.replay().map_err(Violation::Illegal)?;
    if state != disk.state {
        return Err(Violation::Replay);
    }
    let meta = state.meta.clone().ok_or(Violation::Replay)?;
    let nonce = Nonce::new(100 * (1 + side.at() as u64) + u64::from(process));
    let identity = Identity { local: meta.endpoint, incarnation: meta.incarnation, epoch: meta.epoch, nonce };
    let peer = id(side.other());
    let recent = [(peer.clone(), disk.recent(&config(), &peer))].into();
    Ok(Session::recover(identity, config(), state, [peer], recent))
}

impl World {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(budget: [Budget; 2]) -> Self {
        let mut world = Self {
            ends: Side::BOTH.map(|side| Arc::new(End::new(side))),
            queues: Default::default(),
            left: budget,
            ledgers: Default::default(),
        };
        world.normalize(Side::BOTH.map(|_| Millis(0)));
        world
    }

    pub(super) fn end(&self, side: Side) -> &End {
        &self.ends[side.at()]
    }

    pub(super) fn end_mut(&mut self, side: Side) -> &mut End {
        Arc::make_mut(&mut self.ends[side.at()])
    }

    /// Everything that a person needs to see what is wrong.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for side in Side::BOTH {
            let (end, peer) = (self.end(side), id(side.other()));
            let waiting: Vec<_> = self.queues[side.at()].iter().map(Flight::envelope).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{side:?} {:?}, connected {}, heard {}, timers {:?}\n{:#?}\nwork in hand {:?}, taken {:?}, ledger {:?}\nwaiting {waiting:#?}",
                end.session.identity(),
                end.connected,
                end.session.heard(&peer),
                end.session.timers(&peer),
                end.disk.streams(&peer),
                end.held,
                end.taken,
                self.ledgers[side.at()],
            );
        }
        text
    }

    /// A fingerprint of 128 bits. Two worlds of one fingerprint are taken for one; of a hundred million different worlds two
    /// meet with a probability of about 10^-23.
    pub(super) fn fingerprint(&self) -> u128 {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            (&self.ends, &self.queues, self.left, &self.ledgers).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(1) << 64 | half(2)
    }

    /// Brings both endpoints into their normal form, each at its own time.
    pub(super) fn normalize(&mut self, mut at: [Millis; 2]) {
        for side in Side::BOTH {
            let (peer, asker) = (side.other(), id(side));
            // Whoever could still be answered: a probe on its way, owed, or its answer on its way.
            let on_the_way = self.queues[peer.at()].iter().filter_map(|flight| flight.probe);
            let answered = self.queues[side.at()].iter().filter_map(|flight| flight.answers);
            let live: Vec<_> = on_the_way.chain(answered).chain(self.end(peer).session.owed(&asker)).collect();
            let open = self.end(side).session.probes(&id(peer)).filter(|id| live.contains(id)).collect::<Vec<_>>();
            let rename =
                |id: ProbeId| open.iter().position(|probe| *probe == id).map(|place| ProbeId::new(place as u64));
            for flight in &mut self.queues[peer.at()] {
                flight.probe = flight.probe.map(|id| rename(id).unwrap_or(DEAD));
            }
            for flight in &mut self.queues[side.at()] {
                // The answer to a probe that nobody remembers is as good as none.
                flight.answers = flight.answers.and_then(rename);
            }
            // Each session is rewritten once for its own probes and once for the peer's.
            let keep = |id: ProbeId| Some(id);
            self.end_mut(side).session.normalize(&id(peer), (at[side.at()], TIMERS), rename, |id| id);
            self.end_mut(peer)
                .session
                .normalize(&asker, (at[peer.at()], TIMERS), keep, |id| rename(id).unwrap_or(DEAD));
            // From here on, both are in terms of the normal form, in which it is always 0.
            at = [Millis(0); 2];
        }
    }
}
