//! What must hold for any bytes that lie where the segmented log expects a segment: rows that are the same however they are read, or
//! an error. Run by the fuzz target `segments` and by the property tests of `journal`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use journal::{SegmentStore, Store, StoreError};

/// The name of the first segment.
pub(crate) const FIRST: &str = "000000000001.seg";

/// Writes the bytes as the only segment into that folder, which is empty. Panics when something does not hold. Says whether
/// they were a segment that opens.
pub(crate) fn any_bytes(dir: &Path, bytes: &[u8]) -> bool {
    let path = dir.join(FIRST);
    fs::write(&path, bytes).expect("a folder of ours can be written");
    // Reading alone never changes a byte.
    let read = SegmentStore::open_read_only(dir).and_then(|reader| rows(&reader));
    assert!(fs::read(&path).is_ok_and(|after| after == bytes), "reading has changed the segment");
    let opened = SegmentStore::open(dir).and_then(|store| rows(&store));
    match (read, opened) {
        (Ok(read), Ok(opened)) => {
            assert_eq!(read, opened, "whoever only reads sees what the owner sees");
            // What was cut off of a torn tail stays cut off, and nothing else is.
            let again = SegmentStore::open(dir).and_then(|store| rows(&store));
            assert_eq!(again.ok().as_ref(), Some(&opened), "what opened once opens again");
            true
        }
        (_, Err(error)) => {
            assert!(!matches!(error, StoreError::Locked), "nobody else has it open");
            assert!(!error.to_string().is_empty());
            false
        }
        (Err(error), Ok(_)) => panic!("its owner opens what a reader refuses: {error}"),
    }
}

/// Every row, each read in both ways.
fn rows(store: &dyn Store) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let mut rows = BTreeMap::new();
    store.scan(&[], &[0xff; 513], &mut |key, value| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })?;
    for (key, value) in &rows {
        assert_eq!(store.value(key)?.as_ref(), Some(value));
    }
    Ok(rows)
}
