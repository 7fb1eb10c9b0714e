//! Waiting for something outside to become true. The outside has no events to wait for, so it is looked at again and again;
//! a deadline says when to give up, and its length decides nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Set when the program was asked to end: every wait then ends at once.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends every wait, now and later.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// It did not become true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {} s in vain for {what}", limit.as_secs())]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// For how long.
    pub limit: Duration,
}

/// Looks until there is something to return.
///
/// # Errors
/// [`TimedOut`]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T, TimedOut> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err(TimedOut { what: format!("{what}, until it was interrupted"), limit: begin.elapsed() });
        }
        if begin.elapsed() > limit {
            return Err(TimedOut { what: what.to_owned(), limit });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
