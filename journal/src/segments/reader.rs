//! Reading a store that another process may be writing. It takes no lock and never writes. What it shows is the store as it was
//! when it was opened, whole batches only: frames are never changed, and a segment that is removed stays readable for who has
//! it open.

use std::path::Path;
use std::sync::Arc;

use super::fetch::read_value;
use super::files::{list, segment_name};
use super::index::Index;
use super::recover::recover;
use crate::store::{Batch, Store, StoreError, Visit};

/// How often the whole store is read again because a writer replaced segments meanwhile. Each time needs a rotation or the end
/// of a compaction within the few milliseconds that opening the segments takes.
const ATTEMPTS: u32 = 100;

/// A store of segments as it was at one moment, to be read only.
#[derive(Debug)]
pub struct SegmentReader(Index);

impl SegmentReader {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let (mut attempt, mut last) = (1, String::new());
        loop {
            let before = list(dir)?;
            let error = match recover(dir, &before) {
                Ok(None) => return Ok(Self(Index::default())),
                Ok(Some(recovered)) => {
                    if let Some(what) = recovered.torn {
                        let (segment, offset) = (segment_name(recovered.active), recovered.end);
                        tracing::info!(%segment, offset, what, "The end of the log is not read: a write is under way, or was cut off.");
                    }
                    return Ok(Self(recovered.index));
                }
                Err(error) => error,
            };
            // What is found twice in a folder that stays as it is, is damage. In one that changes it may be of two moments; a
            // seal that is written over a mark changes no length.
            let found = error.to_string();
            if attempt == ATTEMPTS || (found == last && list(dir)? == before) {
                return Err(error);
            }
            last = found;
            attempt += 1;
            std::thread::yield_now();
        }
    }
}

fn refused() -> StoreError {
    StoreError::Io { operation: "writing", source: std::io::Error::other("the store is open for reading only") }
}

impl Store for SegmentReader {
    fn apply(&self, _batch: &Batch) -> Result<(), StoreError> {
        Err(refused())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Err(refused())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.visit(from, to, visit)
    }

    fn size(&self) -> Result<u64, StoreError> {
        Ok(self.0.bytes())
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.find(key).map(|(place, file)| read_value(&Arc::clone(&file), key, place)).transpose()
    }

    fn checksum(&self, key: &[u8]) -> Result<Option<u32>, StoreError> {
        Ok(self.0.place(key).map(|place| place.sum))
    }
}
