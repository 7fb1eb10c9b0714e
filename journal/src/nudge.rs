//! Calls again what an engine may be sleeping on. It never ends a call itself and never counts a call as failed: it only knocks,
//! and the engine answers whoever waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How often it looks whether the same call still runs. Long enough that a disk which is merely slow is rarely knocked at.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Calls {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A thread that looks after calls which come one at a time. Dropping it ends the thread, without waiting for it.
#[derive(Debug)]
pub(crate) struct Nudger {
    calls: Arc<Calls>,
    /// Dropped, it ends the thread.
    _ends: Sender<()>,
}

impl Nudger {
    /// Starts it. A call that runs through one whole pause, and each pause after that, has `nudge` called.
    pub(crate) fn start(pause: Duration, nudge: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (ends, ended) = channel::<()>();
        let calls = Arc::new(Calls::default());
        let watched = Arc::clone(&calls);
        std::thread::Builder::new().name("journal-nudge".to_owned()).spawn(move || {
            let mut seen = 0;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let begun = watched.begun.load(Ordering::SeqCst);
                if begun == seen && begun != watched.ended.load(Ordering::SeqCst) {
                    nudge();
                }
                seen = begun;
            }
        })?;
        Ok(Self { calls, _ends: ends })
    }

    /// Makes a call that it looks after.
    pub(crate) fn watch<T>(&self, call: impl FnOnce() -> T) -> T {
        self.calls.begun.fetch_add(1, Ordering::SeqCst);
        let result = call();
        self.calls.ended.fetch_add(1, Ordering::SeqCst);
        result
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_sleeps_through_its_wake_up_is_woken_and_nobody_else_is_knocked_at() {
        let (knock, knocked) = channel();
        let nudger = Nudger::start(Duration::from_millis(1), move || knock.send(()).unwrap_or(())).unwrap();
        nudger.watch(|| knocked.recv().unwrap());
        nudger.watch(|| knocked.recv().unwrap());
        let calls = Arc::downgrade(&nudger.calls);
        drop(nudger);
        // The thread ends, and with it its end of the channel; what it knocked while the last call ended is read before.
        while knocked.recv().is_ok() {}
        assert!(calls.upgrade().is_none());
    }
}
