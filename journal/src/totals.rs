//! What all rows of a journal add up to, kept in a row of its own and written in the same batch as whatever changes it. An
//! engine that lost rows in the middle, or gives back old ones, cannot make them add up.

use serde::{Deserialize, Serialize};

use crate::key::Table;
use crate::row::Row;
use crate::store::{Batch, Store, StoreError};

/// How many batches were written, and the rows that they left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Totals {
    /// Batches written since the journal was created, the one with this row included.
    pub batches: u64,
    /// Rows, this one not included.
    pub rows: u64,
    /// Sum over the rows of what their checksums make of keys and values.
    pub sum: u64,
}

/// A row's part of the sum, of the checksums of its key and its value. It guards against accidents, as checksums do, not against
/// forgery.
fn part(key_sum: u32, sum: u32) -> u64 {
    u64::from(key_sum) << 32 | u64::from(sum)
}

impl Totals {
    /// Counts a row in, unless it is the one of the totals themselves.
    pub(crate) fn add(&mut self, key: &[u8], sum: u32) {
        if key != [Table::Totals.byte()] {
            self.rows = self.rows.wrapping_add(1);
            self.sum = self.sum.wrapping_add(part(crc32c::crc32c(key), sum));
        }
    }

    /// Whether both speak of the same rows.
    pub(crate) const fn same_rows(&self, other: &Self) -> bool {
        self.rows == other.rows && self.sum == other.sum
    }

    /// Brings the totals to where the store will be after that batch, and puts them into it. What changes nothing is left out of it.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot say which rows the batch replaces.
    pub(crate) fn seal(&mut self, store: &dyn Store, batch: &mut Batch) -> Result<(), StoreError> {
        batch.retain(|change| {
            let old = store.checksum(change.key)?;
            if let Some(old) = old {
                self.rows = self.rows.wrapping_sub(1);
                self.sum = self.sum.wrapping_sub(part(change.key_sum, old));
            }
            if let Some((_, sum)) = change.value {
                self.rows = self.rows.wrapping_add(1);
                self.sum = self.sum.wrapping_add(part(change.key_sum, sum));
            }
            // A row that came and went within the batch was never there.
            Ok::<_, StoreError>(old.is_some() || change.value.is_some())
        })?;
        self.batches += 1;
        Row::Totals(*self).put_into(batch);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::memory_store::MemoryStore;

    #[test]
    fn a_row_that_came_and_went_within_a_batch_is_not_in_it_and_counts_nothing() {
        let (store, mut totals) = (MemoryStore::default(), Totals::default());
        let sealed = |totals: &mut Totals, changes: &[(&[u8], Option<&[u8]>)]| {
            let mut batch = Batch::default();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.put(key.to_vec(), value.to_vec()),
                    None => batch.delete(key.to_vec()),
                }
            }
            totals.seal(&store, &mut batch).unwrap();
            store.apply(&batch).unwrap();
            batch.iter().map(|(key, value)| (key.to_vec(), value.is_some())).collect::<Vec<_>>()
        };
        let own = (vec![Table::Totals.byte()], true);
        let kept = [(&b"kept"[..], Some(&b"1"[..])), (b"passing", Some(b"2")), (b"passing", None)];
        assert_eq!(sealed(&mut totals, &kept), [(b"kept".to_vec(), true), own.clone()]);
        assert_eq!(totals.rows, 1);
        // One that was there before is removed.
        let replaced = [(&b"kept"[..], Some(&b"3"[..])), (b"kept", None), (b"never", None)];
        assert_eq!(sealed(&mut totals, &replaced), [(b"kept".to_vec(), false), own]);
        assert!(totals.same_rows(&Totals::default()) && totals.batches == 2);
    }
}
