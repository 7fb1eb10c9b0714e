//! Gathering what is to be committed together. One commit costs a hand-over to the writer and back, whatever is in it; so while
//! commits are under way, the next one fills. It never holds anything back from an idle journal.

use journal::WriteAhead;

use super::{COMMITS_MAX, Driver, Reply};
use crate::session::Effects;

/// Inputs that one commit covers at most, so that the first of them does not wait for ever more.
const INPUTS_MAX: usize = 512;
/// Bytes of inputs that one commit covers at most, which bounds what waits in memory.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Changes that wait for their commit, and what is bound to them, in the order of the inputs.
pub(super) struct Gathered {
    write: WriteAhead<Vec<(Effects, Reply)>>,
    inputs: usize,
    bytes: usize,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { write: WriteAhead::new(Vec::new(), Vec::new()), inputs: 0, bytes: 0 }
    }
}

impl Gathered {
    /// Adds what one input amounts to, behind all others.
    pub(super) fn push(&mut self, write: WriteAhead<Effects>, reply: Reply, bytes: usize) {
        self.write.push(write.with(reply));
        self.inputs += 1;
        self.bytes += bytes;
    }

    /// Whether another input may be taken.
    pub(super) const fn has_room(&self) -> bool {
        self.inputs < INPUTS_MAX && self.bytes < BYTES_MAX
    }
}

impl Driver {
    /// Hands what was gathered to the journal, unless enough is under way there.
    pub(super) fn flush(&mut self) {
        if self.commits.len() < COMMITS_MAX {
            self.flush_all();
        }
    }

    /// Hands what was gathered to the journal.
    pub(super) fn flush_all(&mut self) {
        if self.gathered.inputs > 0 {
            let gathered = std::mem::take(&mut self.gathered);
            self.commits.push_back(self.journal.commit(gathered.write));
        }
    }
}
