//! Which deliveries are still open, and what was decided about them. A delivery of several envelopes is decided once each of them is.
//! Hands decisions out strictly in the order of delivery, because acknowledging several at once covers everything before: nothing
//! undecided may be among them. Says whether that may wait for more.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::session::DeliveryTag;

/// Decisions that are told to the broker at once, though more may come.
const TOLD_TOGETHER: usize = 64;

/// What was decided about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is journaled.
    Acknowledge,
    /// It goes to the dead-letter queue.
    Reject,
}

/// What a delivery is when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    /// That many envelopes, at least one, and each of them is to be decided about.
    Open(usize),
    /// Decided already.
    Decided(Decision),
}

/// A delivery that the broker was not told about.
#[derive(Debug, Clone, Copy)]
enum Delivery {
    /// That many of its envelopes are undecided; whether another one was rejected. Then all of it goes to the dead-letter queue, what was
    /// journaled of it, too: there it is evidence and nothing else.
    Open {
        left: usize,
        rejected: bool,
    },
    Decided(Decision),
}

/// Something to tell the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Acknowledge every open delivery up to this one.
    AcknowledgeThrough(u64),
    /// Reject this one.
    Reject(u64),
}

/// The open deliveries of one connection.
#[derive(Debug)]
pub(super) struct Settlements {
    connection: u64,
    open: Mutex<Open>,
    decided: Notify,
}

/// Tags of a channel are consecutive, so the place in the queue is the tag.
#[derive(Debug)]
struct Open {
    first: u64,
    deliveries: VecDeque<Delivery>,
    /// How many of them are decided.
    decided: usize,
    /// Whether one of those is a rejection.
    rejected: bool,
}

impl Open {
    fn note(&mut self, decision: Decision) {
        self.decided += 1;
        self.rejected |= decision == Decision::Reject;
    }
}

