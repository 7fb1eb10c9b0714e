//! The small process above an agent's worker: it starts the worker, starts it again when it dies, passes on what the service
//! manager and a person ask for, and tells the service manager how things are. It has no runtime, no journal and no connection,
//! and knows nothing of work, so that hardly anything can go wrong with it.

mod core;
mod lifeline;
mod notify;
mod worker;

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use self::core::{Action, Core, Input, Order, WorkerEnd};
pub use lifeline::{Lifeline, LifelineError};
pub use notify::{NOTIFY_VARIABLES, Notifier};
use worker::Worker;

use crate::groups::settle;

/// Between two signs of life of a worker.
pub const BEAT_EVERY: Duration = Duration::from_secs(5);

/// What a monitor needs.
#[derive(Debug, Clone)]
pub struct MonitorConfig {
    /// The program that the worker is started from, as a path: what lies there now, not what lay there once.
    pub program: PathBuf,
    /// The worker's arguments.
    pub arguments: Vec<OsString>,
    /// What is added to them for a worker that takes nothing new.
    pub draining: OsString,
    /// After how long a drain becomes a stop; nothing for never.
    pub drain_limit: Option<Duration>,
}

/// Why a monitor ends without its worker having ended.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The system gives no signals or does not tell of them.
    #[error("the monitor cannot wait for signals")]
    Signals(#[source] io::Error),
    /// The service manager's address is none.
    #[error("the service manager cannot be told")]
    Notify(#[source] io::Error),
}

/// Keeps a worker running until it ends by itself, somebody asks for an end, or starting it again is of no use. Returns the exit code.
/// Meant to be all that a process does: it takes the process's signals.
///
/// # Errors
/// [`MonitorError`]; no worker is left.
pub fn main(config: &MonitorConfig) -> Result<u8, MonitorError> {
    let notifier = Notifier::from_environment().map_err(MonitorError::Notify)?;
    let signals = Signals::catch().map_err(MonitorError::Signals)?;
    // Before there is a worker, which inherits it.
    settle();
    let core = Core::new(Instant::now(), config.drain_limit);
    let mut monitor = Monitor { config, notifier, signals, core, worker: None, fed: None, said: "" };
    let ended = monitor.run();
    monitor.notifier.status("has ended");
    monitor.notifier.stopping();
    ended.map_err(MonitorError::Signals)
}

/// The signals, each with a pipe of its own so that one cannot be taken for another.
struct Signals {
    terminate: UnixStream,
    renew: UnixStream,
    child: UnixStream,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let caught = |signals: &[i32]| {
            let (incoming, raised) = UnixStream::pair()?;
            incoming.set_nonblocking(true)?;
            for signal in signals {
                signal_hook::low_level::pipe::register(*signal, raised.try_clone()?)?;
            }
            Ok::<_, io::Error>(incoming)
        };
        Ok(Self { terminate: caught(&[SIGTERM, SIGINT])?, renew: caught(&[SIGHUP])?, child: caught(&[SIGCHLD])? })
    }
}

struct Monitor<'a> {
    config: &'a MonitorConfig,
    notifier: Notifier,
    signals: Signals,
    core: Core,
    worker: Option<Worker>,
    /// When the watchdog was last fed.
    fed: Option<Instant>,
    /// The status that was told last.
    said: &'static str,
}

impl Monitor<'_> {
    fn run(&mut self) -> io::Result<u8> {
        loop {
            for input in self.inputs()? {
                if let Some(code) = self.take(input) {
                    return Ok(code);
                }
            }
            self.tell();
            self.sleep()?;
        }
    }

    // What came in, in an order that loses nothing: signs of life before the end, what was asked for before the end, since it may be
    // what ended the worker, and the time last.
    fn inputs(&mut self) -> io::Result<Vec<Input>> {
        let mut inputs = Vec::new();
        if let Some(worker) = &mut self.worker {
            inputs.extend(worker.heard());
        }
        let asked = drain(&self.signals.terminate)?;
        inputs.extend(std::iter::repeat_n(Input::Terminate, asked));
        if drain(&self.signals.renew)? > 0 {
            inputs.push(Input::Renew);
        }
        drain(&self.signals.child)?;
        if let Some(end) = self.worker.as_mut().map(Worker::ended).transpose()?.flatten() {
            self.worker = None;
            inputs.push(Input::Ended(end));
        }
        inputs.push(Input::Tick);
        Ok(inputs)
    }

    /// Acts on one input, and on what follows from it. A code means the end.
    fn take(&mut self, input: Input) -> Option<u8> {
        if let Input::Ended(end) = input {
            report(&format!("the worker {}", words(end)));
        }
        if input == Input::Ready {
            self.notifier.ready();
        }
        match self.core.handle(Instant::now(), input)? {
            Action::End(code) => return Some(code),
            Action::Wait(pause) => report(&format!("it is started again in {:.1} s", pause.as_secs_f32())),
            Action::Tell(order) => {
                if let Some(worker) = &self.worker {
                    worker.tell(order);
                }
            }
            Action::Start { program, draining } => match Worker::start(self.config, program, draining) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => {
                    report(&format!("the worker cannot be started: {error}"));
                    return self.take(Input::Ended(WorkerEnd::NotStarted));
                }
            },
        }
        None
    }

    /// Tells the service manager what changed, and that all is well, as often as it wants to hear it.
    fn tell(&mut self) {
        let words = self.core.words();
        if words != self.said {
            self.said = words;
            self.notifier.status(words);
        }
        let now = Instant::now();
        let due = self.notifier.watchdog_every().is_some_and(|every| self.fed.is_none_or(|fed| now >= fed + every));
        if due && self.core.is_well(now) {
            self.notifier.alive();
            self.fed = Some(now);
        }
    }

    fn sleep(&self) -> io::Result<()> {
        let feed = self.notifier.watchdog_every().and_then(|every| self.fed.map(|fed| fed + every));
        let until = self.core.deadline().into_iter().chain(feed).min();
        let pause = until.map(|at| at.saturating_duration_since(Instant::now()));
        // Too long for the kernel's clock is for ever.
        let pause = pause.and_then(|pause| Timespec::try_from(pause).ok());
        let mut awaited: Vec<PollFd<'_>> = [&self.signals.terminate, &self.signals.renew, &self.signals.child]
            .into_iter()
            .chain(self.worker.as_ref().and_then(Worker::line))
            .map(|stream| PollFd::new(stream, PollFlags::IN))
            .collect();
        match poll(&mut awaited, pause.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Monitor<'_> {
    fn drop(&mut self) {
        // Only after a failure of the monitor itself: otherwise the worker has ended.
        if let Some(worker) = &self.worker {
            worker.tell(Order::Kill);
        }
    }
}

/// How often a signal came since it was last asked.
fn drain(mut stream: &UnixStream) -> io::Result<usize> {
    let mut bytes = [0; 16];
    match stream.read(&mut bytes) {
        Ok(count) => Ok(count),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        Err(error) => Err(error),
    }
}

fn words(end: WorkerEnd) -> String {
    match end {
        WorkerEnd::Exited(code) => format!("ended with exit code {code}"),
        WorkerEnd::Signaled(signal) => format!("was ended by signal {signal}"),
        WorkerEnd::NotStarted => "did not start".to_owned(),
    }
}

// Its own few lines need no machinery for logs. A closed standard error is no reason to end.
fn report(words: &str) {
    let _ = writeln!(io::stderr(), "longshore monitor: {words}");
}
