//! The places for runs at work. Whoever asks first is given one first; a place that is dropped goes to the next. It decides
//! nothing about who may ask, and gives none away before it is opened.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

/// The places of one agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Slots(Arc<Inner>);

struct Inner {
    count: u16,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    free: u16,
    open: bool,
    waiting: VecDeque<oneshot::Sender<Slot>>,
}

/// A place. Dropping it gives it back.
pub(crate) struct Slot {
    slots: Slots,
    /// Already given back.
    void: bool,
}

/// A place in the row of those that wait. Dropping it leaves the row.
pub(crate) struct Ticket(oneshot::Receiver<Slot>);

impl Slots {
    pub(crate) fn new(count: u16) -> Self {
        let state = Mutex::new(State { free: count, open: false, waiting: VecDeque::new() });
        Self(Arc::new(Inner { count, state, changed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is a few plain assignments that do not panic halfway.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> u16 {
        self.0.count
    }

    pub(crate) fn free(&self) -> u16 {
        self.state().free
    }

    /// Whether nobody has a place and nobody waits for one.
    pub(crate) fn idle(&self) -> bool {
        let state = self.state();
        state.free == self.0.count && state.waiting.iter().all(oneshot::Sender::is_closed)
    }

    /// From now on places are given away.
    pub(crate) fn open(&self) {
        self.state().open = true;
        self.serve();
    }

    /// Takes a place that is free while nobody waits for one.
    pub(crate) fn at_once(&self) -> Option<Slot> {
        let mut state = self.state();
        if !state.open || state.free == 0 || !state.waiting.iter().all(oneshot::Sender::is_closed) {
            return None;
        }
        state.free -= 1;
        drop(state);
        self.0.changed.notify_one();
        Some(Slot { slots: self.clone(), void: false })
    }

    /// Takes the last place in the row.
    pub(crate) fn ticket(&self) -> Ticket {
        let (sender, receiver) = oneshot::channel();
        self.state().waiting.push_back(sender);
        self.serve();
        Ticket(receiver)
    }

    /// Whether somebody waits for a place, and so begins as soon as there is one.
    pub(crate) fn wanted(&self) -> bool {
        self.state().waiting.iter().any(|waiting| !waiting.is_closed())
    }

    /// Returns when a place was taken or given back since the last call.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn serve(&self) {
        loop {
            let mut state = self.state();
            if !state.open || state.free == 0 {
                return;
            }
            let Some(next) = state.waiting.pop_front() else { return };
            state.free -= 1;
            drop(state);
            if let Err(mut slot) = next.send(Slot { slots: self.clone(), void: false }) {
                // Nobody waits there any more: this place is the next one's.
                slot.void = true;
                self.state().free += 1;
            }
            self.0.changed.notify_one();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.void {
            self.slots.state().free += 1;
            self.slots.0.changed.notify_one();
            self.slots.serve();
        }
    }
}

impl Ticket {
    /// Waits for the place. Nothing only if the agent itself is gone.
    ///
    /// # Cancel safety
    /// The place in the row is kept for as long as the ticket is.
    pub(crate) async fn wait(&mut self) -> Option<Slot> {
        (&mut self.0).await.ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_given_in_the_order_of_asking_and_those_who_left_are_passed_over() {
        let slots = Slots::new(1);
        let (mut first, second, mut third) = (slots.ticket(), slots.ticket(), slots.ticket());
        assert_eq!(slots.free(), 1, "nothing is given away before it is opened");
        slots.open();
        let held = first.wait().await.unwrap();
        assert_eq!((slots.free(), slots.idle()), (0, false));
        drop(second);
        assert!(third.0.try_recv().is_err() && slots.wanted());
        drop(held);
        let held = third.wait().await.unwrap();
        assert_eq!((slots.free(), slots.wanted()), (0, false));
        drop(slots.ticket());
        assert!(!slots.wanted(), "who has left wants nothing");
        drop(held);
        assert!(slots.idle());
    }

    #[tokio::test]
    async fn a_place_that_was_given_to_somebody_who_left_comes_back() {
        let slots = Slots::new(2);
        slots.open();
        drop(slots.ticket());
        assert_eq!((slots.free(), slots.idle()), (2, true));
    }
}
