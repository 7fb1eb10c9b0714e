//! Looking after the attempt under way until it is over, whatever state an earlier process left it in, and ending it when its run
//! is to be ended. What became of it is read from its folder alone.

use std::path::PathBuf;

use messages::{StepEnd, StepSpec};

use super::{Execution, LAUNCHES_MAX, LOOK_AGAIN, Outcome, blocking, look};
use crate::attempt::layout::chain;
use crate::attempt::{Attempt, AttemptEnd, AttemptState, Exit, LaunchError, PrepareError, StateError, Survivors};
use crate::ship::Ending;
use crate::worker::make_folder;

impl Execution {
    pub(super) async fn attend(&mut self, spec: &StepSpec) -> Outcome {
        let number = self.record.attempt();
        let run = self.record.start.run;
        let dir = self.worker.attempt_dir(run, &spec.id, number);
        let attempt = match Attempt::open(&dir) {
            Ok(attempt) => attempt,
            Err(error) => return Outcome::Ended(StepEnd::NotStarted(error.to_string())),
        };
        self.worker.ship().track(run, &spec.id, number, &attempt);
        let (mut looks, mut launches) = (0, 0);
        let mut state = look(&attempt, self.worker.boot()).await;
        loop {
            let found = match state {
                Ok(found) => found,
                Err(error) if looks < LOOK_AGAIN.1 => {
                    tracing::warn!(%run, step = %spec.id, %error, "An attempt's folder cannot be read; looking again.");
                    looks += 1;
                    tokio::time::sleep(LOOK_AGAIN.0).await;
                    state = look(&attempt, self.worker.boot()).await;
                    continue;
                }
                Err(error) => return self.decide(spec, &attempt, &chain(&error), Survivors::Seen).await,
            };
            match found {
                AttemptState::NotPrepared | AttemptState::NotStarted if self.stopping() => {
                    return Outcome::Ended(StepEnd::Cancelled);
                }
                AttemptState::NotPrepared => {
                    if let Err(reason) = self.prepare(spec, dir.clone()).await {
                        return Outcome::Ended(StepEnd::NotStarted(reason));
                    }
                }
                AttemptState::NotStarted if launches == LAUNCHES_MAX => {
                    let reason =
                        format!("its shim ended {LAUNCHES_MAX} times before it began the step; see {}", dir.display());
                    return Outcome::Ended(StepEnd::NotStarted(reason));
                }
                AttemptState::NotStarted => {
                    launches += 1;
                    if let Err(reason) = self.launch(&attempt).await {
                        return Outcome::Ended(StepEnd::NotStarted(reason));
                    }
                }
                AttemptState::Running { .. } => {
                    state = self.wait(&attempt).await;
                    continue;
                }
                AttemptState::Ended(exit) => {
                    self.worker.ship().ended(run, &spec.id, number, Ending::recorded(&exit));
                    self.used = exit.usage;
                    return Outcome::Ended(self.end_of(exit));
                }
                AttemptState::Interrupted(interruption) => {
                    self.worker.ship().ended(run, &spec.id, number, Ending::unrecorded());
                    let evidence = interruption.to_string();
                    return self.decide(spec, &attempt, &evidence, interruption.survivors).await;
                }
                AttemptState::Unreadable { file, damage } => {
                    self.worker.ship().ended(run, &spec.id, number, Ending::unrecorded());
                    let evidence = format!("`{file}` of the attempt cannot be believed: {damage}");
                    return self.decide(spec, &attempt, &evidence, Survivors::Seen).await;
                }
            }
            state = look(&attempt, self.worker.boot()).await;
        }
    }

    /// What its record says. A shim that was asked by somebody else to end the step says how that ended, as ever.
    fn end_of(&self, exit: Exit) -> StepEnd {
        match exit.end {
            _ if exit.cancelled && self.stopping() => StepEnd::Cancelled,
            AttemptEnd::Signaled(signal) if exit.out_of_memory => StepEnd::Failed(format!(
                "all of its processes together needed more memory than its limit allows, and were ended by signal {signal}"
            )),
            end => end.into(),
        }
    }

    /// Waits until no shim is alive, and has the step ended as soon as its run is to be.
    async fn wait(&self, attempt: &Attempt) -> Result<AttemptState, StateError> {
        let unwatchable = |source| StateError { path: attempt.dir().to_owned(), source };
        let mut watch = attempt.watch(self.worker.boot()).map_err(unwatchable)?;
        let ended = tokio::select! {
            ended = &mut watch => ended,
            () = self.stop_wanted() => {
                let cancelled = attempt.clone();
                match blocking(move || cancelled.cancel()).await {
                    Ok(outcome) => tracing::info!(run = %self.record.start.run, dir = %attempt.dir().display(), ?outcome, "A step is ended with its run."),
                    // It is asked again after this look, which is what an error leads to.
                    Err(error) => return Err(error),
                }
                watch.await
            }
        };
        match ended {
            Ok(state) => state,
            // The watching thread is gone without an answer; ask directly.
            Err(_) => look(attempt, self.worker.boot()).await,
        }
    }

    async fn prepare(&self, spec: &StepSpec, dir: PathBuf) -> Result<(), String> {
        if let Some(reason) = &self.homeless {
            return Err(reason.clone());
        }
        let (plan, account) = self.plan(spec, &dir)?;
        let work_dir = self.worker.work_dir(self.record.start.run);
        let agent_dir = self.worker.dir();
        let prepared = blocking(move || {
            make_folder(&work_dir)?;
            if let Some(parent) = dir.parent() {
                make_folder(parent)?;
            }
            let prepared = Attempt::prepare(&dir, &plan);
            if let (Ok(_), Some(account)) = (&prepared, &account) {
                account.let_in(&agent_dir, &work_dir, &dir)?;
            }
            Ok::<_, std::io::Error>(prepared)
        })
        .await;
        match prepared {
            // Prepared by an earlier process in the meantime: its state tells.
            Ok(Ok(_) | Err(PrepareError::Exists { .. })) => Ok(()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(error) => Err(chain(&error)),
        }
    }

    async fn launch(&self, attempt: &Attempt) -> Result<(), String> {
        let (attempt, shim) = (attempt.clone(), self.worker.shim().clone());
        match blocking(move || attempt.launch(&shim)).await {
            // Another launch was under way: it is running then, or its state tells what came of it.
            Ok(()) => Ok(()),
            Err(LaunchError::Held | LaunchError::AlreadyStarted | LaunchError::AlreadyEnded) => Ok(()),
            Err(LaunchError::NotPrepared) => Ok(()),
            Err(error @ (LaunchError::Io { .. } | LaunchError::Spawn { .. })) => Err(chain(&error)),
        }
    }
}
