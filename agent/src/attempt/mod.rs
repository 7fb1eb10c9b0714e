//! One attempt at one step, as its agent sees it: a few files that are prepared, launched, watched and read. The step itself runs
//! under a [`crate::shim`], which outlives the agent; all that the two share is those files. Nothing here is remembered in memory
//! only, so another process can go on where this one was killed.

mod boot;
mod check;
pub(crate) mod command;
mod environment;
mod launch;
pub(crate) mod layout;
pub(crate) mod line;
pub(crate) mod procfs;
pub(crate) mod record_file;
pub(crate) mod records;
mod settled;
pub(crate) mod shims;
mod state;
pub(crate) mod survivors;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use messages::LogStream;
use rustix::process::{Pid, Signal};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

pub use boot::{BootId, boot_id};
pub use check::{CheckError, CheckOutcome, run_check};
pub use environment::{AttemptKey, INHERITED, environment};
pub(crate) use launch::{Claim, patiently, take_lock};
pub use launch::{LaunchError, ShimCommand};
pub use layout::Damage;
use layout::{CANCEL, OUTPUT, Record, STDERR, STDOUT};
use record_file::{EXIT, RECORD, STARTED};
pub use records::{AttemptEnd, EXIT_BYTES_MAX, Exit, GroupPlan, PLAN_BYTES_MAX, Plan, RunAs, Started, StreamEnd};
pub use settled::Settled;
use shims::Launched;
pub use shims::Shims;
pub use state::{AttemptState, BootMatch, Interruption, Survivors};
use state::{Lock, Observation};

/// One attempt at one step: a handle on its files. Cheap to clone; holds nothing open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    stem: PathBuf,
}

/// Why an attempt was not prepared. Nothing has run.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is an attempt which has begun, or is just being begun.
    #[error("`{}` is an attempt that was begun; open it, or choose another name", stem.display())]
    Exists {
        /// What the names of its files begin with.
        stem: PathBuf,
    },
    /// A variable of the environment that no process can have.
    #[error("the variable `{}` cannot be given to a process: its name is empty or holds `=`, or a zero byte is in it", name.escape_debug())]
    Variable {
        /// Its name.
        name: String,
    },
    /// The working folder is not absolute.
    #[error("the working folder `{}` must be absolute", dir.display())]
    RelativeDir {
        /// The folder.
        dir: PathBuf,
    },
    /// The plan cannot be written down, or not within its limit.
    #[error("the plan cannot be written down")]
    Plan(#[source] io::Error),
    /// The disk refused; a full disk shows here, before anything has run.
    #[error("cannot prepare `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The files of an attempt could not be read. Says nothing of the step: ask again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}` of an attempt", path.display())]
pub struct StateError {
    /// The file.
    pub path: PathBuf,
    /// What the operating system says.
    pub source: io::Error,
}

/// What came of launching an attempt and waiting until no shim is alive.
pub type Ran = Result<Result<AttemptState, StateError>, LaunchError>;

/// Why survivors were not ended.
#[derive(Debug, thiserror::Error)]
pub enum SurvivorsError {
    /// Its shim is alive, so these are no survivors. Cancel the attempt instead.
    #[error("the step's shim is alive; cancel the attempt instead")]
    ShimAlive,
    /// A build that gave each attempt a folder made it: whether its shim or its step runs is not known.
    #[error(
        "an earlier build of the agent made this attempt, and what may still run of it is not known to this one; see to it, then remove `{}`",
        stem.display()
    )]
    EarlierBuild {
        /// Its folder.
        stem: PathBuf,
    },
    /// The disk or `/proc` does not answer, or a process cannot be signalled.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What asking to end a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The shim was told, and ends the step. Its record of the end says how that went.
    Told,
    /// The step has not begun. The wish is noted: a shim that starts will record that it was cancelled and start nothing.
    Noted,
    /// No shim is alive, and the step has begun or ended: there is nothing that could be told.
    TooLate,
}

