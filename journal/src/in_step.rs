//! The writer without its thread: for simulators, which decide themselves what is written when. It is the same writer, so
//! checking, batching, totals and the order of write and sync are those of a journal that runs.

use std::collections::VecDeque;

use crate::commit::{Commit, CommitError, pair};
use crate::high_water::HighWater;
use crate::state::State;
use crate::write_ahead::WriteAhead;
use crate::writer::{Job, Writer};

/// The writing half of a journal opened with [`Journal::in_step`](crate::Journal::in_step).
#[doc(hidden)]
pub struct InStep {
    writer: Writer,
    failed: Option<CommitError>,
}

impl InStep {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { writer, failed: None }
    }

    /// Writes these as commits that waited together: one batch, one sync. Returns what was bound to each, in order. After a
    /// failure nothing more is written, as in a journal that runs.
    pub fn commit<T: Send + 'static>(&mut self, group: Vec<WriteAhead<T>>) -> Vec<Result<T, CommitError>> {
        let mut waiting = VecDeque::new();
        let mut commits: Vec<Commit<T>> = Vec::new();
        for write in group {
            let (changes, then) = write.into_parts();
            let (done, commit) = pair(then);
            waiting.push_back(Job { changes, done });
            commits.push(commit);
        }
        while let Some(first) = waiting.pop_front() {
            match &self.failed {
                Some(error) => first.done.give(Err(error.clone())),
                None => self.failed = self.writer.turn(first, &mut || waiting.pop_front()).err(),
            }
        }
        // Every job was answered above, so none of these waits.
        commits.into_iter().map(Commit::wait).collect()
    }

    /// What the rows written so far amount to, by the writer's own fold.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.writer.state
    }

    /// The mark that the high-water file would hold now.
    #[must_use]
    pub fn mark(&self) -> Option<HighWater> {
        HighWater::of(&self.writer.state)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use messages::Incarnation;

    use crate::{Change, Journal, MemoryStore, Opening, Row, WriteAhead, put_app};

    fn opening() -> Opening {
        Opening { endpoint: "web-01".parse().unwrap(), incarnation: Incarnation::from_u128(1), now_ms: 0 }
    }

    #[test]
    fn commits_in_step_are_there_when_the_journal_is_opened_again_and_share_a_batch() {
        let store = Arc::new(MemoryStore::default());
        let (_, mut writer, before) = Journal::in_step(store.clone(), &opening(), None).unwrap();
        let write = |name: u8| WriteAhead::new(vec![put_app(vec![name], vec![name])], name);
        let written: Vec<u8> = writer.commit(vec![write(1), write(2)]).into_iter().map(Result::unwrap).collect();
        assert_eq!(written, [1, 2]);
        assert_eq!(writer.state().totals.batches, before.totals.batches + 1);
        let mark = writer.mark().unwrap();
        let (journal, _, state) = Journal::in_step(store, &opening(), Some(&mark)).unwrap();
        assert_eq!(state.meta.unwrap().epoch.value(), 2);
        let mut rows = 0;
        journal.app_rows(&[], &mut |_, _| rows += 1).unwrap();
        assert_eq!(rows, 2);
    }

    #[test]
    fn a_journal_in_step_that_is_shorter_than_its_mark_is_refused() {
        let store = Arc::new(MemoryStore::default());
        let (_, mut writer, _) = Journal::in_step(store, &opening(), None).unwrap();
        assert!(writer.commit(vec![WriteAhead::new(vec![put_app(vec![1], vec![1])], ())])[0].is_ok());
        let mark = writer.mark().unwrap();
        assert!(Journal::in_step(Arc::new(MemoryStore::default()), &opening(), Some(&mark)).is_err());
    }

    #[test]
    fn after_an_illegal_change_nothing_more_is_written() {
        let store = Arc::new(MemoryStore::default());
        let (_, mut writer, _) = Journal::in_step(store, &opening(), None).unwrap();
        let seq = messages::Seq::FIRST;
        let illegal = Change::Put(Row::Work("web-02".parse().unwrap(), seq, crate::Work::default()));
        let legal = || WriteAhead::new(vec![put_app(vec![1], vec![1])], ());
        let results = writer.commit(vec![legal(), WriteAhead::new(vec![illegal], ()), legal()]);
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false]);
        assert!(writer.commit(vec![legal()])[0].is_err());
    }
}
