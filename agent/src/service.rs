//! The whole agent: its endpoint, its worker and its shipping of logs, started and stopped together. Steps are not stopped with
//! it: they live under their shims.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use journal::{Engine, Room, RoomLimits};
use link::session::Config;
use link::wire::WireEnd;
use link::{RunError, Service, ServiceConfig, StartError};
use messages::limits::LOG_BYTES_MAX;
use messages::{AgentId, EndpointId};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::attempt::{ShimCommand, Shims, boot_id};
use crate::records::ResumeError;
use crate::ship::Ship;
use crate::worker::{Worker, WorkerEnd, WorkerParts};

/// How long the endpoint may take to stop after one of the parts that depend on it.
const STOP_LIMIT: Duration = Duration::from_secs(5);

const MIB: u64 = 1024 * 1024;

/// What an agent needs.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Its own folder.
    pub dir: PathBuf,
    /// Its name.
    pub name: AgentId,
    /// Runs that it does at once, at most; at least 1.
    pub slots: u16,
    /// The program of the shim.
    pub shim: ShimCommand,
    /// Limits and delays of the protocol.
    pub session: Config,
    /// The engine of the journal; nothing for the one that it has, and the default for a new one.
    pub engine: Option<Engine>,
    /// Once true: nothing new is taken, what is under way is finished and reported, and then the agent ends by itself.
    pub drain: watch::Receiver<bool>,
    /// Whether it does one run in its life and then ends.
    pub once: bool,
    /// The pool that it belongs to.
    pub pool: Option<String>,
    /// Its labels, besides those that it finds out. The server is told whenever they change.
    pub labels: watch::Receiver<BTreeMap<String, String>>,
    /// When its disk is too full for new work, and how much of what is over it keeps.
    pub disk: DiskLimits,
}

/// When an agent's disk is too full for new work, and how much of what is over is kept. Work that was taken is never given up for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimits {
    /// Bytes that are to be free for new work to be taken.
    pub free_bytes_min: u64,
    /// The same, in percent of the disk, but at most 1 GiB. The larger of the two counts.
    pub free_percent_min: u8,
    /// Bytes that the agent's folder may have for new work to be taken; nothing for no such limit.
    pub quota_bytes: Option<u64>,
    /// Bytes that are set aside for the outcomes of work that was taken; 0 for none.
    pub reserve_bytes: u64,
    /// Bytes kept of one output of a step, whatever its author asks for.
    pub output_bytes_max: u64,
    /// Runs that have ended and are kept with their folders.
    pub ended_runs_max: usize,
    /// Bytes that the folders of such runs may have together.
    pub ended_bytes_max: u64,
}

impl DiskLimits {
    pub(crate) const fn room(&self) -> RoomLimits {
        let Self { free_bytes_min, free_percent_min, reserve_bytes, .. } = *self;
        RoomLimits { free_bytes_min, free_percent_min, reserve_bytes }
    }
}

impl Default for DiskLimits {
    fn default() -> Self {
        let RoomLimits { free_bytes_min, free_percent_min, reserve_bytes } = RoomLimits::default();
        Self {
            free_bytes_min,
            free_percent_min,
            quota_bytes: None,
            reserve_bytes,
            output_bytes_max: LOG_BYTES_MAX,
            ended_runs_max: 200,
            ended_bytes_max: 4 * 1024 * MIB,
        }
    }
}

/// Why an agent did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The endpoint did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The runs cannot be read from the journal.
    #[error("the runs cannot be read from the journal")]
    Resume(#[from] ResumeError),
    /// The folder cannot be used.
    #[error("{} cannot be used", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The system does not say which boot this is.
    #[error("the system does not say which boot this is")]
    Boot(#[source] io::Error),
    /// A part of the agent ended by itself: a defect.
    #[error("a part of the agent ended by itself; its reason is in the log")]
    Part,
    /// The endpoint stopped.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs an agent until it is told to stop, or until it has drained or done its one run. `ready` is called once it takes work.
///
/// # Errors
/// [`AgentError`]; whatever was acknowledged is in the journal, and running steps go on. After a full disk ended the journal, the
/// next start finds the space that was set aside for it.
pub async fn run(
    config: AgentConfig,
    transport: impl FnOnce(WireEnd, watch::Receiver<bool>) -> JoinHandle<()>,
    shutdown: watch::Receiver<bool>,
    ready: impl FnOnce(),
) -> Result<(), AgentError> {
    let boot = boot_id().map_err(AgentError::Boot)?;
    Room::new(config.dir.clone(), config.disk.room()).release_if_full();
    let (stop, stopping) = watch::channel(false);
    let service = Service::start(
        ServiceConfig {
            dir: config.dir.clone(),
            endpoint: EndpointId::Agent(config.name.clone()),
            peers: vec![EndpointId::Server],
            session: config.session,
            engine: config.engine,
        },
        transport,
        stopping,
    )
    .await?;
    // Attempts have absolute folders, whatever the agent was told.
    let folder = |source| AgentError::Folder { path: config.dir.clone(), source };
    let dir = std::path::absolute(&config.dir).map_err(folder)?;
    journal::make_folder(&dir.join("runs")).map_err(folder)?;
    let ship = Ship::new();
    let worker = Worker::new(WorkerParts {
        endpoint: service.endpoint.clone(),
        agent: config.name.clone(),
        dir,
        shims: Shims::new(config.shim),
        boot,
        ship: ship.clone(),
        journal: service.journal.clone(),
        slots: config.slots,
        drain: config.drain,
        once: config.once,
        pool: config.pool,
        labels: config.labels,
        disk: config.disk,
    });
    let resumed = worker.reconsider().await?;
    worker.look().await;
    let mut tasks = JoinSet::new();
    let shipping = ship.run(service.endpoint.clone(), config.name);
    tasks.spawn(async move {
        shipping.await;
        WorkerEnd::Stopped
    });
    tasks.spawn(worker.work(resumed));
    ready();
    let mut stopped = std::pin::pin!(service.stopped());
    let told = tokio::spawn(pass_on(shutdown, stop.clone()));
    let ended = tokio::select! {
        ended = &mut stopped => Ok(ended),
        // A part ends with the endpoint. One that ends before it would leave a process that only seems to work.
        part = tasks.join_next() => {
            if let Some(Ok(WorkerEnd::Left)) = part {
                tracing::info!("Nothing runs any more; the agent ends. What its server has not taken yet is in its journal.");
                stop.send_replace(true);
            }
            tokio::time::timeout(STOP_LIMIT, &mut stopped).await
        }
    };
    told.abort();
    // They end with the endpoint, and let go of the journal: whoever starts the agent again at once finds it free.
    let parts = async { while tasks.join_next().await.is_some() {} };
    let _late = tokio::time::timeout(STOP_LIMIT, parts).await;
    tasks.shutdown().await;
    match ended {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(AgentError::Part),
    }
}

/// Passes the wish to stop on, the end of whoever could have it included.
async fn pass_on(mut shutdown: watch::Receiver<bool>, stop: watch::Sender<bool>) {
    let _gone = shutdown.wait_for(|told| *told).await.map(drop);
    stop.send_replace(true);
}
