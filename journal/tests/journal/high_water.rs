//! The mark beside the engine: what it notices, and what it does not stand in the way of.

use std::fs;
use std::path::Path;

use journal::{Engine, HighWater, HighWaterReadError, Journal, OpenError, Shortfall, WriteAhead};
use messages::{Epoch, Incarnation, Seq};
use tempfile::TempDir;

use crate::history::{History, opening};
use crate::opening::{closed, closed_on};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn restore(old: &Path, dir: &Path) {
    fs::remove_dir_all(dir.join("store")).unwrap();
    copy(&old.join("store"), &dir.join("store"));
}

/// Goes on with a closed journal and closes it again.
fn go_on(dir: &Path, history: &mut History, more: impl Fn(&mut History) -> Vec<journal::Change>) {
    let (journal, _) = Journal::open(dir, &opening()).unwrap();
    journal.commit(WriteAhead::new(more(history), ())).wait().unwrap();
}

fn shortfalls(dir: &Path) -> Vec<Shortfall> {
    match Journal::open(dir, &opening()).err() {
        Some(OpenError::Shorter { shortfalls, .. }) => shortfalls,
        other => panic!("{other:?}"),
    }
}

/// A journal and an older copy of it.
fn with_copy(engine: Engine) -> (TempDir, TempDir, History) {
    let (dir, history) = closed_on(engine, 40);
    let old = tempfile::tempdir().unwrap();
    copy(dir.path(), old.path());
    (dir, old, history)
}

fn a_store_replaced_by_an_older_copy_is_refused_and_what_is_missing_is_named(engine: Engine) {
    let (dir, old, mut history) = with_copy(engine);
    let new = tempfile::tempdir().unwrap();
    let (next, through) = (history.outgoing.next, history.incoming.through);
    go_on(dir.path(), &mut history, |history| [history.send(b"one"), history.send(b"two")].concat());
    go_on(dir.path(), &mut history, |history| history.receive(b"three"));
    copy(dir.path(), new.path());
    restore(old.path(), dir.path());
    let peer = history.peer.clone();
    let expected = vec![
        Shortfall::Epoch { marked: Epoch::new(3), found: Epoch::new(1) },
        Shortfall::Batches { marked: 45, found: 41 },
        Shortfall::Sent { peer: peer.clone(), marked: next.next().next(), found: next },
        Shortfall::Received { peer, marked: Seq::count(through) + 1, found: Seq::count(through) },
    ];
    assert_eq!(shortfalls(dir.path()), expected);
    assert_eq!(shortfalls(dir.path()), expected, "asking again changes nothing");
    restore(new.path(), dir.path());
    let (journal, _) = Journal::open(dir.path(), &opening()).expect("with the right store it opens");
    assert_eq!(journal.meta().epoch, Epoch::new(4));
}

fn a_store_of_the_same_length_with_another_history_is_refused(engine: Engine) {
    let (dir, old, mut history) = with_copy(engine);
    let mut other = History::after(5, 40);
    go_on(dir.path(), &mut history, |history| history.send(b"one"));
    go_on(old.path(), &mut other, |history| history.send(b"another"));
    restore(old.path(), dir.path());
    assert_eq!(shortfalls(dir.path()), [Shortfall::History { peer: history.peer }]);
}

fn a_store_that_lost_only_rows_of_the_application_is_refused(engine: Engine) {
    let (dir, old, mut history) = with_copy(engine);
    go_on(dir.path(), &mut history, |_| vec![journal::put_app(b"run/1".to_vec(), b"succeeded".to_vec())]);
    // As many openings as the mark knows of, so that only the row is missing.
    drop(Journal::open(old.path(), &opening()).unwrap());
    restore(old.path(), dir.path());
    assert!(matches!(shortfalls(dir.path())[..], [Shortfall::Batches { marked, found }] if marked == found + 1));
}

fn a_store_that_is_gone_or_of_another_journal_is_refused(engine: Engine) {
    let (dir, _) = closed_on(engine, 5);
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    let marked = Incarnation::from_u128(0xa);
    assert_eq!(shortfalls(dir.path()), [Shortfall::Journal { marked, found: None }]);
    let other = tempfile::tempdir().unwrap();
    let found = Incarnation::from_u128(0xff);
    drop(Journal::open_as(other.path(), &journal::Opening { incarnation: found, ..opening() }, engine).unwrap());
    restore(other.path(), dir.path());
    assert_eq!(shortfalls(dir.path()), [Shortfall::Journal { marked, found: Some(found) }]);
}

fn a_store_that_is_ahead_of_its_mark_opens(engine: Engine) {
    let (dir, old, mut history) = with_copy(engine);
    go_on(dir.path(), &mut history, |history| [history.send(b"one"), history.receive(b"two")].concat());
    fs::copy(old.path().join("high-water"), dir.path().join("high-water")).unwrap();
    Journal::open(dir.path(), &opening()).unwrap();
}

