//! The address of a broker as people write it, `amqps://user:password@host:port/vhost`. Parsed here and not by the AMQP
//! library, which ignores what it does not know and takes an IPv6 host for `localhost`. Never shows the password.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Bytes of a URL. Long tokens as passwords fit; a file pasted by mistake does not.
const URL_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a user name, a host or a virtual host: the most that AMQP and DNS have room for.
const NAME_BYTES_MAX: usize = 255;

/// Why a text is not the address of a broker. No variant holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is far too long.
    #[error("a broker URL of {bytes} bytes is too long; the limit is {URL_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It does not begin with a known scheme.
    #[error("a broker URL begins with amqp:// or amqps://, not with `{found}`")]
    Scheme {
        /// How it begins, cut to 16 characters.
        found: String,
    },
    /// It names no host.
    #[error("the broker URL names no host; write amqps://user:password@host/vhost")]
    MissingHost,
    /// The host is not a name or an address.
    #[error("`{host}` in the broker URL is no host name and no IP address (an IPv6 address goes in brackets)")]
    Host {
        /// The host, cut.
        host: String,
    },
    /// The port is not 1 to 65535.
    #[error("what follows the host and a colon in the URL is no port; use 1 to 65535, or leave it out")]
    Port,
    /// A part has a `%` without two hexadecimal digits, or bytes that are not UTF-8, or control characters.
    #[error("the {part} in the broker URL is not percent-encoded text")]
    Encoding {
        /// Which part.
        part: &'static str,
    },
    /// A part is empty or has more than 255 bytes.
    #[error("the {part} in the broker URL must have 1 to {NAME_BYTES_MAX} bytes")]
    Length {
        /// Which part.
        part: &'static str,
    },
    /// It names no user although one is needed to log in.
    #[error("the broker URL names no user; write amqps://user:password@host/vhost, or add ?auth_mechanism=external")]
    MissingUser,
    /// The query has a key other than `auth_mechanism`.
    #[error("the broker URL may not set `{key}`: only auth_mechanism is known, limits and timeouts are fixed")]
    QueryKey {
        /// The key, cut.
        key: String,
    },
    /// The value of `auth_mechanism` is unknown.
    #[error("`{value}` is no auth_mechanism; use plain or external")]
    Mechanism {
        /// The value, cut.
        value: String,
    },
}

/// Whether the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear: for loopback only.
    Amqp,
    /// TLS.
    Amqps,
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Amqps => "amqps",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Amqp => 5672,
            Self::Amqps => 5671,
        }
    }
}

/// How to log in.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// With a name and a password, which may be a token.
    Plain { user: String, password: String },
    /// As whom the client certificate names.
    External,
}

/// The address of a broker. `Display` and `Debug` show all but the password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    pub(super) scheme: Scheme,
    pub(super) login: Login,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) vhost: String,
}

impl BrokerUrl {
    /// Whether the connection is encrypted.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host: a name, or an IP address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The virtual host, decoded.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Whether the host is this machine beyond doubt: a literal loopback address, or `localhost`. Other names are not
    /// looked up, because the answer could be another one when it matters.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// For whom the login is, for people.
    pub(super) fn user(&self) -> &str {
        match &self.login {
            Login::Plain { user, .. } => user,
            Login::External => "the client certificate",
        }
    }
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong { bytes: text.len() });
        }
        let (scheme, rest) = match (text.strip_prefix("amqp://"), text.strip_prefix("amqps://")) {
            (Some(rest), _) => (Scheme::Amqp, rest),
            (None, Some(rest)) => (Scheme::Amqps, rest),
            (None, None) => {
                // Only what comes before `://` is shown: without a scheme the text may begin with a password.
                let found = text.split_once("://").map_or("", |(scheme, _)| scheme);
                return Err(UrlError::Scheme { found: cut(found) });
            }
        };
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
        let (userinfo, place) =
            authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
        let (host, port) = place_of(place)?;
        let vhost = path.map_or(Ok("/".to_owned()), |path| name(path, "virtual host"))?;
        let login = if external(query.unwrap_or(""))? { Login::External } else { plain(userinfo)? };
        Ok(Self { scheme, login, host, port: port.unwrap_or(scheme.default_port()), vhost })
    }
}

fn plain(userinfo: Option<&str>) -> Result<Login, UrlError> {
    let userinfo = userinfo.ok_or(UrlError::MissingUser)?;
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    Ok(Login::Plain { user: name(user, "user")?, password: decoded(password, "password")? })
}

fn external(query: &str) -> Result<bool, UrlError> {
    let mut external = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key != "auth_mechanism" {
            // A `?` within a password would bring a part of it here, so only what looks like a key is shown.
            let word = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !query.contains('@');
            return Err(UrlError::QueryKey { key: if word { cut(key) } else { "...".to_owned() } });
        }
        external = match value {
            "external" => true,
            "plain" => false,
            _ => return Err(UrlError::Mechanism { value: cut(value) }),
        };
    }
    Ok(external)
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn place_of(place: &str) -> Result<(String, Option<u16>), UrlError> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| UrlError::Host { host: cut(place) })?;
        if !matches!(host.parse::<IpAddr>(), Ok(IpAddr::V6(_))) || !(after.is_empty() || after.starts_with(':')) {
            return Err(UrlError::Host { host: cut(place) });
        }
        (host, after.strip_prefix(':'))
    } else {
        let (host, port) = place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if host.is_empty() {
            return Err(UrlError::MissingHost);
        }
        if host.len() > NAME_BYTES_MAX || !host.bytes().all(valid) {
            return Err(UrlError::Host { host: cut(host) });
        }
        (host, port)
    };
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(UrlError::Port),
    };
    Ok((host.to_owned(), port.map(number).transpose()?))
}

fn name(text: &str, part: &'static str) -> Result<String, UrlError> {
    let text = decoded(text, part)?;
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(UrlError::Length { part });
    }
    Ok(text)
}

/// Percent-decodes a part.
pub(super) fn decoded(text: &str, part: &'static str) -> Result<String, UrlError> {
    let wrong = || UrlError::Encoding { part };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    if text.chars().any(char::is_control) { Err(wrong()) } else { Ok(text) }
}

/// Text from outside in a printable length.
pub(super) fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect()
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        if let Login::Plain { user, .. } = &self.login {
            write!(f, "{}@", encoded(user))?;
        }
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}/{}", self.host, self.port, encoded(&self.vhost))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}
