//! Putting an endpoint together: journal, session, driver, transport and owner's socket, each in its own task, ended together.

use std::path::PathBuf;

use journal::{Engine, Journal, OpenError, Opening};
use messages::{EndpointId, Incarnation, Nonce};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::control::{self, Control};
use crate::driver::{Parts, RunError, endpoint, wall_ms};
use crate::endpoint::Endpoint;
use crate::session::Config;
use crate::wire::{WireEnd, wire};

/// The journal's folder within an endpoint's.
pub const JOURNAL_DIR: &str = "journal";

/// What an endpoint needs to start.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// The endpoint's own folder. The journal is in it, and the owner's socket.
    pub dir: PathBuf,
    /// Whose endpoint it is.
    pub endpoint: EndpointId,
    /// The peers that it knows.
    pub peers: Vec<EndpointId>,
    /// Limits and delays.
    pub session: Config,
    /// The engine of the journal; nothing for the one that it has, and the default for a new one.
    pub engine: Option<Engine>,
}

/// Why an endpoint did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be opened.
    #[error("the journal cannot be opened")]
    Journal(#[from] OpenError),
    /// The journal cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] std::io::Error),
}

/// A running endpoint.
pub struct Service {
    /// The application's handle.
    pub endpoint: Endpoint,
    /// Its journal.
    pub journal: Journal,
    driver: JoinHandle<Result<(), RunError>>,
    transport: JoinHandle<()>,
    control: JoinHandle<std::io::Result<()>>,
}

impl Service {
    /// Opens the journal and starts every part. `transport` is given its end of the wire.
    ///
    /// # Errors
    /// [`StartError`]; nothing is running then.
    pub async fn start(
        config: ServiceConfig,
        transport: impl FnOnce(WireEnd, watch::Receiver<bool>) -> JoinHandle<()>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let ServiceConfig { dir, endpoint: local, peers, session, engine } = config;
        let incarnation = Incarnation::from_u128(u128::from_be_bytes(random().map_err(StartError::Random)?));
        let nonce = Nonce::new(u64::from_be_bytes(random().map_err(StartError::Random)?));
        let opening = Opening { endpoint: local, incarnation, now_ms: wall_ms() };
        let journal_dir = dir.join(JOURNAL_DIR);
        // Opening reads the whole journal; a runtime's worker must not wait for that.
        let opened = tokio::task::spawn_blocking(move || match engine {
            Some(engine) => Journal::open_as(&journal_dir, &opening, engine),
            None => Journal::open(&journal_dir, &opening),
        });
        let (journal, state) = opened.await.expect("opening reports its failures instead of panicking")?;
        let (ours, theirs) = wire();
        let parts = Parts { journal: journal.clone(), state, wire: ours, peers, config: session, nonce };
        let (endpoint, driver) = endpoint(parts)?;
        let transport = transport(theirs, shutdown.clone());
        let driver = tokio::spawn(driver.run(shutdown.clone()));
        let (socket_journal, socket_endpoint) = (journal.clone(), endpoint.clone());
        // Before anybody is told that this runs: whoever was told may ask at once.
        let listening = Control::listen(&dir);
        let control = tokio::spawn(async move {
            let served = match listening {
                Ok(control) => control::serve(control, socket_journal, socket_endpoint, shutdown).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &served {
                tracing::warn!(%error, "The control socket is not available; looking into the running journal is not possible.");
            }
            served
        });
        Ok(Self { endpoint, journal, driver, transport, control })
    }

    /// Waits until the endpoint has stopped, because it was told to or because something failed for good.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn stopped(self) -> Result<(), RunError> {
        let ended = self.driver.await.expect("the driver reports its failures instead of panicking");
        // The driver's end of the wire is gone, which ends the transport; the socket ends with the shutdown.
        if ended.is_err() {
            self.control.abort();
        }
        if self.transport.await.is_err() {
            tracing::error!("The transport ended badly.");
        }
        // It has reported its own failure; an abort is no failure.
        drop(self.control.await);
        ended
    }
}

/// Bytes that nobody can guess, and that nobody gets twice.
pub(crate) fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}
