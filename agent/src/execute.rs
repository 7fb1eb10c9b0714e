//! Executing one run, step by step. Each change is committed together with its report before it is acted on, and what has
//! begun is never begun again unless its declared effect allows it.
//!
//! ```text
//! next step ──commit "started"──► attempt ──ended──► commit the end ──► next step, or the end of the run
//!                  ▲                 │
//!                  └──again──── interrupted: the effect decides ──► unknown: a person decides
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use link::session::{Outbound, TransactError, Transaction};
use link::{SubmitError, outbound, wall_ms};
use messages::{Body, Effect, Program, RunEnd, RunFinished, StepChanged, StepEnd, StepEvent, StepSpec};
use tokio::task::spawn_blocking;

use crate::attempt::layout::chain;
use crate::attempt::{
    Attempt, AttemptKey, AttemptState, BootId, CheckOutcome, LaunchError, OUTPUT_BYTES_MAX, Plan, PrepareError,
    StateError, Survivors, environment, run_check,
};
use crate::records::RunRecord;
use crate::ship::Ending;
use crate::worker::{Worker, make_folder};

/// Attempts at one step that are begun by themselves after interruptions. More than that is no accident any more.
const ATTEMPTS_MAX: u32 = 10;
/// Launches of one attempt whose shim ended without beginning the step.
const LAUNCHES_MAX: u32 = 5;
/// How long a check may take when its step has no time limit of its own.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long survivors of an interrupted attempt get to go.
const SURVIVORS_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a folder that cannot be read is looked at again, and how often at most.
const LOOK_AGAIN: (Duration, u32) = (Duration::from_secs(1), 30);

/// Why the agent stopped working on a run. The run goes on when the agent runs again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecuteError {
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error("a report cannot be made")]
    Report(#[from] TransactError),
}

/// What came of looking after an attempt.
enum Outcome {
    Ended(StepEnd),
    /// Nobody knows whether it took effect, and its effect forbids to run it again: a person decides.
    Undecided(String),
    /// Its outcome is unknown, and its effect allows to run it again.
    Again,
}

/// Executes what is left of a run, until it has ended or waits for a person's decision.
pub(crate) async fn execute(worker: &Worker, mut record: RunRecord) -> Result<RunRecord, ExecuteError> {
    // Of a step that an earlier process began, a doubtful run knows only what its folder says.
    let mut recorded = record.attempt() > 0;
    while record.progress.end.is_none() && record.progress.undecided.is_none() {
        let Some(spec) = record.spec().cloned() else {
            finish(worker, &mut record, RunEnd::Succeeded, None).await?;
            continue;
        };
        if record.progress.doubtful && (recorded || record.attempt() == 0) {
            recorded = false;
            match doubt(worker, &record, &spec).await {
                Doubt::Done => {
                    if record.attempt() == 0 {
                        begin(worker, &mut record, &spec).await?;
                    }
                    ended(worker, &mut record, &spec, StepEnd::AlreadyDone).await?;
                    continue;
                }
                Doubt::Undecided(evidence) => {
                    if record.attempt() == 0 {
                        begin(worker, &mut record, &spec).await?;
                    }
                    undecided(worker, &mut record, &spec, evidence).await?;
                    continue;
                }
                Doubt::Begin => {}
            }
        }
        if record.attempt() == 0 {
            begin(worker, &mut record, &spec).await?;
        }
        let outcome = attend(worker, &record, &spec).await;
        match outcome {
            Outcome::Again => begin(worker, &mut record, &spec).await?,
            Outcome::Ended(end) => ended(worker, &mut record, &spec, end).await?,
            Outcome::Undecided(evidence) => undecided(worker, &mut record, &spec, evidence).await?,
        }
    }
    Ok(record)
}

/// What is to be done about a step that a lost journal may have begun.
enum Doubt {
    /// Begin it, or look after what its folder shows of it.
    Begin,
    Done,
    Undecided(String),
}

