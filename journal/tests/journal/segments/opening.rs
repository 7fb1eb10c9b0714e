//! Opening a journal over segments, which adds up the checksums that the engine noted instead of reading every row again: it must see
//! and say the same.

use std::path::Path;
use std::sync::Arc;

use journal::{
    Batch, Change, Direction, Engine, HeaderRow, IllegalChange, Journal, Key, MessageTable, OpenError, Row, RowError,
    Seams, SegmentStore, State, Store, StoreError, Visit, WriteAhead, put_app,
};
use messages::{Header, Incarnation, Kind, Message, MessageId, Seq};

use super::commit;
use crate::history::{History, opening};
use crate::opening::closed_on;

/// A store that tells no checksums, so that every row is read.
struct Reading(Arc<dyn Store>);

impl Store for Reading {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.0.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.scan(from, to, visit)
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.0.size()
    }
}

fn open_reading(dir: &Path) -> Result<(Journal, State), OpenError> {
    let seams = Seams { store: Box::new(|store| Arc::new(Reading(store))), ..Seams::default() };
    Journal::open_through(dir, &opening(), Some(Engine::Segments), seams)
}

/// A message that came before the ones in front of it.
fn early(history: &mut History) -> Vec<Change> {
    let (peer, seq) = (history.peer.clone(), Seq::new(Seq::count(history.incoming.through) + 5).unwrap());
    let header =
        Header::new(peer.clone(), crate::history::endpoint(), Incarnation::from_u128(0xb), history.incoming.epoch)
            .numbered(seq, history.incoming.head)
            .carrying(MessageId::from_u128(1), Kind::Refusal, None, b"early");
    let message = Message::new(header, b"early").unwrap();
    history.incoming.ranges.insert(seq);
    vec![
        Change::Put(Row::Header(Direction::In, peer.clone(), seq, HeaderRow::of(&message, 1))),
        Change::Put(Row::Body(Direction::In, peer.clone(), seq, b"early".to_vec())),
        Change::Put(Row::Incoming(peer, history.incoming.clone())),
    ]
}

#[test]
fn the_state_is_the_same_whether_checksums_are_added_up_or_every_row_is_read() {
    let (dir, mut history) = closed_on(Engine::Segments, 300);
    let (journal, _) = Journal::open(dir.path(), &opening()).unwrap();
    let changes = early(&mut history);
    journal.commit(WriteAhead::new(changes, ())).wait().unwrap();
    drop(journal);
    let (journal, read) = open_reading(dir.path()).unwrap();
    drop(journal);
    let (journal, added) = Journal::open(dir.path(), &opening()).unwrap();
    assert_eq!(read.peers, added.peers);
    let streams = &added.peers[&history.peer];
    assert_eq!((streams.beyond.len(), streams.incoming.as_ref()), (1, Some(&history.incoming)));
    assert!(!streams.work.is_empty() && streams.outgoing == history.outgoing);
    assert_eq!(read.totals.batches + 1, added.totals.batches, "only an opening lies between");
    drop(journal);
}

/// What opening says after that change behind the journal's back.
fn tampered(tamper: impl FnOnce(&mut Batch)) -> OpenError {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_as(dir.path(), &opening(), Engine::Segments).unwrap();
    for content in [b"older", b"newer"] {
        let changes = ["a", "b"].map(|name| put_app(name.into(), content.to_vec())).to_vec();
        journal.commit(WriteAhead::new(changes, ())).wait().unwrap();
    }
    drop(journal);
    let store = SegmentStore::open(&dir.path().join("store")).unwrap();
    let mut batch = Batch::default();
    tamper(&mut batch);
    commit(&store, &batch);
    drop(store);
    Journal::open(dir.path(), &opening()).err().expect("it must not open")
}

#[test]
fn rows_that_do_not_add_up_are_found_and_a_damaged_one_is_named() {
    let found = |tamper: fn(&mut Batch)| match tampered(tamper) {
        OpenError::Illegal { source, .. } => source,
        other => panic!("{other:?}"),
    };
    let missing = found(|batch| batch.delete(Key::App(b"a".to_vec()).bytes()));
    assert_eq!(missing, IllegalChange::Rows { written: 3, found: 2 });
    let old = found(|batch| {
        let (key, value) = Row::App(b"b".to_vec(), b"older".to_vec()).encode();
        batch.put(key, value);
    });
    assert_eq!(old, IllegalChange::Rows { written: 3, found: 3 });
    let damaged = tampered(|batch| {
        let (key, mut value) = Row::App(b"b".to_vec(), b"newer".to_vec()).encode();
        value[7] ^= 1;
        batch.put(key, value);
    });
    assert!(matches!(damaged, OpenError::Row { source: RowError::Checksum { .. }, .. }), "{damaged:?}");
    let stranger = tampered(|batch| batch.put(b"\x0ax".to_vec(), vec![1]));
    assert!(matches!(stranger, OpenError::Row { source: RowError::Key { .. }, .. }), "{stranger:?}");
    let numbered = Key::Message(MessageTable::SentBody, opening().endpoint, Seq::FIRST).bytes();
    let zero = tampered(|batch| {
        let (key, value) = Row::Body(Direction::Out, opening().endpoint, Seq::FIRST, vec![1]).encode();
        batch.put(key, value.clone());
        batch.put([&numbered[..numbered.len() - 1], &[0]].concat(), value);
    });
    assert!(matches!(zero, OpenError::Row { source: RowError::Key { .. }, .. }), "{zero:?}");
}
