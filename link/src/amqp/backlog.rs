//! What waits to be published while the broker is slower than the driver, within bounds. What finds no room is dropped,
//! statuses first: they are safe to lose, and a message that is dropped is reported so that it is sent again. Pieces of logs have
//! bounds of their own: however many wait, they take no room from a status or a message. What may wait for company does so a few
//! milliseconds, and never holds up anything else.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use messages::EndpointId;
use tokio::sync::Notify;
use tokio::time::timeout_at;

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

/// How long something waits for company at most. People who watch see it that much later; a short step ends within it.
const COMPANY: Duration = Duration::from_millis(20);

/// How many wait for company at most: then they are company enough.
const COMPANY_MAX: usize = 64;

/// When something is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// As soon as there is room for it.
    Now,
    /// With what comes next, or within [`COMPANY`].
    Soon,
}

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
    /// With the moment up to which one waits for company, if it does.
    publishes: VecDeque<(Publish, Option<Instant>)>,
    bytes: usize,
    /// How many of them wait for nothing.
    pressing: usize,
}

impl Queue {
    fn has_room(&self, count_max: usize, bytes_max: usize) -> bool {
        self.publishes.len() < count_max && self.bytes < bytes_max
    }

    fn push(&mut self, publish: Publish, until: Option<Instant>) {
        self.bytes += publish.frame.bytes().len();
        self.pressing += usize::from(until.is_none());
        self.publishes.push_back((publish, until));
    }

    fn pop(&mut self) -> Option<Publish> {
        let (publish, until) = self.publishes.pop_front()?;
        self.bytes -= publish.frame.bytes().len();
        self.pressing -= usize::from(until.is_none());
        Some(publish)
    }

    /// Up to when the oldest one waits for company; nothing if it does not, or there is none.
    fn waits_until(&self, now: Instant) -> Option<Instant> {
        let alone = self.pressing == 0 && self.publishes.len() < COMPANY_MAX;
        let (_, until) = self.publishes.front().filter(|_| alone)?;
        until.filter(|until| *until > now)
    }
}