/// The run was sent before this agent's journal was lost or restored, so the step may have run although nothing here says so: its
/// declared effect decides, unless the folder of the attempt shows what became of it.
async fn doubt(worker: &Worker, record: &RunRecord, spec: &StepSpec) -> Doubt {
    let dir = worker.attempt_dir(record.start.run, &spec.id, record.attempt().max(1));
    let evident = match Attempt::open(&dir) {
        Ok(attempt) => match look(&attempt, worker.boot()).await {
            Ok(AttemptState::NotPrepared | AttemptState::NotStarted) => false,
            Ok(AttemptState::Running { .. } | AttemptState::Ended(_))
            | Ok(AttemptState::Interrupted(_) | AttemptState::Unreadable { .. })
            | Err(_) => true,
        },
        Err(_) => false,
    };
    if evident {
        return Doubt::Begin;
    }
    let evidence =
        "the journal of this agent was lost or restored after the run was sent, and nothing shows whether the step ran";
    let check = match &spec.effect {
        Effect::ReadOnly | Effect::Idempotent => return Doubt::Begin,
        Effect::Once => return Doubt::Undecided(evidence.to_owned()),
        Effect::Guarded(check) => check,
    };
    if let Err(error) = make_folder(&worker.work_dir(record.start.run)) {
        return Doubt::Undecided(format!("{evidence}; its check has no folder to run in: {error}"));
    }
    match ask(worker, record, spec, check).await {
        Ok(CheckOutcome::Done) => Doubt::Done,
        Ok(CheckOutcome::NotDone(code @ (126 | 127))) => {
            Doubt::Undecided(format!("{evidence}; its check could not be run (exit code {code})"))
        }
        Ok(CheckOutcome::NotDone(_)) => Doubt::Begin,
        Err(reason) => Doubt::Undecided(format!("{evidence}; {reason}")),
    }
}

/// Commits that another attempt begins. Only then may it.
async fn begin(worker: &Worker, record: &mut RunRecord, spec: &StepSpec) -> Result<(), ExecuteError> {
    record.begin();
    let report = step_changed(worker, record, spec, StepEvent::Started)?;
    commit(worker, record, vec![report]).await
}

/// Commits how a step ended, and with it the end of the run if it was the last or went badly.
async fn ended(worker: &Worker, record: &mut RunRecord, spec: &StepSpec, end: StepEnd) -> Result<(), ExecuteError> {
    let success = end.is_success();
    let report = step_changed(worker, record, spec, StepEvent::Ended(end))?;
    if !success {
        return finish(worker, record, RunEnd::Failed(spec.id.clone()), Some(report)).await;
    }
    record.progress.step += 1;
    if record.spec().is_none() {
        return finish(worker, record, RunEnd::Succeeded, Some(report)).await;
    }
    commit(worker, record, vec![report]).await
}

/// Commits that the run waits for a person.
async fn undecided(
    worker: &Worker,
    record: &mut RunRecord,
    spec: &StepSpec,
    evidence: String,
) -> Result<(), ExecuteError> {
    record.progress.undecided = Some(evidence.clone());
    let report = step_changed(worker, record, spec, StepEvent::Undecided(evidence))?;
    commit(worker, record, vec![report]).await
}

async fn finish(
    worker: &Worker,
    record: &mut RunRecord,
    end: RunEnd,
    before: Option<Outbound>,
) -> Result<(), ExecuteError> {
    record.progress.end = Some(end.clone());
    let body = Body::RunFinished(RunFinished { run: record.start.run, end, at_ms: wall_ms() });
    let mut report = outbound(worker.server(), worker.message_id(), &body, Some(record.progress.message))?;
    report.answers = Some(record.progress.seq);
    commit(worker, record, before.into_iter().chain([report]).collect()).await
}

fn step_changed(
    worker: &Worker,
    record: &RunRecord,
    spec: &StepSpec,
    event: StepEvent,
) -> Result<Outbound, TransactError> {
    let attempt = record.progress.attempts.last().copied().unwrap_or(0);
    let report = StepChanged {
        run: record.start.run,
        step: spec.id.clone(),
        attempt,
        event,
        at_ms: wall_ms(),
        usage: None,
        outputs: std::collections::BTreeMap::new(),
    };
    outbound(worker.server(), worker.message_id(), &Body::StepChanged(report), Some(record.progress.message))
}

