//! The hand-over of a commit's result: a future that also can be waited for. It belongs to no async runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::state::IllegalChange;
use crate::store::StoreError;
use crate::write_ahead::Change;

/// Why a commit did not happen. Every one of them closes the journal for good: open it again, which verifies it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The store failed, in this commit or in an earlier one. Whether the changes are on stable storage is unknown.
    #[error("the journal's store failed; nothing more is written until it is opened again and verified")]
    Store(#[source] Arc<StoreError>),
    /// The changes contradict what the journal holds: a defect of the program. Nothing was written.
    #[error("the changes contradict the journal; nothing was written")]
    Illegal(#[source] IllegalChange),
    /// The journal was closed before the commit's turn came. Nothing was written.
    #[error("the journal is closed")]
    Closed,
}

struct Slot<T> {
    /// What was bound to the commit, until it is handed out.
    then: Option<T>,
    result: Option<Result<(), CommitError>>,
    waker: Option<Waker>,
    /// A thread waits. Waking one that does not is a call to the system for nothing, for each commit of a batch.
    waiting: bool,
    /// What the commit was made of. It is freed by who waits, mostly the thread that allocated it: when the writer freed it, the two
    /// got into each other's way in the allocator, several times for each commit.
    _spent: Vec<Change>,
}

impl<T> Slot<T> {
    fn take(&mut self) -> Option<Result<T, CommitError>> {
        // Whoever asks again after the answer was handed out gets none.
        Some(match self.result.take()? {
            Ok(()) => self.then.take().ok_or(CommitError::Closed),
            Err(error) => Err(error),
        })
    }
}

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    arrived: Condvar,
}

/// A commit, for who does not know what is bound to it.
trait Pending: Send + Sync {
    fn finish(&self, result: Result<(), CommitError>, spent: Vec<Change>);
}

impl<T: Send> Pending for Shared<T> {
    fn finish(&self, result: Result<(), CommitError>, spent: Vec<Change>) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        (slot.result, slot._spent) = (Some(result), spent);
        let (waker, waiting) = (slot.waker.take(), slot.waiting);
        drop(slot);
        if waiting {
            self.arrived.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The pending result of a commit: a future, or [`Self::wait`] for it on a thread.
///
/// # Cancel safety
/// Dropping it does not undo the commit.
#[must_use = "the effects of the commit are inside"]
pub struct Commit<T>(Arc<Shared<T>>);

/// The other end, held by the writer thread. Dropped without an answer, it answers [`CommitError::Closed`].
pub(crate) struct Answer(Option<Arc<dyn Pending>>);

pub(crate) fn pair<T: Send + 'static>(then: T) -> (Answer, Commit<T>) {
    let slot = Slot { then: Some(then), result: None, waker: None, waiting: false, _spent: Vec::new() };
    let shared = Arc::new(Shared { slot: Mutex::new(slot), arrived: Condvar::new() });
    (Answer(Some(Arc::clone(&shared) as Arc<dyn Pending>)), Commit(shared))
}

impl Answer {
    /// Answers a commit. What it was made of is handed back with the answer.
    pub(crate) fn give(mut self, result: Result<(), CommitError>, spent: Vec<Change>) {
        self.put(result, spent);
    }

    fn put(&mut self, result: Result<(), CommitError>, spent: Vec<Change>) {
        if let Some(pending) = self.0.take() {
            pending.finish(result, spent);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.put(Err(CommitError::Closed), Vec::new());
    }
}

impl<T> Commit<T> {
    /// Blocks the thread until the commit is on stable storage.
    ///
    /// # Errors
    /// [`CommitError`]
    pub fn wait(self) -> Result<T, CommitError> {
        let mut slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = slot.take() {
                return result;
            }
            slot.waiting = true;
            slot = self.0.arrived.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for Commit<T> {
    type Output = Result<T, CommitError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.take() {
            Some(result) => Poll::Ready(result),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_dropped_says_closed_to_whoever_waits() {
        let (answer, commit) = pair(());
        let waiting = std::thread::spawn(move || commit.wait());
        drop(answer);
        assert!(matches!(waiting.join().unwrap(), Err(CommitError::Closed)));
    }

    #[test]
    fn a_commit_polled_by_two_tasks_in_turn_wakes_the_last() {
        struct Count(std::sync::atomic::AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let [first, second] = [(); 2].map(|()| Arc::new(Count(0.into())));
        let (answer, mut commit) = pair(7);
        for task in [&first, &second] {
            let waker = Waker::from(Arc::clone(task));
            assert!(Pin::new(&mut commit).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        answer.give(Ok(()), Vec::new());
        assert_eq!([first, second].map(|task| task.0.load(std::sync::atomic::Ordering::SeqCst)), [0, 1]);
        assert_eq!(commit.wait().unwrap(), 7);
    }
}
