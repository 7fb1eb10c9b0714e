//! What waits to be published while the broker is slower than the driver, within bounds. What finds no room is dropped,
//! statuses and logs first: they are safe to lose, and a message that is dropped is reported so that it is sent again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use messages::EndpointId;
use tokio::sync::Notify;

use crate::session::{Publish, Published};

/// Publishes from which on statuses and logs find no room. A driver has fewer messages than this in flight.
const LOSSY_MAX: usize = 1_024;

/// Bytes from which on statuses and logs find no room.
const LOSSY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Publishes from which on nothing finds room.
const ALL_MAX: usize = 8_192;

/// Bytes from which on nothing finds room. What one process spends on a broker that is blocked.
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Refused messages that wait to be reported. Beyond, reconciling finds out by itself.
const REFUSED_MAX: usize = ALL_MAX;

/// A message that found no room.
pub(super) type Refused = (EndpointId, Published);

/// A queue between the driver and the task that publishes.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: Mutex<Waiting>,
    filled: Notify,
    refusing: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    publishes: VecDeque<Publish>,
    /// Pieces of logs: they go out when nothing else waits.
    logs: VecDeque<Publish>,
    bytes: usize,
    refused: VecDeque<Refused>,
}

impl Backlog {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change below is complete before anything can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in, or drops it. Never waits.
    pub(super) fn push(&self, publish: Publish) {
        let mut waiting = self.waiting();
        let (count, bytes) = (waiting.publishes.len() + waiting.logs.len(), waiting.bytes);
        let lossy = match publish.what {
            Published::Status | Published::Log => true,
            Published::Message(_) | Published::Resent(_) => false,
        };
        if lossy && (count >= LOSSY_MAX || bytes >= LOSSY_BYTES_MAX) {
            tracing::debug!(to = %publish.to, what = ?publish.what, "dropped it: too much waits to be published");
            return;
        }
        if count >= ALL_MAX || bytes >= ALL_BYTES_MAX {
            if waiting.refused.len() < REFUSED_MAX {
                waiting.refused.push_back((publish.to, publish.what));
            }
            drop(waiting);
            self.refusing.notify_one();
            return;
        }
        waiting.bytes += publish.frame.bytes().len();
        match publish.what {
            Published::Log => waiting.logs.push_back(publish),
            Published::Message(_) | Published::Resent(_) | Published::Status => waiting.publishes.push_back(publish),
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// The oldest one, as soon as there is one; of logs only with `logs`, and only when nothing else waits. For a single reader; may
    /// be cancelled.
    pub(super) async fn next(&self, logs: bool) -> Publish {
        loop {
            if let Some(publish) = self.pop(logs) {
                return publish;
            }
            self.filled.notified().await;
        }
    }

    /// The oldest one, if there is one, under the same rule.
    pub(super) fn pop(&self, logs: bool) -> Option<Publish> {
        let mut waiting = self.waiting();
        let publish = match waiting.publishes.pop_front() {
            None if logs => waiting.logs.pop_front()?,
            publish => publish?,
        };
        waiting.bytes -= publish.frame.bytes().len();
        Some(publish)
    }

    /// The oldest message that found no room, as soon as there is one. For a single reader; may be cancelled.
    pub(super) async fn refused(&self) -> Refused {
        loop {
            if let Some(refused) = self.waiting().refused.pop_front() {
                return refused;
            }
            self.refusing.notified().await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use messages::{Epoch, Frame, Header, Incarnation, Seq};

    fn publish(what: Published, bytes: usize) -> Publish {
        let header = Header::new(EndpointId::Server, EndpointId::Server, Incarnation::from_u128(1), Epoch::FIRST);
        Publish { to: EndpointId::Server, what, frame: Frame::message(&header, &vec![0; bytes]).unwrap() }
    }

    #[test]
    fn a_full_backlog_drops_statuses_before_messages_and_reports_only_messages() {
        let backlog = Backlog::default();
        for seq in 1..=LOSSY_MAX as u64 {
            backlog.push(publish(Published::Message(Seq::new(seq).unwrap()), 10));
        }
        backlog.push(publish(Published::Status, 10));
        backlog.push(publish(Published::Log, 10));
        backlog.push(publish(Published::Resent(Seq::FIRST), 10));
        let mut last = None;
        let mut count = 0;
        while let Some(publish) = backlog.pop(true) {
            count += 1;
            last = Some(publish.what);
        }
        assert_eq!((count, last), (LOSSY_MAX + 1, Some(Published::Resent(Seq::FIRST))));
        assert_eq!(backlog.refused().now_or_never(), None);
    }

    #[test]
    fn messages_beyond_the_bound_in_bytes_are_reported_as_refused() {
        let backlog = Backlog::default();
        let body = 250 * 1024;
        for seq in 1..=300 {
            backlog.push(publish(Published::Message(Seq::new(seq).unwrap()), body));
        }
        let mut kept = 0;
        while backlog.next(true).now_or_never().is_some() {
            kept += 1;
        }
        let mut refused = Vec::new();
        while let Some((_, what)) = backlog.refused().now_or_never() {
            refused.push(what);
        }
        assert!(kept * body <= ALL_BYTES_MAX + body, "{kept}");
        assert_eq!(kept + refused.len(), 300);
        assert_eq!(refused[0], Published::Message(Seq::new(kept as u64 + 1).unwrap()));
        backlog.push(publish(Published::Status, 10));
        assert!(backlog.next(true).now_or_never().is_some(), "room is given back");
    }

    #[test]
    fn a_message_goes_before_the_pieces_of_logs_that_came_first() {
        let backlog = Backlog::default();
        backlog.push(publish(Published::Log, 10));
        backlog.push(publish(Published::Log, 10));
        backlog.push(publish(Published::Message(Seq::FIRST), 10));
        let next = |logs| backlog.next(logs).now_or_never().map(|publish| publish.what);
        assert_eq!(next(true), Some(Published::Message(Seq::FIRST)));
        // While enough of them is on its way, none follows.
        assert_eq!(
            (next(false), next(true), next(true), next(true)),
            (None, Some(Published::Log), Some(Published::Log), None)
        );
    }
}
