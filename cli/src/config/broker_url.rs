//! The broker's address as an operator writes it. Its form is the transport's business; here is only the rule that nothing
//! leaves this machine without TLS, checked before anything is started. Never prints a password.

use std::fmt;
use std::str::FromStr;

use link::amqp::{Scheme, UrlError};
use serde::Deserialize;

/// Why a text is not a broker's address. The text is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokerUrlError {
    /// It has not the form of one.
    #[error(transparent)]
    Form(#[from] UrlError),
    /// Work and credentials would cross the network in the clear.
    #[error("the broker {host} is not on this machine, and amqp:// has no TLS")]
    NotEncrypted {
        /// The broker's host.
        host: String,
    },
}

/// A broker's address of valid form. Without TLS the host is on loopback.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct BrokerUrl(link::amqp::BrokerUrl);

impl BrokerUrl {
    /// The address as the transport takes it.
    pub(crate) const fn transport(&self) -> &link::amqp::BrokerUrl {
        &self.0
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let url: link::amqp::BrokerUrl = text.parse()?;
        match url.scheme() {
            Scheme::Amqp if !url.is_loopback() => Err(BrokerUrlError::NotEncrypted { host: url.host().to_owned() }),
            Scheme::Amqp | Scheme::Amqps => Ok(Self(url)),
        }
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
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for text in ["amqp://u:hush@localhost:5672/%2f", "amqps://u:hush@mq.example:5671/v"] {
            let url: BrokerUrl = text.parse().unwrap();
            assert!(!format!("{url} {url:?}").contains("hush"), "{url} {url:?}");
        }
    }

    #[test]
    fn nothing_leaves_the_machine_without_tls() {
        let error = "amqp://u:hush@mq.example".parse::<BrokerUrl>().unwrap_err();
        assert_eq!(error, BrokerUrlError::NotEncrypted { host: "mq.example".into() });
        assert!("amqps://u:p@mq.example".parse::<BrokerUrl>().is_ok());
        assert!("amqp://u:p@[::1]:5672".parse::<BrokerUrl>().is_ok());
    }
}
