//! What was ordered of one run: that it be cancelled, or what a person decided. The worker takes orders in, the run's own task
//! carries them out; here they meet. Nothing is handed to the task before it is on stable storage.

use messages::limits::TEXT_BYTES_MAX;
use messages::{Decision, RunCancel, RunDecide, RunId, StepId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::attempt::records::cut;

/// What was ordered of a run: a row of the journal. Only the worker writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// It is to end, for that reason.
    #[serde(default)]
    pub(crate) cancel: Option<String>,
    /// The latest decision. It means one attempt, which it names.
    #[serde(default)]
    pub(crate) decision: Option<RunDecide>,
}

/// A run's orders, shared by the worker and the run's task. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Control(watch::Sender<State>);

#[derive(Default)]
struct State {
    /// The run's end is decided: no order means anything any more.
    closed: bool,
    /// The attempt that waits for a decision.
    undecided: Option<(StepId, u32)>,
    /// What was accepted, and may not be on stable storage yet.
    asked: Orders,
    /// What is on stable storage.
    given: Orders,
}

/// Whether a run's end could be decided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// It is decided: a cancel that comes later means nothing.
    Closed,
    /// A cancel was first.
    Cancelled(String),
}

impl Control {
    /// Of a run with these orders, whose attempt waits for a decision, if one does.
    pub(crate) fn new(orders: Orders, undecided: Option<(StepId, u32)>, closed: bool) -> Self {
        Self(watch::Sender::new(State { closed, undecided, asked: orders.clone(), given: orders }))
    }

    /// Whether the run's end is decided.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.borrow().closed
    }

    /// Accepts a cancel, unless the run's end is decided or it has one. What to write down, if so.
    pub(crate) fn ask_cancel(&self, cancel: &RunCancel) -> Option<Orders> {
        self.ask(|state| {
            let new = state.asked.cancel.is_none();
            state.asked.cancel.get_or_insert_with(|| cut(&cancel.reason, TEXT_BYTES_MAX));
            new
        })
    }

    /// Accepts a decision, if that attempt waits for one. What to write down, if so.
    pub(crate) fn ask_decision(&self, decided: &RunDecide) -> Option<Orders> {
        self.ask(|state| {
            let meant = (&decided.step, decided.attempt);
            let waits = state.undecided.as_ref().is_some_and(|(step, attempt)| (step, *attempt) == meant);
            let first = state.asked.decision.as_ref().is_none_or(|earlier| (&earlier.step, earlier.attempt) != meant);
            let accepted = waits && first && state.asked.cancel.is_none();
            if accepted {
                let note = cut(&decided.note, TEXT_BYTES_MAX);
                state.asked.decision = Some(RunDecide { note, ..decided.clone() });
            }
            accepted
        })
    }

    fn ask(&self, accept: impl FnOnce(&mut State) -> bool) -> Option<Orders> {
        let mut orders = None;
        self.0.send_if_modified(|state| {
            let accepted = !state.closed && accept(state);
            orders = accepted.then(|| state.asked.clone());
            accepted
        });
        orders
    }

    /// Whether it is to be cancelled, although that may not be on stable storage yet.
    pub(crate) fn is_asked_to_end(&self) -> bool {
        self.0.borrow().asked.cancel.is_some()
    }

    /// What was accepted then is on stable storage.
    pub(crate) fn give(&self, orders: Orders) {
        self.0.send_modify(|state| state.given = orders);
    }

    /// Why the run is to be cancelled, if it is.
    pub(crate) fn cancel(&self) -> Option<String> {
        self.0.borrow().given.cancel.clone()
    }

    /// Waits until the run is to be cancelled.
    pub(crate) async fn cancelled(&self) -> String {
        self.until(|state| state.given.cancel.clone()).await
    }

    /// That attempt waits for a decision. An earlier decision about it was of no use.
    pub(crate) fn wait_for(&self, step: &StepId, attempt: u32) {
        self.0.send_modify(|state| {
            let State { asked, given, undecided, .. } = state;
            for orders in [asked, given] {
                let same = |earlier: &mut RunDecide| (&earlier.step, earlier.attempt) == (step, attempt);
                drop(orders.decision.take_if(same));
            }
            *undecided = Some((step.clone(), attempt));
        });
    }

    /// Waits for the decision about that attempt.
    pub(crate) async fn decided(&self, step: &StepId, attempt: u32) -> (Decision, String) {
        let wanted = |decided: &&RunDecide| (&decided.step, decided.attempt) == (step, attempt);
        let read = |decided: &RunDecide| (decided.decision, decided.note.clone());
        self.until(|state| state.given.decision.as_ref().filter(wanted).map(read)).await
    }

    /// No attempt waits for a decision any more.
    pub(crate) fn waits_no_more(&self) {
        self.0.send_modify(|state| state.undecided = None);
    }

    /// Decides that the run ends now, unless a cancel came first that was not `noted` yet.
    pub(crate) async fn close(&self, noted: bool) -> Closing {
        let mut changes = self.0.subscribe();
        loop {
            let mut closing = None;
            self.0.send_if_modified(|state| {
                let first = state.asked.cancel.is_some() && !noted;
                closing = match (&state.given.cancel, first) {
                    (_, false) => Some(Closing::Closed),
                    (Some(reason), true) => Some(Closing::Cancelled(reason.clone())),
                    // It is just being written down.
                    (None, true) => None,
                };
                state.closed |= closing == Some(Closing::Closed);
                false
            });
            if let Some(closing) = closing {
                return closing;
            }
            // The sender is `self`.
            let _open = changes.changed().await;
        }
    }

    async fn until<T>(&self, read: impl Fn(&State) -> Option<T>) -> T {
        let mut changes = self.0.subscribe();
        loop {
            let found = read(&changes.borrow_and_update());
            if let Some(found) = found {
                return found;
            }
            // The sender is `self`.
            let _open = changes.changed().await;
        }
    }
}

