//! The hand-over of effects: after the sync, in order, many for one sync.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use journal::{Commit, Engine, Journal, Key, Store, WriteAhead, put_app};

use crate::gate::{Gate, Mode};
use crate::history::{History, opening, rows_of};

/// The journal over that gate, past the sync of its opening.
pub(crate) fn over(gate: &Arc<Gate>) -> Journal {
    Journal::over(Arc::clone(gate) as Arc<dyn Store>, &opening()).unwrap().0
}

pub(crate) fn note<T>(name: &str, then: T) -> WriteAhead<T> {
    WriteAhead::new(vec![put_app(name.as_bytes().to_vec(), b"x".to_vec())], then)
}

pub(crate) fn has(store: &dyn Store, name: &str) -> bool {
    store.value(&Key::App(name.as_bytes().to_vec()).bytes()).unwrap().is_some()
}

pub(crate) fn poll<T>(commit: &mut Commit<T>, waker: &Waker) -> bool {
    Pin::new(commit).poll(&mut Context::from_waker(waker)).is_ready()
}

#[test]
fn effects_come_out_only_after_the_sync() {
    let gate = Gate::new();
    let journal = over(&gate);
    gate.set(Mode::HoldSync);
    let mut commit = journal.commit(note("run", "publish"));
    gate.wait_for_sync(2);
    assert!(has(&*gate, "run"), "the change is applied");
    assert!(!poll(&mut commit, Waker::noop()), "the effect came out before the sync returned");
    gate.set(Mode::Work);
    assert_eq!(commit.wait().unwrap(), "publish");
    assert_eq!(gate.syncs(), 2);
}

/// Notes the order in which commits wake their callers.
struct Note(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[test]
fn commits_come_out_in_the_order_of_the_calls() {
    let gate = Gate::new();
    let journal = over(&gate);
    let order = Arc::new(Mutex::new(Vec::new()));
    gate.set(Mode::HoldSync);
    let mut commits: Vec<_> = (0..200).map(|number| journal.commit(note(&number.to_string(), number))).collect();
    for (number, commit) in commits.iter_mut().enumerate() {
        assert!(!poll(commit, &Waker::from(Arc::new(Note(number, Arc::clone(&order))))));
    }
    gate.set(Mode::Work);
    for (number, commit) in commits.into_iter().enumerate() {
        assert_eq!(commit.wait().unwrap(), number);
    }
    // Closing waits for the writer, and with it for the last waker.
    drop(journal);
    assert_eq!(*order.lock().unwrap(), (0..200).collect::<Vec<_>>());
}

#[test]
fn commits_that_arrive_while_a_sync_runs_share_the_next_one() {
    let gate = Gate::new();
    let journal = over(&gate);
    gate.set(Mode::HoldSync);
    let first = journal.commit(note("first", ()));
    gate.wait_for_sync(2);
    let rest: Vec<_> = (0..300).map(|number| journal.commit(note(&number.to_string(), ()))).collect();
    assert_eq!(gate.syncs(), 2, "one for the opening, one for the first commit, still running");
    gate.set(Mode::Work);
    first.wait().unwrap();
    for commit in rest {
        commit.wait().unwrap();
    }
    assert_eq!(gate.syncs(), 3, "300 commits share one sync");
    assert_eq!(gate.applies(), 3);
}

#[test]
fn one_sync_covers_only_so_many_bytes() {
    let gate = Gate::new();
    let journal = over(&gate);
    gate.set(Mode::HoldSync);
    let first = journal.commit(note("first", ()));
    gate.wait_for_sync(2);
    // 40 x 250 KB are 10 MB: three syncs of 4 MiB.
    let large = |number: u64| put_app(number.to_be_bytes().to_vec(), vec![0; 250_000]);
    let rest: Vec<_> = (0..40).map(|number| journal.commit(WriteAhead::new(vec![large(number)], ()))).collect();
    gate.set(Mode::Work);
    first.wait().unwrap();
    for commit in rest {
        commit.wait().unwrap();
    }
    assert_eq!(gate.syncs(), 2 + 3);
}

#[test]
fn a_commit_without_changes_hands_its_effect_out_in_turn_and_syncs_nothing() {
    let gate = Gate::new();
    let journal = over(&gate);
    assert_eq!(journal.commit(WriteAhead::new(Vec::new(), 7).with("more")).wait().unwrap(), (7, "more"));
    assert_eq!(gate.syncs(), 1);
}

#[test]
fn dropping_a_commit_does_not_undo_it() {
    let gate = Gate::new();
    let journal = over(&gate);
    drop(journal.commit(note("kept", ())));
    journal.commit(note("later", ())).wait().unwrap();
    assert!(has(&*gate, "kept"));
}

#[test]
fn commits_that_wait_while_the_journal_closes_are_still_written() {
    let gate = Gate::new();
    let journal = over(&gate);
    gate.set(Mode::HoldSync);
    let first = journal.commit(note("first", ()));
    gate.wait_for_sync(2);
    let second = journal.commit(note("second", ()));
    let closing = std::thread::spawn(move || drop(journal));
    gate.set(Mode::Work);
    closing.join().unwrap();
    first.wait().unwrap();
    second.wait().unwrap();
    assert!(has(&*gate, "first") && has(&*gate, "second"));
}

#[test]
fn what_is_committed_is_what_is_in_the_store() {
    let gate = Gate::new();
    let journal = over(&gate);
    let mut history = History::new(11);
    for _ in 0..400 {
        journal.commit(WriteAhead::new(history.step(), ())).wait().unwrap();
    }
    assert!(rows_of(&*gate).unwrap() == history.rows);
    drop(journal);
    let (_journal, state) = Journal::over(gate, &opening()).unwrap();
    assert_eq!(state.peers[&history.peer].outgoing, history.outgoing);
    assert_eq!(state.peers[&history.peer].incoming.as_ref(), Some(&history.incoming));
}

fn commits_of_sixteen_threads_are_all_there_after_reopening(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_as(dir.path(), &opening(), engine).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let journal = journal.clone();
            scope.spawn(move || {
                for number in 0..40 {
                    let name = format!("{thread:02}/{number:02}");
                    assert_eq!(journal.commit(note(&name, number)).wait().unwrap(), number);
                }
            });
        }
    });
    drop(journal);
    let (journal, _) = Journal::open(dir.path(), &opening()).unwrap();
    let mut names = Vec::new();
    journal.app_rows(b"", &mut |name, _| names.push(String::from_utf8(name.to_vec()).unwrap())).unwrap();
    let expected: Vec<_> =
        (0..16).flat_map(|thread| (0..40).map(move |number| format!("{thread:02}/{number:02}"))).collect();
    assert_eq!(names, expected);
}

crate::on_each_engine!(commits_of_sixteen_threads_are_all_there_after_reopening,);
