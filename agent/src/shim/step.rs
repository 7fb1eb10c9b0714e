//! A step from its preparation to its end: what it needs is made ready, then it is started, then watched until it is over. Whatever
//! could fail comes before the program is started, so that "not started" is always the truth.

use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::process::{Pid, Signal};

use super::grouped::Grouped;
use super::output::{Capture, close};
use super::supervise::{Event, Outcome, Supervisor, Surroundings};
use super::tree;
use super::watch::{Signals, Watch};
use crate::attempt::command::{command, limited};
use crate::attempt::layout::{self, OUTPUT, STDERR, STDOUT, now_ms};
use crate::attempt::records::{STREAM_ERROR_BYTES_MAX, cut};
use crate::attempt::{Exit, Plan, patiently};
use crate::kernel;

/// Everything for a step that has not begun.
pub(super) struct Ready {
    command: Command,
    umask: Mode,
    /// The reading ends of its outputs.
    outputs: (PipeReader, PipeReader),
    /// The record, opened anew: by its lock the step's processes are known. They inherit it.
    tree: File,
    /// How the file for what it hands on was before.
    handed: Option<Seen>,
}

impl Ready {
    /// Makes it ready. Nothing of it is a process yet, so to drop it is all that there is to do.
    pub(super) fn new(stem: &Path, record: &File, plan: &Plan, umask: Mode) -> Result<Self, String> {
        let program = plan.memory_bytes_max.map(|bytes_max| limited(&plan.program, bytes_max));
        let program = program.as_ref().unwrap_or(&plan.program);
        let mut command = command(program, &plan.env, &plan.dir)?;
        let pipe = || io::pipe().map_err(|error| format!("there is no pipe for its output: {error}"));
        let ((stdout, stdout_writer), (stderr, stderr_writer)) = (pipe()?, pipe()?);
        command.stdout(Stdio::from(stdout_writer)).stderr(Stdio::from(stderr_writer));
        if let Some(user) = plan.run_as {
            // Becoming another user also leaves every other group.
            command.uid(user.uid).gid(user.gid);
        }
        let tree = inherited(record).map_err(|error| untracked(&error))?;
        let handed = if plan.hands_on {
            layout::open_as_left(&layout::file(stem, OUTPUT)).and_then(|output| Seen::of(&output)).ok()
        } else {
            None
        };
        Ok(Self { command, umask, outputs: (stdout, stderr), tree, handed })
    }

    /// Starts the program. To be called while this process has one thread only: otherwise it moves itself into the step's group and back out, which
    /// takes longer.
    pub(super) fn start(self, stem: &Path, record: &File, plan: &Plan) -> Result<Step, String> {
        let Self { mut command, umask, outputs, tree, handed } = self;
        let capture = |name, pipe| Capture::new(stem, name, plan.output_bytes_max, pipe);
        let (stdout, stderr) = (capture(STDOUT, outputs.0), capture(STDERR, outputs.1));
        // The program has it open from the first on, and with that the lock.
        hold(&tree).map_err(|error| untracked(&error))?;
        let (leader, group) = Grouped::start(record, plan, &mut command, umask)?;
        let started_at_ms = now_ms();
        // From here on only the step's processes hold their lock and the writing ends of the pipes.
        drop((tree, command));
        Ok(Step { leader, started_at_ms, stdout, stderr, handed, group })
    }
}

/// A step that runs.
pub(super) struct Step {
    leader: Pid,
    started_at_ms: u64,
    stdout: Capture,
    stderr: Capture,
    handed: Option<Seen>,
    group: Option<Grouped>,
}

/// A file as it was at a moment. The kernel changes this with everything that is done to the file, and nobody else can.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Seen {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Ok(Self { inode: metadata.ino(), bytes: metadata.len(), changed })
    }
}

impl Step {
    /// Watches it until it is over.
    pub(super) fn supervise(mut self, stem: &Path, plan: &Plan, signals: &mut Signals) -> Exit {
        let timeout = plan.timeout_ms.map(Duration::from_millis);
        let watch = Watch::new(self.leader, signals, [&mut self.stdout, &mut self.stderr]);
        let group = self.group.as_ref();
        let mut around = Around { leader: self.leader, group, watch };
        let Outcome { end, cancelled, left_processes } = Supervisor::new(timeout).run(&mut around);
        let used = around.watch.used().told();
        let ended_at_ms = now_ms();
        // Asked when every process that was waited for has been reaped.
        let (usage, out_of_memory) = match self.group {
            Some(group) => group.finish(used),
            None => (used, false),
        };
        // The record of the end says that these are there too.
        let output_error = if plan.hands_on { handed_on(stem, self.handed.as_ref()) } else { None };
        let streams = [&self.stdout, &self.stderr];
        let named = if close(streams) { layout::sync_dir(layout::folder(stem)) } else { Ok(()) };
        let [stdout, stderr] = streams.map(|stream| stream.finish(named.as_ref().err()));
        Exit {
            end,
            cancelled,
            started_at_ms: self.started_at_ms,
            ended_at_ms,
            stdout,
            stderr,
            output_error,
            left_processes,
            usage: Some(usage),
            out_of_memory,
        }
    }
}

/// What the supervisor of a step has to do with.
struct Around<'a> {
    leader: Pid,
    group: Option<&'a Grouped>,
    watch: Watch<'a>,
}

impl Surroundings for Around<'_> {
    fn next(&mut self, deadline: Option<Instant>) -> Option<Event> {
        self.watch.next(deadline)
    }

    fn signal(&mut self, signal: Signal) {
        if let (Signal::KILL, Some(group)) = (signal, self.group) {
            group.kill();
        }
        // Also those that left the group.
        tree::signal(self.leader, signal);
    }

    fn bytes_wait(&self) -> bool {
        self.watch.bytes_wait()
    }
}

/// Why what the step hands on may be lost. The step may have removed the file, which is its own affair.
fn handed_on(stem: &Path, before: Option<&Seen>) -> Option<String> {
    let sync = |output: File| match Seen::of(&output) {
        // An empty one that nobody touched is as it was made, and its name was made durable before the step began.
        Ok(seen) if seen.bytes == 0 && before == Some(&seen) => Ok(()),
        Ok(_) | Err(_) => output.sync_all(),
    };
    match layout::open_as_left(&layout::file(stem, OUTPUT)).and_then(sync) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Some(cut(&error.to_string(), STREAM_ERROR_BYTES_MAX)),
        Ok(()) | Err(_) => None,
    }
}

// Inherited by the step on purpose. What is left of a step whose shim was killed can be found by it. For reading only: nobody can write through it.
// It is the very file that the shim holds, whatever has its name by now.
fn inherited(record: &File) -> io::Result<File> {
    let again = File::open(format!("/proc/self/fd/{}", record.as_raw_fd()))?;
    rustix::io::fcntl_setfd(&again, rustix::io::FdFlags::empty())?;
    Ok(again)
}

/// Holds the record for the step's processes. A program that keeps all others away from a file it reads, as some backups do, has it for a moment.
fn hold(record: &File) -> io::Result<()> {
    match patiently(|| kernel::hold_shared(record))? {
        true => Ok(()),
        false => Err(io::Error::other("another program keeps its record locked")),
    }
}

fn untracked(error: &dyn std::fmt::Display) -> String {
    format!("its processes cannot be kept track of: {error}")
}
