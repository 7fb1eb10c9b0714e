//! The fuzz targets `rows` and `segments` on stable: random bytes, and valid rows and segments made wrong.

#[path = "../../../fuzz/bodies/rows.rs"]
mod body;
#[path = "../../../fuzz/bodies/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/bodies/segments.rs"]
mod segments;

use journal::{Batch, SegmentStore, Store};
use proptest::prelude::*;

use crate::history::History;

/// Rows of every table as the fuzz target takes them: the key's length, the key, and the content without its checksum.
fn valid() -> Vec<Vec<u8>> {
    let rows = History::after(7, 150).rows;
    assert!(rows.len() > 50);
    let input = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        let length = u8::try_from(key.len()).unwrap();
        [&[length][..], key, &value[5..]].concat()
    };
    rows.iter().filter(|(_, value)| value.len() < 2_000).map(input).collect()
}

/// A segment with some batches in it, synced and not.
fn segment() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    for number in 0..12_u8 {
        let mut batch = Batch::default();
        batch.put(vec![number % 5], vec![number; usize::from(number) * 9]);
        batch.delete(vec![number % 3]);
        store.apply(&batch).unwrap();
        if number % 4 == 0 {
            store.sync().unwrap();
        }
    }
    drop(store);
    std::fs::read(dir.path().join(segments::FIRST)).unwrap()
}

#[test]
fn a_segment_is_one_and_stays_one_when_its_unsynced_end_is_torn() {
    let whole = segment();
    for bytes in [&whole[..], &whole[..whole.len() - 1]] {
        assert!(segments::any_bytes(tempfile::tempdir().unwrap().path(), bytes));
    }
}

#[test]
fn every_row_of_a_history_is_one() {
    for bytes in valid() {
        assert!(body::any_bytes(&bytes), "{bytes:02x?}");
    }
}

proptest! {
    #[test]
    fn random_bytes_are_a_row_that_is_written_as_it_was_read_or_refused(
        table in 0_u8..20,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        body::any_bytes(&bytes);
        // With a key that names a table, and the server as the peer of whatever row it is.
        body::any_bytes(&[&[8, table][..], b"server\0", &bytes].concat());
        body::any_bytes(&[&[16, table][..], b"server\0\0\0\0\0\0\0\0\x01", &bytes].concat());
    }

    #[test]
    fn valid_rows_made_wrong_are_written_as_they_were_read_or_refused(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6),
    ) {
        let valid = VALID.with(Clone::clone);
        body::any_bytes(&mutate::mutate(&valid[which.index(valid.len())], &edits));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn segments_made_wrong_are_read_alike_by_everyone_or_refused(
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 0..5),
        random in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let segment = SEGMENT.with(Clone::clone);
        for bytes in [mutate::mutate(&segment, &edits), [&segment[..], &random].concat(), random] {
            segments::any_bytes(tempfile::tempdir().unwrap().path(), &bytes);
        }
    }
}

thread_local! {
    /// Made once, as well.
    static SEGMENT: std::rc::Rc<Vec<u8>> = std::rc::Rc::new(segment());
    /// Made once: a history takes longer than a case.
    static VALID: std::rc::Rc<Vec<Vec<u8>>> = std::rc::Rc::new(valid());
}
