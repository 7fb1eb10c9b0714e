//! A torn tail is cut off and everything else is refused with its exact place.

use std::fs;
use std::path::Path;

use journal::segments::Options;
use journal::{Batch, SegmentStore, Store};
use tempfile::TempDir;

use super::{HEADER, commit, damage, open, put, rows, segment, segments, smallest};
use crate::store_model::Model;

const FIRST: &str = "000000000001.seg";

/// Three batches, each synced, in one segment; where each begins, and where the last one ends.
fn three() -> (TempDir, [u64; 4], [Model; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let mut models = Vec::new();
    let places = [1_u8, 2, 3].map(|number| {
        let start = store.size().unwrap();
        let mut batch = put(&[number], &[number; 90]);
        batch.put(b"last".to_vec(), vec![number]);
        commit(&store, &batch);
        models.push(rows(&store));
        start
    });
    let end = store.size().unwrap();
    (dir, [places[0], places[1], places[2], end], models.try_into().unwrap())
}

/// The file's content, without the mark behind the last frame.
fn unmarked(dir: &Path, end: u64) -> Vec<u8> {
    let mut bytes = fs::read(segment(dir, 1)).unwrap();
    bytes.truncate(usize::try_from(end).unwrap());
    bytes
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

#[test]
fn a_tail_torn_at_any_byte_of_the_last_frame_is_cut_off() {
    let (dir, [_, _, last, end], [_, before, whole]) = three();
    let good = unmarked(dir.path(), end);
    for length in last..=end {
        fs::write(segment(dir.path(), 1), &good[..at(length)]).unwrap();
        let store = SegmentStore::open(dir.path()).unwrap();
        let (expected, kept) = if length == end { (&whole, end) } else { (&before, last) };
        assert!(rows(&store) == *expected, "cut at {length}");
        assert_eq!(store.size().unwrap(), kept);
        // It goes on where the last whole frame ends, and what it writes there stays.
        commit(&store, &put(b"more", b"1"));
        drop(store);
        let store = SegmentStore::open(dir.path()).unwrap();
        assert_eq!(store.value(b"more").unwrap().unwrap(), b"1");
    }
}

#[test]
fn a_last_frame_with_any_byte_wrong_is_cut_off_when_nothing_says_that_it_was_synced() {
    let (dir, [_, _, last, end], [_, before, _]) = three();
    let good = unmarked(dir.path(), end);
    for place in last..end {
        let mut bad = good.clone();
        bad[at(place)] ^= 0x20;
        fs::write(segment(dir.path(), 1), &bad).unwrap();
        assert!(rows(&SegmentStore::open(dir.path()).unwrap()) == before, "byte {place}");
        assert_eq!(fs::metadata(segment(dir.path(), 1)).unwrap().len(), last + 32, "cut off, and marked again");
    }
}

#[test]
fn a_synced_frame_with_any_byte_wrong_is_damage_the_last_one_too() {
    let (dir, [first, middle, last, end], _) = three();
    let good = fs::read(segment(dir.path(), 1)).unwrap();
    assert_eq!(good.len() as u64, end + 32, "the mark");
    for (from, to) in [(first, middle), (middle, last), (last, end)] {
        for place in from..to {
            let mut bad = good.clone();
            bad[at(place)] ^= 1;
            fs::write(segment(dir.path(), 1), &bad).unwrap();
            assert_eq!(damage(SegmentStore::open(dir.path())), (FIRST.to_owned(), from), "byte {place}");
            assert_eq!(damage(SegmentStore::open_read_only(dir.path())), (FIRST.to_owned(), from), "byte {place}");
        }
    }
    assert_eq!(fs::read(segment(dir.path(), 1)).unwrap().len(), good.len(), "what is refused is not changed");
}

#[test]
fn of_two_writes_that_were_never_synced_the_second_alone_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    commit(&store, &put(b"a", b"synced"));
    let before = rows(&store);
    let start = store.size().unwrap();
    store.apply(&put(b"b", &[7; 600])).unwrap();
    let second = store.size().unwrap();
    store.apply(&put(b"c", &[8; 600])).unwrap();
    drop(store);
    // The disk took the second page and not the first: that is a crash, and no damage.
    let mut bytes = fs::read(segment(dir.path(), 1)).unwrap();
    bytes[at(start)..at(second)].fill(0);
    fs::write(segment(dir.path(), 1), &bytes).unwrap();
    assert!(rows(&SegmentStore::open(dir.path()).unwrap()) == before);
}

#[test]
fn a_zeroed_page_is_damage_where_its_first_frame_begins() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let mut starts = Vec::new();
    for number in 0..60_u8 {
        starts.push(store.size().unwrap());
        commit(&store, &put(&[number], &[number ^ 0xff; 500]));
    }
    drop(store);
    let good = fs::read(segment(dir.path(), 1)).unwrap();
    for page in 0..good.len() / 4_096 {
        let mut bad = good.clone();
        bad[page * 4_096..(page + 1) * 4_096].fill(0);
        fs::write(segment(dir.path(), 1), &bad).unwrap();
        let hit = starts.iter().rev().find(|start| at(**start) <= page * 4_096).copied();
        assert_eq!(damage(SegmentStore::open(dir.path())), (FIRST.to_owned(), hit.unwrap_or(0)), "page {page}");
    }
}

