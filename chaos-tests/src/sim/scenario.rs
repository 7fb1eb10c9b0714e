//! What a seed draws: how many agents and jobs, how small the limits, and which faults may happen how often. Each seed has its
//! own few faults ("swarm"), because a world in which everything fails all the time hides what only one fault shows.

use link::session::Config;

use super::rng::Rng;

/// A kind of fault that a scenario may enable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultClass {
    /// The broker loses a message that it had confirmed and queued.
    Loss,
    /// The broker confirms a message and drops it at once.
    LossAfterConfirm,
    /// The broker delivers something twice.
    Duplicate,
    /// Something overtakes what was queued before it.
    Reorder,
    /// Something is held back for up to hours.
    Delay,
    /// The broker refuses a publish.
    Nack,
    /// The broker returns a publish as unroutable although the queue is there.
    Return,
    /// The broker blocks publishers for a while.
    Block,
    /// A queue is purged.
    Purge,
    /// The broker loses everything, topology included.
    Wipe,
    /// The broker comes back from an old snapshot: what was consumed since is there again, what came since is not.
    OldBroker,
    /// Bytes that nobody sent arrive.
    Garbage,
    /// One connection is lost; what was not acknowledged is delivered again.
    Disconnect,
    /// The broker is away for a while.
    BrokerDown,
    /// A process is killed, before or after any commit.
    Crash,
    /// A process is not scheduled for a while.
    Pause,
    /// The power goes between a write and its sync: what was not synced may be missing.
    PowerLoss,
    /// The disk is full for a while.
    DiskFull,
    /// A sync fails once.
    SyncFails,
    /// The disk fails for ever, and is replaced by a copy.
    DeadDisk,
    /// A row is changed, lost or replaced by an older one, or the end of the journal is lost.
    Damage,
    /// The wall clock of a machine jumps by up to a year.
    ClockJump,
    /// A process is started with another window.
    Window,
    /// A journal is restored from an old copy.
    Rollback,
    /// A machine is installed anew, with an empty journal.
    Reinstall,
    /// A machine is copied, and both copies run.
    Clone,
}

impl FaultClass {
    /// Every class.
    pub const ALL: [Self; 26] = [
        Self::Loss,
        Self::LossAfterConfirm,
        Self::Duplicate,
        Self::Reorder,
        Self::Delay,
        Self::Nack,
        Self::Return,
        Self::Block,
        Self::Purge,
        Self::Wipe,
        Self::OldBroker,
        Self::Garbage,
        Self::Disconnect,
        Self::BrokerDown,
        Self::Crash,
        Self::Pause,
        Self::PowerLoss,
        Self::DiskFull,
        Self::SyncFails,
        Self::DeadDisk,
        Self::Damage,
        Self::ClockJump,
        Self::Window,
        Self::Rollback,
        Self::Reinstall,
        Self::Clone,
    ];

    /// Whether it makes one endpoint speak as another than it was. Such faults have an [`Expectation`] of their own.
    #[must_use]
    pub const fn is_of_identity(self) -> bool {
        matches!(self, Self::Rollback | Self::Reinstall | Self::Clone)
    }

    /// What must become of the streams of an endpoint to which this happened. **The one place to change when the session
    /// learns to heal more by itself.** Where the broker breaks its order, what a lost life had published may arrive after the restored
    /// one was heard, and cannot be told from the words of a second living copy.
    #[must_use]
    pub const fn expectation(self, in_order: bool) -> Expectation {
        match self {
            Self::Clone => Expectation::ConvergesOrStops,
            Self::Rollback if !in_order => Expectation::ConvergesOrStops,
            _ => Expectation::Converges,
        }
    }
}

/// What must become of streams once faults have ceased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// Everything is done or declared, and both journals agree.
    Converges,
    /// As above, or the streams are stopped, one of the two ends says why, and nothing took effect twice.
    ConvergesOrStops,
}

/// What a seed draws.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) agents: usize,
    pub(crate) jobs: u64,
    /// Steps until the faults cease.
    pub(crate) steps: u64,
    /// Enabled faults and how often each is tried, against about a hundred for what is normal.
    pub(crate) faults: Vec<(FaultClass, u64)>,
    pub(crate) config: Config,
    /// Deliveries under way to one consumer.
    pub(crate) prefetch: usize,
    /// Bytes of a job's filling.
    pub(crate) filling: usize,
    /// Commits between two replays of the whole journal.
    pub(crate) replay_every: u64,
    /// Jobs of a hundred that may not be done twice.
    pub(crate) once: u64,
    /// Milliseconds that a step takes, at least and at most; nothing if it takes none.
    pub(crate) step_ms: Option<(u64, u64)>,
    /// Milliseconds until a client that was refused asks again.
    pub(crate) ask_again_ms: u64,
}

impl Scenario {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut faults = Vec::new();
        let share = rng.pick(&[10, 30, 60]);
        for class in FaultClass::ALL {
            let enabled = if class.is_of_identity() { false } else { rng.percent(share) };
            let weight = rng.within(1, 4);
            if enabled {
                faults.push((class, weight));
            }
        }
        if rng.percent(20) {
            faults.push((rng.pick(&[FaultClass::Rollback, FaultClass::Reinstall, FaultClass::Clone]), 1));
        }
        let config = Config {
            window: u32::try_from(rng.within(4, 64)).unwrap_or(64),
            history: rng.within(0, 5),
            status_delay_ms: 20,
            status_every: u32::try_from(rng.within(2, 32)).unwrap_or(32),
            probe_first_ms: 1_000,
            probe_max_ms: 60_000,
            heartbeat_ms: rng.pick(&[10_000, 60_000, 600_000]),
            outbox_max: rng.pick(&[6, 40, 100_000]),
        };
        Self {
            agents: rng.pick(&[1, 1, 1, 2, 2, 3, 4]),
            jobs: rng.within(3, 40),
            steps: rng.within(300, 1_800),
            faults,
            config,
            prefetch: rng.pick(&[1, 4, 32]),
            filling: rng.pick(&[0, 10, 2_000]),
            replay_every: rng.pick(&[1, 8, 32, 32]),
            once: rng.pick(&[20, 60, 100]),
            step_ms: None,
            ask_again_ms: 1_000,
        }
    }

    /// Nothing fails by chance, and steps take minutes or hours: for a script.
    pub(crate) fn scripted(rng: &mut Rng) -> Self {
        let drawn = Self::draw(rng);
        // A day has many heartbeats and questions, and each is some moves of the world.
        let (outbox_max, often_ms) = (rng.pick(&[6, 12, 20]), 600_000);
        let config = Config { outbox_max, heartbeat_ms: often_ms, probe_max_ms: often_ms, ..drawn.config.clone() };
        let step_ms = Some((5 * 60_000, rng.pick(&[15, 30, 60]) * 60_000));
        let (agents, faults, ask_again_ms) = (rng.pick(&[2, 3, 4]), Vec::new(), 1_800_000);
        Self { agents, jobs: 0, faults, config, step_ms, ask_again_ms, ..drawn }
    }

    /// Whether the broker keeps the order in which things were handed to it.
    pub(crate) fn is_in_order(&self) -> bool {
        let breaks = [FaultClass::Reorder, FaultClass::Delay, FaultClass::OldBroker, FaultClass::Duplicate];
        !breaks.into_iter().any(|class| self.has(class))
    }

    pub(crate) fn has(&self, class: FaultClass) -> bool {
        self.faults.iter().any(|(enabled, _)| *enabled == class)
    }
}
