//! All blocks by their base, and which of them were used last. Rows that are written one after the other belong to few blocks, so most
//! are found without looking through the map. It knows no keys but bases.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::block::Block;
use super::places::{KeyBytes, base_of, is_of};

/// Blocks that are remembered: a header and a body of each of two streams.
const LATEST: usize = 4;
/// Places without a block that are always kept: 16 bytes each.
const FREE_MIN: usize = 64;

/// Blocks by the lowest key that each could hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocks {
    /// Where each is in `all`.
    by_base: BTreeMap<KeyBytes, usize>,
    all: Vec<Option<Arc<Block>>>,
    /// Places in `all` without a block.
    free: Vec<usize>,
    latest: [Option<(KeyBytes, usize)>; LATEST],
    /// Which of these is forgotten next.
    oldest: usize,
}

impl Blocks {
    /// The place of the block to which a key belongs, if that is one of those used last.
    #[inline]
    fn remembered(&self, key: &[u8]) -> Option<usize> {
        self.latest.iter().flatten().find(|(base, _)| is_of(base.bytes(), key)).map(|(_, at)| *at)
    }

    /// The block to which a key belongs.
    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<Block>> {
        match self.remembered(key) {
            Some(at) => self.all[at].as_ref(),
            None => self.all[*self.by_base.get(&base_of(key))?].as_ref(),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Arc<Block>> {
        let at = match self.remembered(key) {
            Some(at) => at,
            None => self.remember(key)?,
        };
        self.all[at].as_mut()
    }

    fn remember(&mut self, key: &[u8]) -> Option<usize> {
        let base = base_of(key);
        let at = *self.by_base.get(&base)?;
        self.latest[self.oldest] = Some((base, at));
        self.oldest = (self.oldest + 1) % LATEST;
        Some(at)
    }

    /// Adds a block with a base that no other has.
    pub(super) fn insert(&mut self, base: KeyBytes, block: Block) {
        let block = Some(Arc::new(block));
        let at = if let Some(at) = self.free.pop() {
            self.all[at] = block;
            at
        } else {
            self.all.push(block);
            self.all.len() - 1
        };
        self.by_base.insert(base, at);
    }

    pub(super) fn remove(&mut self, base: &KeyBytes) {
        let Some(at) = self.by_base.remove(base) else { return };
        for latest in &mut self.latest {
            latest.take_if(|(_, other)| *other == at);
        }
        self.all[at] = None;
        self.free.push(at);
        if self.free.len() > FREE_MIN && self.free.len() > self.all.len() / 4 * 3 {
            self.close_up();
        }
    }

    /// Gives the places without a block back.
    fn close_up(&mut self) {
        let mut all = Vec::with_capacity(self.by_base.len());
        for (at, to) in self.by_base.values_mut().zip(0..) {
            all.push(self.all[*at].take());
            *at = to;
        }
        (self.all, self.free, self.latest) = (all, Vec::new(), Default::default());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&KeyBytes, &Arc<Block>)> {
        self.by_base.iter().filter_map(|(base, at)| Some((base, self.all[*at].as_ref()?)))
    }

    pub(super) fn range<'a>(
        &'a self,
        bases: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&'a KeyBytes, &'a Arc<Block>)> + use<'a> {
        self.by_base.range::<[u8], _>(bases).filter_map(|(base, at)| Some((base, self.all[*at].as_ref()?)))
    }
}
