//! Looking after the attempt under way until it is over, whatever state an earlier process left it in, and ending it when its run
//! is to be ended. What became of it is read from its files alone.

use std::io;
use std::pin::pin;

use messages::{StepEnd, StepSpec};

use super::outputs::relied_on;
use super::{ExecuteError, Execution, LAUNCHES_MAX, LOOK_AGAIN, Outcome, blocking, look};
use crate::attempt::layout::{OUTPUT, chain};
use crate::attempt::record_file::RECORD;
use crate::attempt::{
    Attempt, AttemptEnd, AttemptState, Exit, LaunchError, PrepareError, Settled, StateError, Survivors,
};
use crate::folders::make_work_folder;
use crate::ship::Ending;

/// What a look at an attempt shows.
type Look = Result<AttemptState, StateError>;

impl Execution {
    pub(super) async fn attend(&mut self, spec: &StepSpec) -> Result<Outcome, ExecuteError> {
        let (run, number) = (self.record.start.run, self.record.attempt());
        let attempt = match Attempt::open(&self.worker.attempt_stem(run, &spec.id, number)) {
            Ok(attempt) => attempt,
            Err(error) => return Ok(self.never(StepEnd::NotStarted(error.to_string()))),
        };
        self.worker.ship().track(run, &spec.id, number, &attempt);
        let (mut state, mut prepared) = match self.first_look(spec, &attempt).await {
            Ok(first) => first,
            Err(reason) => return Ok(self.never(StepEnd::NotStarted(reason))),
        };
        let (mut looks, mut launches) = (0, 0);
        loop {
            let found = match state {
                Ok(found) => found,
                Err(error) if looks < LOOK_AGAIN.1 => {
                    tracing::warn!(%run, step = %spec.id, %error, "An attempt's files cannot be read; looking again.");
                    looks += 1;
                    tokio::time::sleep(LOOK_AGAIN.0).await;
                    state = look(&attempt, self.worker.boot()).await;
                    continue;
                }
                Err(error) => return Ok(self.decide(spec, &attempt, &chain(&error), Survivors::Seen).await),
            };
            match found {
                AttemptState::NotPrepared if launches > 0 => {
                    return Ok(self.unrecorded(spec, &attempt, &gone_since(&attempt), Survivors::Seen).await);
                }
                AttemptState::NotPrepared | AttemptState::NotStarted if self.stopping() => {
                    return Ok(self.never(StepEnd::Cancelled));
                }
                AttemptState::NotPrepared | AttemptState::NotStarted if !prepared => {
                    prepared = true;
                    state = match self.ready(spec, &attempt).await {
                        Ok(state) => state,
                        Err(reason) => return Ok(self.never(StepEnd::NotStarted(reason))),
                    };
                }
                AttemptState::NotPrepared => return Ok(self.never(StepEnd::NotStarted(gone_before(&attempt)))),
                AttemptState::NotStarted if launches == LAUNCHES_MAX => {
                    let reason = format!(
                        "its shim ended {LAUNCHES_MAX} times before it began the step; see {}",
                        attempt.file(RECORD).display()
                    );
                    return Ok(self.never(StepEnd::NotStarted(reason)));
                }
                AttemptState::NotStarted => {
                    launches += 1;
                    state = match self.start(&attempt).await? {
                        Ok(state) => state,
                        Err(end) => return Ok(self.never(end)),
                    };
                }
                AttemptState::Running { .. } => {
                    state = self.wait(&attempt).await;
                }
                AttemptState::Ended(exit) => return Ok(Outcome::Ended(self.recorded(spec, *exit))),
                AttemptState::Interrupted(interruption) => {
                    let evidence = interruption.to_string();
                    return Ok(self.unrecorded(spec, &attempt, &evidence, interruption.survivors).await);
                }
                AttemptState::Unreadable { file, damage } => {
                    let evidence = format!("`{file}` of the attempt cannot be believed: {damage}");
                    return Ok(self.unrecorded(spec, &attempt, &evidence, Survivors::Seen).await);
                }
            }
        }
    }

    /// Launches it once its beginning is on stable storage, if nothing that came meanwhile forbids it. The error is how it ended without
    /// having run.
    async fn start(&mut self, attempt: &Attempt) -> Result<Result<Look, StepEnd>, ExecuteError> {
        self.begun().await?;
        if self.stopping() {
            return Ok(Err(StepEnd::Cancelled));
        }
        Ok(self.launch(attempt).await.map_err(StepEnd::NotStarted))
    }

    /// Nothing of it has run, so it has said nothing.
    fn never(&mut self, end: StepEnd) -> Outcome {
        (self.silent, self.claim) = (true, None);
        Outcome::Ended(end)
    }

    /// What the record of the end comes to, and what is left to be shipped.
    fn recorded(&mut self, spec: &StepSpec, exit: Exit) -> StepEnd {
        let (run, number) = (self.record.start.run, self.record.attempt());
        (self.used, self.ended_ms, self.silent) = (exit.usage, Some(exit.ended_at_ms), exit.is_silent());
        if !self.silent {
            self.worker.ship().ended(run, &spec.id, number, Ending::recorded(&exit));
        }
        let error = exit.output_error.clone();
        relied_on(spec, self.end_of(exit), error)
    }

