//! "Journal first, then act" as a type: changes, and what may be done only after they are on stable storage.

use messages::{EndpointId, Seq};

use crate::key::{Direction, MessageTable, write_app, write_message};
use crate::row::Row;

/// One change of the journal.
// A commit has a few of them, and most are puts.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a row.
    Put(Row),
    /// Removes a row of the application.
    DeleteApp(Vec<u8>),
    /// Removes the record of an applied message, now that it is settled.
    DeleteWork(EndpointId, Seq),
    /// Drops the bodies of settled messages, both ends included.
    DropBodies(Direction, EndpointId, Seq, Seq),
    /// Drops what is left of messages that nobody will ask about again, both ends included.
    DropHeaders(Direction, EndpointId, Seq, Seq),
}

impl Change {
    /// Calls `remove` with each key that the change removes.
    pub(crate) fn each_removed(&self, remove: &mut dyn FnMut(&[u8])) {
        let mut key = Vec::new();
        let mut range = |table: MessageTable, peer: &EndpointId, from: Seq, to: Seq| {
            for seq in (from.value()..=to.value()).filter_map(Seq::new) {
                key.clear();
                write_message(&mut key, table.table(), peer, seq);
                remove(&key);
            }
        };
        match self {
            Self::Put(_) => {}
            Self::DeleteApp(name) => {
                write_app(&mut key, name);
                remove(&key);
            }
            Self::DeleteWork(peer, seq) => range(MessageTable::Work, peer, *seq, *seq),
            Self::DropBodies(Direction::Out, peer, from, to) => range(MessageTable::SentBody, peer, *from, *to),
            Self::DropBodies(Direction::In, peer, from, to) => range(MessageTable::InboxBody, peer, *from, *to),
            Self::DropHeaders(Direction::Out, peer, from, to) => range(MessageTable::SentHeader, peer, *from, *to),
            Self::DropHeaders(Direction::In, peer, from, to) => range(MessageTable::InboxHeader, peer, *from, *to),
        }
    }
}

/// Changes to write, and what may happen only once they are on stable storage.
///
/// **Invariant:** `then` comes out of [`Journal::commit`](crate::Journal::commit) alone, after the sync
/// (`effects_come_out_only_after_the_sync`), but for what is [lent](Self::lend). It has no getter:
///
/// ```compile_fail
/// let write = journal::WriteAhead::new(Vec::new(), "publish this");
/// let too_early = write.then; // private
/// ```
#[derive(Debug)]
#[must_use = "nothing is written, and nothing may be done, before this is committed"]
pub struct WriteAhead<T> {
    changes: Vec<Change>,
    then: T,
}

impl<T> WriteAhead<T> {
    /// Binds an effect to the changes that must be durable before it.
    pub const fn new(changes: Vec<Change>, then: T) -> Self {
        Self { changes, then }
    }

    /// The changes.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Takes something out before the changes are on stable storage, for whoever does nothing outside this journal before a commit that is
    /// handed over behind this one is through: then these changes are on stable storage, too, or neither happened.
    pub fn lend<U>(&mut self, take: impl FnOnce(&mut T) -> U) -> U {
        take(&mut self.then)
    }

    /// Binds something more to the same changes. Nothing is looked into.
    pub fn with<U>(self, more: U) -> WriteAhead<(T, U)> {
        WriteAhead { changes: self.changes, then: (self.then, more) }
    }

    pub(crate) fn into_parts(self) -> (Vec<Change>, T) {
        (self.changes, self.then)
    }

    /// For tests and simulators that stand in for the journal: the caller says that it has made the changes durable.
    #[doc(hidden)]
    pub fn committed_elsewhere(self) -> (Vec<Change>, T) {
        self.into_parts()
    }
}

impl<T> WriteAhead<Vec<T>> {
    /// Adds the changes of another one behind these. What is bound to either may happen only when all of them are on stable storage.
    pub fn push(&mut self, next: WriteAhead<T>) {
        self.changes.extend(next.changes);
        self.then.push(next.then);
    }
}
