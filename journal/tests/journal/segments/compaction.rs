//! How much space a store takes, and that deletes stay deleted while the segments that held the key go.

use std::ops::ControlFlow;

use journal::segments::Options;
use journal::{Batch, SegmentStore, Store};

use super::{commit, open, put, rows, segment, segments};
use crate::history::Random;
use crate::store_model::{Model, change};

const SEGMENT: u64 = 8_000;

fn options() -> Options {
    Options { segment_bytes: SEGMENT, compact_bytes: 2_000, ahead_bytes: 1_000, observer: None }
}

/// Bytes of records that are alive, as the engine counts them.
fn live(store: &dyn Store) -> u64 {
    let mut bytes = 0;
    let visit = &mut |key: &[u8], value: &[u8]| {
        bytes += (6 + key.len() + value.len()) as u64;
        ControlFlow::Continue(())
    };
    store.scan(&[0], &[0xff], visit).unwrap();
    bytes
}

/// Twice what is alive, the segment that is written with a batch beyond its end, a quarter of one until compaction begins; and
/// for each frame of what is moved its header.
fn bound(store: &dyn Store) -> u64 {
    2 * live(store) + 2 * SEGMENT
}

fn disk(store: &SegmentStore, dir: &std::path::Path) -> u64 {
    let bytes: u64 = segments(dir).iter().map(|path| path.metadata().unwrap().len()).sum();
    let left_out = bytes - store.size().unwrap();
    assert!(left_out <= options().ahead_bytes, "the size leaves nothing out but the zeros ahead of the end");
    bytes
}

#[test]
fn the_files_take_at_most_twice_the_live_bytes_and_two_segments() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &options()).unwrap();
    let (mut model, mut random) = (Model::new(), Random(1));
    for round in 0..1_500_u64 {
        let mut batch = Batch::default();
        for _ in 0..=random.below(3) {
            // A few hot keys, many cold ones, deletes, and phases in which the store shrinks.
            let number = if random.below(3) > 0 { random.below(5) } else { random.below(300) };
            let key = [vec![1], number.to_be_bytes().to_vec()].concat();
            if random.below(if round / 200 % 2 == 0 { 8 } else { 2 }) == 0 {
                batch.delete(key);
            } else {
                let length = usize::try_from(random.below(400)).unwrap();
                batch.put(key, random.bytes(length));
            }
        }
        commit(&store, &batch);
        change(&mut model, &batch);
        let (disk, bound) = (disk(&store, dir.path()), bound(&store));
        assert!(disk <= bound, "round {round}: {disk} bytes on disk, {bound} allowed");
    }
    assert!(rows(&store) == model);
    assert!(!segment(dir.path(), 1).exists(), "nothing was compacted");
    drop(store);
    assert!(rows(&open(dir.path(), &options()).unwrap()) == model);
}

#[test]
fn deleting_everything_at_once_gives_the_space_back_with_the_batches_that_follow() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &options()).unwrap();
    let keys = |number: u8| vec![1, number];
    (0..200).for_each(|number| commit(&store, &put(&keys(number), &[number; 900])));
    let full = disk(&store, dir.path());
    let mut batch = Batch::default();
    (0..200).for_each(|number| batch.delete(keys(number)));
    commit(&store, &batch);
    // Each batch pays for 2,000 bytes at least.
    let needed = full / 2_000 + 1;
    (0..needed).for_each(|number| commit(&store, &put(b"\x01small", &number.to_be_bytes())));
    let (disk, bound) = (disk(&store, dir.path()), bound(&store));
    assert!(disk <= bound, "{disk} bytes on disk of {full}, {bound} allowed");
}