    /// It began, and nothing says how it ended.
    async fn unrecorded(
        &mut self,
        spec: &StepSpec,
        attempt: &Attempt,
        evidence: &str,
        survivors: Survivors,
    ) -> Outcome {
        let (run, number) = (self.record.start.run, self.record.attempt());
        self.silent = false;
        self.worker.ship().ended(run, &spec.id, number, Ending::unrecorded());
        self.decide(spec, attempt, evidence, survivors).await
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

    /// What is true of the attempt at first, and whether this process has prepared it. One that was begun a moment ago is prepared at once,
    /// while its beginning is committed.
    async fn first_look(&mut self, spec: &StepSpec, attempt: &Attempt) -> Result<(Look, bool), String> {
        if self.begun.is_some() && !self.stopping() && self.prepare(spec, attempt).await? {
            return Ok((Ok(AttemptState::NotStarted), true));
        }
        Ok((look(attempt, self.worker.boot()).await, false))
    }

    /// Prepares it, and what is true of it then.
    async fn ready(&mut self, spec: &StepSpec, attempt: &Attempt) -> Result<Look, String> {
        match self.prepare(spec, attempt).await? {
            // It is held for its shim, so a look would take it for one that runs.
            true => Ok(Ok(AttemptState::NotStarted)),
            false => Ok(look(attempt, self.worker.boot()).await),
        }
    }

    /// Waits until no shim is alive.
    async fn wait(&self, attempt: &Attempt) -> Result<AttemptState, StateError> {
        let watch = attempt.watch(self.worker.boot()).map_err(|source| unwatchable(attempt, source))?;
        match self.until_over(attempt, watch).await? {
            Ok(state) => state,
            // The thread is gone without an answer.
            Err(_) => look(attempt, self.worker.boot()).await,
        }
    }

    /// Launches it, and waits until no shim is alive. The error is why it was not started.
    async fn launch(&mut self, attempt: &Attempt) -> Result<Result<AttemptState, StateError>, String> {
        let (claim, worker) = (self.claim.take(), self.worker.clone());
        let ran = async {
            match claim {
                Some(claim) => attempt.run_held(claim, worker.shims(), worker.boot()).await,
                None => attempt.run(worker.shims(), worker.boot()).await,
            }
        };
        match self.until_over(attempt, ran).await {
            Ok(Ok(state)) => Ok(state),
            // Another launch was under way: it is running then, or its state tells what came of it.
            Ok(Err(LaunchError::Held | LaunchError::AlreadyStarted | LaunchError::AlreadyEnded))
            | Ok(Err(LaunchError::NotPrepared)) => Ok(look(attempt, self.worker.boot()).await),
            Ok(Err(error @ (LaunchError::Io { .. } | LaunchError::Spawn { .. }))) => Err(chain(&error)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Waits for that, and has the step ended as soon as its run is to be.
    async fn until_over<T>(&self, attempt: &Attempt, over: impl Future<Output = T>) -> Result<T, StateError> {
        let mut over = pin!(over);
        Ok(tokio::select! {
            over = &mut over => over,
            () = self.stop_wanted() => {
                let cancelled = attempt.clone();
                match blocking(move || cancelled.cancel()).await {
                    Ok(outcome) => tracing::info!(run = %self.record.start.run, attempt = %attempt.stem().display(), ?outcome, "A step is ended with its run."),
                    // It is asked again after this look, which is what an error leads to.
                    Err(error) => return Err(error),
                }
                over.await
            }
        })
    }

    /// Makes the files of the attempt, and holds it. Not if the attempt was begun in the meantime.
    async fn prepare(&mut self, spec: &StepSpec, attempt: &Attempt) -> Result<bool, String> {
        if let Some(reason) = &self.homeless {
            return Err(reason.clone());
        }
        let (plan, account) = self.plan(spec, attempt)?;
        let run = self.record.start.run;
        let (runs_dir, run_dir, work_dir) =
            (self.worker.runs_dir(), self.worker.run_dir(run), self.worker.work_dir(run));
        let agent_dir = self.worker.dir();
        let (mut settled, attempt) = (self.settled.clone(), attempt.clone());
        let prepared = blocking(move || {
            // With the folder of the run, in which the attempt's files are to be.
            if make_work_folder(&run_dir, &work_dir)? {
                // Whatever was known of one that was removed is no longer true.
                settled = Settled::folder(&runs_dir);
            }
            let prepared = Attempt::prepare_held(attempt.stem(), &plan, &mut settled);
            if let (Ok(_), Some(account)) = (&prepared, &account) {
                account.let_in(&agent_dir, &work_dir, &attempt.file(OUTPUT))?;
            }
            Ok::<_, io::Error>(prepared.map(|(_, claim)| (claim, settled)))
        })
        .await;
        match prepared {
            Ok(Ok((claim, settled))) => {
                (self.claim, self.settled) = (Some(claim), settled);
                Ok(true)
            }
            // Its state tells.
            Ok(Err(PrepareError::Exists { .. })) => Ok(false),
            Ok(Err(error)) => Err(chain(&error)),
            Err(error) => Err(chain(&error)),
        }
    }
}

fn gone_since(attempt: &Attempt) -> String {
    format!("it was launched, and {} is gone since", attempt.file(RECORD).display())
}

fn gone_before(attempt: &Attempt) -> String {
    format!("what was prepared for it is gone: {}", attempt.file(RECORD).display())
}

fn unwatchable(attempt: &Attempt, source: io::Error) -> StateError {
    StateError { path: attempt.file(RECORD), source }
}
