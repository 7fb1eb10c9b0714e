//! The folders of runs: made, tidied up when a run is over, and removed with the oldest runs when there are too many or they are
//! too large. Nothing of a run is removed before it is over and the server has its logs.

use std::collections::{BTreeMap, HashSet};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use link::session::Transaction;
use messages::{Keep, RunEnd, RunId};
use tokio::task::spawn_blocking;

use crate::disk::folder_bytes_without;
use crate::records::RunRecord;
use crate::service::DiskLimits;
use crate::worker::Worker;

impl Worker {
    /// Does with the working folder of a run that is over what the run says. Bytes of its folder after that.
    pub(crate) async fn tidy(&self, record: &RunRecord) -> u64 {
        let run = record.start.run;
        let (keep, end) = (record.start.keep, record.progress.end.clone());
        let (work_dir, dir) = (self.work_dir(run), self.run_dir(run));
        let tidied = spawn_blocking(move || {
            let is_empty = match end {
                end if keeps(keep, end.as_ref()) => false,
                Some(RunEnd::Succeeded) => empty(run, &work_dir),
                // Another run may go on from it, and is to find that there is no folder to go on in.
                Some(RunEnd::Failed(_) | RunEnd::Cancelled(_) | RunEnd::TimedOut) | None => remove_now(run, &work_dir),
            };
            folder_bytes_without(&dir, is_empty.then_some(work_dir.as_path()))
        });
        // What cannot be counted takes no part in the limit.
        tidied.await.unwrap_or(0)
    }

    /// Removes the oldest ended runs beyond the limits, rows and folders.
    pub(crate) async fn clean(&self) {
        loop {
            let Some((seq, run)) = oldest_beyond(&self.runs().ended, self.limits()) else { return };
            self.remove_folder(run).await;
            let rows = RunRecord::delete(run).to_vec();
            if self.endpoint().transact(Transaction { rows, ..Transaction::default() }).await.is_err() {
                return;
            }
            self.runs().ended.remove(seq, run);
        }
    }

    pub(crate) async fn remove_folder(&self, run: RunId) {
        remove(run, self.run_dir(run)).await;
    }
}

/// Ended runs that are kept, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct EndedRuns {
    /// By the place of the message that started them, with the bytes of their folders.
    folders: BTreeMap<(u64, RunId), u64>,
    known: HashSet<RunId>,
    /// Of all of them: more than any number of 64 bits can be.
    bytes: u128,
}

impl EndedRuns {
    /// Notes a run that was started by the message of that place.
    pub(crate) fn insert(&mut self, seq: u64, run: RunId, bytes: u64) {
        self.remove(seq, run);
        self.folders.insert((seq, run), bytes);
        self.known.insert(run);
        self.bytes += u128::from(bytes);
    }

    /// Forgets it.
    pub(crate) fn remove(&mut self, seq: u64, run: RunId) {
        if let Some(bytes) = self.folders.remove(&(seq, run)) {
            self.known.remove(&run);
            self.bytes -= u128::from(bytes);
        }
    }

    /// Whether it is one of them.
    pub(crate) fn contains(&self, run: RunId) -> bool {
        self.known.contains(&run)
    }
}

/// The oldest ended run, if there are more than may be kept, or they are larger together.
fn oldest_beyond(EndedRuns { folders, bytes, .. }: &EndedRuns, limits: &DiskLimits) -> Option<(u64, RunId)> {
    let beyond = folders.len() > limits.ended_runs_max || *bytes > u128::from(limits.ended_bytes_max);
    folders.keys().next().copied().filter(|_| beyond)
}

/// Whether the working folder of a run that ended so stays.
fn keeps(keep: Keep, end: Option<&RunEnd>) -> bool {
    match keep {
        Keep::Always => true,
        Keep::OnFailure => end != Some(&RunEnd::Succeeded),
        Keep::Never => false,
    }
}

async fn remove(run: RunId, dir: PathBuf) {
    // The task does not panic.
    let _gone = spawn_blocking(move || remove_now(run, &dir)).await;
}

/// Whether it is gone.
fn remove_now(run: RunId, dir: &Path) -> bool {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%run, %error, "A folder of a run that is over could not be removed.");
            false
        }
        Ok(()) | Err(_) => true,
    }
}

/// Removes the working folder of a run that succeeded, if it holds anything. One that is empty anyway, as most are, is left for the day on which
/// the run's folder goes: it takes no more than its name, and removing it would cost as much as making it did. Whether it has nothing in it now.
fn empty(run: RunId, dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none()) || remove_now(run, dir)
}

/// Makes a folder and those above it, for the agent's user alone.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The same of a working folder and the folder of its run. Whether the latter is new: a step can remove it, and its name is not on stable storage then.
pub(crate) fn make_work_folder(run_dir: &Path, work_dir: &Path) -> io::Result<bool> {
    let mut folder = DirBuilder::new();
    folder.mode(0o700);
    let new = folder.create(run_dir).is_ok();
    match new && folder.create(work_dir).is_ok() {
        true => Ok(true),
        false => make_folder(work_dir).map(|()| new),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ended_runs_go_when_they_are_too_many_or_too_large() {
        let ended = |bytes: &[u64]| {
            let mut ended = EndedRuns::default();
            for (seq, bytes) in (1..).zip(bytes) {
                ended.insert(seq, RunId::from_u128(u128::from(seq)), *bytes);
            }
            ended
        };
        let limits = DiskLimits { ended_runs_max: 3, ended_bytes_max: 100, ..DiskLimits::default() };
        let oldest = Some((1, RunId::from_u128(1)));
        assert_eq!(oldest_beyond(&ended(&[50, 25, 25]), &limits), None);
        assert_eq!(oldest_beyond(&ended(&[1, 1, 1, 1]), &limits), oldest);
        assert_eq!(oldest_beyond(&ended(&[1, 100]), &limits), oldest);
        assert_eq!(oldest_beyond(&ended(&[u64::MAX, u64::MAX]), &limits), oldest);
        let mut two = ended(&[60, 60]);
        assert!(two.contains(RunId::from_u128(1)));
        two.insert(1, RunId::from_u128(1), 40);
        assert_eq!(oldest_beyond(&two, &limits), None);
        two.remove(1, RunId::from_u128(1));
        two.remove(1, RunId::from_u128(1));
        assert!(!two.contains(RunId::from_u128(1)) && two.bytes == 60);
    }

    #[test]
    fn a_folder_of_a_run_that_was_removed_is_new_again() {
        let dir = tempfile::tempdir().unwrap();
        let (run, work) = (dir.path().join("runs/r"), dir.path().join("runs/r/work"));
        let make = || make_work_folder(&run, &work).unwrap();
        assert!(!make(), "what was made with all above it was not looked at");
        std::fs::remove_dir_all(&run).unwrap();
        assert!(make() && work.exists());
        std::fs::remove_dir(&work).unwrap();
        assert!(!make() && work.exists());
    }

    #[test]
    fn a_working_folder_stays_as_the_run_says() {
        let failed = RunEnd::Failed("one".parse().unwrap());
        let kept = |keep| [RunEnd::Succeeded, failed.clone(), RunEnd::TimedOut].map(|end| keeps(keep, Some(&end)));
        assert_eq!(kept(Keep::OnFailure), [false, true, true]);
        assert_eq!(kept(Keep::Always), [true; 3]);
        assert_eq!(kept(Keep::Never), [false; 3]);
    }
}
