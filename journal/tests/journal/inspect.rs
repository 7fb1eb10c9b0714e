//! Looking into journals: the same answers from a running and a stopped one, originals left alone, and what `verify` finds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal::inspect::{Answer, EntryState, InspectError, ListQuery, Query, Stopped, answer};
use journal::{
    Batch, Change, Direction, Engine, Journal, Key, MemoryStore, MessageTable, OpenError, Row, Store, Verification,
    WriteAhead,
};
use messages::{ChainHash, Digest, EndpointId, Seq};

use crate::history::{History, opening};
use crate::opening::closed_on;

const SERVER: EndpointId = EndpointId::Server;

fn seq(value: u64) -> Seq {
    Seq::new(value).unwrap()
}

/// Many questions, Stats with the size left out.
fn answers(store: &dyn Store) -> Vec<Answer> {
    let mut queries = vec![Query::Stats, Query::Verify];
    for direction in [None, Some(Direction::In), Some(Direction::Out)] {
        for from in [None, Some(seq(1)), Some(seq(7)), Some(seq(u64::MAX))] {
            for limit in [0, 3, u32::MAX] {
                queries.push(Query::List(ListQuery { peer: None, direction, from, limit }));
            }
        }
    }
    queries.push(Query::List(ListQuery { peer: Some("nobody".parse().unwrap()), limit: 9, ..ListQuery::default() }));
    for place in 1..60 {
        queries.extend([Direction::In, Direction::Out].map(|direction| Query::Show(SERVER, direction, seq(place))));
    }
    let size_out = |answer| match answer {
        Answer::Stats(stats) => Answer::Stats(journal::inspect::Stats { disk_bytes: 0, ..stats }),
        other => other,
    };
    queries.iter().map(|query| size_out(answer(store, query).unwrap())).collect()
}

fn digests(dir: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(digests(&entry.path()));
        } else {
            found.insert(entry.path(), Digest::of(&std::fs::read(entry.path()).unwrap()));
        }
    }
    found
}

fn a_stopped_journal_answers_as_it_did_while_it_ran_and_is_left_as_it_was(engine: Engine) {
    let (dir, mut history) = closed_on(engine, 150);
    let (journal, _) = Journal::open(dir.path(), &opening()).unwrap();
    for _ in 0..50 {
        journal.commit(WriteAhead::new(history.step(), ())).wait().unwrap();
    }
    let running = answers(journal.store());
    drop(journal);
    let before = digests(dir.path());
    let stopped = Stopped::open(dir.path()).unwrap();
    assert_eq!(answers(stopped.store()), running);
    drop(stopped);
    assert_eq!(digests(dir.path()), before);
    let Answer::Verify(report) = &running[1] else { panic!() };
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.messages > 60 && report.bodies > 40, "{report:?}");
}

/// What opening refuses a journal for, verifying it while it is stopped finds, too.
fn verifying_a_stopped_journal_finds_what_its_marks_miss(engine: Engine) {
    let problems = |dir: &Path| match Stopped::open(dir).unwrap().answer(&Query::Verify).unwrap() {
        Answer::Verify(report) => report.problems.join("; "),
        other => panic!("{other:?}"),
    };
    let ((older, _), (dir, _)) = (closed_on(engine, 40), closed_on(engine, 90));
    assert_eq!(problems(dir.path()), "");
    let store = dir.path().join("store");
    std::fs::rename(&store, dir.path().join("aside")).unwrap();
    std::fs::rename(older.path().join("store"), &store).unwrap();
    let refused = Journal::open(dir.path(), &opening()).err().unwrap();
    let OpenError::Shorter { shortfalls, .. } = refused else { panic!("{refused:?}") };
    let missing: Vec<String> = shortfalls.iter().map(ToString::to_string).collect();
    assert!(!missing.is_empty());
    assert_eq!(problems(dir.path()), missing.join("; "));
    std::fs::write(dir.path().join("high-water"), "no mark").unwrap();
    assert_eq!(problems(dir.path()), "the high-water file or the tail mark is damaged");
}

#[test]
fn a_pipe_among_the_files_of_a_stopped_journal_is_not_waited_for() {
    let (dir, _) = closed_on(Engine::Sled, 3);
    let pipe = dir.path().join("store/pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    match Stopped::open(dir.path()).err() {
        Some(InspectError::Copy { path, .. }) => assert_eq!(path, pipe),
        other => panic!("{other:?}"),
    }
}

#[test]
fn where_there_is_no_journal_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nothing");
    assert!(matches!(Stopped::open(&path).err(), Some(InspectError::Missing { .. })));
    assert!(!path.exists());
    assert!(matches!(answer(&MemoryStore::default(), &Query::Stats), Err(InspectError::Empty)));
}

