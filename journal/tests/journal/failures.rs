//! When a commit cannot be: every failure closes the journal for good, and nobody is told that something is durable.

use std::sync::Arc;
use std::task::{Wake, Waker};

use journal::{Change, CommitError, IllegalChange, Row, Work, WriteAhead, put_app};
use messages::{EndpointId, Seq};

use crate::commits::{has, note, over, poll};
use crate::gate::{Gate, Mode};

fn illegal() -> Change {
    Change::Put(Row::Work(EndpointId::Server, Seq::FIRST, Work::default()))
}

/// Fails the store at a commit on which others wait, and checks that all of them and all later ones fail, and that the
/// store is then left alone.
fn closes_for_good(mode: Mode, syncs: u64) {
    let gate = Gate::new();
    let journal = over(&gate);
    journal.commit(note("before", ())).wait().unwrap();
    gate.set(Mode::HoldSync);
    let running = journal.commit(note("running", ()));
    gate.wait_for_sync(3);
    let waiting: Vec<_> = (0..10).map(|number| journal.commit(note(&number.to_string(), ()))).collect();
    gate.set(mode);
    // A failing sync hits the running commit, a failing apply only those that wait.
    let _ = running.wait();
    for commit in waiting {
        let error = commit.wait().unwrap_err();
        assert!(matches!(error, CommitError::Store(_)), "{mode:?}: {error:?}");
    }
    let (applies, begun) = (gate.applies(), gate.syncs());
    assert_eq!(begun, syncs, "{mode:?}");
    // Even when the store is well again.
    gate.set(Mode::Work);
    let error = journal.commit(note("after", ())).wait().unwrap_err();
    assert!(matches!(error, CommitError::Store(_)), "{mode:?}: {error:?}");
    drop(journal);
    assert_eq!((gate.applies(), gate.syncs()), (applies, begun), "{mode:?}: the store was touched again");
    assert!(!has(&*gate, "after"));
}

#[test]
fn after_a_failing_sync_every_commit_fails_and_sync_is_never_called_again() {
    closes_for_good(Mode::FailSync, 3);
}

#[test]
fn after_a_failing_apply_every_commit_fails_and_sync_is_not_called_at_all() {
    closes_for_good(Mode::FailApply, 3);
}

#[test]
fn a_store_that_panics_while_applying_is_a_store_that_failed() {
    closes_for_good(Mode::PanicInApply, 3);
}

#[test]
fn a_store_that_panics_while_syncing_is_a_store_that_failed() {
    closes_for_good(Mode::PanicInSync, 3);
}

#[test]
fn the_commit_whose_sync_fails_fails() {
    let gate = Gate::new();
    let journal = over(&gate);
    gate.set(Mode::FailSync);
    let CommitError::Store(cause) = journal.commit(note("a", ())).wait().unwrap_err() else { panic!() };
    assert_eq!(cause.to_string(), "syncing failed");
}

#[test]
fn an_illegal_change_closes_the_journal_and_nothing_of_its_commit_is_written() {
    let gate = Gate::new();
    let journal = over(&gate);
    gate.set(Mode::HoldSync);
    let running = journal.commit(note("running", ()));
    gate.wait_for_sync(2);
    let good = journal.commit(note("good", ()));
    let changes = vec![put_app(b"half".to_vec(), Vec::new()), illegal(), put_app(b"rest".to_vec(), Vec::new())];
    let bad = journal.commit(WriteAhead::new(changes, ()));
    let late = journal.commit(note("late", ()));
    gate.set(Mode::Work);
    running.wait().unwrap();
    good.wait().unwrap();
    for commit in [bad, late, journal.commit(note("later", ()))] {
        let error = commit.wait().unwrap_err();
        assert!(matches!(error, CommitError::Illegal(IllegalChange::WorkNotApplied { .. })), "{error:?}");
    }
    drop(journal);
    assert!(has(&*gate, "running") && has(&*gate, "good"));
    for name in ["half", "rest", "late", "later"] {
        assert!(!has(&*gate, name), "{name} was written");
    }
}

#[test]
fn an_illegal_commit_alone_writes_and_syncs_nothing() {
    let gate = Gate::new();
    let journal = over(&gate);
    let refused = journal.commit(WriteAhead::new(vec![illegal()], ())).wait().unwrap_err();
    assert!(matches!(refused, CommitError::Illegal(_)));
    assert_eq!((gate.applies(), gate.syncs()), (1, 1), "those of the opening");
}

/// A caller whose waking panics takes the writer thread down with it.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

#[test]
fn a_journal_whose_writer_is_gone_answers_closed() {
    let gate = Gate::new();
    let journal = over(&gate);
    gate.set(Mode::HoldSync);
    let mut first = journal.commit(note("first", ()));
    gate.wait_for_sync(2);
    assert!(!poll(&mut first, &Waker::from(Arc::new(Bomb))));
    let waiting = journal.commit(note("waiting", ()));
    gate.set(Mode::Work);
    first.wait().unwrap();
    for commit in [waiting, journal.commit(note("later", ()))] {
        assert!(matches!(commit.wait(), Err(CommitError::Closed)));
    }
    drop(journal);
    assert!(!has(&*gate, "waiting") && !has(&*gate, "later"), "closed means that nothing was written");
}