async fn commit(worker: &Worker, record: &RunRecord, send: Vec<Outbound>) -> Result<(), ExecuteError> {
    let rows = vec![record.progress_row()];
    worker.endpoint().transact(Transaction { rows, send, ..Transaction::default() }).await?;
    Ok(())
}

/// Looks after the attempt under way until it is over, whatever state an earlier process left it in.
async fn attend(worker: &Worker, record: &RunRecord, spec: &StepSpec) -> Outcome {
    let number = record.attempt();
    let dir = worker.attempt_dir(record.start.run, &spec.id, number);
    let attempt = match Attempt::open(&dir) {
        Ok(attempt) => attempt,
        Err(error) => return Outcome::Ended(StepEnd::NotStarted(error.to_string())),
    };
    worker.ship().track(record.start.run, &spec.id, number, &attempt);
    let (mut looks, mut launches) = (0, 0);
    let mut state = look(&attempt, worker.boot()).await;
    loop {
        let found = match state {
            Ok(found) => found,
            Err(error) if looks < LOOK_AGAIN.1 => {
                tracing::warn!(run = %record.start.run, step = %spec.id, %error, "An attempt's folder cannot be read; looking again.");
                looks += 1;
                tokio::time::sleep(LOOK_AGAIN.0).await;
                state = look(&attempt, worker.boot()).await;
                continue;
            }
            Err(error) => return decide(worker, record, spec, &attempt, &chain(&error), Survivors::Seen).await,
        };
        match found {
            AttemptState::NotPrepared => {
                if let Err(reason) = prepare(worker, record, spec, number, dir.clone()).await {
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
                if let Err(reason) = launch(worker, &attempt).await {
                    return Outcome::Ended(StepEnd::NotStarted(reason));
                }
            }
            AttemptState::Running { .. } => {
                state = wait(worker, &attempt).await;
                continue;
            }
            AttemptState::Ended(exit) => {
                worker.ship().ended(record.start.run, &spec.id, number, Ending::recorded(&exit));
                return Outcome::Ended(exit.end.into());
            }
            AttemptState::Interrupted(interruption) => {
                worker.ship().ended(record.start.run, &spec.id, number, Ending::unrecorded());
                let evidence = interruption.to_string();
                return decide(worker, record, spec, &attempt, &evidence, interruption.survivors).await;
            }
            AttemptState::Unreadable { file, damage } => {
                worker.ship().ended(record.start.run, &spec.id, number, Ending::unrecorded());
                let evidence = format!("`{file}` of the attempt cannot be believed: {damage}");
                return decide(worker, record, spec, &attempt, &evidence, Survivors::Seen).await;
            }
        }
        state = look(&attempt, worker.boot()).await;
    }
}

async fn look(attempt: &Attempt, boot: BootId) -> Result<AttemptState, StateError> {
    let attempt = attempt.clone();
    blocking(move || attempt.state(boot)).await
}

async fn wait(worker: &Worker, attempt: &Attempt) -> Result<AttemptState, StateError> {
    let unwatchable = |source| StateError { path: attempt.dir().to_owned(), source };
    let watch = attempt.watch(worker.boot()).map_err(unwatchable)?;
    match watch.await {
        Ok(state) => state,
        // The watching thread is gone without an answer; ask directly.
        Err(_) => look(attempt, worker.boot()).await,
    }
}

async fn prepare(
    worker: &Worker,
    record: &RunRecord,
    spec: &StepSpec,
    attempt: u32,
    dir: PathBuf,
) -> Result<(), String> {
    let plan = plan(worker, record, spec, attempt);
    let work_dir = worker.work_dir(record.start.run);
    let prepared = blocking(move || {
        make_folder(&work_dir)?;
        if let Some(parent) = dir.parent() {
            make_folder(parent)?;
        }
        Ok::<_, std::io::Error>(Attempt::prepare(&dir, &plan))
    })
    .await;
    match prepared {
        // Prepared by an earlier process in the meantime: its state tells.
        Ok(Ok(_) | Err(PrepareError::Exists { .. })) => Ok(()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(error) => Err(chain(&error)),
    }
}

fn plan(worker: &Worker, record: &RunRecord, spec: &StepSpec, attempt: u32) -> Plan {
    Plan {
        program: spec.program.clone(),
        env: environment_of(worker, record, spec, attempt),
        dir: folder(&worker.work_dir(record.start.run), spec),
        timeout_ms: spec.timeout_ms,
        output_bytes_max: OUTPUT_BYTES_MAX,
    }
}

fn environment_of(
    worker: &Worker,
    record: &RunRecord,
    spec: &StepSpec,
    attempt: u32,
) -> std::collections::BTreeMap<String, String> {
    let key = AttemptKey {
        agent: worker.agent().clone(),
        job: record.start.job,
        run: record.start.run,
        step: spec.id.clone(),
        attempt,
    };
    environment(|name| std::env::var_os(name), &key, &spec.env)
}

/// The folder a step runs in: its own if absolute, or within the run's.
fn folder(work_dir: &Path, spec: &StepSpec) -> PathBuf {
    spec.dir.as_ref().map_or_else(|| work_dir.to_owned(), |dir| work_dir.join(dir))
}

async fn launch(worker: &Worker, attempt: &Attempt) -> Result<(), String> {
    let (attempt, shim) = (attempt.clone(), worker.shim().clone());
    match blocking(move || attempt.launch(&shim)).await {
        // Another launch was under way: it is running then, or its state tells what came of it.
        Ok(())
        | Err(LaunchError::Held | LaunchError::AlreadyStarted | LaunchError::AlreadyEnded | LaunchError::NotPrepared) => {
            Ok(())
        }
        Err(error) => Err(chain(&error)),
    }
}

/// Nobody knows what became of an attempt: its declared effect decides.
async fn decide(
    worker: &Worker,
    record: &RunRecord,
    spec: &StepSpec,
    attempt: &Attempt,
    evidence: &str,
    survivors: Survivors,
) -> Outcome {
    let unknown = Outcome::Undecided;
    let check = match &spec.effect {
        Effect::Once => return unknown(evidence.to_owned()),
        Effect::ReadOnly | Effect::Idempotent => None,
        Effect::Guarded(check) => Some(check),
    };
    if survivors == Survivors::Seen {
        let dying = attempt.clone();
        match blocking(move || dying.end_survivors(SURVIVORS_TIMEOUT)).await {
            Ok(Survivors::NotSeen) => {}
            Ok(Survivors::Seen) => return unknown(format!("{evidence}; processes of it cannot be ended")),
            Err(error) => return unknown(format!("{evidence}; {}", chain(&error))),
        }
    }
    if let Some(check) = check {
        match ask(worker, record, spec, check).await {
            Ok(CheckOutcome::Done) => return Outcome::Ended(StepEnd::AlreadyDone),
            // What a shell says when it cannot run the check at all: that is no answer.
            Ok(CheckOutcome::NotDone(code @ (126 | 127))) => {
                return unknown(format!("{evidence}; its check could not be run (exit code {code})"));
            }
            Ok(CheckOutcome::NotDone(_)) => {}
            Err(reason) => return unknown(format!("{evidence}; {reason}")),
        }
    }
    if record.attempt() >= ATTEMPTS_MAX {
        return unknown(format!("{evidence}; that was attempt {ATTEMPTS_MAX}, no other is begun by itself"));
    }
    tracing::info!(run = %record.start.run, step = %spec.id, %evidence, "An interrupted step is run again, as its effect allows.");
    Outcome::Again
}

async fn ask(worker: &Worker, record: &RunRecord, spec: &StepSpec, check: &Program) -> Result<CheckOutcome, String> {
    let env = environment_of(worker, record, spec, record.attempt());
    let dir = folder(&worker.work_dir(record.start.run), spec);
    let timeout = spec.timeout_ms.map_or(CHECK_TIMEOUT, Duration::from_millis);
    let check = check.clone();
    blocking(move || run_check(&check, &env, &dir, timeout)).await.map_err(|error| chain(&error))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("the work reports its failures instead of panicking")
}
