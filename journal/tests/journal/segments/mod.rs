//! The engine of segments: what it does with damaged files, crashes, full disks and readers, and how much space it takes.

mod compaction;
mod crashes;
mod damage;
mod damage_anywhere;
mod full_disk;
mod opening;
mod readers;
mod room;

use std::fs;
use std::path::{Path, PathBuf};

use journal::segments::Options;
use journal::{Batch, SegmentStore, Store, StoreError};

use crate::store_model::{Model, scanned};

/// Bytes of a segment's header, where the first frame begins.
const HEADER: u64 = 32;

/// A batch that puts one key.
fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.put(key.to_vec(), value.to_vec());
    batch
}

/// Segments of a few frames.
fn smallest() -> Options {
    Options { segment_bytes: 1_200, compact_bytes: 500, ahead_bytes: 1_000, observer: None }
}

/// Applies and syncs.
fn commit(store: &SegmentStore, batch: &Batch) {
    store.apply(batch).unwrap();
    store.sync().unwrap();
}

fn rows(store: &dyn Store) -> Model {
    scanned(store, &[0], &[0xff, 0xff], usize::MAX).into_iter().collect()
}

fn open(dir: &Path, options: &Options) -> Result<SegmentStore, StoreError> {
    SegmentStore::open_with(dir, options.clone())
}

fn segment(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:012}.seg"))
}

/// The segments that there are, in order.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = names.filter(|path| path.extension().is_some_and(|ending| ending == "seg")).collect();
    found.sort();
    found
}

/// What the engine says of damage: which file, and which byte.
fn damage(result: Result<impl Sized, StoreError>) -> (String, u64) {
    let detail = match result.err() {
        Some(StoreError::Damaged { detail, .. }) => detail,
        other => panic!("it is not refused as damaged: {other:?}"),
    };
    let (file, rest) = detail.split_once(" at byte ").expect("the error names a place");
    let (offset, _) = rest.split_once(": ").expect("the error says what is wrong");
    (file.to_owned(), offset.parse().unwrap())
}
