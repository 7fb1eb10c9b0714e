//! What waits to be published while the broker is slower than the driver, within bounds. What finds no room is dropped,
//! statuses first: they are safe to lose, and a message that is dropped is reported so that it is sent again. Pieces of logs have
//! bounds of their own: however many wait, they take no room from a status or a message.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use messages::EndpointId;
use tokio::sync::Notify;

use crate::session::{Publish, Published};

/// Messages and statuses from which on statuses find no room. A driver has fewer messages than this in flight.
const LOSSY_MAX: usize = 1_024;

/// Bytes of messages and statuses from which on statuses find no room.
const LOSSY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Messages and statuses from which on none finds room.
const ALL_MAX: usize = 8_192;

/// Bytes of messages and statuses from which on none finds room. With [`LOGS_BYTES_MAX`] it is what one process spends on a broker
/// that is blocked.
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Pieces of logs, and words about them, from which on none finds room.
const LOGS_MAX: usize = 1_024;

/// Bytes of them from which on none finds room.
const LOGS_BYTES_MAX: usize = 16 * 1024 * 1024;

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
    publishes: Queue,
    /// Pieces of logs: they go out when nothing else waits.
    logs: Queue,
    refused: VecDeque<Refused>,
}

#[derive(Debug, Default)]
struct Queue {
    publishes: VecDeque<Publish>,
    bytes: usize,
}

impl Queue {
    fn has_room(&self, count_max: usize, bytes_max: usize) -> bool {
        self.publishes.len() < count_max && self.bytes < bytes_max
    }

    fn push(&mut self, publish: Publish) {
        self.bytes += publish.frame.bytes().len();
        self.publishes.push_back(publish);
    }

    fn pop(&mut self) -> Option<Publish> {
        let publish = self.publishes.pop_front()?;
        self.bytes -= publish.frame.bytes().len();
        Some(publish)
    }
}

impl Backlog {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change below is complete before anything can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in, or drops it. Never waits.
    pub(super) fn push(&self, publish: Publish) {
        let mut waiting = self.waiting();
        let room = match publish.what {
            Published::Log => waiting.logs.has_room(LOGS_MAX, LOGS_BYTES_MAX),
            Published::Status => waiting.publishes.has_room(LOSSY_MAX, LOSSY_BYTES_MAX),
            Published::Message(_) | Published::Resent(_) => waiting.publishes.has_room(ALL_MAX, ALL_BYTES_MAX),
        };
        match (publish.what, room) {
            (Published::Log, true) => waiting.logs.push(publish),
            (Published::Message(_) | Published::Resent(_) | Published::Status, true) => waiting.publishes.push(publish),
            (Published::Log | Published::Status, false) => {
                tracing::debug!(to = %publish.to, what = ?publish.what, "dropped it: too much waits to be published");
                return;
            }
            (Published::Message(_) | Published::Resent(_), false) => {
                if waiting.refused.len() < REFUSED_MAX {
                    waiting.refused.push_back((publish.to, publish.what));
                }
                drop(waiting);
                self.refusing.notify_one();
                return;
            }
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
        match waiting.publishes.pop() {
            None if logs => waiting.logs.pop(),
            publish => publish,
        }
    }

    /// The oldest message or status, if that is to be taken; it stays where it is otherwise.
    pub(super) fn pop_if(&self, taken: impl FnOnce(&Publish) -> bool) -> Option<Publish> {
        let mut waiting = self.waiting();
        match waiting.publishes.publishes.front() {
            Some(first) if taken(first) => waiting.publishes.pop(),
            Some(_) | None => None,
        }
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
    fn what_is_not_to_be_taken_stays_the_oldest() {
        let backlog = Backlog::default();
        backlog.push(publish(Published::Log, 10));
        assert_eq!(backlog.pop_if(|_| true), None);
        backlog.push(publish(Published::Status, 10));
        backlog.push(publish(Published::Message(Seq::FIRST), 10));
        assert_eq!(backlog.pop_if(|first| first.what != Published::Status), None);
        let taken = [(); 2].map(|()| backlog.pop_if(|_| true).map(|publish| publish.what));
        assert_eq!(taken, [Some(Published::Status), Some(Published::Message(Seq::FIRST))]);
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
    fn pieces_of_logs_take_no_room_from_statuses_and_have_a_bound_of_their_own() {
        let backlog = Backlog::default();
        for _ in 0..2 * LOGS_MAX {
            backlog.push(publish(Published::Log, 10));
        }
        backlog.push(publish(Published::Status, 10));
        assert_eq!(backlog.pop(true).map(|publish| publish.what), Some(Published::Status));
        assert_eq!(std::iter::from_fn(|| backlog.pop(true)).count(), LOGS_MAX);
        let piece = 250 * 1024;
        for _ in 0..2 * LOGS_BYTES_MAX / piece {
            backlog.push(publish(Published::Log, piece));
        }
        let bytes: usize = std::iter::from_fn(|| backlog.pop(true)).map(|publish| publish.frame.bytes().len()).sum();
        assert!((LOGS_BYTES_MAX..LOGS_BYTES_MAX + 2 * piece).contains(&bytes), "{bytes}");
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
