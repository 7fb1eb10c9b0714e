//! Reading while somebody writes and compacts: whole batches, one moment, nothing changed.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use journal::segments::Options;
use journal::{Batch, SegmentStore, Store};

use super::{commit, open, put, rows, segment};

const KEYS: u8 = 40;

/// Every key holds the same number in each batch. Returns it, if that is so.
fn moment(store: &dyn Store) -> u64 {
    let mut numbers = Vec::new();
    let visit = &mut |_: &[u8], value: &[u8]| {
        numbers.push(u64::from_be_bytes(value[..8].try_into().unwrap()));
        ControlFlow::Continue(())
    };
    store.scan(&[0], &[0xff], visit).unwrap();
    assert_eq!(numbers.len(), usize::from(KEYS), "a batch was seen in part");
    assert!(numbers.iter().all(|number| *number == numbers[0]), "two moments were seen at once: {numbers:?}");
    numbers[0]
}

fn write(store: &SegmentStore, number: u64) {
    let mut batch = Batch::default();
    (1..=KEYS).for_each(|key| batch.put(vec![key], [number.to_be_bytes().to_vec(), vec![key; 60]].concat()));
    commit(store, &batch);
}

fn read_until(done: &AtomicBool, mut look: impl FnMut() -> u64) -> u64 {
    let (mut last, mut looks) = (0, 0);
    while !done.load(Ordering::Acquire) || looks == 0 {
        let seen = look();
        assert!(seen >= last, "{seen} was seen after {last}");
        (last, looks) = (seen, looks + 1);
    }
    looks
}

fn looks_while_writing(dir: &Path, look: impl Fn(&SegmentStore) -> u64 + Send + Sync) {
    // A segment for about three batches, so that each reader meets rotations and removals.
    let options = Options { segment_bytes: 12_000, compact_bytes: 6_000, ahead_bytes: 1_000, observer: None };
    let store = open(dir, &options).unwrap();
    write(&store, 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&done, || look(&store)));
        (2..500).for_each(|number| write(&store, number));
        done.store(true, Ordering::Release);
        assert!(reader.join().unwrap() > 0);
    });
    assert!(!segment(dir, 1).exists(), "nothing was compacted");
}

#[test]
fn a_scan_sees_one_moment_while_batches_are_written_and_compacted() {
    let dir = tempfile::tempdir().unwrap();
    looks_while_writing(dir.path(), |store| moment(store));
}

#[test]
fn a_reader_beside_the_writer_sees_one_moment_while_batches_are_written_and_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    looks_while_writing(dir.path(), move |_| moment(&SegmentStore::open_read_only(&path).unwrap()));
}

#[test]
fn a_reader_stays_at_its_moment_while_the_segments_that_it_reads_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 4_000, compact_bytes: 4_000, ahead_bytes: 1_000, observer: None };
    let store = open(dir.path(), &options).unwrap();
    (0..20).for_each(|number| commit(&store, &put(&[1, number], &[number; 500])));
    let reader = SegmentStore::open_read_only(dir.path()).unwrap();
    let before = rows(&reader);
    for round in 0..200_u8 {
        commit(&store, &put(&[1, round % 20], &[round; 500]));
    }
    assert!(!segment(dir.path(), 1).exists(), "nothing was compacted");
    assert!(rows(&reader) == before);
    assert_eq!(reader.value(&[1, 3]).unwrap().unwrap(), [3; 500]);
    assert!(rows(&SegmentStore::open_read_only(dir.path()).unwrap()) == rows(&store));
}

#[test]
fn a_folder_without_segments_reads_as_an_empty_store_and_one_that_is_not_there_as_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(rows(&SegmentStore::open_read_only(dir.path()).unwrap()).is_empty());
    assert!(SegmentStore::open_read_only(&dir.path().join("none")).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "reading makes nothing");
}
