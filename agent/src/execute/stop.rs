//! Ending a run before its steps are done: because it was cancelled, or because its time is over. Both end what runs, once; the
//! steps for this case are run afterwards. It never ends a process itself: the shim does.

use std::time::Duration;

use super::Execution;
use crate::clock::steady_ms;

impl Execution {
    /// Whether what runs is to be ended now.
    pub(super) fn stopping(&self) -> bool {
        self.cancel_wanted().is_some() || self.time_left().is_some_and(|left| left.is_zero())
    }

    /// Waits until what runs is to be ended. What was ended for a reason before is not ended for it again.
    pub(super) async fn stop_wanted(&self) {
        let cancelled = async {
            if self.record.progress.cancelled.is_some() {
                std::future::pending::<()>().await;
            }
            self.control.cancelled().await;
        };
        let over = async {
            match self.time_left() {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancelled => {}
            () = over => {}
        }
    }

    /// Notes that what ran has been ended, if it was to be. Nothing of the run is under way.
    pub(super) fn note_stop(&mut self) {
        if let Some(reason) = self.cancel_wanted() {
            self.record.progress.cancelled = Some(reason);
        } else if self.time_left().is_some_and(|left| left.is_zero()) {
            self.record.progress.timed_out = true;
        }
    }

    /// Whether the run was stopped before: what runs now is for this case.
    pub(super) fn cleaning_up(&self) -> bool {
        self.record.progress.cancelled.is_some() || self.record.progress.timed_out
    }

    fn cancel_wanted(&self) -> Option<String> {
        if self.record.progress.cancelled.is_some() { None } else { self.control.cancel() }
    }

    /// How long the run may still take; nothing if that is not limited, or not any more, or it waits for a person.
    fn time_left(&self) -> Option<Duration> {
        let progress = &self.record.progress;
        if progress.timed_out || progress.undecided.is_some() {
            return None;
        }
        let (limit, clock) = (self.record.start.timeout_ms?, progress.clock.as_ref()?);
        let spent = clock.spent_ms(self.worker.boot(), steady_ms());
        Some(Duration::from_millis(limit.saturating_sub(spent)))
    }
}