impl Attempt {
    /// Makes the files that the end of the step will need, the space for its record included. The names of all begin with `stem` and a dot. Its
    /// folder must exist, and should be closed to others: a plan holds the step's environment. When this returns, that folder's name is on stable
    /// storage, with those of the files. What is in the files need not be
    /// ([`Settled`] says why), so an attempt that has not begun, and that this process has not prepared, must be prepared again.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub fn prepare(stem: &Path, plan: &Plan, settled: &mut Settled) -> Result<Self, PrepareError> {
        Self::prepare_held(stem, plan, settled).map(|(attempt, _)| attempt)
    }

    /// The same, and holds it for the shim that is to have it: meanwhile it counts as running to everybody else.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub(crate) fn prepare_held(stem: &Path, plan: &Plan, settled: &mut Settled) -> Result<(Self, Claim), PrepareError> {
        if let Some(name) = environment::unusable(&plan.env) {
            return Err(PrepareError::Variable { name: name.to_owned() });
        }
        if !plan.dir.is_absolute() {
            return Err(PrepareError::RelativeDir { dir: plan.dir.clone() });
        }
        let bytes = layout::encode(plan, PLAN_BYTES_MAX).map_err(PrepareError::Plan)?;
        let attempt = Self::open(stem).map_err(|source| PrepareError::Io { path: stem.to_owned(), source })?;
        let at = |name: &str| {
            let path = attempt.file(name);
            move |source| PrepareError::Io { path, source }
        };
        if attempt.is_earlier_builds().map_err(|source| PrepareError::Io { path: attempt.stem.clone(), source })? {
            return Err(PrepareError::Exists { stem: attempt.stem });
        }
        // Held until everything is there, so that no shim begins meanwhile, nor goes on while it is changed under it.
        let (lock, new) = record_file::make(&attempt.stem).map_err(at(RECORD))?;
        let free = take_lock(&lock).map_err(at(RECORD))?.is_some();
        if !free || (!new && record_file::has_begun(&lock).map_err(at(RECORD))?) {
            return Err(PrepareError::Exists { stem: attempt.stem });
        }
        // Another user could not make its file in this folder.
        if plan.hands_on || plan.run_as.is_some() {
            layout::open_empty(&attempt.stem, OUTPUT).map_err(at(OUTPUT))?;
        }
        // Last, so that to every process a plan means that everything else is there. What was there goes, with the complaints of an earlier try.
        record_file::prepare(&lock, &bytes).map_err(at(RECORD))?;
        let unsettled = |(path, source)| PrepareError::Io { path, source };
        settled.settle(layout::folder(&attempt.stem)).map_err(unsettled)?;
        let claim = Claim::new(&attempt.stem, lock).map_err(at(RECORD))?;
        Ok((attempt, claim))
    }

    /// A handle on the files whose names begin so; there need not be any: [`Attempt::state`] tells.
    ///
    /// # Errors
    /// The path is empty, or relative and there is no current folder.
    pub fn open(stem: &Path) -> io::Result<Self> {
        Ok(Self { stem: std::path::absolute(stem)? })
    }

    /// What the paths of its files begin with, up to the dot.
    #[must_use]
    pub fn stem(&self) -> &Path {
        &self.stem
    }

    /// Its file of that name.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        layout::file(&self.stem, name)
    }

    /// The file with what the step wrote to one of its outputs. It is there from the first byte on and only grows.
    #[must_use]
    pub fn output(&self, stream: LogStream) -> PathBuf {
        self.file(match stream {
            LogStream::Stdout => STDOUT,
            LogStream::Stderr => STDERR,
        })
    }

    /// Starts the shim, detached: it outlives this process. When this returns Ok the attempt counts as running until the shim
    /// has ended.
    ///
    /// # Errors
    /// [`LaunchError`]; in every case the step has not begun by this call.
    pub fn launch(&self, shim: &ShimCommand) -> Result<(), LaunchError> {
        launch::execute(&self.stem, shim, launch::claim(&self.stem)?).map(launch::reap)
    }

    /// Has a shim run it, and waits until no shim is alive. Cancel safe: dropped, it abandons the wait, not the step.
    ///
    /// # Errors
    /// [`LaunchError`]; in every case the step has not begun by this call. Inside, [`StateError`] when the disk does not answer: then it
    /// may have begun.
    pub async fn run(&self, shims: &Shims, boot: BootId) -> Ran {
        let stem = self.stem.clone();
        let claim = blocking(move || launch::claim(&stem)).await?;
        self.run_held(claim, shims, boot).await
    }

    /// The same, of an attempt that is held.
    pub(crate) async fn run_held(&self, claim: Claim, shims: &Shims, boot: BootId) -> Ran {
        let launched = match shims.give(&self.stem, claim) {
            Ok(launched) => launched,
            Err(claim) => {
                let (stem, launcher) = (self.stem.clone(), shims.clone());
                blocking(move || launcher.launch(&stem, claim)).await?
            }
        };
        if let Launched::Stays(shim) = launched
            && let Some(exit) = shim.is_free().await
        {
            shims.keep(shim);
            return Ok(Ok(AttemptState::Ended(exit.into())));
        }
        // It may run on, and its lock tells for how long.
        Ok(self.over(boot).await)
    }

    async fn over(&self, boot: BootId) -> Result<AttemptState, StateError> {
        let lost = |source| self.error(RECORD, source);
        let watch = self.watch(boot).map_err(lost)?;
        watch.await.unwrap_or_else(|_| Err(lost(io::Error::other("the thread that waited for it is gone"))))
    }

    /// What is true now, from its files alone. `boot` is the present boot, normally [`boot_id`].
    ///
    /// # Errors
    /// [`StateError`] when the disk does not answer.
    pub fn state(&self, boot: BootId) -> Result<AttemptState, StateError> {
        let Some(record) = self.record()? else { return self.without_record() };
        // While this shares the lock no shim can start, so what is read belongs together.
        let held = match record.try_lock_shared() {
            Ok(()) => Lock::Free,
            Err(TryLockError::WouldBlock) => Lock::Held,
            Err(TryLockError::Error(source)) => return Err(self.error(RECORD, source)),
        };
        self.observe(&record, held).map(|seen| state::decide(seen, boot))
    }

    /// Blocks until no shim is alive, then says what is true. It sleeps in the kernel meanwhile, for as long as the step takes.
    /// In async code prefer [`Attempt::watch`]: a runtime that ends would wait for a blocking task of its own.
    ///
    /// # Errors
    /// [`StateError`] when the disk does not answer.
    pub fn wait_blocking(&self, boot: BootId) -> Result<AttemptState, StateError> {
        let Some(record) = self.record()? else { return self.without_record() };
        while let Err(source) = record.lock_shared() {
            if source.kind() != io::ErrorKind::Interrupted {
                return Err(self.error(RECORD, source));
            }
        }
        self.observe(&record, Lock::Free).map(|seen| state::decide(seen, boot))
    }

    /// [`Attempt::wait_blocking`] in a small thread of its own, which neither holds up the end of this process nor of a runtime.
    /// Dropping the receiver abandons the wait; the thread stays asleep until the shim ends.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn watch(&self, boot: BootId) -> io::Result<oneshot::Receiver<Result<AttemptState, StateError>>> {
        let (sender, receiver) = oneshot::channel();
        let attempt = self.clone();
        thread::Builder::new()
            .name("watch-attempt".into())
            .stack_size(launch::WAITER_STACK_BYTES)
            // Nobody listens any more when the wait was abandoned.
            .spawn(move || drop(sender.send(attempt.wait_blocking(boot))))?;
        Ok(receiver)
    }

    /// Asks that the step be ended with all its processes. Returns at once; wait for the end as ever.
    ///
    /// # Errors
    /// [`StateError`] when the disk does not answer or the shim cannot be signalled.
    pub fn cancel(&self) -> Result<CancelOutcome, StateError> {
        let Some(record) = self.record()? else { return Ok(CancelOutcome::TooLate) };
        // The wish is noted before the mark is read; a shim makes the mark before it looks for the wish. One sees the other. Whatever has
        // the name, be it of the step's making, is the wish.
        match layout::make_new(&self.stem, CANCEL) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(self.error(CANCEL, source)),
            Ok(_) | Err(_) => {}
        }
        let held = || matches!(record.try_lock_shared(), Err(TryLockError::WouldBlock));
        let failed = |source| self.error(RECORD, source);
        match record_file::read::<Started>(&record, STARTED).map_err(failed)? {
            // Only the end counts here: a mark that was made since the look above is a shim's that will find the wish.
            Record::Absent if record_file::is_written(&record, EXIT).map_err(failed)? => Ok(CancelOutcome::TooLate),
            Record::Absent => Ok(CancelOutcome::Noted),
            // The mark is just being made, if a shim is alive; it looks for the wish right after.
            Record::Damaged(_) => Ok(if held() { CancelOutcome::Noted } else { CancelOutcome::TooLate }),
            Record::Readable(started) => {
                let Some(shim) = Pid::from_raw(started.pid) else { return Ok(CancelOutcome::TooLate) };
                let sent = procfs::signal(shim, started.start_ticks, Signal::TERM, held).map_err(failed)?;
                Ok(match sent {
                    procfs::Signaled::Sent => CancelOutcome::Told,
                    procfs::Signaled::Gone => CancelOutcome::TooLate,
                })
            }
        }
    }

    /// Kills what still runs of a step whose shim is gone ([`Survivors::Seen`]), before the step may run again. Blocks at most
    /// about `timeout`; what it returns says whether any is left.
    ///
    /// # Errors
    /// [`SurvivorsError`]; with a shim alive nothing is killed.
    pub fn end_survivors(&self, timeout: Duration) -> Result<Survivors, SurvivorsError> {
        let Some(record) = self.record()? else { return self.no_survivors() };
        match record.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SurvivorsError::ShimAlive),
            Err(TryLockError::Error(source)) => return Err(self.error(RECORD, source).into()),
        }
        let failed = |source| self.error(RECORD, source);
        let plan = record_file::plan(&record).map_err(failed)?;
        let group = survivors::group(&record, &plan).map_err(failed)?;
        Ok(survivors::end(&record, group.as_ref(), timeout).map_err(failed)?)
    }

    /// Without its record there is nothing by which anything that is left could be told from other processes.
    fn no_survivors(&self) -> Result<Survivors, SurvivorsError> {
        match self.is_earlier_builds() {
            Ok(true) => Err(SurvivorsError::EarlierBuild { stem: self.stem.clone() }),
            Ok(false) => Ok(Survivors::NotSeen),
            Err(source) => Err(StateError { path: self.stem.clone(), source }.into()),
        }
    }

    fn record(&self) -> Result<Option<File>, StateError> {
        record_file::find(&self.stem).map_err(|source| self.error(RECORD, source))
    }

    // The record is made first of all and never removed, and its name is on stable storage before a step begins. Without it nobody can
    // say whether a shim lives; what a step that began may have left says that one did begin.
    fn without_record(&self) -> Result<AttemptState, StateError> {
        let unreadable = |damage| Ok(AttemptState::Unreadable { file: RECORD, damage });
        for name in [STDOUT, STDERR] {
            if layout::exists(&self.stem, name).map_err(|source| self.error(name, source))? {
                return unreadable(Damage::Missing);
            }
        }
        match self.is_earlier_builds() {
            Ok(true) => unreadable(Damage::EarlierBuild),
            Ok(false) => Ok(AttemptState::NotPrepared),
            Err(source) => Err(StateError { path: self.stem.clone(), source }),
        }
    }

    /// Whether a build that gave each attempt a folder made it: the step may have begun there, and may be running.
    fn is_earlier_builds(&self) -> io::Result<bool> {
        self.stem.try_exists()
    }

    fn observe(&self, record: &File, lock: Lock) -> Result<Observation, StateError> {
        let failed = |source| self.error(RECORD, source);
        let plan = record_file::plan(record).map_err(failed)?;
        let group = survivors::group(record, &plan).map_err(failed)?;
        Ok(Observation {
            plan,
            started: record_file::read(record, STARTED).map_err(failed)?,
            exit: record_file::read(record, EXIT).map_err(failed)?,
            lock,
            survivors: survivors::look(record, group.as_ref()).map_err(failed)?,
        })
    }

    fn error(&self, name: &str, source: io::Error) -> StateError {
        StateError { path: self.file(name), source }
    }
}

/// Does that on a thread that may wait for a disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("the work reports its failures instead of panicking")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use messages::Program;

    use super::*;

    #[test]
    fn an_attempt_that_is_held_for_its_shim_counts_as_running_and_is_prepared_by_nobody_else() {
        let place = tempfile::tempdir().unwrap();
        let plan = Plan {
            program: Program::Shell("true".to_owned()),
            env: BTreeMap::new(),
            dir: place.path().to_owned(),
            timeout_ms: None,
            output_bytes_max: 1,
            run_as: None,
            memory_bytes_max: None,
            group: None,
            hands_on: false,
        };
        let (stem, boot) = (place.path().join("one.1"), boot_id().unwrap());
        let mut settled = Settled::folder(place.path());
        let (attempt, claim) = Attempt::prepare_held(&stem, &plan, &mut settled).unwrap();
        assert_eq!(attempt.state(boot).unwrap(), AttemptState::Running { started: None });
        assert!(matches!(Attempt::prepare(&stem, &plan, &mut settled), Err(PrepareError::Exists { .. })));
        drop(claim);
        assert_eq!(attempt.state(boot).unwrap(), AttemptState::NotStarted);
        Attempt::prepare(&stem, &plan, &mut settled).unwrap();
    }
}
