//! The session's limits and delays, and the two clocks it is told of.

/// Milliseconds on a clock that only goes forward. It orders timers of one process and nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// That many milliseconds later.
    #[must_use]
    pub const fn after(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }
}

/// The time of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For timers.
    pub at: Millis,
    /// Milliseconds since 1970, copied into rows for people. Decides nothing.
    pub wall_ms: u64,
}

/// Limits and delays of a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// Messages that may be under way to a peer beyond what it is known to have. Default 4,096; 1 to 1,048,576. It bounds
    /// the broker's queue, the receiver's memory and what an earlier process may have published.
    pub window: u32,
    /// Settled messages of which the header is kept for people, per stream. Default 1,000.
    pub history: u64,
    /// Milliseconds after which a received message is reported at the latest. Default 100: it trades statuses for latency of
    /// the received mark, which nothing waits for but the window. A status costs the broker and both ends as much as a message, so a
    /// trickle of messages is to cause few of them.
    pub status_delay_ms: u64,
    /// Messages received after which a status is sent at once. Default 256.
    pub status_every: u32,
    /// Milliseconds without progress after which the first probe goes out. Default 1,000.
    pub probe_first_ms: u64,
    /// Milliseconds between probes at most. Default 60,000.
    pub probe_max_ms: u64,
    /// Milliseconds between an agent's statuses when nothing else happens. Default 10,000. The server sends none.
    pub heartbeat_ms: u64,
    /// Unsettled messages to one peer beyond which new work is refused. Default 100,000. Outcomes are never refused.
    pub outbox_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: 4_096,
            history: 1_000,
            status_delay_ms: 100,
            status_every: 256,
            probe_first_ms: 1_000,
            probe_max_ms: 60_000,
            heartbeat_ms: 10_000,
            outbox_max: 100_000,
        }
    }
}

impl Config {
    /// How long to wait for progress after that many probes without any.
    pub(super) fn probe_delay(&self, attempts: u32) -> u64 {
        let factor = 1_u64.checked_shl(attempts.min(32)).unwrap_or(u64::MAX);
        self.probe_first_ms.saturating_mul(factor).min(self.probe_max_ms)
    }
}
