//! The small process that a step runs under. It outlives the agent, writes down how the step ended, and is gone, or there for another
//! step of the same agent. It never starts a step twice, never talks to a network, never reads a configuration: all it knows of a step is
//! in the files of its attempt.

mod conditions;
mod grouped;
mod output;
mod program;
mod serve;
mod step;
mod supervise;
mod tree;
pub(crate) mod usage;
mod watch;

use std::fs::File;
use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{getpid, set_child_subreaper, setsid, umask};

use crate::attempt::layout::{self, CANCEL, Record, chain, now_ms};
use crate::attempt::record_file::{self, EXIT, Place, RECORD, STARTED};
use crate::attempt::shims::SERVE;
use crate::attempt::{AttemptEnd, BootId, Exit, Started, StreamEnd, boot_id, procfs, take_lock};
use step::Ready;
use watch::Signals;

/// What the shim's own files may be read and written by: their owner. The step gets the mask the agent was started with.
const UMASK: Mode = Mode::RWXG.union(Mode::RWXO);

/// Bytes of stack for a thread that copies an output: through a buffer on the heap.
const STACK_BYTES: usize = 128 * 1024;

/// Why a shim ends without having run its step and without a record of an end. The agent finds the attempt as it was.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error("cannot detach from the session of its launcher; a shim is started by its agent, not from a shell")]
    Detach(#[source] Errno),
    #[error("cannot use `{name}`")]
    Io { name: &'static str, source: io::Error },
    #[error("another shim holds this attempt")]
    Held,
    #[error("this step began before and is never started twice")]
    AlreadyStarted,
    #[error("this attempt is over")]
    AlreadyEnded,
    #[error("there is no plan")]
    NoPlan,
    #[error("cannot prepare itself")]
    Itself(#[source] io::Error),
    #[error("cannot record the end of the step, so it will count as interrupted")]
    Record(#[source] io::Error),
    #[error("the record of the attempt is not where it was, so the end of the step is lost with it")]
    Moved,
}

/// Runs the step whose attempt has files that begin so, and returns when it has ended and its end is on stable storage. Meant to
/// be all that a process does: it changes the session, the umask and standard input, and takes the process's signals. With
/// `-` for the stem it runs one step after the other for the agent at the other end of its standard input.
///
/// The exit code is the shim's own: success when every end was recorded, whatever the steps' were.
#[must_use]
pub fn main(stem: &Path) -> ExitCode {
    let ran = match stem.as_os_str() == SERVE {
        false => run(stem).map_err(|error| chain(&error)),
        true => serve::serve().map_err(|error| chain(&error)),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // The disk may be full; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "longshore shim: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(stem: &Path) -> Result<(), ShimError> {
    let mut itself = Itself::prepare()?;
    // Until the process ends, and no shorter: it is never closed here, so that a free lock means a shim that is gone.
    let record = ManuallyDrop::new(claim(stem)?);
    itself.carry_out(stem, &record).map(drop)
}

/// What a shim is and has, whichever step it runs.
struct Itself {
    agents_umask: Mode,
    signals: Signals,
    /// What names this process for good, once it was asked for: the boot, and the moment of its start.
    known: Option<(BootId, u64)>,
}

impl Itself {
    /// Makes this process a shim.
    fn prepare() -> Result<Self, ShimError> {
        // For people only: the name that lists of processes show.
        let _ = rustix::thread::set_name(c"longshore-shim");
        let agents_umask = umask(UMASK);
        setsid().map_err(ShimError::Detach)?;
        let signals = Signals::catch().map_err(ShimError::Itself)?;
        // Orphans of the step become children of the shim, so that none is lost sight of.
        set_child_subreaper(Some(getpid())).map_err(|error| ShimError::Itself(error.into()))?;
        Ok(Self { agents_umask, signals, known: None })
    }

    /// Runs the step of the attempt of that stem, whose record it holds, and records its end. Returns that as it is on stable storage.
    fn carry_out(&mut self, stem: &Path, file: &File) -> Result<Vec<u8>, ShimError> {
        if is_written(file, EXIT)? {
            return Err(ShimError::AlreadyEnded);
        }
        if is_written(file, STARTED)? {
            return Err(ShimError::AlreadyStarted);
        }
        let record = |exit: &Exit| record(stem, file, exit);
        // From here on every outcome is recorded: a step that was not started is an end too.
        let plan = match record_file::plan(file).map_err(|source| io_error(RECORD, source))? {
            Record::Readable(plan) => plan,
            Record::Absent => return Err(ShimError::NoPlan),
            Record::Damaged(damage) => {
                return record(&not_started(&format!("the plan cannot be believed: {damage}"), false));
            }
        };
        let ready = Ready::new(stem, file, &plan, self.agents_umask);
        if let Err(error) = self.mark_started(file) {
            return record(&not_started(&format!("the beginning cannot be recorded: {error}"), false));
        }
        // A wish that cannot be looked for is no reason to leave the end unrecorded.
        let wished = layout::exists(stem, CANCEL).unwrap_or(false);
        if wished || self.signals.terminate() {
            return record(&not_started("it was cancelled before it began", true));
        }
        if let Err(error) = record_file::forget_program(file, &plan) {
            return record(&not_started(&format!("its plan cannot be put out of its reach: {error}"), false));
        }
        let exit = match ready.and_then(|ready| ready.start(stem, file, &plan)) {
            Ok(step) => step.supervise(stem, &plan, &mut self.signals),
            Err(reason) => not_started(&reason, false),
        };
        record(&exit)
    }

    fn mark_started(&mut self, file: &File) -> io::Result<()> {
        let pid = getpid();
        let (boot, start_ticks) = match self.known {
            Some(known) => known,
            None => {
                let gone = || io::Error::new(io::ErrorKind::NotFound, "/proc does not show this process");
                let own = procfs::process(pid)?.ok_or_else(gone)?;
                *self.known.insert((boot_id()?, own.start_ticks))
            }
        };
        let started = Started { boot, pid: pid.as_raw_nonzero().get(), start_ticks, at_ms: now_ms() };
        record_file::write(file, STARTED, &started).map(drop)
    }
}

fn io_error(name: &'static str, source: io::Error) -> ShimError {
    ShimError::Io { name, source }
}

fn is_written(file: &File, place: Place) -> Result<bool, ShimError> {
    record_file::is_written(file, place).map_err(|source| io_error(RECORD, source))
}

fn record(stem: &Path, file: &File, exit: &Exit) -> Result<Vec<u8>, ShimError> {
    let bytes = record_file::write(file, EXIT, exit).map_err(ShimError::Record)?;
    // A record that nobody finds is none.
    match record_file::is_named(file, stem) {
        Ok(true) => Ok(bytes),
        Ok(false) => Err(ShimError::Moved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ShimError::Moved),
        Err(error) => Err(ShimError::Record(error)),
    }
}

fn not_started(reason: &str, cancelled: bool) -> Exit {
    let now = now_ms();
    Exit {
        end: AttemptEnd::not_started(reason),
        cancelled,
        started_at_ms: now,
        ended_at_ms: now,
        stdout: StreamEnd::empty(),
        stderr: StreamEnd::empty(),
        output_error: None,
        left_processes: false,
        usage: None,
        out_of_memory: false,
    }
}

// The launcher hands the lock over as standard input, held. Started by hand, the shim takes the lock itself.
fn claim(stem: &Path) -> Result<File, ShimError> {
    let at = |source| io_error(RECORD, source);
    let own = record_file::open(stem).map_err(at)?;
    let null = File::open("/dev/null").map_err(ShimError::Itself)?;
    let given = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(ShimError::Itself)?);
    rustix::stdio::dup2_stdin(&null).map_err(|error| ShimError::Itself(error.into()))?;
    let (a, b) = (given.metadata().map_err(ShimError::Itself)?, own.metadata().map_err(at)?);
    let lock = if (a.dev(), a.ino()) == (b.dev(), b.ino()) { given } else { own };
    take_lock(&lock).map_err(at)?.ok_or(ShimError::Held)?;
    Ok(lock)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body)
}