/// A journal that sent 6 messages, 2 of them settled, and received 5, 3 of them applied and 1 settled.
fn sample() -> (Arc<MemoryStore>, History) {
    let store = Arc::new(MemoryStore::default());
    let (journal, _) = Journal::over(Arc::clone(&store) as Arc<dyn Store>, &opening()).unwrap();
    let mut history = History::new(0);
    let mut changes = Vec::new();
    for body in [b"a", b"b", b"c", b"d"] {
        changes.extend(history.send(body));
        changes.extend(history.receive(body));
    }
    changes.extend(history.acknowledged());
    changes.extend([history.send(b"e"), history.send(b"f"), history.receive(b"e")].concat());
    changes.extend((0..3).flat_map(|_| history.work().unwrap()));
    changes.extend(history.settle().unwrap());
    journal.commit(WriteAhead::new(changes, ())).wait().unwrap();
    (store, history)
}

fn verify(store: &dyn Store) -> Verification {
    journal::verify(store).unwrap()
}

/// The problems of a store that was changed behind the journal's back, but for the one that every such change makes.
fn problems(store: &dyn Store) -> Vec<String> {
    let mut problems = verify(store).problems;
    let all = problems.len();
    problems.retain(|problem| !problem.starts_with("the rows do not add up"));
    assert_eq!(problems.len() + 1, all, "the totals hide the change: {problems:?}");
    problems
}