fn without_a_mark_a_journal_opens_and_has_one_again_when_it_is_closed(engine: Engine) {
    let (dir, _) = closed_on(engine, 10);
    fs::remove_file(dir.path().join("high-water")).unwrap();
    let (journal, state) = Journal::open(dir.path(), &opening()).unwrap();
    drop(journal);
    assert_eq!(HighWater::read(dir.path()).unwrap(), HighWater::of(&state));
}

fn a_journal_that_never_rests_writes_its_mark_all_the_same(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_as(dir.path(), &opening(), engine).unwrap();
    let mut history = History::new(5);
    for _ in 0..300 {
        journal.commit(WriteAhead::new(history.send(b"x"), ())).wait().unwrap();
    }
    let mark = HighWater::read(dir.path()).unwrap().expect("it has been written");
    assert!(mark.batches >= 128, "{mark:?}");
    assert_eq!(mark.peers[&history.peer].next.value(), mark.batches, "each batch but the opening's sent one message");
}

fn a_mark_that_cannot_be_written_stands_in_nobodys_way(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_as(dir.path(), &opening(), engine).unwrap();
    fs::create_dir_all(dir.path().join("high-water.new")).unwrap();
    journal.commit(WriteAhead::new(History::new(5).send(b"x"), ())).wait().unwrap();
    drop(journal);
    fs::remove_dir(dir.path().join("high-water.new")).unwrap();
    let (_journal, state) = Journal::open(dir.path(), &opening()).unwrap();
    assert_eq!(state.totals.batches, 3, "two openings and one commit");
}

#[test]
fn a_mark_with_any_bit_flipped_or_cut_anywhere_is_not_trusted() {
    let (dir, _) = closed(10);
    let path = dir.path().join("high-water");
    let good = fs::read(&path).unwrap();
    let flipped = (0..good.len() * 8).map(|bit| {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let cut = (0..good.len()).map(|length| good[..length].to_vec());
    for bad in flipped.chain(cut) {
        fs::write(&path, &bad).unwrap();
        assert!(matches!(HighWater::read(dir.path()), Err(HighWaterReadError::Damaged)), "{bad:02x?}");
    }
    let refused = Journal::open(dir.path(), &opening()).err();
    assert!(matches!(refused, Some(OpenError::HighWater { source: HighWaterReadError::Damaged, .. })), "{refused:?}");
    fs::write(&path, good).unwrap();
    Journal::open(dir.path(), &opening()).unwrap();
}

#[test]
fn a_mark_that_is_absurdly_large_is_not_read() {
    let (dir, _) = closed(1);
    fs::File::create(dir.path().join("high-water")).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(HighWater::read(dir.path()), Err(HighWaterReadError::Damaged)));
}

/// What a killed process leaves: a copy of the journal's folder while it is open, before the high-water file was written.
#[test]
fn after_a_kill_even_the_last_commit_is_missed_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::new(5);
    let (journal, _) = Journal::open(dir.path(), &opening()).unwrap();
    let [before, after] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for _ in 0..5 {
        journal.commit(WriteAhead::new(history.step(), ())).wait().unwrap();
    }
    copy(dir.path(), before.path());
    journal
        .commit(WriteAhead::new(vec![journal::put_app(b"run/1".to_vec(), b"succeeded".to_vec())], ()))
        .wait()
        .unwrap();
    copy(dir.path(), after.path());
    fs::remove_file(after.path().join("high-water")).ok();
    Journal::open(after.path(), &opening()).expect("with its last commit it opens");
    copy(dir.path(), after.path());
    fs::remove_file(after.path().join("high-water")).ok();
    restore(before.path(), after.path());
    assert_eq!(shortfalls(after.path()), [Shortfall::Batches { marked: 7, found: 6 }]);
    fs::remove_dir_all(after.path().join("store")).unwrap();
    assert_eq!(shortfalls(after.path()), [Shortfall::Batches { marked: 7, found: 0 }]);
}

#[test]
fn a_tail_mark_that_a_loss_of_power_left_older_or_empty_stands_in_nobodys_way() {
    let (dir, _) = closed(10);
    let path = dir.path().join("tail");
    for older in [vec![0; 13], Vec::new(), fs::read(&path).unwrap()] {
        fs::write(&path, older).unwrap();
        Journal::open(dir.path(), &opening()).unwrap();
    }
    fs::write(&path, "something else").unwrap();
    let refused = Journal::open(dir.path(), &opening()).err();
    assert!(matches!(refused, Some(OpenError::HighWater { .. })), "{refused:?}");
    fs::remove_file(&path).unwrap();
    Journal::open(dir.path(), &opening()).unwrap();
}

crate::on_each_engine!(
    a_store_replaced_by_an_older_copy_is_refused_and_what_is_missing_is_named,
    a_store_of_the_same_length_with_another_history_is_refused,
    a_store_that_lost_only_rows_of_the_application_is_refused,
    a_store_that_is_gone_or_of_another_journal_is_refused,
    a_store_that_is_ahead_of_its_mark_opens,
    without_a_mark_a_journal_opens_and_has_one_again_when_it_is_closed,
    a_journal_that_never_rests_writes_its_mark_all_the_same,
    a_mark_that_cannot_be_written_stands_in_nobodys_way,
);
