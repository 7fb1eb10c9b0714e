//! `rabbitmq.conf`: a plain listener on loopback for development, or TLS for everything else.
//!
//! A plain listener anywhere but on loopback cannot be rendered. Values are checked, because the format has no quoting
//! that works in every version: a line feed or `#` in a path would become another setting or a comment.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Free disk space in bytes below which a development broker blocks publishers. Small, so that tests run on a full
/// laptop; production wants about the memory limit.
const DEVELOPMENT_DISK_FREE_LIMIT: u64 = 64 << 20;

/// Memory in bytes above which a development broker blocks publishers: several nodes may share one machine.
const DEVELOPMENT_MEMORY_LIMIT: u64 = 1 << 30;

/// Free disk space in bytes below which a production broker blocks publishers.
const DISK_FREE_LIMIT: u64 = 2_000_000_000;

/// Longest value in bytes; paths are shorter than this on every system that counts.
const MAX_VALUE_LEN: usize = 4096;

/// The PEM files of a TLS listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the authorities that clients are verified against.
    pub ca: PathBuf,
    /// The broker's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Whether a TLS client must show a certificate. One that is shown is always verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It may connect without.
    Optional,
    /// It must have one.
    Required,
}

/// A TLS listener: TLS 1.3 and 1.2 only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsListener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its files.
    pub files: TlsFiles,
    /// What clients must show.
    pub client_certificate: ClientCertificate,
}

/// The user and virtual host that a blank broker creates for itself. Not used when definitions are loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultLogin {
    /// The virtual host.
    pub vhost: String,
    /// The user, with every right in it.
    pub user: String,
    /// The password in clear.
    pub password: String,
}

/// What to render.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RabbitmqConf {
    /// A plain listener; refused unless on loopback.
    pub plain: Option<SocketAddr>,
    /// A TLS listener.
    pub tls: Option<TlsListener>,
    /// The listener of the management plugin, where that is enabled; refused unless on loopback.
    pub management: Option<SocketAddr>,
    /// A `definitions.json` to load at each start.
    pub definitions: Option<PathBuf>,
    /// The user of a blank broker.
    pub login: Option<DefaultLogin>,
    /// Block publishers below this much free disk, in bytes.
    pub disk_free_limit: u64,
    /// Block publishers above this much memory, in bytes; `None` leaves RabbitMQ's own share of the machine.
    pub memory_limit: Option<u64>,
    /// Further settings, written last.
    pub extra: Vec<(String, String)>,
}

/// Why a configuration cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfError {
    /// A listener without TLS that other machines could reach.
    #[error("{what} on {address} would be open to other machines without TLS; use a loopback address or TLS")]
    OffLoopback {
        /// Which listener.
        what: &'static str,
        /// Its address.
        address: SocketAddr,
    },
    /// Neither listener is given.
    #[error("a broker without a listener is of no use; give a plain or a TLS listener")]
    NoListener,
    /// A value that `rabbitmq.conf` cannot carry.
    #[error(
        "the value of {key} must be 1 to 4096 bytes of UTF-8 without control characters, '#', quotes or blanks at its ends"
    )]
    Value {
        /// The setting.
        key: String,
    },
    /// A key that is not made of `a-z A-Z 0-9 _ . -`.
    #[error("{key:?} is not the name of a setting")]
    Key {
        /// The key, cut to 64 characters.
        key: String,
    },
}

impl RabbitmqConf {
    /// A development broker: plain on one loopback address, small limits.
    #[must_use]
    pub fn development(address: SocketAddr) -> Self {
        Self {
            plain: Some(address),
            tls: None,
            management: None,
            definitions: None,
            login: None,
            disk_free_limit: DEVELOPMENT_DISK_FREE_LIMIT,
            memory_limit: Some(DEVELOPMENT_MEMORY_LIMIT),
            extra: Vec::new(),
        }
    }

    /// A broker that other machines reach: TLS only.
    #[must_use]
    pub fn tls(listener: TlsListener) -> Self {
        Self {
            plain: None,
            tls: Some(listener),
            management: None,
            definitions: None,
            login: None,
            disk_free_limit: DISK_FREE_LIMIT,
            memory_limit: None,
            extra: Vec::new(),
        }
    }

