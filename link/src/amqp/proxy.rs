//! Going through an HTTP proxy by CONNECT. The proxy sees where the connection goes and nothing of what travels.

use std::fmt;
use std::io;
use std::str::FromStr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::url::{UrlError, cut, decoded, place_of};

/// Bytes of a proxy's answer to CONNECT. Answers have a few hundred; a page of the wrong server must not fill memory.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

/// The port of a proxy when none is given: what Squid and most others use.
const DEFAULT_PORT: u16 = 3128;

/// Why a text is not the address of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It does not begin with `http://`.
    #[error("a proxy is written http://host:port, or http://user:password@host:port")]
    Scheme,
    /// Host, port or credentials are wrong.
    #[error("the proxy address is wrong")]
    Place(#[from] UrlError),
}

/// An HTTP proxy. `Display` and `Debug` do not show credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    credentials: Option<String>,
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let rest = text.strip_prefix("http://").ok_or(ProxyError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (userinfo, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let (host, port) = place_of(place)?;
        let credentials = userinfo.map(|text| decoded(text, "user of the proxy")).transpose()?;
        Ok(Self { host, port: port.unwrap_or(DEFAULT_PORT), credentials })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "http://{open}{}{close}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl Proxy {
    /// Asks for a tunnel to a host and port. Afterwards the stream is as if connected to there.
    pub(super) async fn tunnel(&self, stream: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
        let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
        if let Some(credentials) = &self.credentials {
            request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", base64(credentials.as_bytes())));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Byte by byte: what follows the answer is no longer the proxy's.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == ANSWER_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer to CONNECT has no end"));
            }
            answer.push(stream.read_u8().await?);
        }
        let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ');
        let http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
        if http && words.next().is_some_and(|code| code.len() == 3 && code.starts_with('2')) {
            return Ok(());
        }
        Err(io::Error::other(format!("it answered `{}`", cut(&line))))
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn base64_pads_as_the_standard_says() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|t| base64(t.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }

    #[test]
    fn a_proxy_shows_no_credentials() {
        let proxy: Proxy = "http://me:hush@gate.example:8080".parse().unwrap();
        assert_eq!(format!("{proxy} {proxy:?}"), "http://gate.example:8080 Proxy(http://gate.example:8080)");
        assert_eq!("http://[::1]".parse::<Proxy>().unwrap().to_string(), "http://[::1]:3128");
        assert_eq!("gate:1".parse::<Proxy>(), Err(ProxyError::Scheme));
    }

    async fn answered(answer: &'static [u8]) -> (io::Result<()>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            asked
        });
        let proxy: Proxy = "http://me:hush@gate".parse().unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let result = proxy.tunnel(&mut stream, "::1", 5671).await;
        (result, served.await.unwrap())
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_with_credentials_and_any_2xx_grants_it() {
        let (result, asked) = answered(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        result.unwrap();
        assert_eq!(
            String::from_utf8(asked).unwrap(),
            "CONNECT [::1]:5671 HTTP/1.1\r\nHost: [::1]:5671\r\nProxy-Authorization: Basic bWU6aHVzaA==\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_quoted() {
        let (result, _) = answered(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
        assert_eq!(result.unwrap_err().to_string(), "it answered `HTTP/1.1 407 Proxy Authentication Required`");
        let (result, _) = answered(b"220 mail.example ESMTP\r\n\r\n").await;
        assert!(result.unwrap_err().to_string().contains("220 mail.example"));
    }
}
