//! What is particular to sled, and made good around it: large values, leftovers, the lock.

use std::path::Path;

use journal::{Batch, SledStore, Store};

use crate::store_model::value;

/// Sled keeps what is too large for its log in files of their own, which it never syncs.
pub(crate) fn no_file_beside_the_log(dir: &Path) {
    let files = std::fs::read_dir(dir.join("blobs")).map_or(0, Iterator::count);
    assert_eq!(files, 0, "values went to files that are never synced");
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
