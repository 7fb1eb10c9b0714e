//! Opening a journal: who may, what it raises, and everything that it refuses to trust.

use std::fs;
use std::path::Path;

use journal::{
    Batch, Direction, Engine, IllegalChange, Journal, Key, MemoryStore, OpenError, Opening, Outgoing, Row, RowError,
    Store, StoreError, Work, WriteAhead, is_running, put_app,
};
use messages::{EndpointId, Epoch, Incarnation, Seq};
use tempfile::TempDir;

use crate::history::{History, Random, opening, rows_of};

fn open(dir: &Path) -> Result<(Journal, journal::State), OpenError> {
    Journal::open(dir, &opening())
}

fn error(dir: &Path) -> OpenError {
    open(dir).err().expect("the journal must not open")
}

/// A closed journal with that many steps of a history in it.
pub(crate) fn closed(steps: u64) -> (TempDir, History) {
    closed_on(Engine::default(), steps)
}

/// The same, kept by that engine.
pub(crate) fn closed_on(engine: Engine, steps: u64) -> (TempDir, History) {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::new(5);
    let (journal, _) = Journal::open_as(dir.path(), &opening(), engine).unwrap();
    for _ in 0..steps {
        journal.commit(WriteAhead::new(history.step(), ())).wait().unwrap();
    }
    drop(journal);
    (dir, history)
}

fn each_opening_raises_the_epoch_by_one_and_the_incarnation_stays(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    for epoch in 1..=4 {
        let fresh = Opening { incarnation: Incarnation::from_u128(epoch.into()), ..opening() };
        let (journal, state) = Journal::open_as(dir.path(), &fresh, engine).unwrap();
        assert_eq!((journal.meta().epoch, journal.meta().incarnation), (Epoch::new(epoch), Incarnation::from_u128(1)));
        assert_eq!(state.meta.as_ref(), Some(journal.meta()));
    }
}

fn a_journal_that_is_open_is_locked_and_says_by_whom(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    assert!(!is_running(dir.path()).unwrap());
    let (journal, _) = Journal::open_as(dir.path(), &opening(), engine).unwrap();
    let OpenError::Locked { pid, .. } = error(dir.path()) else { panic!("not locked") };
    assert_eq!(pid, Some(std::process::id()));
    assert!(is_running(dir.path()).unwrap());
    drop(journal);
    assert!(!is_running(dir.path()).unwrap());
    assert_eq!(open(dir.path()).unwrap().0.meta().epoch, Epoch::new(2), "a refused opening raises nothing");
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give a directory to another user; run the tests as root to include this one");
        return;
    }
    let (dir, _) = closed(3);
    std::os::unix::fs::chown(dir.path(), Some(4_242), None).unwrap();
    let refused = error(dir.path());
    assert!(matches!(refused, OpenError::Owner { owner: 4_242, user: 0, .. }), "{refused:?}");
    std::os::unix::fs::chown(dir.path(), Some(0), None).unwrap();
    open(dir.path()).unwrap();
}

