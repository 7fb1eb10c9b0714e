//! The whole server: its endpoint, its intake, its logs and its API, started and stopped together; and started again by itself where a
//! full disk ended its journal.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use journal::{Engine, OpenError, Room, RoomLimits};
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
/// How often a disk on which the journal had no room is looked at.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(1);

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
    /// When its disk is too full for new work, and how much of it is set aside for outcomes.
    pub room: RoomLimits,
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

impl ServerError {
    /// Whether a disk without room explains it.
    const fn may_be_for_want_of_room(&self) -> bool {
        match self {
            Self::Run(RunError::Journal(_) | RunError::Read(_)) => true,
            Self::Start(StartError::Journal(OpenError::Io { .. } | OpenError::Store { .. })) => true,
            Self::Start(_)
            | Self::Books(_)
            | Self::Logs { .. }
            | Self::Bind(_)
            | Self::Access(_)
            | Self::Token(_)
            | Self::Part => false,
            Self::Run(RunError::Transport) => false,
        }
    }
}

/// Runs a server until it is told to stop. `ready` is called with the API's address whenever it begins to answer: a journal that a full
/// disk ended is opened again, with the space that was set aside, or as soon as there is room.
///
/// # Errors
/// [`ServerError`]; whatever was acknowledged is in the journal.
pub async fn run(
    mut config: ServerConfig,
    mut transport: impl FnMut(WireEnd, watch::Receiver<bool>) -> JoinHandle<()>,
    mut shutdown: watch::Receiver<bool>,
    mut ready: impl FnMut(&str),
) -> Result<(), ServerError> {
    let room = Room::new(config.dir.clone(), config.room);
    let mut was_ready = false;
    loop {
        room.release_if_full();
        let now = config.clone();
        let mut note = |address: &str, url: &str| {
            // A free port that was given to it once is its port.
            address.clone_into(&mut config.listen);
            was_ready = true;
            ready(url);
        };
        let stop = watch::Sender::new(false);
        let told = tokio::spawn(pass_on(shutdown.clone(), stop.clone()));
        let ended = live(now, &room, &mut transport, &stop, &mut note).await;
        told.abort();
        match ended {
            Err(error) if was_ready && error.may_be_for_want_of_room() && room.is_full() => {
                tracing::error!(%error, "The disk is full, and the journal has ended. It is opened again as soon as there is room.");
            }
            ended => return ended,
        }
        while room.is_full() && !room.release_if_full() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_FOR_ROOM_EVERY) => {}
                // The end of whoever could tell it to stop is a stop as well.
                _ = async { shutdown.wait_for(|stop| *stop).await.is_err() } => return Ok(()),
            }
        }
    }
}

/// What works on the books. Each ends with the endpoint; one that ends before it ends the server.
fn parts(core: &Core) -> JoinSet<()> {
    let mut parts = JoinSet::new();
    for _ in 0..intake::AT_A_TIME {
        parts.spawn(intake::run(core.clone()));
    }
    parts.spawn(pass_on_changes(core.clone()));
    parts.spawn(core.clone().dispatch());
    parts.spawn(end_with_the_books(core.clone()));
    parts
}

/// Returns when the books show what will never be kept. To take that back here would be to know what else was changed since; the journal knows.
async fn end_with_the_books(core: Core) {
    core.kept_books().lost().await;
}

/// Passes the wish to stop on, the end of whoever could have it included.
async fn pass_on(mut shutdown: watch::Receiver<bool>, stop: watch::Sender<bool>) {
    let _gone = shutdown.wait_for(|stop| *stop).await.map(drop);
    stop.send_replace(true);
}

/// Runs a server until it is told to stop, or something of it ends. `ready` is called with the API's address, twice: as it is
/// listened on, and as it is asked.
async fn live(
    config: ServerConfig,
    room: &Room,
    transport: &mut impl FnMut(WireEnd, watch::Receiver<bool>) -> JoinHandle<()>,
    stop: &watch::Sender<bool>,
    ready: &mut impl FnMut(&str, &str),
) -> Result<(), ServerError> {
    // The address first: a port in use is found before anything else is touched.
    let access_path = config.dir.join(ACCESS_FILE);
    let token = token(&access_path)?;
    let listen = config.listen.clone();
    let api = Api::bind(ApiConfig { listen, token: token.clone(), allow_remote: false, hosts: Vec::new() }).await?;
    let address = api.address().to_string();
    let url = format!("http://{address}");
    let service = Service::start(
        ServiceConfig {
            dir: config.dir.clone(),
            endpoint: EndpointId::Server,
            peers: config.agents.iter().cloned().map(EndpointId::Agent).collect(),
            session: config.session,
            engine: config.engine,
        },
        transport,
        stop.subscribe(),
    )
    .await?;
    let log_dir = config.dir.join("logs");
    let logs = Logs::open(&log_dir).map_err(|source| ServerError::Logs { path: log_dir, source })?;
    let core = Core::new(CoreParts {
        endpoint: service.endpoint.clone(),
        books: Books::load(&service.journal)?,
        logs: logs.clone(),
        room: room.clone(),
        agents: config.agents,
        broker_url: config.broker_url,
        epoch: service.journal.meta().epoch.value(),
    });
    let access = Access { url: url.clone(), token };
    // What is right already is not written again: the disk may be full.
    if Access::read(&access_path).ok().as_ref() != Some(&access) {
        access.write(&access_path)?;
    }
    core.set_aside().await;
    let mut tasks = parts(&core);
    tasks.spawn(logs::receive(logs, service.endpoint.clone(), core.clone()));
    ready(&address, &url);
    tasks.spawn(api.serve(core, stop.subscribe()));
    let mut stopped = std::pin::pin!(service.stopped());
    let ended = tokio::select! {
        ended = &mut stopped => Ok(ended),
        // A part ends with the endpoint. One that ends before it would leave a process that only seems to work.
        _ = tasks.join_next() => tokio::time::timeout(STOP_LIMIT, &mut stopped).await,
    };
    // They let go of the journal: whoever opens it again at once finds it free.
    stop.send_replace(true);
    let parts = async { while tasks.join_next().await.is_some() {} };
    let _late = tokio::time::timeout(STOP_LIMIT, parts).await;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::{AgentOrder, Desk as _, OrderError};
    use crate::submit::tests::server_that_knows;

    /// How long anything may take that must come. Only reached when it does not.
    const LIMIT: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn an_order_that_is_refused_when_the_books_show_it_ends_the_server_and_nobody_is_shown_it() {
        let dir = tempfile::tempdir().unwrap();
        // The server knows an agent that its endpoint does not: a defect, or else no order would be refused.
        let (core, service, _stop) = server_that_knows(dir.path(), &["a1", "ghost"]).await;
        let ghost: AgentId = "ghost".parse().unwrap();
        let mut parts = parts(&core);
        let refused = core.order(&ghost, AgentOrder::Drain { note: "enough".to_owned() }).await;
        assert!(matches!(refused, Err(OrderError::Refused { .. })), "{refused:?}");
        assert!(core.books().agent(&ghost).is_some_and(|row| row.draining.is_some()));
        assert!(core.kept().await.is_err(), "an answer said what will never be kept");
        let ended = tokio::time::timeout(LIMIT, parts.join_next()).await;
        assert!(matches!(ended, Ok(Some(Ok(())))), "no part of it ended: {ended:?}");
        let kept = Books::load(&service.journal).unwrap();
        assert!(kept.agent(&ghost).is_none(), "what is shown after a start was refused");
    }
}
