//! Starting a shim so that it outlives whoever starts it. The launcher takes the lock and hands it over as the shim's
//! standard input, so there is no moment in which a launched attempt looks free.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::layout;
use super::record_file::{self, EXIT, RECORD, STARTED};

/// Whoever looks at an attempt holds its lock for the time of a few reads. A lock that is still held after this many tries,
/// [`LOCK_PAUSE`] apart, is a shim's.
const LOCK_TRIES: u32 = 50;

/// Between two tries at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Bytes of stack for a thread that waits and then reads a few records. Unused pages cost nothing.
pub(super) const WAITER_STACK_BYTES: usize = 256 * 1024;

/// How to start a shim: a program and arguments, to which the attempt's stem is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimCommand {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl ShimCommand {
    /// That program, with these arguments before the stem.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().map(Into::into).collect() }
    }

    /// The program that is running now, as `agent shim`. It is the very same file even when an upgrade has meanwhile put
    /// another in its place, so agent and shim always agree on what a plan looks like.
    #[must_use]
    pub fn own() -> Self {
        Self::new("/proc/self/exe", ["agent", "shim"])
    }

    /// It could not be started.
    pub(super) fn failed(&self, source: io::Error) -> LaunchError {
        LaunchError::Spawn { program: self.program.clone(), source }
    }

    /// What starts it, for the attempt of that stem.
    pub(super) fn command(&self, stem: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg0("longshore")
            .args(&self.arguments)
            .arg(stem)
            // It needs none, and must not keep the agent's secrets alive. Nor any folder: a mount could not be undone under it.
            .env_clear()
            .current_dir("/");
        command
    }
}

/// Why an attempt was not launched. In every case the step has not begun by this call.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A shim runs already, or another is just being launched.
    #[error("the attempt is running already; wait for it instead")]
    Held,
    /// It began before. A step never begins twice within one attempt.
    #[error("the attempt began before; ask for its state, and make a new attempt if the step may run again")]
    AlreadyStarted,
    /// It is over.
    #[error("the attempt is over; ask for its state")]
    AlreadyEnded,
    /// There is no plan.
    #[error("the attempt has no plan; prepare it first")]
    NotPrepared,
    /// A file of the attempt cannot be used.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The shim's program cannot be started.
    #[error("cannot start the shim `{}`", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Takes the lock that only a shim keeps, or nothing when a shim keeps it.
pub(crate) fn take_lock(lock: &File) -> io::Result<Option<()>> {
    let taken = patiently(|| match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    });
    taken.map(|taken| taken.then_some(()))
}

/// Tries to take a lock that others than its keeper have for moments only. Whether it was taken.
pub(crate) fn patiently(mut take: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    for _ in 0..LOCK_TRIES {
        if take()? {
            return Ok(true);
        }
        thread::sleep(LOCK_PAUSE);
    }
    Ok(false)
}

/// An attempt that may be launched, held.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Locked. It belongs to the open file, so whoever is given that holds it.
    pub(super) lock: File,
    /// For what the shim has to complain about: the same file, opened anew. One that fails before it can record anything would otherwise
    /// fail without a word.
    pub(super) errors: File,
}

/// Holds an attempt so that it can be given to a shim.
pub(super) fn claim(stem: &Path) -> Result<Claim, LaunchError> {
    let at = |name: &str| {
        let path = layout::file(stem, name);
        move |source| LaunchError::Io { path, source }
    };
    let lock = match record_file::open(stem) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LaunchError::NotPrepared),
        Err(error) => return Err(at(RECORD)(error)),
    };
    take_lock(&lock).map_err(at(RECORD))?.ok_or(LaunchError::Held)?;
    if record_file::is_written(&lock, EXIT).map_err(at(RECORD))? {
        return Err(LaunchError::AlreadyEnded);
    }
    if record_file::is_written(&lock, STARTED).map_err(at(RECORD))? {
        return Err(LaunchError::AlreadyStarted);
    }
    if !record_file::has_plan(&lock).map_err(at(RECORD))? {
        return Err(LaunchError::NotPrepared);
    }
    Claim::new(stem, lock).map_err(at(RECORD))
}

impl Claim {
    /// Of the attempt of that stem, by its lock, which is held.
    pub(super) fn new(stem: &Path, lock: File) -> io::Result<Self> {
        Ok(Self { lock, errors: layout::plain(OpenOptions::new().append(true), &layout::file(stem, RECORD))? })
    }
}

/// Executes a shim for it. From here on the lock is the shim's alone.
pub(super) fn execute(stem: &Path, shim: &ShimCommand, claim: Claim) -> Result<Child, LaunchError> {
    let mut command = shim.command(stem);
    command.stdin(Stdio::from(claim.lock)).stdout(Stdio::null()).stderr(Stdio::from(claim.errors));
    command.spawn().map_err(|source| shim.failed(source))
}

// When the agent ends first, init reaps the shim. Without a thread the dead shim keeps one entry of the process table until
// then, which is no reason to fail a step that runs.
pub(super) fn reap(mut child: Child) {
    let name = "reap-shim".to_owned();
    let waiting = thread::Builder::new().name(name).stack_size(WAITER_STACK_BYTES).spawn(move || child.wait());
    if let Err(error) = waiting {
        tracing::warn!(%error, "no thread to reap a shim; it stays in the process table until the agent ends");
    }
}
