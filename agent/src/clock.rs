//! The time that a run has taken, for its limit. It is counted by the machine's own steady clock while the machine is up, also
//! while the agent is not running. Of a time in which the machine was down, and of what it did since the run's last report
//! before that, nothing is counted. No wall clock decides anything here.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::attempt::BootId;

/// Time that was counted, as a part of a run's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunClock {
    /// Milliseconds counted up to `at_ms`.
    spent_ms: u64,
    /// The boot of the machine in which that was.
    boot: BootId,
    /// Milliseconds of that boot's steady clock; nothing while the run waits for a person, which is not counted.
    at_ms: Option<u64>,
}

impl RunClock {
    /// Begins to count.
    pub(crate) const fn start(boot: BootId, now_ms: u64) -> Self {
        Self { spent_ms: 0, boot, at_ms: Some(now_ms) }
    }

    /// Milliseconds counted so far.
    pub(crate) fn spent_ms(&self, boot: BootId, now_ms: u64) -> u64 {
        let since = self.at_ms.filter(|_| self.boot == boot).map_or(0, |at| now_ms.saturating_sub(at));
        self.spent_ms.saturating_add(since)
    }

    /// Writes down what was counted, and goes on counting or not.
    pub(crate) fn note(&mut self, boot: BootId, now_ms: u64, counting: bool) {
        *self = Self { spent_ms: self.spent_ms(boot, now_ms), boot, at_ms: counting.then_some(now_ms) };
    }
}

/// Milliseconds since the machine was started, without those in which it slept.
pub(crate) fn steady_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
    let whole = seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0));
    u64::try_from(whole.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const HERE: BootId = BootId::new(Uuid::from_u128(1));
    const LATER: BootId = BootId::new(Uuid::from_u128(2));

    #[test]
    fn a_time_without_the_agent_counts_and_one_without_the_machine_does_not() {
        let mut clock = RunClock::start(HERE, 1_000);
        assert_eq!(clock.spent_ms(HERE, 5_000), 4_000);
        clock.note(HERE, 3_000, true);
        assert_eq!(clock.spent_ms(HERE, 9_000), 8_000);
        assert_eq!(clock.spent_ms(LATER, 500_000), 2_000);
        clock.note(LATER, 100, true);
        assert_eq!(clock.spent_ms(LATER, 600), 2_500);
    }

    #[test]
    fn a_wait_for_a_person_is_not_counted() {
        let mut clock = RunClock::start(HERE, 0);
        clock.note(HERE, 10, false);
        assert_eq!(clock.spent_ms(HERE, 1_000_000), 10);
        clock.note(HERE, 1_000_000, true);
        assert_eq!(clock.spent_ms(HERE, 1_000_005), 15);
    }
}
