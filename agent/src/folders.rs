//! The folders of runs: made, tidied up when a run is over, and removed with the oldest runs when there are too many or they are
//! too large. Nothing of a run is removed before it is over and the server has its logs.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use link::session::Transaction;
use messages::{Keep, RunEnd, RunId};
use tokio::task::spawn_blocking;

use crate::disk::folder_bytes;
use crate::records::RunRecord;
use crate::service::DiskLimits;
use crate::worker::{Runs, Worker};

impl Worker {
    /// Does with the working folder of a run that is over what the run says. Bytes of its folder after that.
    pub(crate) async fn tidy(&self, record: &RunRecord) -> u64 {
        let run = record.start.run;
        if !keeps(record.start.keep, record.progress.end.as_ref()) {
            remove(run, self.work_dir(run)).await;
        }
        let dir = self.run_dir(run);
        // What cannot be counted takes no part in the limit.
        spawn_blocking(move || folder_bytes(&dir)).await.unwrap_or(0)
    }

    /// Removes the oldest ended runs beyond the limits, rows and folders.
    pub(crate) async fn clean(&self) {
        loop {
            let Some((seq, run)) = oldest_beyond(&self.runs(), self.limits()) else { return };
            self.remove_folder(run).await;
            let rows = RunRecord::delete(run).to_vec();
            if self.endpoint().transact(Transaction { rows, ..Transaction::default() }).await.is_err() {
                return;
            }
            self.runs().ended.remove(&(seq, run));
        }
    }

    pub(crate) async fn remove_folder(&self, run: RunId) {
        remove(run, self.run_dir(run)).await;
    }
}

/// The oldest ended run, if there are more than may be kept, or they are larger together.
fn oldest_beyond(runs: &Runs, limits: &DiskLimits) -> Option<(u64, RunId)> {
    let bytes = runs.ended.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let beyond = runs.ended.len() > limits.ended_runs_max || bytes > limits.ended_bytes_max;
    runs.ended.keys().next().copied().filter(|_| beyond)
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
    let removed = spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
    if let Ok(Err(error)) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%run, %error, "A folder of a run that is over could not be removed.");
    }
}

/// Makes a folder and those above it, for the agent's user alone.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ended_runs_go_when_they_are_too_many_or_too_large() {
        let ended = |bytes: &[u64]| {
            let ended = (1..).zip(bytes).map(|(seq, bytes)| ((seq, RunId::from_u128(u128::from(seq))), *bytes));
            Runs { ended: ended.collect(), ..Runs::default() }
        };
        let limits = DiskLimits { ended_runs_max: 3, ended_bytes_max: 100, ..DiskLimits::default() };
        let oldest = Some((1, RunId::from_u128(1)));
        assert_eq!(oldest_beyond(&ended(&[50, 25, 25]), &limits), None);
        assert_eq!(oldest_beyond(&ended(&[1, 1, 1, 1]), &limits), oldest);
        assert_eq!(oldest_beyond(&ended(&[1, 100]), &limits), oldest);
        assert_eq!(oldest_beyond(&ended(&[u64::MAX, u64::MAX]), &limits), oldest);
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