impl Backlog {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change below is complete before anything can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in, or drops it. Never waits.
    pub(super) fn push(&self, publish: Publish, haste: Haste) {
        let until = match haste {
            Haste::Now => None,
            Haste::Soon => Some(Instant::now() + COMPANY),
        };
        let mut waiting = self.waiting();
        let room = match publish.what {
            Published::Log => waiting.logs.has_room(LOGS_MAX, LOGS_BYTES_MAX),
            Published::Status => waiting.publishes.has_room(LOSSY_MAX, LOSSY_BYTES_MAX),
            Published::Message(_) | Published::Resent(_) => waiting.publishes.has_room(ALL_MAX, ALL_BYTES_MAX),
        };
        match (publish.what, room) {
            (Published::Log, true) => waiting.logs.push(publish, until),
            (Published::Message(_) | Published::Resent(_) | Published::Status, true) => {
                waiting.publishes.push(publish, until);
            }
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

    /// The oldest one, as soon as there is one that waits for no company; of logs only with `logs`, and only when nothing else is to go. For a
    /// single reader; may be cancelled.
    pub(super) async fn next(&self, logs: bool) -> Publish {
        loop {
            let now = Instant::now();
            if let Some(publish) = self.pop(logs, now) {
                return publish;
            }
            let waits = self.waiting().publishes.waits_until(now);
            match waits {
                // Over, it is looked at again.
                Some(until) => drop(timeout_at(until.into(), self.filled.notified()).await),
                None => self.filled.notified().await,
            }
        }
    }

    /// The oldest one, if there is one, under the same rule.
    pub(super) fn pop(&self, logs: bool, now: Instant) -> Option<Publish> {
        let mut waiting = self.waiting();
        let publish = match waiting.publishes.waits_until(now) {
            Some(_) => None,
            None => waiting.publishes.pop(),
        };
        match publish {
            None if logs => waiting.logs.pop(),
            publish => publish,
        }
    }

    /// The oldest message or status, if that is to be taken, whatever it waits for; it stays where it is otherwise.
    pub(super) fn pop_if(&self, taken: impl FnOnce(&Publish) -> bool) -> Option<Publish> {
        let mut waiting = self.waiting();
        match waiting.publishes.publishes.front() {
            Some((first, _)) if taken(first) => waiting.publishes.pop(),
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
            backlog.push(publish(Published::Message(Seq::new(seq).unwrap()), 10), Haste::Now);
        }
        backlog.push(publish(Published::Status, 10), Haste::Now);
        backlog.push(publish(Published::Resent(Seq::FIRST), 10), Haste::Now);
        let mut last = None;
        let mut count = 0;
        while let Some(publish) = backlog.pop(true, Instant::now()) {
            count += 1;
            last = Some(publish.what);
        }
        assert_eq!((count, last), (LOSSY_MAX + 1, Some(Published::Resent(Seq::FIRST))));
        assert_eq!(backlog.refused().now_or_never(), None);
    }

    #[test]
    fn what_is_not_to_be_taken_stays_the_oldest() {
        let backlog = Backlog::default();
        backlog.push(publish(Published::Log, 10), Haste::Now);
        assert_eq!(backlog.pop_if(|_| true), None);
        backlog.push(publish(Published::Status, 10), Haste::Now);
        backlog.push(publish(Published::Message(Seq::FIRST), 10), Haste::Now);
        assert_eq!(backlog.pop_if(|first| first.what != Published::Status), None);
        let taken = [(); 2].map(|()| backlog.pop_if(|_| true).map(|publish| publish.what));
        assert_eq!(taken, [Some(Published::Status), Some(Published::Message(Seq::FIRST))]);
    }

    #[test]
    fn messages_beyond_the_bound_in_bytes_are_reported_as_refused() {
        let backlog = Backlog::default();
        let body = 250 * 1024;
        for seq in 1..=300 {
            backlog.push(publish(Published::Message(Seq::new(seq).unwrap()), body), Haste::Now);
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
        backlog.push(publish(Published::Status, 10), Haste::Now);
        assert!(backlog.next(true).now_or_never().is_some(), "room is given back");
    }

    #[test]
    fn pieces_of_logs_take_no_room_from_statuses_and_have_a_bound_of_their_own() {
        let backlog = Backlog::default();
        for _ in 0..2 * LOGS_MAX {
            backlog.push(publish(Published::Log, 10), Haste::Now);
        }
        backlog.push(publish(Published::Status, 10), Haste::Now);
        assert_eq!(backlog.pop(true, Instant::now()).map(|publish| publish.what), Some(Published::Status));
        assert_eq!(std::iter::from_fn(|| backlog.pop(true, Instant::now())).count(), LOGS_MAX);
        let piece = 250 * 1024;
        for _ in 0..2 * LOGS_BYTES_MAX / piece {
            backlog.push(publish(Published::Log, piece), Haste::Now);
        }
        let bytes: usize =
            std::iter::from_fn(|| backlog.pop(true, Instant::now())).map(|publish| publish.frame.bytes().len()).sum();
        assert!((LOGS_BYTES_MAX..LOGS_BYTES_MAX + 2 * piece).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_message_goes_before_the_pieces_of_logs_that_came_first() {
        let backlog = Backlog::default();
        backlog.push(publish(Published::Log, 10), Haste::Now);
        backlog.push(publish(Published::Log, 10), Haste::Now);
        backlog.push(publish(Published::Message(Seq::FIRST), 10), Haste::Now);
        let next = |logs| backlog.next(logs).now_or_never().map(|publish| publish.what);
        assert_eq!(next(true), Some(Published::Message(Seq::FIRST)));
        // While enough of them is on its way, none follows.
        assert_eq!(
            (next(false), next(true), next(true), next(true)),
            (None, Some(Published::Log), Some(Published::Log), None)
        );
    }

    #[test]
    fn what_may_wait_goes_with_what_comes_next_or_when_its_time_is_over_and_holds_up_nothing() {
        let (backlog, begun) = (Backlog::default(), Instant::now());
        let message = |seq| publish(Published::Message(Seq::new(seq).unwrap()), 10);
        let kept = &backlog;
        let all = |now| std::iter::from_fn(move || kept.pop(true, now)).map(|publish| publish.what);
        let messages =
            |seqs: &[u64]| seqs.iter().map(|seq| Published::Message(Seq::new(*seq).unwrap())).collect::<Vec<_>>();
        backlog.push(message(1), Haste::Soon);
        backlog.push(message(2), Haste::Soon);
        assert_eq!(all(begun).collect::<Vec<_>>(), []);
        backlog.push(publish(Published::Log, 10), Haste::Now);
        assert_eq!(all(begun).collect::<Vec<_>>(), [Published::Log]);
        // In order, whatever the last one waits for.
        backlog.push(message(3), Haste::Now);
        backlog.push(message(4), Haste::Soon);
        assert_eq!(all(begun).collect::<Vec<_>>(), messages(&[1, 2, 3]));
        assert_eq!(all(Instant::now() + COMPANY).collect::<Vec<_>>(), messages(&[4]));
        // It goes along, and enough of them are company.
        backlog.push(message(5), Haste::Soon);
        assert!(backlog.pop_if(|_| true).is_some());
        (0..COMPANY_MAX as u64 - 1).for_each(|seq| backlog.push(message(6 + seq), Haste::Soon));
        assert_eq!(all(begun).count(), 0);
        backlog.push(message(99), Haste::Soon);
        assert_eq!(all(begun).count(), 1);
    }

    #[tokio::test]
    async fn what_waits_for_company_that_does_not_come_goes_alone() {
        let backlog = Backlog::default();
        backlog.push(publish(Published::Message(Seq::FIRST), 10), Haste::Soon);
        assert_eq!(backlog.next(true).now_or_never(), None);
        assert_eq!(backlog.next(true).await.what, Published::Message(Seq::FIRST));
    }
}
