//! The whole server: its endpoint, its intake, its logs and its API, started and stopped together.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use journal::Engine;
use link::session::Config;
use link::wire::WireEnd;
use link::{RunError, Service, ServiceConfig, StartError};
use messages::{AgentId, EndpointId};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::api::{Access, AccessError, Api, ApiConfig, BindError, Token, TokenError};
use crate::books::{Books, LoadError};
use crate::core::{Core, CoreParts};
use crate::intake;
use crate::logs::{self, Logs};

/// The name of the file, in the server's folder, that says where the API is and what opens it.
pub const ACCESS_FILE: &str = "api.json";

/// How long the endpoint may take to stop after one of the parts that depend on it.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What a server needs.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Its own folder.
    pub dir: PathBuf,
    /// The agents that it knows.
    pub agents: BTreeSet<AgentId>,
    /// Where the API listens.
    pub listen: String,
    /// The broker's address for people, without user and password.
    pub broker_url: String,
    /// Limits and delays of the protocol.
    pub session: Config,
    /// The engine of the journal; nothing for the one that it has, and the default for a new one.
    pub engine: Option<Engine>,
}

/// Why a server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The endpoint did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The jobs cannot be read from the journal.
    #[error("the jobs cannot be read from the journal")]
    Books(#[from] LoadError),
    /// The folder of logs cannot be used.
    #[error("{} cannot be used", path.display())]
    Logs {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The API cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The file that says where the API is cannot be read or written.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No token could be made.
    #[error("no token for the API could be made")]
    Token(#[from] TokenError),
    /// A part of the server ended by itself: a defect.
    #[error("a part of the server ended by itself; its reason is in the log")]
    Part,
    /// The endpoint stopped.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs a server until it is told to stop. `ready` is called with the API's address once it answers.
///
/// # Errors
/// [`ServerError`]; whatever was acknowledged is in the journal.
pub async fn run(
    config: ServerConfig,
    transport: impl FnOnce(WireEnd, watch::Receiver<bool>) -> JoinHandle<()>,
    shutdown: watch::Receiver<bool>,
    ready: impl FnOnce(&str),
) -> Result<(), ServerError> {
    // The address first: a port in use is found before anything else is touched.
    let access_path = config.dir.join(ACCESS_FILE);
    let token = token(&access_path)?;
    let listen = config.listen.clone();
    let api = Api::bind(ApiConfig { listen, token: token.clone(), allow_remote: false, hosts: Vec::new() }).await?;
    let url = format!("http://{}", api.address());
    let service = Service::start(
        ServiceConfig {
            dir: config.dir.clone(),
            endpoint: EndpointId::Server,
            peers: config.agents.iter().cloned().map(EndpointId::Agent).collect(),
            session: config.session,
            engine: config.engine,
        },
        transport,
        shutdown.clone(),
    )
    .await?;
    let log_dir = config.dir.join("logs");
    let logs = Logs::open(&log_dir).map_err(|source| ServerError::Logs { path: log_dir, source })?;
    let core = Core::new(CoreParts {
        endpoint: service.endpoint.clone(),
        books: Books::load(&service.journal)?,
        logs: logs.clone(),
        agents: config.agents,
        broker_url: config.broker_url,
        epoch: service.journal.meta().epoch.value(),
    });
    Access { url: url.clone(), token }.write(&access_path)?;
    let mut tasks = JoinSet::new();
    for _ in 0..intake::AT_A_TIME {
        tasks.spawn(intake::run(core.clone()));
    }
    let (asked, noticed) = (core.clone(), core.clone());
    let knows = move |from: &_, key: &_| asked.knows_log(from, key);
    tasks.spawn(logs::receive(logs, service.endpoint.clone(), knows, move || noticed.notice()));
    tasks.spawn(pass_on_changes(core.clone()));
    tasks.spawn(core.clone().dispatch());
    ready(&url);
    tasks.spawn(api.serve(core, shutdown));
    let mut stopped = std::pin::pin!(service.stopped());
    let ended = tokio::select! {
        ended = &mut stopped => Ok(ended),
        // A part ends with the endpoint. One that ends before it would leave a process that only seems to work.
        _ = tasks.join_next() => tokio::time::timeout(STOP_LIMIT, &mut stopped).await,
    };
    tasks.shutdown().await;
    match ended {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(ServerError::Part),
    }
}

/// The token of an earlier start, so that a restart does not lock anybody out; a fresh one the first time.
fn token(path: &Path) -> Result<Token, ServerError> {
    match Access::read(path) {
        Ok(access) => Ok(access.token),
        Err(AccessError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Token::generate()?),
        Err(error) => Err(error.into()),
    }
}

/// What the endpoint notices (an agent heard from, a mark that moved) is something new to see, too.
async fn pass_on_changes(core: Core) {
    let mut changes = core.endpoint().changes();
    while changes.changed().await.is_ok() {
        core.notice();
    }
}