/// A closed store of several segments, none of them compacted.
fn several() -> (TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &smallest()).unwrap();
    for number in 0..40_u8 {
        commit(&store, &put(&[1, number], &[number; 150]));
    }
    let rows = rows(&store);
    assert!(segments(dir.path()).len() > 4);
    (dir, rows)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_segment_that_is_missing_is_damage_the_first_and_the_last_too() {
    let (dir, rows_before) = several();
    for path in segments(dir.path()) {
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(damage(open(dir.path(), &smallest())), (name(&path), 0));
        assert_eq!(damage(SegmentStore::open_read_only(dir.path())), (name(&path), 0));
        fs::write(&path, bytes).unwrap();
    }
    assert!(rows(&open(dir.path(), &smallest()).unwrap()) == rows_before);
}

#[test]
fn a_sealed_segment_that_is_cut_anywhere_is_damage() {
    let (dir, _) = several();
    let path = &segments(dir.path())[1];
    let good = fs::read(path).unwrap();
    for length in 0..good.len() {
        fs::write(path, &good[..length]).unwrap();
        let (file, offset) = damage(open(dir.path(), &smallest()));
        assert!(file == name(path) && offset <= length as u64, "cut at {length}: {file} at {offset}");
    }
    let longer = [good.clone(), vec![0; 10]].concat();
    fs::write(path, longer).unwrap();
    assert_eq!(damage(open(dir.path(), &smallest())), (name(path), good.len() as u64));
}

#[test]
fn segments_that_changed_places_are_damage() {
    let (dir, _) = several();
    let [first, second] = [1, 2].map(|number| segment(dir.path(), number));
    let aside = dir.path().join("aside");
    for (from, to) in [(&first, &aside), (&second, &first), (&aside, &second)] {
        fs::rename(from, to).unwrap();
    }
    assert_eq!(damage(open(dir.path(), &smallest())), (name(&first), 0));
}

#[test]
fn files_of_others_are_left_alone_and_stand_in_nobodys_way() {
    let (dir, expected) = several();
    let foreign = ["notes.txt", "1.seg", "000000000001.seg.bak", "000000000000.seg"];
    for name in foreign {
        fs::write(dir.path().join(name), "not ours").unwrap();
    }
    fs::create_dir(dir.path().join("folder")).unwrap();
    assert!(rows(&SegmentStore::open_read_only(dir.path()).unwrap()) == expected);
    assert!(rows(&open(dir.path(), &smallest()).unwrap()) == expected);
    assert!(foreign.iter().all(|name| fs::read(dir.path().join(name)).unwrap() == b"not ours"));
}

#[test]
fn a_stranger_under_a_segments_name_is_damage() {
    for (number, content) in [(1, &b"not ours, but longer than any segment's header"[..]), (77, &[0; 5_000])] {
        let (dir, _) = several();
        fs::write(segment(dir.path(), number), content).unwrap();
        let (file, _) = damage(open(dir.path(), &smallest()));
        assert_eq!(file, name(&segment(dir.path(), number)));
    }
    let (dir, _) = several();
    fs::create_dir(segment(dir.path(), 77)).unwrap();
    assert!(open(dir.path(), &smallest()).is_err());
}

#[test]
fn a_segment_of_a_later_format_is_refused_by_its_number() {
    let (dir, _, _) = three();
    let mut bytes = fs::read(segment(dir.path(), 1)).unwrap();
    bytes[8] = 2;
    let header = at(HEADER);
    let crc = crc32c::crc32c(&[&bytes[..12], &bytes[16..header]].concat());
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs::write(segment(dir.path(), 1), &bytes).unwrap();
    let refused = SegmentStore::open(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("format 2 is unknown"), "{refused}");
}

#[test]
fn a_store_in_use_is_locked_and_readable() {
    let (dir, _, models) = three();
    let store = SegmentStore::open(dir.path()).unwrap();
    assert!(matches!(SegmentStore::open(dir.path()), Err(journal::StoreError::Locked)));
    let reader = SegmentStore::open_read_only(dir.path()).unwrap();
    assert!(rows(&reader) == models[2]);
    assert!(reader.apply(&Batch::default()).is_err() && reader.sync().is_err());
    drop(store);
    SegmentStore::open(dir.path()).unwrap();
}

#[test]
fn every_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, _) = several();
    let inner = dir.path().join("store");
    open(&inner, &Options::default()).unwrap();
    assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
    for folder in [dir.path(), &inner] {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }
}

#[test]
fn a_batch_that_cannot_be_written_ends_the_store_and_the_rest_stays() {
    let (dir, _, models) = three();
    let store = SegmentStore::open(dir.path()).unwrap();
    assert!(store.apply(&put(&[b'k'; journal::KEY_BYTES_MAX + 1], b"")).is_err());
    for _ in 0..2 {
        assert!(store.apply(&put(b"k", b"")).is_err() && store.sync().is_err());
    }
    assert!(rows(&store) == models[2], "it can still be read");
    drop(store);
    assert!(rows(&SegmentStore::open(dir.path()).unwrap()) == models[2]);
}
