//! Saying the same thing seldom: what a broker delivers may be garbage as often as it likes, and must not fill a log. It counts what
//! was left unsaid, and says nothing itself.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The same thing is said this often at most.
const EVERY: Duration = Duration::from_secs(10);

/// One thing that may have to be said very often.
#[derive(Debug)]
pub(crate) struct Seldom(Mutex<Said>);

#[derive(Debug)]
struct Said {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Nothing was said yet.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Said { last: None, left_out: 0 }))
    }

    /// Whether to say it now: then how often it was left out since it was said last. Otherwise it counts.
    pub(crate) fn now(&self) -> Option<u64> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<u64> {
        // Two numbers, neither of which is wrong without the other.
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            said.left_out += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_very_often_is_said_seldom_and_how_often_it_was_left_out() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        assert_eq!(seldom.at(start), Some(0));
        for millis in 0..9_999 {
            assert_eq!(seldom.at(start + Duration::from_millis(millis)), None);
        }
        assert_eq!(seldom.at(start + EVERY), Some(9_999));
        assert_eq!(seldom.at(start + EVERY), None);
        assert_eq!(seldom.at(start + 3 * EVERY), Some(1));
    }
}
