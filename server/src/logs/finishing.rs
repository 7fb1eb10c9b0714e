//! Logs that are all there, until they are durable and compared with their agents' records: some at a time, and none waits for
//! another's end. It tells nobody anything itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;

use messages::{EndpointId, LogEnd, LogKey, LogMark};
use tokio::task::{Id, JoinError, JoinSet};

use super::{Logs, Marks};

/// Logs that are synced and compared with their agents' records at the same time. More would only make the disk seek.
const FINISHING_MAX: usize = 4;

/// Logs that are all there, until they are durable and compared.
#[derive(Default)]
pub(super) struct Finishing {
    /// Each of them, waiting or under way.
    pub(super) whole: BTreeMap<LogKey, (EndpointId, LogEnd)>,
    waiting: VecDeque<LogKey>,
    pub(super) tasks: JoinSet<io::Result<LogMark>>,
    /// Which log each task is about.
    under_way: HashMap<Id, LogKey>,
}

impl Finishing {
    pub(super) fn want(&mut self, from: EndpointId, key: LogKey, end: LogEnd) {
        if self.whole.insert(key.clone(), (from, end)).is_none() {
            self.waiting.push_back(key);
        }
    }

    pub(super) fn begin(&mut self, logs: &Logs) {
        while self.tasks.len() < FINISHING_MAX
            && let Some(key) = self.waiting.pop_front()
        {
            let Some((_, end)) = self.whole.get(&key).cloned() else { continue };
            let (logs, log) = (logs.clone(), key.clone());
            self.start(key, move || logs.finish(&log, &end));
        }
    }

    fn start(&mut self, key: LogKey, work: impl FnOnce() -> io::Result<LogMark> + Send + 'static) {
        let task = self.tasks.spawn_blocking(work);
        self.under_way.insert(task.id(), key);
    }

    /// Takes in how a task ended. If that was badly, it is its own log alone that is tried again: the others go on, and are answered.
    pub(super) fn done(&mut self, done: Result<(Id, io::Result<LogMark>), JoinError>) -> Marks {
        let (task, finished) = match done {
            Ok((task, finished)) => (task, finished),
            Err(error) => (error.id(), Err(io::Error::other(error))),
        };
        let Some(key) = self.under_way.remove(&task) else { return Marks::new() };
        let from = self.whole.remove(&key).map(|(from, _)| from);
        match (finished, from) {
            (Ok(mark), Some(from)) => Marks::from([((from, key), mark)]),
            (Ok(_), None) => Marks::new(),
            // Its agent sends the end again, and then this is tried again.
            (Err(error), _) => {
                tracing::warn!(%error, run = %key.run, step = %key.step, "A log cannot be finished; it is tried again later.");
                Marks::new()
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use messages::{Digest, LogStream, RunId};

    use super::*;

    #[tokio::test]
    async fn a_log_whose_finishing_ends_badly_takes_no_other_along() {
        let mut finishing = Finishing::default();
        let key = |attempt| {
            let (run, step) = (RunId::from_u128(1), "one".parse().unwrap());
            LogKey { run, step, attempt, stream: LogStream::Stdout }
        };
        let ending = |attempt| {
            (
                EndpointId::Agent("a1".parse().unwrap()),
                key(attempt),
                LogEnd { size: 0, sha256: Digest::of(b""), cut: 0 },
            )
        };
        for (from, key, end) in [1, 2, 3].map(ending) {
            finishing.want(from, key, end);
        }
        // The third waits.
        for attempt in [1, 2] {
            assert_eq!(finishing.waiting.pop_front(), Some(key(attempt)));
            let mark = LogMark { key: key(attempt), have: 0, complete: true };
            finishing.start(key(attempt), move || if attempt == 1 { panic!("a defect") } else { Ok(mark) });
        }
        let mut marks = Marks::new();
        while let Some(done) = finishing.tasks.join_next_with_id().await {
            marks.extend(finishing.done(done));
        }
        assert_eq!(marks.into_values().map(|mark| mark.key.attempt).collect::<Vec<_>>(), [2]);
        assert_eq!(finishing.whole.keys().map(|key| key.attempt).collect::<Vec<_>>(), [3]);
        assert_eq!(finishing.waiting, [key(3)]);
        // What ended badly is tried again when its agent sends its end again.
        let (from, first, end) = ending(1);
        finishing.want(from, first.clone(), end);
        assert_eq!(finishing.waiting, [key(3), first]);
    }
}
