//! What an open journal gives back: messages byte for byte, and the application's rows.

use std::sync::Arc;

use journal::{Batch, Direction, Journal, Key, MemoryStore, MessageTable, ReadError, Row, Store, WriteAhead, put_app};
use messages::{EndpointId, Seq};

use crate::history::{History, opening};

fn seq(value: u64) -> Seq {
    Seq::new(value).unwrap()
}

/// A journal that sent five messages of 1,000 bytes and received two, one of them settled.
fn sample() -> (Arc<MemoryStore>, Journal) {
    let store = Arc::new(MemoryStore::default());
    let (journal, _) = Journal::over(Arc::clone(&store) as Arc<dyn Store>, &opening()).unwrap();
    let mut history = History::new(0);
    let mut changes = Vec::new();
    for number in 1..=5 {
        changes.extend(history.send(&[number; 1_000]));
    }
    changes.extend([history.receive(b"one"), history.receive(b"two")].concat());
    changes.extend([history.work().unwrap(), history.settle().unwrap()].concat());
    journal.commit(WriteAhead::new(changes, ())).wait().unwrap();
    (store, journal)
}

fn places(journal: &Journal, direction: Direction, from: u64, to: u64, bytes_max: usize) -> Vec<u64> {
    let found = journal.messages(direction, &EndpointId::Server, (seq(from), seq(to)), bytes_max).unwrap();
    for (place, message) in &found {
        let header = journal.header(direction, &EndpointId::Server, *place).unwrap().unwrap();
        assert_eq!((header.header.as_slice(), header.hash()), (message.header_bytes(), message.hash));
    }
    found.iter().map(|(place, _)| place.value()).collect()
}

#[test]
fn messages_come_back_whole_in_order_and_within_the_bytes_asked_for() {
    let (_store, journal) = sample();
    assert_eq!(places(&journal, Direction::Out, 1, 5, usize::MAX), [1, 2, 3, 4, 5]);
    assert_eq!(places(&journal, Direction::Out, 2, 3, usize::MAX), [2, 3]);
    assert_eq!(places(&journal, Direction::Out, 2, 5, 1), [2], "at least one");
    assert_eq!(places(&journal, Direction::Out, 1, 5, 2_000), [1, 2], "each is more than its body");
    assert_eq!(places(&journal, Direction::In, 1, 9, usize::MAX), [2], "the first is settled and its body dropped");
    assert!(places(&journal, Direction::Out, 6, 9, usize::MAX).is_empty());
    let body = journal.messages(Direction::Out, &EndpointId::Server, (seq(4), seq(4)), 1).unwrap();
    assert_eq!(body[0].1.body(), [4; 1_000]);
}

#[test]
fn a_row_damaged_while_the_journal_is_open_is_an_error_and_no_message() {
    let (store, journal) = sample();
    let key = Key::Message(MessageTable::SentBody, EndpointId::Server, seq(2)).bytes();
    let mut value = store.value(&key).unwrap().unwrap();
    value[500] ^= 1;
    let mut batch = Batch::default();
    batch.put(key, value);
    // Another message's body, whole and in its place: only the digest in the header tells.
    let (other, body) = Row::Body(Direction::Out, EndpointId::Server, seq(3), vec![9; 1_000]).encode();
    batch.put(other, body);
    store.apply(&batch).unwrap();
    let read = |place| journal.messages(Direction::Out, &EndpointId::Server, (seq(place), seq(place)), 1);
    assert!(matches!(read(2), Err(ReadError::Row(_))));
    assert!(matches!(read(3), Err(ReadError::Message { .. })));
    assert_eq!(read(4).unwrap().len(), 1);
}

#[test]
fn the_application_reads_its_own_rows_by_prefix() {
    let (journal, _) = Journal::over(Arc::new(MemoryStore::default()), &opening()).unwrap();
    let names: [&[u8]; 5] = [b"run", b"run/1", b"run/2", b"runs", b"\xff\xff"];
    let changes = names.map(|name| put_app(name.to_vec(), name.to_vec())).to_vec();
    journal.commit(WriteAhead::new(changes, ())).wait().unwrap();
    let read = |prefix: &[u8]| {
        let mut found = Vec::new();
        journal.app_rows(prefix, &mut |name, content| found.push((name.to_vec(), content.to_vec()))).unwrap();
        assert!(found.iter().all(|(name, content)| name == content));
        found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(read(b""), names);
    assert_eq!(read(b"run/"), names[1..3]);
    assert_eq!(read(b"\xff"), names[4..]);
    assert!(read(b"s").is_empty());
}
