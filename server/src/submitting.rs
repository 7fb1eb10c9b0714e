//! One submission of an id at a time, so that an id is taken once; those of different ids do not wait for each other, and share syncs.
//! It knows nothing of jobs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use messages::JobId;
use tokio::sync::OwnedMutexGuard;

/// The ids that are being submitted: as many as there are requests under way.
#[derive(Debug, Default)]
pub(crate) struct Submitting(Mutex<BTreeMap<JobId, Arc<tokio::sync::Mutex<()>>>>);

/// While it lives nobody else submits that id.
#[derive(Debug)]
pub(crate) struct Alone<'a> {
    of: &'a Submitting,
    id: JobId,
    held: Option<OwnedMutexGuard<()>>,
}

impl Submitting {
    fn ids(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<tokio::sync::Mutex<()>>>> {
        // Every change below is one call that does not panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else submits that id.
    pub(crate) async fn alone(&self, id: JobId) -> Alone<'_> {
        // Made first: whoever gives up waiting tidies up, too.
        let mut alone = Alone { of: self, id, held: None };
        let lock = Arc::clone(self.ids().entry(id).or_default());
        alone.held = Some(lock.lock_owned().await);
        alone
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut ids = self.of.ids();
        self.held = None;
        // The map's own is the last one when nobody else holds it or waits.
        if ids.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            ids.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn one_id_is_submitted_by_one_at_a_time_and_others_do_not_wait() {
        let submitting = Submitting::default();
        let (one, two) = (JobId::from_u128(1), JobId::from_u128(2));
        let first = submitting.alone(one).await;
        let mut second = Box::pin(submitting.alone(one));
        assert!((&mut second).now_or_never().is_none(), "two submit the same id");
        drop(submitting.alone(two).now_or_never().expect("another id does not wait"));
        assert!(submitting.alone(one).now_or_never().is_none());
        drop(first);
        drop(second.await);
        assert!(submitting.ids().is_empty(), "nothing is kept of what is over or was given up");
    }
}
