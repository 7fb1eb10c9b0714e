//! A server for one test, and a client that says exactly what it is told to say.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use messages::JobId;
use serde_json::{Value, json};
use server::api::{Api, ApiConfig, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::desk::TestDesk;

/// Far beyond what any of this takes: a test that waits so long hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// A server for one test.
pub struct World {
    pub desk: TestDesk,
    address: SocketAddr,
    pub token: Token,
    pub stop: watch::Sender<bool>,
    pub serving: tokio::task::JoinHandle<()>,
}

impl World {
    pub async fn new() -> Self {
        let token = Token::generate().unwrap();
        let api = Api::bind(config("127.0.0.1:0", &token)).await.unwrap();
        let (desk, address) = (TestDesk::new(), api.address());
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(api.serve(desk.clone(), stopped));
        Self { desk, address, token, stop, serving }
    }

    pub fn head(&self, method: &str, path: &str, more: &str) -> String {
        let token = self.token.reveal();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
        )
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.raw(self.head("GET", path, "").into_bytes()).await
    }

    pub async fn post(&self, body: &str) -> Reply {
        let head = self.head("POST", "/v1/jobs", &format!("Content-Length: {}\r\n", body.len()));
        self.raw([head.as_bytes(), body.as_bytes()].concat()).await
    }

    pub async fn post_to(&self, path: &str, body: &str) -> Reply {
        let head = self.head("POST", path, &format!("Content-Length: {}\r\n", body.len()));
        self.raw([head.as_bytes(), body.as_bytes()].concat()).await
    }

    pub async fn submit(&self, id: u128, definition: &str) -> Reply {
        self.post(&json!({"id": JobId::from_u128(id), "definition": definition}).to_string()).await
    }

    pub async fn raw(&self, request: Vec<u8>) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that has seen enough may close before it has read everything.
        let _ = stream.write_all(&request).await;
        let mut bytes = Vec::new();
        let _ = patient(stream.read_to_end(&mut bytes)).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).unwrap_or("0").parse().unwrap();
        Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub async fn follow(&self, path: &str, more: &str) -> Events {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(self.head("GET", path, more).as_bytes()).await.unwrap();
        Events { stream, bytes: Vec::new() }
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub struct Events {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Events {
    /// The next event as (name, id, data), or nothing when the stream has ended.
    pub async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            // Chunk sizes stand on lines of their own, so they never look like a field.
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\n\n") {
                let event = String::from_utf8(self.bytes.drain(..end + 2).collect()).unwrap();
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                let (name, id, data) = (field("event:"), field("id:"), field("data:"));
                if name.is_empty() {
                    continue;
                }
                return Some((name, id, serde_json::from_str(&data).unwrap()));
            }
            let mut bytes = vec![0; 65_536];
            match patient(self.stream.read(&mut bytes)).await.unwrap() {
                0 => return None,
                length => self.bytes.extend_from_slice(&bytes[..length]),
            }
        }
    }
}

pub async fn patient<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the API answers in time")
}

pub fn config(listen: &str, token: &Token) -> ApiConfig {
    ApiConfig { listen: listen.into(), token: token.clone(), allow_remote: false, hosts: vec!["ship.example".into()] }
}