    /// The file's text.
    ///
    /// # Errors
    /// When a plain listener is not on loopback, there is no listener, or a value cannot be written safely.
    pub fn render(&self) -> Result<String, ConfError> {
        let mut out = Lines(String::from("# Rendered by Longshore; change its settings and render again.\n"));
        self.listeners(&mut out)?;
        if let Some(address) = self.management {
            require_loopback("the management plugin", address)?;
            out.put("management.tcp.ip", &address.ip().to_string())?;
            out.put("management.tcp.port", &address.port().to_string())?;
        }
        if let Some(path) = &self.definitions {
            out.path("load_definitions", path)?;
        }
        if let Some(login) = &self.login {
            out.put("default_vhost", &login.vhost)?;
            out.put("default_user", &login.user)?;
            out.put("default_pass", &login.password)?;
        }
        out.put("disk_free_limit.absolute", &self.disk_free_limit.to_string())?;
        if let Some(limit) = self.memory_limit {
            out.put("vm_memory_high_watermark.absolute", &limit.to_string())?;
        }
        // Never debug: it writes tokens and client properties to the log.
        out.put("log.file.level", "info")?;
        for (key, value) in &self.extra {
            out.put(key, value)?;
        }
        Ok(out.0)
    }

    fn listeners(&self, out: &mut Lines) -> Result<(), ConfError> {
        if self.plain.is_none() && self.tls.is_none() {
            return Err(ConfError::NoListener);
        }
        match self.plain {
            Some(address) => {
                require_loopback("a plain listener", address)?;
                out.put("listeners.tcp.1", &address.to_string())?;
            }
            None => out.put("listeners.tcp", "none")?,
        }
        let Some(tls) = &self.tls else { return Ok(()) };
        out.put("listeners.ssl.1", &tls.address.to_string())?;
        out.path("ssl_options.cacertfile", &tls.files.ca)?;
        out.path("ssl_options.certfile", &tls.files.certificate)?;
        out.path("ssl_options.keyfile", &tls.files.key)?;
        out.put("ssl_options.verify", "verify_peer")?;
        let required = match tls.client_certificate {
            ClientCertificate::Optional => "false",
            ClientCertificate::Required => "true",
        };
        out.put("ssl_options.fail_if_no_peer_cert", required)?;
        out.put("ssl_options.versions.1", "tlsv1.3")?;
        out.put("ssl_options.versions.2", "tlsv1.2")
    }
}

fn require_loopback(what: &'static str, address: SocketAddr) -> Result<(), ConfError> {
    if address.ip().is_loopback() { Ok(()) } else { Err(ConfError::OffLoopback { what, address }) }
}

struct Lines(String);

impl Lines {
    fn put(&mut self, key: &str, value: &str) -> Result<(), ConfError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if key.is_empty() || key.len() > 255 || !key.chars().all(plain) {
            return Err(ConfError::Key { key: key.chars().take(64).collect() });
        }
        let safe = (1..=MAX_VALUE_LEN).contains(&value.len())
            && value.trim() == value
            && !value.contains(|c: char| c.is_control() || matches!(c, '#' | '\'' | '"'));
        if !safe {
            return Err(ConfError::Value { key: key.to_owned() });
        }
        writeln!(self.0, "{key} = {value}").expect("writing to a String cannot fail");
        Ok(())
    }

    fn path(&mut self, key: &str, path: &Path) -> Result<(), ConfError> {
        let text = path.to_str().ok_or_else(|| ConfError::Value { key: key.to_owned() })?;
        self.put(key, text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_listener_that_others_could_reach_is_refused() {
        for address in ["0.0.0.0:5672", "192.0.2.1:5672", "[::]:5672"] {
            let error = RabbitmqConf::development(address.parse().unwrap()).render().unwrap_err();
            assert!(matches!(error, ConfError::OffLoopback { .. }), "{address}: {error}");
        }
        let mut conf = RabbitmqConf::development("127.0.0.1:5672".parse().unwrap());
        conf.management = Some("0.0.0.0:15672".parse().unwrap());
        assert!(matches!(conf.render(), Err(ConfError::OffLoopback { .. })));
    }

    #[test]
    fn a_value_cannot_smuggle_in_another_setting() {
        for value in ["a\nloopback_users = none", "a # b", " a", "", "'a'", "a\u{0}"] {
            let mut conf = RabbitmqConf::development("127.0.0.1:5672".parse().unwrap());
            conf.extra = vec![("cluster_name".to_owned(), value.to_owned())];
            assert!(matches!(conf.render(), Err(ConfError::Value { .. })), "{value:?}");
        }
        let mut conf = RabbitmqConf::development("127.0.0.1:5672".parse().unwrap());
        conf.extra = vec![("a = b\nc".to_owned(), "1".to_owned())];
        assert!(matches!(conf.render(), Err(ConfError::Key { .. })));
    }

    #[test]
    fn a_broker_without_any_listener_is_refused() {
        let mut conf = RabbitmqConf::development("127.0.0.1:5672".parse().unwrap());
        conf.plain = None;
        assert_eq!(conf.render(), Err(ConfError::NoListener));
    }
}
