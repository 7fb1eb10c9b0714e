//! Listening: the address, the number of connections, and the end. Refuses an address that is not loopback unless it was told
//! that this is meant, since requests travel in the clear.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::warn;

use super::access::Token;
use super::desk::Desk;
use super::guard::Guard;
use super::{CONNECTIONS_MAX, Shared, WAITING_MAX, router};

/// How long open requests may go on after the server was told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait after the system refused to hand over a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where and to whom the API answers.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where to listen, for example `127.0.0.1:7766`. Port 0 takes a free one.
    pub listen: String,
    /// What opens the API.
    pub token: Token,
    /// Whether an address that other machines reach is meant.
    pub allow_remote: bool,
    /// Host names, without port, under which the API may be asked besides those of loopback.
    pub hosts: Vec<String>,
}

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The text is not an address.
    #[error("`{listen}` is not an address to listen on: expected HOST:PORT such as 127.0.0.1:7766")]
    Address {
        /// The text.
        listen: String,
        /// Why.
        source: io::Error,
    },
    /// Other machines could reach it.
    #[error("{address} can be reached from other machines, and the API speaks without TLS: listen on 127.0.0.1")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// Another process has the port.
    #[error(
        "{address} is in use by another process: stop it (`ss -ltnp 'sport = :{}'` shows it) or give another address with --listen",
        address.port()
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// The system refused otherwise.
    #[error("cannot listen on {address}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The API, listening but not answering yet.
#[derive(Debug)]
pub struct Api {
    listener: TcpListener,
    address: SocketAddr,
    guard: Guard,
    instance: u64,
}

impl Api {
    /// Takes the address.
    ///
    /// # Errors
    /// [`BindError`]; nothing is left listening then.
    pub async fn bind(config: ApiConfig) -> Result<Self, BindError> {
        let unreadable = |source| BindError::Address { listen: config.listen.clone(), source };
        let empty = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let address = config
            .listen
            .to_socket_addrs()
            .and_then(|mut addresses| addresses.next().ok_or_else(empty))
            .map_err(unreadable)?;
        if !address.ip().is_loopback() && !config.allow_remote {
            return Err(BindError::NotLoopback { address });
        }
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address },
            _ => BindError::Io { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(|source| BindError::Io { address, source })?;
        let hosts = config.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let instance = getrandom::u64().map_err(BindError::Random)?;
        Ok(Self { listener, address, guard: Guard { token: config.token, hosts }, instance })
    }

    /// Where it listens, with the port that it got.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` becomes true or its sender is gone, then lets open requests end for at most five seconds. Event
    /// streams end at once.
    ///
    /// # Cancel safety
    /// Dropping it stops listening and cuts every connection.
    pub async fn serve<D: Desk>(self, desk: D, stop: watch::Receiver<bool>) {
        let mut stopped = stop.clone();
        let mut deadline = stop.clone();
        let (guard, waiting) = (Arc::new(self.guard), Arc::new(Semaphore::new(WAITING_MAX)));
        let router = router(Shared { desk, guard, instance: self.instance, waiting, stopping: stop });
        let listener = Bounded { listener: self.listener, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
        // An error of `wait_for` means that the sender is gone, which stops the server as well.
        let serve = axum::serve(listener, router).with_graceful_shutdown(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        let overtime = async move {
            let _ = deadline.wait_for(|stop| *stop).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = serve.into_future() => if let Err(error) = result {
                warn!(%error, "The API stopped with an error.");
            },
            () = overtime => warn!("Requests were still open at the end of the grace time; they are cut."),
        }
    }
}

/// A listener that has only so many connections open.
struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        loop {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                // The semaphore is never closed; were it, nothing could be accepted any more.
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, address)) => return (Counted { stream, _permit: permit }, address),
                Err(error) => {
                    warn!(%error, "A connection to the API was not accepted.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that counts as long as it is open.
struct Counted {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
