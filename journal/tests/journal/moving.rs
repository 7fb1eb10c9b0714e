//! Checking a journal while its owner writes to it: marks that move between two reads are no damage, and damage stays damage.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use journal::{
    Batch, Direction, Journal, Key, MemoryStore, MessageTable, Store, StoreError, Visit, WriteAhead, verify,
};
use messages::{EndpointId, Seq};

use crate::history::{History, opening};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn rows(store: &dyn Store) -> Rows {
    let mut rows = Rows::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    store.scan(&[0], &[0xff], visit).unwrap();
    rows
}

fn difference(from: &Rows, to: &Rows) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in to.iter().filter(|(key, value)| from.get(*key) != Some(value)) {
        batch.put(key.clone(), value.clone());
    }
    from.keys().filter(|key| !to.contains_key(*key)).for_each(|key| batch.delete(key.clone()));
    batch
}

/// A store that is written to right after each scan of everything.
struct Moving {
    inner: MemoryStore,
    later: Mutex<Vec<Batch>>,
}

impl Store for Moving {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.inner.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.inner.scan(from, to, visit)?;
        let next = self.later.lock().unwrap().pop();
        next.map_or(Ok(()), |batch| self.inner.apply(&batch))
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.inner.size()
    }
}

/// A journal as it is now, and what its owner writes next: settled bodies are dropped.
fn moving() -> Moving {
    let store = Arc::new(MemoryStore::default());
    let (journal, _) = Journal::over(store.clone(), &opening()).unwrap();
    let mut history = History::new(0);
    let mut states = Vec::new();
    for round in 0..3 {
        let changes = [history.receive(&[round]), history.receive(&[round; 9]), history.work().unwrap()].concat();
        journal.commit(WriteAhead::new(changes, ())).wait().unwrap();
        states.push(rows(store.as_ref()));
        journal.commit(WriteAhead::new(history.settle().unwrap(), ())).wait().unwrap();
    }
    states.push(rows(store.as_ref()));
    let inner = MemoryStore::default();
    inner.apply(&difference(&Rows::new(), &states[0])).unwrap();
    let later = states.windows(2).rev().map(|two| difference(&two[0], &two[1])).collect();
    Moving { inner, later: Mutex::new(later) }
}

#[test]
fn marks_that_move_while_a_journal_is_checked_are_no_damage() {
    let store = moving();
    let report = verify(&store).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(store.later.lock().unwrap().len() < 3, "it was written meanwhile");
}

#[test]
fn damage_is_found_although_the_journal_is_written_meanwhile() {
    let store = moving();
    let mut batch = Batch::default();
    batch.delete(Key::Message(MessageTable::InboxHeader, EndpointId::Server, Seq::FIRST).bytes());
    store.apply(&batch).unwrap();
    let report = verify(&store).unwrap();
    let missing = format!("{}:1 of server is missing", Direction::In);
    assert!(report.problems.contains(&missing), "{:?}", report.problems);
}
