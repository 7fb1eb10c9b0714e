//! What a search is of: the two sides, what may go wrong, and how far the world goes. It never looks at a world.

use link::session::{Config, Millis, Timers};
use messages::EndpointId;

/// When the timers of each kind go off. They are far enough apart to be fired one by one.
pub(super) const TIMERS: Timers = Timers { status: Millis(1), ask: Millis(2), probe: Millis(4), heartbeat: Millis(8) };

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
    /// The broker loses everything. Each connection is lost with it, or goes on and nobody is told.
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
    /// The most of each.
    pub const MAX: u8 = 15;

    /// How many ways there are to share it between the two endpoints.
    #[must_use]
    pub fn shares_count(self) -> usize {
        self.shares().len()
    }

    /// Every way to share it between the two endpoints. A wipe is of both.
    pub(super) fn shares(self) -> Vec<[Self; 2]> {
        let fields: [fn(&mut Self) -> &mut u8; 6] = [
            |budget| &mut budget.crashes,
            |budget| &mut budget.rollbacks,
            |budget| &mut budget.duplicates,
            |budget| &mut budget.reorders,
            |budget| &mut budget.losses,
            |budget| &mut budget.disconnects,
        ];
        let mut shares = vec![[self; 2]];
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

    /// All of it in one word: four bits for each.
    pub(super) fn word(self) -> u32 {
        let Self { crashes, wipes, rollbacks, duplicates, reorders, losses, disconnects } = self;
        [crashes, wipes, rollbacks, duplicates, reorders, losses, disconnects].into_iter().rev().fold(
            0,
            |word, part| {
                assert!(part <= Self::MAX, "a small world has few faults");
                word << 4 | u32::from(part)
            },
        )
    }

    /// What [`Self::word`] was made of.
    pub(super) fn of_word(word: u32) -> Self {
        let part = |place: u32| (word >> (4 * place) & 0xf) as u8;
        let [crashes, wipes, rollbacks, duplicates] = [part(0), part(1), part(2), part(3)];
        let [reorders, losses, disconnects] = [part(4), part(5), part(6)];
        Self { crashes, wipes, rollbacks, duplicates, reorders, losses, disconnects }
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
    /// Whether every order of what commutes is looked at, too. It finds nothing else, and takes much longer.
    pub plain: bool,
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
