//! Both stores against a map, through the same histories; and what an engine must not do with large values.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use journal::{Batch, KEY_BYTES_MAX, MemoryStore, SledStore, Store};
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    /// Keys by number; no length means delete. The byte fills the value, with its place.
    Apply(Vec<(usize, Option<(usize, u8)>)>),
    /// From key to key, at most so many.
    Scan(usize, usize, usize),
    Value(usize),
    Sync,
    Reopen,
}

/// Keys that are prefixes of each other, hold the lowest and highest bytes, look like another key's piece, and are as long
/// as may be.
fn key(number: usize) -> Vec<u8> {
    let keys: [&[u8]; 10] =
        [b"a", b"a\0", b"a\0\0\0\0", b"a\0\0\0\x01", b"ab", b"b", b"\x01", b"\xfe\xff\xff", b"p", b"v\0"];
    match keys.get(number) {
        Some(key) => key.to_vec(),
        None => vec![b'k'; KEY_BYTES_MAX - (number - keys.len())],
    }
}

const KEYS: usize = 12;

fn value((length, fill): (usize, u8)) -> Vec<u8> {
    // No two pieces are alike, so that pieces out of order are seen.
    (0..length).map(|place| fill ^ place.to_le_bytes()[0] ^ (place >> 8).to_le_bytes()[0]).collect()
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => Just(0),
        2 => Just(1),
        4 => 2..2_000_usize,
        2 => 4_090..4_100_usize,
        3 => 31 * 1024..=33 * 1024_usize,
        1 => Just(32 * 1024),
        1 => Just(64 * 1024),
        2 => Just(100 * 1024),
        1 => Just(256 * 1024),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..KEYS, prop_oneof![4 => (length(), any::<u8>()).prop_map(Some), 1 => Just(None)]);
    prop_oneof![
        8 => prop::collection::vec(change, 0..6).prop_map(Step::Apply),
        3 => (0..KEYS, 0..KEYS, 1..KEYS).prop_map(|(from, to, most)| Step::Scan(from, to, most)),
        3 => (0..KEYS).prop_map(Step::Value),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

fn scanned(store: &dyn Store, from: &[u8], to: &[u8], most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    store
        .scan(from, to, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    found
}

fn expected(model: &Model, from: &[u8], to: &[u8], most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    model
        .iter()
        .filter(|(key, _)| from <= key.as_slice() && key.as_slice() < to)
        .take(most)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn run(steps: &[Step], dir: &Path) {
    let (mut model, memory, mut sled) = (Model::new(), MemoryStore::default(), SledStore::open(dir).unwrap());
    for step in steps {
        let stores: [&dyn Store; 2] = [&memory, &sled];
        match step {
            Step::Apply(changes) => {
                let mut batch = Batch::default();
                for (number, change) in changes {
                    match change {
                        Some(what) => {
                            batch.put(key(*number), value(*what));
                            model.insert(key(*number), value(*what));
                        }
                        None => {
                            batch.delete(key(*number));
                            model.remove(&key(*number));
                        }
                    }
                }
                for store in stores {
                    store.apply(&batch).unwrap();
                }
            }
            Step::Scan(from, to, most) => {
                let (from, to) = (key(*from), key(*to));
                for store in stores {
                    assert!(scanned(store, &from, &to, *most) == expected(&model, &from, &to, *most));
                }
            }
            Step::Value(number) => {
                for store in stores {
                    assert!(store.value(&key(*number)).unwrap().as_ref() == model.get(&key(*number)));
                }
            }
            Step::Sync => {
                for store in stores {
                    store.sync().unwrap();
                }
            }
            Step::Reopen => {
                drop(sled);
                sled = SledStore::open(dir).unwrap();
            }
        }
        no_file_beside_the_log(dir);
    }
    for store in [&memory as &dyn Store, &sled] {
        assert!(scanned(store, &[0], &[0xff], usize::MAX) == expected(&model, &[0], &[0xff], usize::MAX));
    }
}

/// Sled keeps what is too large for its log in files of their own, which it never syncs.
fn no_file_beside_the_log(dir: &Path) {
    let files = std::fs::read_dir(dir.join("blobs")).map_or(0, Iterator::count);
    assert_eq!(files, 0, "values went to files that are never synced");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_store_does_what_a_map_does(steps in prop::collection::vec(step(), 1..30)) {
        let dir = tempfile::tempdir().unwrap();
        run(&steps, dir.path());
    }
}

#[test]
fn a_long_value_becomes_short_and_long_again_and_leaves_no_piece_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path()).unwrap();
    for length in [256 * 1024, 1, 100 * 1024, 33 * 1024, 0, 256 * 1024] {
        let mut batch = Batch::default();
        batch.put(b"k".to_vec(), value((length, 7)));
        store.apply(&batch).unwrap();
        assert!(store.value(b"k").unwrap() == Some(value((length, 7))));
    }
    let mut batch = Batch::default();
    batch.delete(b"k".to_vec());
    store.apply(&batch).unwrap();
    store.sync().unwrap();
    drop(store);
    let raw = sled::open(dir.path()).unwrap();
    assert_eq!(raw.len(), 0, "pieces are left over");
}

#[test]
fn no_mixture_of_values_makes_sled_keep_anything_outside_the_file_that_is_synced() {
    for length in [600, 4_000, 4_096, 5_000, 30_000, 32 * 1024, 100_000, 254 * 1024] {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path()).unwrap();
        // In order, as messages come, then over again in another order: pages fill, split and are rewritten whole.
        for round in 0..2_u64 {
            for number in 0..60_u64 {
                let number = if round == 0 { number } else { number * 37 % 60 };
                let mut batch = Batch::default();
                batch.put([vec![b'k'; 80], number.to_be_bytes().to_vec()].concat(), value((length, 3)));
                store.apply(&batch).unwrap();
                no_file_beside_the_log(dir.path());
            }
        }
    }
}

#[test]
fn a_store_in_use_says_that_it_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let _open = SledStore::open(dir.path()).unwrap();
    assert!(matches!(SledStore::open(dir.path()), Err(journal::StoreError::Locked)));
}
