//! The hand-over of a commit's result: a future that also can be waited for. It belongs to no async runtime.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
    /// Whom to wake besides; the first one of a batch has it.
    others: Option<Arc<Sleepers>>,
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
    /// Puts the result where it is looked for. Returns the task to wake, if one waits; that one is given `others`, if they are there.
    fn finish(&self, done: Done, others: &mut Option<Arc<Sleepers>>) -> Option<Waker>;
}

impl<T: Send> Pending for Shared<T> {
    fn finish(&self, Done { result, spent }: Done, others: &mut Option<Arc<Sleepers>>) -> Option<Waker> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        (slot.result, slot._spent) = (Some(result), spent);
        let (waker, waiting) = (slot.waker.take(), slot.waiting);
        if waker.is_some() {
            slot.others = others.take();
        }
        drop(slot);
        if waiting {
            self.arrived.notify_all();
        }
        waker
    }
}

/// What becomes of a commit: its result, and what it was made of, which goes back.
struct Done {
    result: Result<(), CommitError>,
    spent: Vec<Change>,
}

/// Tasks that have their results and are not woken yet. The first one of a batch to run wakes the others too: where it takes the
/// writer's processor, the writer would otherwise get to wake one at a time, and each would run and sleep again by itself.
#[derive(Default)]
struct Sleepers(Mutex<VecDeque<Waker>>);

impl Sleepers {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all, one after the other; whoever does the same at the same time does a part of it.
    fn wake(&self) {
        // The guard is gone before the task is woken.
        while let Some(waker) = { self.lock().pop_front() } {
            waker.wake();
        }
    }
}

/// Answers the commits of a batch, then wakes whoever waits for them. Dropped, it wakes those that are left.
#[derive(Default)]
pub(crate) struct Answers {
    waiting: VecDeque<Waker>,
    sleepers: Arc<Sleepers>,
}

impl Answers {
    /// Answers a commit, and keeps whoever waits for it. What it was made of is handed back with the answer.
    pub(crate) fn add(&mut self, mut answer: Answer, result: Result<(), CommitError>, spent: Vec<Change>) {
        let mut others = self.waiting.is_empty().then(|| Arc::clone(&self.sleepers));
        self.waiting.extend(answer.put(Done { result, spent }, &mut others));
    }

    /// Wakes all that wait, in the order of their commits.
    pub(crate) fn wake(&mut self) {
        self.sleepers.lock().append(&mut self.waiting);
        self.sleepers.wake();
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.wake();
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
    let slot = Slot { then: Some(then), result: None, waker: None, waiting: false, _spent: Vec::new(), others: None };
    let shared = Arc::new(Shared { slot: Mutex::new(slot), arrived: Condvar::new() });
    (Answer(Some(Arc::clone(&shared) as Arc<dyn Pending>)), Commit(shared))
}

impl Answer {
    /// Answers a commit that was in no batch.
    pub(crate) fn give(mut self, result: Result<(), CommitError>) {
        self.put_alone(result);
    }

    fn put_alone(&mut self, result: Result<(), CommitError>) {
        if let Some(waker) = self.put(Done { result, spent: Vec::new() }, &mut None) {
            waker.wake();
        }
    }

    fn put(&mut self, done: Done, others: &mut Option<Arc<Sleepers>>) -> Option<Waker> {
        self.0.take()?.finish(done, others)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.put_alone(Err(CommitError::Closed));
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
        let Some(result) = slot.take() else {
            slot.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let others = slot.others.take();
        drop(slot);
        if let Some(others) = others {
            others.wake();
        }
        Poll::Ready(result)
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

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(std::sync::atomic::AtomicU32);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    impl Count {
        fn woken(&self) -> u32 {
            self.0.load(std::sync::atomic::Ordering::SeqCst)
        }
    }

    #[test]
    fn a_commit_polled_by_two_tasks_in_turn_wakes_the_last() {
        let [first, second] = [(); 2].map(|()| Arc::new(Count::default()));
        let (answer, mut commit) = pair(7);
        for task in [&first, &second] {
            let waker = Waker::from(Arc::clone(task));
            assert!(Pin::new(&mut commit).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        answer.give(Ok(()));
        assert_eq!([first, second].map(|task| task.woken()), [0, 1]);
        assert_eq!(commit.wait().unwrap(), 7);
    }

    #[test]
    fn the_first_of_a_batch_to_run_wakes_the_others() {
        /// Runs at once when it is woken, as a task does that takes the writer's processor.
        struct First {
            commit: Mutex<Option<Commit<()>>>,
            other: Arc<Count>,
            seen: Count,
        }
        impl std::task::Wake for First {
            fn wake(self: Arc<Self>) {
                let mut commit = self.commit.lock().unwrap().take().unwrap();
                assert_eq!(self.other.woken(), 0);
                assert!(Pin::new(&mut commit).poll(&mut Context::from_waker(Waker::noop())).is_ready());
                self.seen.0.store(self.other.woken(), std::sync::atomic::Ordering::SeqCst);
            }
        }
        let other = Arc::new(Count::default());
        let first = Arc::new(First { commit: Mutex::default(), other: Arc::clone(&other), seen: Count::default() });
        let mut answers = Answers::default();
        let wakers = [Waker::from(Arc::clone(&first)), Waker::from(Arc::clone(&other))];
        let mut commits = wakers.map(|waker| {
            let (answer, mut commit) = pair(());
            assert!(Pin::new(&mut commit).poll(&mut Context::from_waker(&waker)).is_pending());
            answers.add(answer, Ok(()), Vec::new());
            Some(commit)
        });
        *first.commit.lock().unwrap() = commits[0].take();
        answers.wake();
        assert_eq!((first.seen.woken(), other.woken()), (1, 1), "by the first, and once");
    }

    #[test]
    fn whoever_waits_is_woken_though_the_one_before_panics() {
        struct Panics;
        impl std::task::Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("as a task of somebody else's may");
            }
        }
        let count = Arc::new(Count::default());
        let mut answers = Answers::default();
        for waker in [Waker::from(Arc::new(Panics)), Waker::from(Arc::clone(&count))] {
            let (answer, mut commit) = pair(());
            assert!(Pin::new(&mut commit).poll(&mut Context::from_waker(&waker)).is_pending());
            answers.add(answer, Ok(()), Vec::new());
            assert!(commit.wait().is_ok());
        }
        assert_eq!(count.woken(), 0, "before all have their results nobody is woken");
        std::thread::spawn(move || answers.wake()).join().unwrap_err();
        assert_eq!(count.woken(), 1);
    }
}
