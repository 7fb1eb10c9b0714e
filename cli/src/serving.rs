//! What the long-running commands share: the runtime, the signals that end them, and what to do when they cannot run.

use std::future::Future;

use journal::{OpenError, StoreError};
use link::{RunError, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;
use crate::failure::Failure;

/// Runtime threads. The work is short and asynchronous; what blocks has threads of its own.
const THREADS: usize = 2;

/// Runs a service until it ends, or until SIGTERM, SIGINT or SIGHUP asks it to. A second signal ends the process at once.
///
/// # Errors
/// When the system gives no runtime or no signals.
pub(crate) fn run<F, Fut, T>(service: F) -> Result<T, Failure>
where
    F: FnOnce(watch::Receiver<bool>) -> Fut,
    Fut: Future<Output = T>,
{
    start(async |mut signals: Signals| {
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            signals.any().await;
            tracing::info!("Stopping.");
            stop.send_replace(true);
            signals.any().await;
            end_at_once();
        });
        service(stopping).await
    })
}

/// What an agent is asked by signals.
pub(crate) struct Asked {
    /// Take nothing new, finish, end.
    pub(crate) drain: watch::Receiver<bool>,
    /// End now; steps go on.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Runs an agent until it ends. SIGTERM or SIGINT asks it to finish what it does, a second one to stop, a third ends the process at
/// once. SIGHUP asks it to stop. With `draining` it is as if the first had come.
///
/// # Errors
/// When the system gives no runtime or no signals.
pub(crate) fn run_agent<F, Fut, T>(draining: bool, service: F) -> Result<T, Failure>
where
    F: FnOnce(Asked) -> Fut,
    Fut: Future<Output = T>,
{
    start(async move |mut signals: Signals| {
        let (drain, draining_now) = watch::channel(draining);
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            if !draining && signals.any().await == Kind::Finish {
                tracing::info!(
                    "Finishing what was begun, and taking nothing new. Once more stops at once; steps go on."
                );
                drain.send_replace(true);
            }
            // What came was a drain, or is the stop itself.
            if *drain.borrow() {
                signals.any().await;
            }
            tracing::info!("Stopping; running steps go on.");
            stop.send_replace(true);
            signals.any().await;
            end_at_once();
        });
        service(Asked { drain: draining_now, stop: stopping }).await
    })
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// SIGTERM or SIGINT.
    Finish,
    /// SIGHUP.
    Hangup,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hangup: signal(SignalKind::hangup())? })
    }

    async fn any(&mut self) -> Kind {
        tokio::select! {
            _ = self.terminate.recv() => Kind::Finish,
            _ = self.interrupt.recv() => Kind::Finish,
            _ = self.hangup.recv() => Kind::Hangup,
        }
    }
}

fn start<T>(service: impl AsyncFnOnce(Signals) -> T) -> Result<T, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, &error, "nothing was started", "look at the limits of this user's processes")
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = runtime.map_err(failed)?;
    runtime.block_on(async { Ok(service(Signals::new().map_err(failed)?).await) })
}

fn end_at_once() -> ! {
    tracing::info!("Stopping at once.");
    #[allow(clippy::disallowed_methods, reason = "asked again: whoever asks wants no more clean-up")]
    std::process::exit(i32::from(Exit::Interrupted.code()))
}

/// Waits for something short. Signals do what they do by default, so that Ctrl-C still ends the command afterwards.
///
/// # Errors
/// When the system gives no runtime.
pub(crate) fn wait<T>(short: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Failed, &error, "nothing was changed", "look at the limits of this user's processes")
    })?;
    Ok(runtime.block_on(short))
}

/// Returns when the process is to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What to do when an endpoint does not start.
pub(crate) fn start_failure(error: &StartError) -> (Exit, &'static str) {
    match error {
        StartError::Journal(error) => open_failure(error),
        StartError::Run(error) => run_failure(error),
        StartError::Random(_) => (Exit::Failed, "start again"),
    }
}

/// What to do when a journal cannot be opened.
pub(crate) fn open_failure(error: &OpenError) -> (Exit, &'static str) {
    match error {
        OpenError::Owner { .. } => {
            (Exit::NotAllowed, "run as the folder's owner, or give another home folder with --dir")
        }
        OpenError::Locked { .. } => {
            (Exit::Config, "it is running already: use that process, stop it, or give another home folder with --dir")
        }
        OpenError::Engine { .. } => (
            Exit::Config,
            "set journal_engine to the engine that it has, or leave the setting out; give a new endpoint another folder",
        ),
        OpenError::Endpoint { .. } => (Exit::Config, "give every endpoint a folder of its own"),
        OpenError::Io { source, .. } | OpenError::Store { source: StoreError::Io { source, .. }, .. }
            if source.kind() == std::io::ErrorKind::StorageFull =>
        {
            (Exit::Unreachable, "free some space on the disk, then start again; nothing that was acknowledged is lost")
        }
        OpenError::Io { .. } => (Exit::Config, "look at the folder's owner and mode, and at the disk"),
        OpenError::Store { .. }
        | OpenError::Row { .. }
        | OpenError::Illegal { .. }
        | OpenError::Shorter { .. }
        | OpenError::HighWater { .. } => (
            Exit::Damaged,
            "copy the folder; run `longshore journal verify --offline` on the copy; to go on without what it holds: `longshore journal \
             quarantine`",
        ),
    }
}

/// What to do when an endpoint stopped by itself.
pub(crate) fn run_failure(error: &RunError) -> (Exit, &'static str) {
    match error {
        RunError::Journal(_) | RunError::Read(_) => {
            (Exit::Damaged, "look at the disk, then start again: opening the journal verifies it")
        }
        RunError::Transport => (Exit::Failed, "start again; if it happens again, report it with the log"),
    }
}
