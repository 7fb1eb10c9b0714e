//! The owner's socket: a running endpoint answers the same questions about its journal that the tools answer for a stopped
//! one. A Unix socket, mode 0600, whose peer must be the same user or root. It answers, and it changes nothing but this: a
//! person's decision about streams that are stopped is carried out.
//!
//! ```text
//! question and answer alike: length, 4 bytes big-endian | MessagePack
//! ```

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use journal::Journal;
use journal::inspect::{Answer, Query};
use messages::{EndpointId, from_msgpack, to_msgpack};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::causes::chain;
use crate::endpoint::{Endpoint, EndpointView, LinkState, QUESTION_TIMEOUT, ResolveFailure};
use crate::session::ResolveError;

/// The socket's name in an endpoint's folder.
pub const SOCKET: &str = "control.sock";
/// Bytes of a question.
const QUESTION_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer: a list of 10,000 entries per stream over many streams.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Questions answered at a time.
const CONNECTIONS_MAX: usize = 8;

/// A question to a running endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// About its journal.
    Journal(Query),
    /// About its connection, and the streams shared with each of these peers.
    Link(Vec<EndpointId>),
    /// The same, of every peer that it knows.
    Links,
    /// A person's decision: this endpoint's journal is to go on with that peer.
    Resolve(EndpointId),
}

/// An answer, of the same name as its question; to [`Question::Links`] it is [`Reply::Link`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// About the journal.
    Journal(Answer),
    /// About the connection.
    Link(LinkState, Vec<EndpointView>),
    /// The decision was carried out, and is on stable storage; or why not.
    Resolve(Result<(), Unresolved>),
}

/// Why a person's decision was not carried out, as the socket says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Unresolved {
    /// It cannot be; nothing was changed.
    #[error(transparent)]
    Refused(#[from] ResolveError),
    /// The endpoint failed. Whether it was carried out is unknown until it runs again.
    #[error("the endpoint failed: {0}")]
    Failed(String),
}

/// Why a running endpoint could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("nobody answers on {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("{} may be used only by its owner", path.display())]
    NotAllowed {
        /// The socket.
        path: PathBuf,
    },
    /// The conversation broke off.
    #[error("the conversation over {} broke off", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The answer took too long.
    #[error("no answer on {} within {} seconds", path.display(), QUESTION_TIMEOUT.as_secs())]
    TimedOut {
        /// The socket.
        path: PathBuf,
    },
    /// The answer is not one: the endpoint runs another version.
    #[error("the answer on {} cannot be read; is another version running?", path.display())]
    Unreadable {
        /// The socket.
        path: PathBuf,
    },
}

/// The socket of one endpoint. Whoever asks is heard from here on, and answered once it is served.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    listener: UnixListener,
}

impl Control {
    /// Makes the socket in the folder of an endpoint whose journal is held. To be called within a runtime.
    ///
    /// # Errors
    /// The operating system's, when the socket cannot be made.
    pub fn listen(dir: &Path) -> io::Result<Self> {
        let path = dir.join(SOCKET);
        // The journal's lock is held, so whoever left a socket here is gone.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { path, listener })
    }
}

/// Answers questions until told to shut down.
///
/// # Errors
/// The operating system's, when the socket cannot be removed.
pub async fn serve(
    Control { path, listener }: Control,
    journal: Journal,
    endpoint: Endpoint,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let slots = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            changed = shutdown.changed() => {
                if changed.is_err() || *shutdown.borrow() {
                    break;
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let (journal, endpoint, slots) = (journal.clone(), endpoint.clone(), slots.clone());
                tasks.spawn(async move {
                    let Ok(_slot) = slots.acquire().await else { return };
                    match timeout(QUESTION_TIMEOUT, converse(stream, journal, endpoint)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "A question on the control socket broke off."),
                        Err(_) => tracing::debug!("A question on the control socket took too long."),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "The control socket cannot accept.");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
    tasks.shutdown().await;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn converse(mut stream: UnixStream, journal: Journal, endpoint: Endpoint) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if peer != own && peer != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user asked"));
    }
    let question = read(&mut stream, QUESTION_BYTES_MAX).await?;
    let unreadable = |_| io::Error::new(io::ErrorKind::InvalidData, "not a question");
    let stopped = |_| io::Error::new(io::ErrorKind::ConnectionAborted, "the endpoint is stopping");
    let reply = match from_msgpack::<Question>(&question).map_err(unreadable)? {
        Question::Journal(query) => {
            let answered = tokio::task::spawn_blocking(move || journal::inspect::answer(journal.store(), &query)).await;
            Reply::Journal(match answered {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => Answer::Failed(chain(&error)),
                Err(error) => Answer::Failed(error.to_string()),
            })
        }
        Question::Link(peers) => {
            let link = endpoint.link().await.map_err(stopped)?;
            let mut views = Vec::new();
            for peer in peers {
                views.extend(endpoint.view(peer).await.map_err(stopped)?);
            }
            Reply::Link(link, views)
        }
        Question::Links => {
            let link = endpoint.link().await.map_err(stopped)?;
            Reply::Link(link, endpoint.views().await.map_err(stopped)?)
        }
        Question::Resolve(peer) => Reply::Resolve(endpoint.resolve(peer).await.map_err(|failure| match failure {
            ResolveFailure::Refused(refused) => Unresolved::Refused(refused),
            ResolveFailure::Random(_) | ResolveFailure::Stopped => Unresolved::Failed(chain(&failure)),
        })),
    };
    let bytes = to_msgpack(&reply).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    write(&mut stream, &bytes).await
}

async fn read(stream: &mut UnixStream, bytes_max: usize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
    }
    let mut bytes = Vec::new();
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn write(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "too long"))?;
    stream.write_u32(length).await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Asks the endpoint that runs in that folder.
///
/// # Errors
/// [`AskError`]
pub async fn ask(dir: &Path, question: &Question) -> Result<Reply, AskError> {
    let path = dir.join(SOCKET);
    match timeout(QUESTION_TIMEOUT, exchange(&path, question)).await {
        Ok(answered) => answered,
        Err(_) => Err(AskError::TimedOut { path }),
    }
}

async fn exchange(path: &Path, question: &Question) -> Result<Reply, AskError> {
    let io = |source: io::Error| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning { path },
            io::ErrorKind::PermissionDenied => AskError::NotAllowed { path },
            _ => AskError::Io { path, source },
        }
    };
    let mut stream = UnixStream::connect(path).await.map_err(io)?;
    let bytes = to_msgpack(question).map_err(|error| io(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    write(&mut stream, &bytes).await.map_err(io)?;
    let answer = read(&mut stream, ANSWER_BYTES_MAX).await.map_err(io)?;
    from_msgpack(&answer).map_err(|_| AskError::Unreadable { path: path.to_owned() })
}
