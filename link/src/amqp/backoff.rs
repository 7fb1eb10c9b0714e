//! How long to wait before the next attempt: exponential with full jitter, so that a thousand agents do not come back in
//! step. Knows nothing of connections.

use std::time::Duration;

/// The longest first wait.
const BASE: Duration = Duration::from_millis(100);

/// The longest wait while nobody listens at the broker's address: an agent is back within this time of the broker. Such an attempt costs
/// one packet each way.
const ABSENT_CAP: Duration = Duration::from_secs(2);

/// The longest wait while the broker is there and does not manage: every attempt adds to its work.
const CAP: Duration = Duration::from_secs(5);

/// The longest wait while the broker refuses us: only a person or the server can mend that, and asking fills its log.
const REFUSED_CAP: Duration = Duration::from_secs(60);

/// How long a connection must have lasted for its end to count as a first failure.
pub(super) const STABLE: Duration = Duration::from_secs(30);

/// Why the last attempt failed, as far as waiting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody listens there.
    Absent,
    /// It may be over soon.
    Passing,
    /// Somebody has to do something.
    Refused,
}

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Starts over, after a connection that lasted.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: anything from nothing to the ceiling.
    pub(super) fn next(&mut self, trouble: Trouble) -> Duration {
        let ceiling = self.ceiling(trouble);
        self.failures = self.failures.saturating_add(1);
        // Without random numbers waiting longest is the harmless choice.
        let share = getrandom::u32().map_or(1.0, |bits| f64::from(bits) / f64::from(u32::MAX));
        ceiling.mul_f64(share)
    }

    fn ceiling(&self, trouble: Trouble) -> Duration {
        let cap = match trouble {
            Trouble::Absent => ABSENT_CAP,
            Trouble::Passing => CAP,
            Trouble::Refused => REFUSED_CAP,
        };
        // 2^10 x 100 ms is beyond every cap.
        cap.min(BASE * 2_u32.pow(self.failures.min(10)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_of_their_kind_and_start_over() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.ceiling(Trouble::Passing), BASE);
        for _ in 0..40 {
            let ceiling = backoff.ceiling(Trouble::Refused);
            assert!(backoff.next(Trouble::Refused) <= ceiling);
        }
        assert_eq!(backoff.ceiling(Trouble::Absent), ABSENT_CAP);
        assert_eq!(backoff.ceiling(Trouble::Passing), CAP);
        assert_eq!(backoff.ceiling(Trouble::Refused), REFUSED_CAP);
        backoff.reset();
        assert_eq!(backoff.ceiling(Trouble::Refused), BASE);
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let waits: Vec<_> = (0..200).map(|_| Backoff { failures: 6 }.next(Trouble::Passing)).collect();
        let ceiling = Backoff { failures: 6 }.ceiling(Trouble::Passing);
        assert!(waits.iter().any(|wait| *wait < ceiling / 4) && waits.iter().any(|wait| *wait > ceiling / 4 * 3));
    }
}