#[test]
fn a_store_that_rests_takes_half_as_much_again_as_what_is_alive_and_a_little() {
    for kept in [0, 3, 150] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &options()).unwrap();
        let key = |number: u64| [&b"\x01web-01\0"[..], &number.to_be_bytes()].concat();
        for number in 0..600 {
            commit(&store, &put(&key(number), &number.to_be_bytes().repeat(30)));
            if number >= kept {
                let mut batch = Batch::default();
                batch.delete(key(number - kept));
                commit(&store, &batch);
            }
        }
        let before = rows(&store);
        assert_eq!(before.len() as u64, kept);
        while store.rest().unwrap() {}
        assert!(rows(&store) == before, "{kept} kept");
        // What is dead: half of what is alive, or so much that it is not worth a segment; and the zeros ahead.
        let (disk, live) = (disk(&store, dir.path()), live(&store));
        let bound = live + (live / 2).max(SEGMENT / 16) + options().ahead_bytes + 200;
        assert!(disk <= bound, "{kept} kept: {disk} bytes on disk, {live} alive, {bound} allowed");
        assert!(!store.rest().unwrap(), "it rests");
        drop(store);
        assert!(rows(&open(dir.path(), &options()).unwrap()) == before, "{kept} kept");
    }
}

#[test]
fn a_segment_in_which_nothing_is_alive_goes_without_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &options()).unwrap();
    let write = |keys: std::ops::Range<u8>, fill| keys.for_each(|key| commit(&store, &put(&[1, key], &[fill; 500])));
    write(0..14, 1);
    write(20..40, 1);
    // Nothing of the first segment is alive any more, and there is no need to compact yet.
    write(0..15, 2);
    let path = segment(dir.path(), 1);
    assert!(path.exists());
    // Whoever read it would find it damaged.
    std::fs::write(&path, b"nothing").unwrap();
    (20..40).for_each(|key| {
        let mut batch = Batch::default();
        batch.delete(vec![1, key]);
        commit(&store, &batch);
    });
    assert!(!path.exists() && rows(&store).len() == 15);
}

#[test]
fn what_was_deleted_stays_deleted_while_old_segments_go_and_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut model, mut random) = (Model::new(), Random(9));
    for round in 0..60 {
        // Opened again all the time, so that every mixture of puts and deletes is read back from what compaction has left.
        let store = open(dir.path(), &options()).unwrap();
        assert!(rows(&store) == model, "round {round}");
        for _ in 0..10 {
            let mut batch = Batch::default();
            let key = vec![1, u8::try_from(random.below(30)).unwrap()];
            match random.below(2) {
                0 => batch.delete(key),
                _ => batch.put(key, vec![7; usize::try_from(random.below(1_500)).unwrap()]),
            }
            commit(&store, &batch);
            change(&mut model, &batch);
        }
    }
    assert!(!segment(dir.path(), 1).exists(), "nothing was compacted");
}

#[test]
fn no_batch_pays_for_much_more_than_its_part() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &options()).unwrap();
    (0..150_u64).for_each(|number| commit(&store, &put(&number.to_be_bytes(), &[1; 300])));
    let mut largest = 0;
    for number in 0..500_u64 {
        let before = written(dir.path());
        commit(&store, &put(&(number * 7 % 150).to_be_bytes(), &[2; 300]));
        largest = largest.max(written(dir.path()).saturating_sub(before));
    }
    // Its own frame, 2,000 bytes of old frames, one frame more because frames are moved whole, a floor, a seal, a header.
    assert!(largest <= 400 + 2_000 + 400 * 8, "one batch wrote {largest} bytes");
}

/// Bytes ever written, as the name and the length of the last segment say them.
fn written(dir: &std::path::Path) -> u64 {
    let last = segments(dir).pop().unwrap();
    let number: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    number * SEGMENT + last.metadata().unwrap().len()
}

#[test]
fn an_old_segment_that_rotted_is_not_written_again_as_if_it_were_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &options()).unwrap();
    (0..40).for_each(|number| commit(&store, &put(&[1, number], &[number; 500])));
    let path = segment(dir.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[700] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut failed = None;
    for round in 0..200_u8 {
        if let Err(error) = store.apply(&put(&[1, 30 + round % 5], &[round; 500])) {
            failed = Some(error);
            break;
        }
    }
    assert!(failed.expect("compaction reads it").to_string().contains("000000000001.seg at byte "));
    assert!(store.sync().is_err());
}
