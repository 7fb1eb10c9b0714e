//! Zeros ahead of the end: commits are written over them, they read as the end, and a closed store has none.

use std::fs;
use std::path::Path;

use journal::segments::{Options, Point};
use journal::{SegmentStore, Store};
use tempfile::TempDir;

use super::{commit, damage, open, put, rows, segment};
use crate::store_model::Model;

const MARK: u64 = 32;

fn length(dir: &Path) -> u64 {
    fs::metadata(segment(dir, 1)).unwrap().len()
}

/// What a process leaves that is killed after three synced batches: where the last one begins and ends, and all rows.
fn killed() -> (TempDir, [u64; 2], Model) {
    let (dir, live) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SegmentStore::open(live.path()).unwrap();
    let mut begins = 0;
    for number in 1..=3_u8 {
        begins = store.size().unwrap();
        commit(&store, &put(&[number], &[number; 90]));
    }
    fs::copy(segment(live.path(), 1), segment(dir.path(), 1)).unwrap();
    (dir, [begins, store.size().unwrap()], rows(&store))
}

#[test]
fn commits_are_written_over_zeros_and_a_closed_store_is_as_long_as_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    commit(&store, &put(b"first", &[1; 100]));
    let ready = length(dir.path());
    assert!(ready > 16 * 1024, "nothing was made ready: {ready} bytes");
    let mut commits = 1;
    while store.size().unwrap() + 1_000 < ready {
        commit(&store, &put(b"next", &[2; 500]));
        commits += 1;
        assert_eq!(length(dir.path()), ready, "commit {commits} changed the length of the file");
    }
    let expected = rows(&store);
    let size = store.size().unwrap();
    drop(store);
    assert_eq!(length(dir.path()), size + MARK);
    assert!(rows(&SegmentStore::open(dir.path()).unwrap()) == expected);
}

#[test]
fn zeros_behind_the_last_mark_are_the_end_of_a_killed_store_and_are_written_over() {
    let (dir, [_, end], expected) = killed();
    let before = length(dir.path());
    assert!(before > end + MARK);
    assert!(rows(&SegmentStore::open_read_only(dir.path()).unwrap()) == expected);
    let store = SegmentStore::open(dir.path()).unwrap();
    assert!(rows(&store) == expected);
    assert_eq!((length(dir.path()), store.size().unwrap()), (before, end), "nothing is cut off");
    commit(&store, &put(b"more", b"1"));
    assert_eq!(length(dir.path()), before, "what was ready is used");
}

#[test]
fn a_synced_frame_before_zeros_with_any_byte_wrong_is_damage() {
    let (dir, [begins, end], _) = killed();
    let good = fs::read(segment(dir.path(), 1)).unwrap();
    for place in begins..end {
        let mut bad = good.clone();
        bad[usize::try_from(place).unwrap()] ^= 4;
        fs::write(segment(dir.path(), 1), &bad).unwrap();
        let expected = ("000000000001.seg".to_owned(), begins);
        assert_eq!(damage(SegmentStore::open(dir.path())), expected, "byte {place}");
        assert_eq!(damage(SegmentStore::open_read_only(dir.path())), expected, "byte {place}");
    }
}

#[test]
fn anything_but_zeros_behind_the_end_is_cut_off_wherever_it_is() {
    let (dir, [_, end], expected) = killed();
    let good = fs::read(segment(dir.path(), 1)).unwrap();
    let behind = usize::try_from(end + MARK).unwrap();
    for place in [behind, behind + 31, behind + 32, behind + 5_000, good.len() - 1] {
        let mut torn = good.clone();
        torn[place] = 1;
        fs::write(segment(dir.path(), 1), &torn).unwrap();
        assert!(rows(&SegmentStore::open_read_only(dir.path()).unwrap()) == expected, "byte {place}");
        let store = SegmentStore::open(dir.path()).unwrap();
        assert!(rows(&store) == expected, "byte {place}");
        assert_eq!(length(dir.path()), end + MARK, "byte {place}: cut off, and marked again");
        commit(&store, &put(b"more", b"1"));
        drop(store);
        assert_eq!(rows(&SegmentStore::open(dir.path()).unwrap()).len(), expected.len() + 1, "byte {place}");
    }
}

#[test]
fn room_grows_with_the_segment_and_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let made = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&made);
    let observer = move |point| {
        if point == Point::RoomMade {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    };
    let sizes = Options { segment_bytes: 100_000, ahead_bytes: 32_000, ..Options::default() };
    let store = open(dir.path(), &Options { observer: Some(std::sync::Arc::new(observer)), ..sizes }).unwrap();
    let mut number = 0_u64;
    while !segment(dir.path(), 2).exists() {
        commit(&store, &put(&number.to_be_bytes(), &[3; 300]));
        number += 1;
        assert!(length(dir.path()) <= 100_000, "a segment is not longer for its zeros");
        assert!(length(dir.path()) <= 2 * store.size().unwrap() + 2_000, "little lies ahead of a small log");
    }
    // 2 KB to begin with, doubled up to 32 KB, then two more up to the end; and the first room of the next segment.
    let made = made.load(std::sync::atomic::Ordering::SeqCst);
    assert!((6..=10).contains(&made), "zeros were written {made} times");
}

#[test]
fn no_zeros_are_written_behind_large_frames_and_the_next_small_one_has_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let large = vec![1; 100 * 1024];
    for number in 0..10 {
        commit(&store, &put(&[number], &large));
        assert_eq!(length(dir.path()), store.size().unwrap() + MARK, "large frame {number}");
    }
    commit(&store, &put(b"small", b"1"));
    let ready = length(dir.path());
    assert!(ready > store.size().unwrap() + large.len() as u64);
    commit(&store, &put(b"into the room", &large));
    assert_eq!(length(dir.path()), ready, "what is ready is used by large frames, too");
    let expected = rows(&store);
    drop(store);
    assert!(rows(&SegmentStore::open(dir.path()).unwrap()) == expected);
}
