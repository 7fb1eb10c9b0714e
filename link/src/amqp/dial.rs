//! Makes one connection to the broker: name, TCP, perhaps a proxy, perhaps TLS, then AMQP, each under a deadline. A peer
//! that accepts and stays silent costs nothing once the deadline has passed. Never connects in the clear off loopback.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_rs::Runtime;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::CALL_LIMIT;
use super::config::{AmqpConfig, ConfigError, Role};
use super::failure::{Failure, within};
use super::stream::{ByteStream, Host};
use super::tls;
use super::url::{Login, Scheme};

/// For finding the address of a name.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// For TCP to one address.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried. More would make an attempt last minutes.
const ADDRESSES_MAX: usize = 4;

/// For a proxy's answer, which waits for its own connection.
const PROXY_LIMIT: Duration = Duration::from_secs(10);

/// For the TLS handshake.
const TLS_LIMIT: Duration = Duration::from_secs(10);

/// For login and opening the virtual host; a broker may ask a directory about the user.
const LOGIN_LIMIT: Duration = Duration::from_secs(15);

/// Seconds. A dead peer is noticed within two of these.
const HEARTBEAT: u16 = 10;

/// Bytes, for the server. The library prepares buffers for 32 frames of this size each way, whether they are ever used or not, and
/// writes zeros over them: 7.8 MiB for each connection without a value. The server has two connections and many messages.
const SERVER_FRAME_BYTES_MAX: u32 = 64 * 1024;

/// Bytes, for an agent: the least that every version of the broker takes. There are many agents, and each is to be small and quick to
/// come back. A message of 1 KiB is one frame, the largest one some forty.
const AGENT_FRAME_BYTES_MAX: u32 = 8 * 1024;

/// Channels of a connection; two are in use.
const CHANNELS_MAX: u16 = 8;

/// What a connection is for; people see it in the broker's list of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Publish,
    Consume,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}

/// One connection. Dropping it ends it and the library's thread, however the connection fares: a blocked one could not
/// be closed otherwise.
pub(super) struct Link {
    pub(super) connection: Connection,
    _socket: Socket,
}

impl Link {
    /// One more channel.
    pub(super) async fn channel(&self) -> Result<Channel, Failure> {
        let channel = within(CALL_LIMIT, "opening a channel", self.connection.create_channel()).await?;
        channel.map_err(|e| Failure::of(&e))
    }
}

/// A second handle on a socket, which shuts it down when dropped. The library's thread then sees the end of the stream.
struct Socket(std::net::TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        // It may be shut down already, which is what is wanted.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Makes one connection.
pub(super) async fn dial(config: &AmqpConfig, purpose: Purpose) -> Result<Link, Failure> {
    dial_within(config, purpose, LOGIN_LIMIT).await
}

/// Makes one connection, with that limit for the login.
pub(super) async fn dial_within(config: &AmqpConfig, purpose: Purpose, login_limit: Duration) -> Result<Link, Failure> {
    config.check_scheme()?;
    let tls = load_tls(config).await?;
    let (host, port) = (config.url.host.as_str(), config.url.port);
    let mut tcp = connect(host, addresses(config).await?).await?;
    let broken = |e: io::Error| Failure::Broken(e.to_string());
    tcp.set_nodelay(true).map_err(broken)?;
    let socket = Socket(tcp.as_fd().try_clone_to_owned().map_err(broken)?.into());
    if let Some(proxy) = &config.proxy {
        let failed = |source| Failure::Proxy { proxy: proxy.to_string(), host: host.to_owned(), source };
        within(PROXY_LIMIT, "the proxy's answer", proxy.tunnel(&mut tcp, host, port)).await?.map_err(failed)?;
    }
    let stream = match tls {
        None => ByteStream::Plain(tcp),
        Some(tls) => encrypt(tls, host, tcp).await?,
    };
    let slot = Mutex::new(Some(stream));
    // The library may ask again after a failure; there is one stream, so it is told no.
    let hand_over = async move |_: AMQPUri, _: Runtime<Host>| {
        let stream = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let none = || lapin::Error::from(io::Error::from(io::ErrorKind::NotConnected));
        stream.map(AsyncTcpStream::Plain).ok_or_else(none)
    };
    let runtime = Runtime::new(Host::current());
    let login = Connection::connector(uri(config), runtime, hand_over, properties(config, purpose));
    let connection = within(login_limit, "logging in to the broker", login).await?;
    let connection = connection.map_err(|e| Failure::of_login(&e, config.url.user()))?;
    Ok(Link { connection, _socket: socket })
}

/// The first of these addresses that answers.
async fn connect(host: &str, addresses: Vec<SocketAddr>) -> Result<TcpStream, Failure> {
    let mut last = Failure::NoAddress { host: host.to_owned() };
    for address in addresses {
        match within(CONNECT_LIMIT, "connecting", TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => last = Failure::Connect { address, source },
            Err(late) => last = late,
        }
    }
    Err(last)
}

async fn encrypt(tls: Arc<ClientConfig>, host: &str, tcp: TcpStream) -> Result<ByteStream, Failure> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| ConfigError::ServerName { host: host.to_owned() })?;
    let handshake = TlsConnector::from(tls).connect(name, tcp);
    let failed = |source| Failure::Tls { host: host.to_owned(), source };
    let stream = within(TLS_LIMIT, "the TLS handshake", handshake).await?.map_err(failed)?;
    Ok(ByteStream::Tls(Box::new(stream)))
}