/// What is found after that change behind the journal's back, which must be one thing.
fn found(tamper: impl FnOnce(&mut Batch, &MemoryStore)) -> String {
    let (store, _) = sample();
    assert_eq!(verify(&*store).problem_count, 0);
    let mut batch = Batch::default();
    tamper(&mut batch, &store);
    store.apply(&batch).unwrap();
    let problems = problems(&*store);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

fn key(table: MessageTable, place: u64) -> Vec<u8> {
    Key::Message(table, SERVER, seq(place)).bytes()
}

#[test]
fn a_missing_header_in_the_middle_is_found() {
    let problem = found(|batch, _| batch.delete(key(MessageTable::SentHeader, 4)));
    assert_eq!(problem, "out:4 of server is missing");
    let problem = found(|batch, _| batch.delete(key(MessageTable::InboxHeader, 3)));
    assert_eq!(problem, "in:3 of server is missing");
}

#[test]
fn a_missing_last_header_is_found() {
    let problem = found(|batch, _| batch.delete(key(MessageTable::SentHeader, 6)));
    assert_eq!(problem, "out:6 of server is missing");
}

#[test]
fn a_body_that_is_not_the_one_of_its_header_is_found() {
    let problem = found(|batch, _| {
        let (key, value) = Row::Body(Direction::In, SERVER, seq(4), b"other".to_vec()).encode();
        batch.put(key, value);
    });
    assert_eq!(problem, "the body of in:4 of server is not the one its header speaks of");
}

#[test]
fn a_body_that_is_missing_though_it_is_not_settled_is_found() {
    let problem = found(|batch, _| batch.delete(key(MessageTable::SentBody, 5)));
    assert_eq!(problem, "the body of out:5 of server is missing though it is not settled");
}

#[test]
fn a_row_that_does_not_match_its_checksum_is_found() {
    let problem = found(|batch, store| {
        let key = key(MessageTable::InboxBody, 4);
        let mut value = store.value(&key).unwrap().unwrap();
        *value.last_mut().unwrap() ^= 1;
        batch.put(key, value);
    });
    assert!(problem.contains("does not match its checksum"), "{problem}");
}

/// The header row of a sent message, made again with another hash before it.
fn rechained(store: &MemoryStore, place: u64) -> (Vec<u8>, Vec<u8>) {
    let key = key(MessageTable::SentHeader, place);
    let Row::Header(direction, peer, at, mut row) = Row::decode(&key, &store.value(&key).unwrap().unwrap()).unwrap()
    else {
        panic!("not a header")
    };
    let header = row.decode().unwrap().numbered(at, ChainHash::of(b"another history"));
    row.header = messages::to_msgpack(&header).unwrap();
    Row::Header(direction, peer, at, row).encode()
}

#[test]
fn a_broken_chain_is_found_on_both_sides_of_the_break() {
    let (store, _) = sample();
    let mut batch = Batch::default();
    let (key, value) = rechained(&store, 4);
    batch.put(key, value);
    store.apply(&batch).unwrap();
    let expected = [4, 5].map(|place| format!("out:{place} of server does not follow the message before it"));
    assert_eq!(problems(&*store), expected);
}

#[test]
fn a_last_message_that_is_not_the_head_of_its_stream_is_found() {
    let (store, _) = sample();
    let mut batch = Batch::default();
    let (key, value) = rechained(&store, 6);
    batch.put(key, value);
    store.apply(&batch).unwrap();
    let problems = problems(&*store);
    assert!(problems.contains(&"out:6 of server is not the head that the stream speaks of".to_owned()), "{problems:?}");
}

#[test]
fn each_message_is_shown_where_it_stands() {
    let (store, _) = sample();
    let Answer::List(entries) =
        answer(&*store, &Query::List(ListQuery { limit: 100, ..ListQuery::default() })).unwrap()
    else {
        panic!()
    };
    let states: Vec<_> = entries.iter().map(|entry| (entry.direction, entry.seq.value(), entry.state)).collect();
    use EntryState::{Applied, Pending, Received, Settled};
    let received = [(1, Settled), (2, Applied), (3, Applied), (4, Received), (5, Received)];
    let sent = [(2, Settled), (3, Received), (4, Received), (5, Pending), (6, Pending)];
    let expected = received.map(|(place, state)| (Direction::In, place, state));
    assert_eq!(states, [expected, sent.map(|(place, state)| (Direction::Out, place, state))].concat());
}

#[test]
fn a_gap_that_the_stream_knows_of_is_no_problem_and_its_loss_is_one() {
    let (store, mut history) = sample();
    let mut row = history.incoming.clone();
    // The sixth message never came; the seventh did.
    let _sixth = history.receive(b"lost");
    let seventh = history.receive(b"g");
    row.ranges.insert(seq(7));
    let mut batch = Batch::default();
    for change in seventh.iter().filter(|change| !matches!(change, Change::Put(Row::Incoming(..)))) {
        let Change::Put(changed) = change else { panic!() };
        let (key, value) = changed.encode();
        batch.put(key, value);
    }
    let (stream, value) = Row::Incoming(SERVER, row).encode();
    batch.put(stream, value);
    store.apply(&batch).unwrap();
    assert_eq!(problems(&*store), Vec::<String>::new());
    let mut batch = Batch::default();
    batch.delete(key(MessageTable::InboxHeader, 7));
    store.apply(&batch).unwrap();
    assert_eq!(problems(&*store), ["in:7 of server is missing"]);
}

/// A journal whose elder was lost with the first two messages of its peer, which were settled. The third one came.
fn lost_its_first_two() -> (Arc<MemoryStore>, History) {
    let mut elder = History::new(3);
    let (_first, _second) = (elder.receive(b"a"), elder.receive(b"b"));
    let mut history = History::new(3);
    history.incoming = history.incoming.establish(opening().incarnation, Seq::new(2), None, 1);
    history.incoming.head = elder.incoming.head;
    history.incoming.unanchored = false;
    let store = Arc::new(MemoryStore::default());
    let (journal, _) = Journal::over(Arc::clone(&store) as Arc<dyn Store>, &opening()).unwrap();
    journal.commit(WriteAhead::new(history.receive(b"c"), ())).wait().unwrap();
    (store, history)
}

/// The same after the row of the stream was changed behind the journal's back.
fn with_row(store: &MemoryStore, row: journal::Incoming) -> Vec<String> {
    let mut batch = Batch::default();
    let (key, value) = Row::Incoming(SERVER, row).encode();
    batch.put(key, value);
    store.apply(&batch).unwrap();
    problems(store)
}

#[test]
fn a_journal_that_never_had_the_first_messages_is_whole() {
    let (store, history) = lost_its_first_two();
    let report = verify(&*store);
    assert_eq!((report.problems, report.messages), (Vec::new(), 1));
    // It is the stream's own row that says so.
    let row = journal::Incoming { voids: Vec::new(), ..history.incoming };
    assert_eq!(with_row(&store, row), ["in:1 of server is missing", "in:2 of server is missing"]);
}

#[test]
fn a_last_message_whose_stream_has_no_head_yet_is_not_held_against_it() {
    let (store, history) = lost_its_first_two();
    let row = |unanchored| journal::Incoming { head: ChainHash::START, unanchored, ..history.incoming.clone() };
    assert_eq!(with_row(&store, row(true)), Vec::<String>::new());
    assert_eq!(with_row(&store, row(false)), ["in:3 of server is not the head that the stream speaks of"]);
}

crate::on_each_engine!(
    a_stopped_journal_answers_as_it_did_while_it_ran_and_is_left_as_it_was,
    verifying_a_stopped_journal_finds_what_its_marks_miss,
);