fn a_journal_serves_one_endpoint_for_life(engine: Engine) {
    let (dir, _) = closed_on(engine, 3);
    let other = Opening { endpoint: "web-02".parse().unwrap(), ..opening() };
    let refused = Journal::open(dir.path(), &other).err().unwrap();
    let OpenError::Endpoint { expected, found, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((expected.as_str(), found.as_str()), ("web-02", "web-01"));
    assert_eq!(open(dir.path()).unwrap().0.meta().epoch, Epoch::new(2));
}

#[test]
fn a_journal_keeps_its_engine_and_another_one_is_refused() {
    for (engine, other) in [(Engine::Sled, Engine::Segments), (Engine::Segments, Engine::Sled)] {
        let (dir, _) = closed_on(engine, 3);
        let before = fs::read_dir(dir.path().join("store")).unwrap().count();
        let refused = Journal::open_as(dir.path(), &opening(), other).err().expect("the journal must not open");
        let OpenError::Engine { wanted, found, .. } = refused else { panic!("{refused:?}") };
        assert_eq!((wanted, found), (other, engine));
        assert_eq!(fs::read_dir(dir.path().join("store")).unwrap().count(), before, "nothing was made there");
        Journal::open_as(dir.path(), &opening(), engine).unwrap();
        assert_eq!(open(dir.path()).unwrap().0.meta().epoch, Epoch::new(3), "left out, it is the one that it has");
    }
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap();
    assert!(dir.path().join("store/db").exists(), "a new journal gets sled");
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    assert!(matches!(error(&path), OpenError::Io { .. }));
}

/// The engine itself, past everything that the journal puts between.
fn raw(store: &Path) -> sled::Db {
    sled::Config::new().path(store).flush_every_ms(None).open().unwrap()
}

/// Closes the engine and waits until its helper threads have let go of its files.
fn close(engine: sled::Db, store: &Path) {
    drop(engine);
    fs::File::open(store.join("db")).unwrap().lock().unwrap();
}

#[test]
fn a_flipped_bit_in_any_row_is_found_when_the_journal_is_opened() {
    let (dir, _) = closed(120);
    let store = dir.path().join("store");
    let engine = raw(&store);
    let keys: Vec<_> = engine.iter().keys().map(Result::unwrap).collect();
    close(engine, &store);
    let mut random = Random(1);
    for key in keys.iter().step_by(3).chain(keys.last()) {
        let engine = raw(&store);
        let good = engine.get(key).unwrap().unwrap();
        let mut bad = good.to_vec();
        let place = usize::try_from(random.below(bad.len() as u64)).unwrap();
        bad[place] ^= 1 << random.below(8);
        engine.insert(key, bad).unwrap();
        close(engine, &store);
        match error(dir.path()) {
            OpenError::Row { .. } | OpenError::Store { source: StoreError::Damaged { .. }, .. } => {}
            other => panic!("{key:?} at {place}: {other:?}"),
        }
        let engine = raw(&store);
        engine.insert(key, good).unwrap();
        close(engine, &store);
    }
    open(dir.path()).expect("with every row mended it opens");
}

fn sealed(store: &MemoryStore, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> OpenError {
    let mut batch = Batch::default();
    rows.into_iter().for_each(|(key, value)| batch.put(key, value));
    store.apply(&batch).unwrap();
    Journal::over(std::sync::Arc::new(copy(store)), &opening()).err().expect("it must not open")
}

fn copy(store: &MemoryStore) -> MemoryStore {
    let (copy, mut batch) = (MemoryStore::default(), Batch::default());
    store
        .scan(&[0], &[0xff], &mut |key, value| {
            batch.put(key.to_vec(), value.to_vec());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    copy.apply(&batch).unwrap();
    copy
}

#[test]
fn a_row_in_the_place_of_another_is_damage() {
    let [(first, _), (_, second)] = [b"a", b"b"].map(|name| Row::App(name.to_vec(), b"content".to_vec()).encode());
    let refused = sealed(&MemoryStore::default(), [(first, second)]);
    assert!(matches!(refused, OpenError::Row { source: RowError::Checksum { .. }, .. }), "{refused:?}");
}

#[test]
fn rows_of_unknown_form_are_refused_by_name() {
    let (key, value) = Row::App(b"a".to_vec(), b"content".to_vec()).encode();
    let newer = [vec![2], value[1..].to_vec()].concat();
    let refused = sealed(&MemoryStore::default(), [(key.clone(), newer)]);
    assert!(matches!(refused, OpenError::Row { source: RowError::Format { format: Some(2), .. }, .. }), "{refused:?}");
    for short in [Vec::new(), vec![1], vec![1, 0, 0, 0]] {
        let refused = sealed(&MemoryStore::default(), [(key.clone(), short)]);
        assert!(matches!(refused, OpenError::Row { source: RowError::Format { .. }, .. }), "{refused:?}");
    }
    for unknown in [
        &b"\x0ax"[..],
        b"\x09x",
        b"\x01x",
        b"\x02server",
        b"\x02Bad Name\0",
        b"\x04server\0",
        b"\x04server\0\0\0\0\0\0\0\0\0",
    ] {
        let refused = sealed(&MemoryStore::default(), [(unknown.to_vec(), value.clone())]);
        assert!(matches!(refused, OpenError::Row { source: RowError::Key { .. }, .. }), "{refused:?}");
    }
}

#[test]
fn rows_that_contradict_each_other_are_refused() {
    let peer = EndpointId::Server;
    let work = Row::Work(peer.clone(), Seq::FIRST, Work::default());
    let refused = sealed(&MemoryStore::default(), [work.encode()]);
    let OpenError::Illegal { source: IllegalChange::WorkNotApplied { .. }, .. } = refused else {
        panic!("{refused:?}")
    };
    let next = Seq::new(9).unwrap();
    let settled = Outgoing { next, settled: Some(Seq::FIRST), ..Outgoing::default() };
    let received = Outgoing { next, received: Some(next), ..Outgoing::default() };
    for row in [settled, received] {
        let refused = sealed(&MemoryStore::default(), [Row::Outgoing(peer.clone(), row).encode()]);
        let OpenError::Illegal { source: IllegalChange::Overtaken { direction, .. }, .. } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(direction, Direction::Out);
    }
}

/// What opening finds after that change behind the journal's back, every single row being as it was written.
fn tampered(tamper: impl FnOnce(&mut Batch)) -> IllegalChange {
    let store = std::sync::Arc::new(MemoryStore::default());
    let (journal, _) = Journal::over(std::sync::Arc::clone(&store) as std::sync::Arc<dyn Store>, &opening()).unwrap();
    for content in [b"older", b"newer"] {
        let changes = ["a", "b"].map(|name| put_app(name.into(), content.to_vec())).to_vec();
        journal.commit(WriteAhead::new(changes, ())).wait().unwrap();
    }
    drop(journal);
    Journal::over(std::sync::Arc::new(copy(&store)), &opening()).expect("untouched it opens");
    let mut batch = Batch::default();
    tamper(&mut batch);
    store.apply(&batch).unwrap();
    match Journal::over(store, &opening()).err() {
        Some(OpenError::Illegal { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_row_that_is_missing_or_back_in_an_older_form_is_found() {
    let missing = tampered(|batch| batch.delete(Key::App(b"a".to_vec()).bytes()));
    // Written: the row that says whose journal it is, and the two of the application.
    assert_eq!(missing, IllegalChange::Rows { written: 3, found: 2 });
    let old = tampered(|batch| {
        let (key, value) = Row::App(b"b".to_vec(), b"older".to_vec()).encode();
        batch.put(key, value);
    });
    assert_eq!(old, IllegalChange::Rows { written: 3, found: 3 });
    let totals = tampered(|batch| batch.delete(Key::Totals.bytes()));
    assert_eq!(totals, IllegalChange::Rows { written: 0, found: 3 });
}

#[test]
fn a_snapshot_that_the_engine_was_writing_when_it_died_does_not_keep_the_journal_closed() {
    let (dir, history) = closed(40);
    // What a full disk or a kill leaves of it: the engine takes it for the newest one.
    let unfinished = dir.path().join("store").join("snap.FFFFFFFFFFFFFFF0.generating");
    fs::write(&unfinished, b"the first byt").unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    assert!(rows_of(journal.store()).unwrap() == history.rows);
    assert!(!unfinished.exists());
}

#[test]
fn a_store_whose_file_cannot_be_read_is_refused_before_the_engine_sees_it() {
    let (dir, _) = closed(3);
    let (file, aside) = (dir.path().join("store").join("db"), dir.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    let refused = error(dir.path());
    let OpenError::Store { source: StoreError::Io { operation, .. }, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(operation, "reading the data file through");
    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    open(dir.path()).unwrap();
}

crate::on_each_engine!(
    each_opening_raises_the_epoch_by_one_and_the_incarnation_stays,
    a_journal_that_is_open_is_locked_and_says_by_whom,
    a_journal_serves_one_endpoint_for_life,
);
