//! A run that goes on from earlier ones: it waits until they are over here, takes over their working folder, and does nothing of
//! what they did. Of what nobody knows the step's declared effect decides, as after a loss of the journal.

use std::io;
use std::path::{Path, PathBuf};

use messages::{Earlier, RunStart, StepSpec};

use super::{Execution, blocking};
use crate::worker::{Worker, make_folder};

impl Execution {
    pub(super) fn earlier(&self) -> Option<&Earlier> {
        self.record.start.earlier.as_ref()
    }

    /// What is known of a step that an earlier run may have done; nothing if that is known, or was settled in this run.
    pub(super) fn unknown_earlier(&self, spec: &StepSpec) -> Option<&str> {
        let first = self.record.attempt() <= 1;
        self.earlier().filter(|_| first)?.unknown.get(&spec.id).map(String::as_str)
    }

    /// Takes over the working folder of the earlier runs, if this one goes on in it. Without it no step can be begun.
    pub(super) async fn take_over(&mut self) {
        let start = &self.record.start;
        let Some(earlier) = start.earlier.as_ref().filter(|earlier| earlier.folder) else { return };
        let (dir, own) = (self.worker.run_dir(start.run), self.worker.work_dir(start.run));
        let theirs: Vec<PathBuf> = earlier.runs.iter().map(|run| self.worker.work_dir(*run)).collect();
        self.homeless = match blocking(move || move_first(&theirs, &dir, &own)).await {
            Ok(true) => None,
            Ok(false) => Some(gone(start)),
            Err(error) => Some(format!("the working folder of the earlier run cannot be taken over: {error}")),
        };
    }
}

fn gone(start: &RunStart) -> String {
    let first = start.steps.first().map(|step| step.id.to_string()).unwrap_or_default();
    format!(
        "the working folder of the earlier run is gone from this agent; begin at the first step, in a new one: longshore job retry {} \
         --from {first}",
        start.job
    )
}

/// Moves the first of those folders that there is. Whether the own one is there then: a process before this one may have moved it.
fn move_first(theirs: &[PathBuf], dir: &Path, own: &Path) -> io::Result<bool> {
    if own.try_exists()? {
        return Ok(true);
    }
    make_folder(dir)?;
    for folder in theirs {
        match std::fs::rename(folder, own) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

impl Worker {
    /// Whether a run has to wait for one that it goes on from: what is left of that one is still being ended or reported here.
    pub(crate) fn is_after_open(&self, start: &RunStart) -> bool {
        let runs = self.runs();
        start.earlier.iter().flat_map(|earlier| &earlier.runs).any(|run| runs.open.contains_key(run))
    }

    /// Returns when every run that this one goes on from is over here.
    pub(crate) async fn earlier_over(&self, start: &RunStart) {
        let mut closed = self.closed();
        while self.is_after_open(start) {
            if closed.changed().await.is_err() {
                return;
            }
        }
    }
}