async fn load_tls(config: &AmqpConfig) -> Result<Option<Arc<ClientConfig>>, Failure> {
    match config.url.scheme {
        Scheme::Amqp => Ok(None),
        Scheme::Amqps => {
            let config = config.clone();
            let loaded = tokio::task::spawn_blocking(move || tls::load(&config)).await;
            Ok(Some(loaded.map_err(|e| Failure::Broken(e.to_string()))??))
        }
    }
}

/// Where to connect to: the proxy, or the broker.
async fn addresses(config: &AmqpConfig) -> Result<Vec<SocketAddr>, Failure> {
    let (host, port) = match &config.proxy {
        Some(proxy) => (proxy.host.as_str(), proxy.port),
        None => (config.url.host.as_str(), config.url.port),
    };
    let found = within(RESOLVE_LIMIT, "finding the broker's address", tokio::net::lookup_host((host, port))).await?;
    let found = found.map_err(|source| Failure::Resolve { host: host.to_owned(), source })?;
    let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
    // `localhost` is a name, and a hosts file can say anything.
    let plain = config.url.scheme == Scheme::Amqp && config.proxy.is_none();
    if plain && addresses.iter().any(|address| !address.ip().is_loopback()) {
        return Err(ConfigError::PlainToNetwork { host: host.to_owned() }.into());
    }
    Ok(addresses)
}

fn uri(config: &AmqpConfig) -> AMQPUri {
    let (userinfo, mechanism) = match &config.url.login {
        Login::Plain { user, password } => {
            (AMQPUserInfo { username: user.clone(), password: password.clone() }, SASLMechanism::Plain)
        }
        Login::External => (AMQPUserInfo { username: String::new(), password: String::new() }, SASLMechanism::External),
    };
    AMQPUri {
        scheme: match config.url.scheme {
            Scheme::Amqp => AMQPScheme::AMQP,
            Scheme::Amqps => AMQPScheme::AMQPS,
        },
        authority: AMQPAuthority { userinfo, host: config.url.host.clone(), port: config.url.port },
        vhost: config.url.vhost.clone(),
        query: AMQPQueryString {
            frame_max: Some(match &config.role {
                Role::Server { .. } => SERVER_FRAME_BYTES_MAX,
                Role::Agent(_) => AGENT_FRAME_BYTES_MAX,
            }),
            channel_max: Some(CHANNELS_MAX),
            heartbeat: Some(HEARTBEAT),
            connection_timeout: None,
            auth_mechanism: Some(mechanism),
        },
    }
}

/// Recovery by the library stays off, as it is by default: it sleeps, gives up for good, and repeats what must not be.
fn properties(config: &AmqpConfig, purpose: Purpose) -> ConnectionProperties {
    let name = format!("longshore {} {}", config.role.endpoint(), purpose.as_str());
    ConnectionProperties::default().with_connection_name(name.into())
}