/// What an order did not mean, for the log.
pub(crate) fn ignored(run: RunId, what: &'static str) {
    tracing::info!(%run, order = what, "An order means nothing for this run as it is now; it is settled.");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cancel(reason: &str) -> RunCancel {
        RunCancel { run: RunId::from_u128(1), reason: reason.to_owned() }
    }

    fn decide(attempt: u32, decision: Decision) -> RunDecide {
        let (run, step) = (RunId::from_u128(1), "one".parse().unwrap());
        RunDecide { run, step, attempt, decision, note: "seen".to_owned() }
    }

    #[tokio::test]
    async fn the_first_of_cancel_and_finish_wins() {
        let control = Control::new(Orders::default(), None, false);
        assert_eq!(control.close(false).await, Closing::Closed);
        assert_eq!(control.ask_cancel(&cancel("late")), None);

        let control = Control::new(Orders::default(), None, false);
        let orders = control.ask_cancel(&cancel("first")).unwrap();
        assert_eq!(control.ask_cancel(&cancel("second")), None);
        assert_eq!(control.cancel(), None, "nothing is handed out before it is on stable storage");
        let (closing, ()) = tokio::join!(control.close(false), async { control.give(orders) });
        assert_eq!(closing, Closing::Cancelled("first".to_owned()));
        assert_eq!(control.close(true).await, Closing::Closed);
    }

    #[tokio::test]
    async fn a_decision_means_only_the_attempt_that_waits_for_it() {
        let step: StepId = "one".parse().unwrap();
        let control = Control::new(Orders::default(), None, false);
        assert_eq!(control.ask_decision(&decide(1, Decision::Done)), None);
        control.wait_for(&step, 2);
        assert_eq!(control.ask_decision(&decide(1, Decision::Done)), None);
        let orders = control.ask_decision(&decide(2, Decision::Fail)).unwrap();
        assert_eq!(orders.decision.as_ref().unwrap().attempt, 2);
        assert_eq!(control.ask_decision(&decide(2, Decision::Done)), None, "the first decision stands");
        control.give(orders.clone());
        assert_eq!(control.decided(&step, 2).await, (Decision::Fail, "seen".to_owned()));
    }

    #[test]
    fn a_reason_that_is_too_long_for_a_report_is_cut() {
        let control = Control::new(Orders::default(), Some(("one".parse().unwrap(), 1)), false);
        let decided = RunDecide { note: "x".repeat(200_000), ..decide(1, Decision::Done) };
        let orders = control.ask_decision(&decided).unwrap();
        assert_eq!(orders.decision.unwrap().note.len(), TEXT_BYTES_MAX);
        let orders = control.ask_cancel(&cancel(&"x".repeat(200_000))).unwrap();
        assert_eq!(orders.cancel.unwrap().len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn a_decision_after_a_cancel_means_nothing() {
        let control = Control::new(Orders::default(), Some(("one".parse().unwrap(), 1)), false);
        assert!(control.ask_cancel(&cancel("enough")).is_some());
        assert_eq!(control.ask_decision(&decide(1, Decision::Done)), None);
    }
}
