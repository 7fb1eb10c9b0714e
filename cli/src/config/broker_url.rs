//! The broker's address as an operator writes it. Checked for form here; what it leads to is found out by connecting. Never
//! prints a password.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

/// Bytes of an address.
const BYTES_MAX: usize = 2048;

/// Why a text is not a broker's address. The text is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokerUrlError {
    /// Not `amqp://` or `amqps://`.
    #[error("the broker's address does not begin with amqp:// or amqps://")]
    Scheme,
    /// No host.
    #[error("the broker's address names no host")]
    Host,
    /// The port is not one.
    #[error("the broker's address has a port that is not 1 to 65535")]
    Port,
    /// Spaces, control characters, or too long.
    #[error("the broker's address holds a space or control character, or is longer than {BYTES_MAX} bytes")]
    Characters,
    /// Work and credentials would cross the network in the clear.
    #[error("the broker {host} is not on this machine, and amqp:// has no TLS")]
    NotEncrypted {
        /// The broker's host.
        host: String,
    },
}

/// A broker's address of valid form: `amqps://USER:PASSWORD@HOST:PORT/VHOST`. Without TLS the host is on loopback.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct BrokerUrl {
    text: String,
    shown: String,
}

impl BrokerUrl {
    /// The whole address, password included, to connect with.
    #[cfg_attr(not(test), expect(dead_code, reason = "the commands that connect are wired in next"))]
    pub(crate) fn reveal(&self) -> &str {
        &self.text
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        if text.len() > BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(BrokerUrlError::Characters);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme @ ("amqp" | "amqps"), rest)) => (scheme, rest),
            Some(_) | None => return Err(BrokerUrlError::Scheme),
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(BrokerUrlError::Host)?,
            None => address.split_at(address.find(':').unwrap_or(address.len())),
        };
        if host.is_empty() {
            return Err(BrokerUrlError::Host);
        }
        if !port.is_empty()
            && !port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        {
            return Err(BrokerUrlError::Port);
        }
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if scheme == "amqp" && !loopback {
            return Err(BrokerUrlError::NotEncrypted { host: host.to_owned() });
        }
        // A query may hold credentials as well, so only the path is shown.
        let path = tail.split('?').next().unwrap_or_default();
        Ok(Self { text: text.to_owned(), shown: format!("{scheme}://{address}{path}") })
    }
}

impl TryFrom<String> for BrokerUrl {
    type Error = BrokerUrlError;

    fn try_from(text: String) -> Result<Self, BrokerUrlError> {
        text.parse()
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.shown)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (text, shown) in [
            ("amqp://127.0.0.1", "amqp://127.0.0.1"),
            ("amqp://u:p@ss@localhost:5672/%2f", "amqp://localhost:5672/%2f"),
            ("amqps://u:p@mq.example:5671/v?auth=x", "amqps://mq.example:5671/v"),
            ("amqp://u:p@[::1]:5672", "amqp://[::1]:5672"),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}"), url.reveal()), (shown.into(), shown.into(), text));
        }
    }

    #[test]
    fn an_address_that_cannot_work_is_refused() {
        for (text, error) in [
            ("", BrokerUrlError::Scheme),
            ("127.0.0.1:5672", BrokerUrlError::Scheme),
            ("http://localhost", BrokerUrlError::Scheme),
            ("amqp://", BrokerUrlError::Host),
            ("amqp://u:p@/x", BrokerUrlError::Host),
            ("amqp://[::1", BrokerUrlError::Host),
            ("amqp://localhost:", BrokerUrlError::Port),
            ("amqp://localhost:0", BrokerUrlError::Port),
            ("amqp://localhost:99999", BrokerUrlError::Port),
            ("amqp://local host", BrokerUrlError::Characters),
            ("amqp://mq.example", BrokerUrlError::NotEncrypted { host: "mq.example".into() }),
            ("amqp://127.0.0.1.example", BrokerUrlError::NotEncrypted { host: "127.0.0.1.example".into() }),
        ] {
            assert_eq!(text.parse::<BrokerUrl>(), Err(error), "{text}");
        }
    }
}
