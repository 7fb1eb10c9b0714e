//! Damage where chance puts it: never a panic, never wrong rows, never a silent loss that a sync had promised against.

use std::fs;

use journal::{Batch, SegmentStore};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{commit, open, put, rows, segments, smallest};
use crate::history::Random;
use crate::store_model::{Model, change};

/// A closed store with some history: several segments, some compacted; and what it must hold.
fn closed() -> (TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &smallest()).unwrap();
    let (mut model, mut random) = (Model::new(), Random(3));
    for _ in 0..90 {
        let mut batch = Batch::default();
        for _ in 0..3 {
            let key = vec![1, u8::try_from(random.below(30)).unwrap()];
            match random.below(5) {
                0 => batch.delete(key),
                _ => {
                    let length = usize::try_from(random.below(120)).unwrap();
                    batch.put(key, random.bytes(length));
                }
            }
        }
        commit(&store, &batch);
        change(&mut model, &batch);
    }
    drop(store);
    assert!(segments(dir.path()).len() > 1);
    assert!(!super::segment(dir.path(), 1).exists(), "nothing was compacted");
    (dir, model)
}

#[test]
fn a_flipped_bit_in_any_byte_of_any_segment_is_damage_unless_it_is_in_the_last_mark() {
    let (dir, model) = closed();
    let (mut refused, mut whole) = (0, 0);
    for path in segments(dir.path()) {
        let good = fs::read(&path).unwrap();
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1 << (place % 8);
            fs::write(&path, &bad).unwrap();
            match SegmentStore::open_read_only(dir.path()) {
                Ok(reader) => {
                    assert!(rows(&reader) == model, "{path:?}, byte {place}: wrong rows");
                    whole += 1;
                }
                Err(journal::StoreError::Damaged { detail, .. }) => {
                    assert!(detail.starts_with(path.file_name().unwrap().to_str().unwrap()), "{place}: {detail}");
                    refused += 1;
                }
                Err(other) => panic!("{path:?}, byte {place}: {other:?}"),
            }
        }
        fs::write(&path, good).unwrap();
    }
    assert_eq!(whole, 32, "only the last mark can go unnoticed, and nothing is lost with it; {refused} were refused");
}

#[test]
fn a_cut_anywhere_in_the_last_segment_leaves_whole_batches_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let mut models = vec![rows(&store)];
    for number in 0..12_u8 {
        commit(&store, &put(&[number % 5], &[number; 40]));
        models.push(rows(&store));
    }
    drop(store);
    let path = super::segment(dir.path(), 1);
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        let found = rows(&SegmentStore::open_read_only(dir.path()).unwrap());
        assert!(models.contains(&found), "cut at {length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_files_are_a_store_or_an_error(
        files in prop::collection::vec((1..4_u32, prop::collection::vec(any::<u8>(), 0..200)), 0..4),
        keep in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &smallest()).unwrap();
        (0..20).for_each(|number| commit(&store, &put(&[number], &[number; 150])));
        drop(store);
        // Each file: the beginning of what was there, then bytes of chance.
        for (number, bytes) in files {
            let path = super::segment(dir.path(), number);
            let mut content = fs::read(&path).unwrap_or_default();
            content.truncate(keep.index(content.len() + 1));
            content.extend_from_slice(&bytes);
            fs::write(&path, content).unwrap();
        }
        if let Ok(reader) = SegmentStore::open_read_only(dir.path()) {
            rows(&reader);
        }
        if let Ok(store) = open(dir.path(), &smallest()) {
            let before = rows(&store);
            commit(&store, &put(b"after", b"x"));
            prop_assert!(rows(&store).len() >= before.len());
        }
    }
}