impl Settlements {
    /// None open yet, on the connection with that number.
    pub(super) fn new(connection: u64) -> Self {
        let open = Open { first: 1, deliveries: VecDeque::new(), decided: 0, rejected: false };
        Self { connection, open: Mutex::new(open), decided: Notify::new() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Every change below is complete before anything can panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tag that the next delivery must have.
    pub(super) fn expected(&self) -> u64 {
        let open = self.open();
        open.first + open.deliveries.len() as u64
    }

    /// Opens the next delivery, decided already or not.
    pub(super) fn delivered(&self, delivered: Delivered) {
        let mut open = self.open();
        match delivered {
            Delivered::Open(left) => open.deliveries.push_back(Delivery::Open { left, rejected: false }),
            Delivered::Decided(decision) => {
                open.deliveries.push_back(Delivery::Decided(decision));
                open.note(decision);
                drop(open);
                self.decided.notify_one();
            }
        }
    }

    /// Takes decisions in, each about one envelope. Those about other connections, unknown or decided deliveries are ignored: they
    /// were settled when their connection ended, or already.
    pub(super) fn decide(&self, tags: &[DeliveryTag], decision: Decision) {
        let mut open = self.open();
        for tag in tags.iter().filter(|tag| tag.connection == self.connection) {
            let place = tag.tag.checked_sub(open.first).and_then(|place| usize::try_from(place).ok());
            let Some(delivery) = place.and_then(|place| open.deliveries.get_mut(place)) else { continue };
            let Delivery::Open { left, rejected } = *delivery else { continue };
            let rejected = rejected || decision == Decision::Reject;
            *delivery = Delivery::Open { left: left.saturating_sub(1), rejected };
            if left <= 1 {
                let decision = if rejected { Decision::Reject } else { Decision::Acknowledge };
                *delivery = Delivery::Decided(decision);
                open.note(decision);
            }
        }
        drop(open);
        self.decided.notify_one();
    }

    /// Counts from the first tag again, for a new channel, if nothing is open on the old one. Returns whether.
    pub(super) fn begin_anew(&self) -> bool {
        let mut open = self.open();
        let idle = open.deliveries.is_empty();
        if idle {
            open.first = 1;
        }
        idle
    }

    /// Waits until something may have been decided.
    pub(super) async fn changed(&self) {
        self.decided.notified().await;
    }

    /// Whether what was decided is to be told at once: it is much, or somebody looks at what is rejected.
    pub(super) fn is_urgent(&self) -> bool {
        let open = self.open();
        open.decided >= TOLD_TOGETHER || open.rejected
    }

    /// Takes out what can be told to the broker now.
    pub(super) fn ready(&self) -> Vec<Step> {
        let mut open = self.open();
        let mut steps = Vec::new();
        while let Some(Delivery::Decided(decision)) = open.deliveries.front().copied() {
            let tag = open.first;
            open.deliveries.pop_front();
            open.first += 1;
            open.decided -= 1;
            match (decision, steps.last_mut()) {
                (Decision::Acknowledge, Some(Step::AcknowledgeThrough(last))) => *last = tag,
                (Decision::Acknowledge, _) => steps.push(Step::AcknowledgeThrough(tag)),
                (Decision::Reject, _) => steps.push(Step::Reject(tag)),
            }
        }
        open.rejected &= open.decided > 0;
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::Step::{AcknowledgeThrough, Reject};
    use super::*;

    fn tags(connection: u64, tags: &[u64]) -> Vec<DeliveryTag> {
        tags.iter().map(|tag| DeliveryTag { connection, tag: *tag }).collect()
    }

    #[test]
    fn tags_begin_again_only_when_nothing_is_open() {
        let settlements = opened(2);
        settlements.decide(&tags(7, &[1]), Decision::Acknowledge);
        assert_eq!(settlements.ready(), vec![AcknowledgeThrough(1)]);
        assert!(!settlements.begin_anew());
        assert_eq!(settlements.expected(), 3);
        settlements.decide(&tags(7, &[2]), Decision::Acknowledge);
        assert!(!settlements.begin_anew(), "the broker was not told of it");
        assert_eq!(settlements.ready(), vec![AcknowledgeThrough(2)]);
        assert!(settlements.begin_anew());
        assert_eq!(settlements.expected(), 1);
    }

    fn opened(count: usize) -> Settlements {
        let settlements = Settlements::new(7);
        for _ in 0..count {
            settlements.delivered(Delivered::Open(1));
        }
        settlements
    }

    #[test]
    fn a_run_of_acknowledgements_is_one_step_and_rejections_keep_their_place() {
        let settlements = opened(6);
        settlements.decide(&tags(7, &[1, 2]), Decision::Acknowledge);
        settlements.decide(&tags(7, &[3]), Decision::Reject);
        settlements.decide(&tags(7, &[4, 5]), Decision::Acknowledge);
        assert_eq!(settlements.ready(), [AcknowledgeThrough(2), Reject(3), AcknowledgeThrough(5)]);
        assert_eq!(settlements.ready(), []);
    }

    #[test]
    fn few_acknowledgements_may_wait_for_more_and_a_rejection_may_not() {
        let settlements = opened(200);
        settlements.decide(&tags(7, &(1..=63).collect::<Vec<_>>()), Decision::Acknowledge);
        assert!(!settlements.is_urgent());
        settlements.decide(&tags(7, &[64]), Decision::Acknowledge);
        assert!(settlements.is_urgent());
        assert_eq!(settlements.ready(), [AcknowledgeThrough(64)]);
        assert!(!settlements.is_urgent());
        settlements.decide(&tags(7, &[66]), Decision::Reject);
        assert!(settlements.is_urgent());
        settlements.decide(&tags(7, &[65]), Decision::Acknowledge);
        assert_eq!(settlements.ready(), [AcknowledgeThrough(65), Reject(66)]);
        assert!(!settlements.is_urgent());
    }

    #[test]
    fn nothing_is_settled_past_an_undecided_delivery() {
        let settlements = opened(2);
        settlements.delivered(Delivered::Decided(Decision::Reject));
        settlements.delivered(Delivered::Open(1));
        settlements.decide(&tags(7, &[2, 4]), Decision::Acknowledge);
        assert_eq!(settlements.ready(), []);
        settlements.decide(&tags(7, &[1]), Decision::Acknowledge);
        assert_eq!(settlements.ready(), [AcknowledgeThrough(2), Reject(3), AcknowledgeThrough(4)]);
        assert_eq!(settlements.expected(), 5);
    }

    #[test]
    fn what_came_together_is_settled_when_all_of_it_is_decided_and_rejected_if_any_of_it_is() {
        let settlements = opened(1);
        settlements.delivered(Delivered::Open(3));
        settlements.delivered(Delivered::Open(2));
        settlements.decide(&tags(7, &[1, 2, 2]), Decision::Acknowledge);
        assert_eq!(settlements.ready(), [AcknowledgeThrough(1)]);
        settlements.decide(&tags(7, &[3]), Decision::Reject);
        settlements.decide(&tags(7, &[3]), Decision::Acknowledge);
        assert_eq!(settlements.ready(), []);
        settlements.decide(&tags(7, &[2]), Decision::Acknowledge);
        assert!(settlements.is_urgent());
        assert_eq!(settlements.ready(), [AcknowledgeThrough(2), Reject(3)]);
    }

    #[test]
    fn tags_of_other_connections_and_repeated_or_unknown_ones_are_ignored() {
        let settlements = opened(2);
        settlements.decide(&tags(6, &[1, 2]), Decision::Acknowledge);
        settlements.decide(&tags(7, &[0, 3, u64::MAX]), Decision::Reject);
        assert_eq!(settlements.ready(), []);
        settlements.decide(&tags(7, &[1]), Decision::Reject);
        settlements.decide(&tags(7, &[1]), Decision::Acknowledge);
        assert_eq!(settlements.ready(), [Reject(1)]);
        settlements.decide(&tags(7, &[1]), Decision::Acknowledge);
        assert_eq!(settlements.ready(), []);
    }
}
