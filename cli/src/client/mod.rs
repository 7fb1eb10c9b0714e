//! The way to the server's API: where it is, what opens it, how long to wait and how much to read. Blocking; every wait has an end.

mod error;
mod sse;

use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use server::api::{Access, AccessError, Token};
use server::views::{Answer, ErrorView, Schema};
use ureq::Agent;
use ureq::http::{Response, StatusCode};

use crate::args::Global;
use crate::home::Home;

pub(crate) use error::ClientError;
pub(crate) use sse::{Event, EventReader};

/// How long a connection to the server may take. It is near.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a whole request may take. The server gives up on its side after 30 s, and says so.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(40);
/// How long an event stream may be silent. The server says something every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(16);
/// Bytes of an answer: a job of 1000 steps on 200 agents fits.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a token file.
const TOKEN_FILE_BYTES_MAX: u64 = 4 * 1024;

/// Asks the server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    access: Access,
}

/// A piece of a log.
#[derive(Debug)]
pub(crate) struct LogBytes {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// Bytes that the server has in all.
    pub(crate) size: u64,
    /// Whether that is all of it.
    pub(crate) complete: bool,
    /// Bytes of the output beyond its limit, which nobody kept.
    pub(crate) cut: u64,
}

impl Client {
    /// A client for the server that the command line means.
    ///
    /// # Errors
    /// [`ClientError`] when nothing says where the server is, or its token cannot be had.
    pub(crate) fn new(global: &Global) -> Result<Self, ClientError> {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .http_status_as_error(false)
            // The token goes to this server only: through no proxy, and after no redirect.
            .proxy(None)
            .max_redirects(0)
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.into(), access: access(global)? })
    }

    /// Whether both ask the same server with the same token.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.access == other.access
    }

    /// The server's address.
    pub(crate) fn url(&self) -> &str {
        &self.access.url
    }

    /// Asks for a view.
    pub(crate) fn get<T: Schema + DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let request = self.agent.get(self.at(path)).header("authorization", self.bearer());
        let response = request.config().timeout_global(Some(REQUEST_TIME_MAX)).build().call();
        self.view(response).map(|(_, view)| view)
    }

    /// Sends something, and answers the status and the view that came back.
    pub(crate) fn post<B: Serialize, T: Schema + DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<(StatusCode, T), ClientError> {
        let request = self.agent.post(self.at(path)).header("authorization", self.bearer());
        let response = request.config().timeout_global(Some(REQUEST_TIME_MAX)).build().send_json(body);
        self.view(response)
    }

    /// Reads a piece of a log.
    pub(crate) fn log(&self, path: &str) -> Result<LogBytes, ClientError> {
        let request = self.agent.get(self.at(path)).header("authorization", self.bearer());
        let response = request.config().timeout_global(Some(REQUEST_TIME_MAX)).build().call();
        let mut response = self.accepted(response)?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let size = header("x-longshore-size").and_then(|size| size.parse().ok());
        let complete = header("x-longshore-complete").as_deref() == Some("true");
        let cut = header("x-longshore-cut").and_then(|cut| cut.parse().ok()).unwrap_or(0);
        let bytes = self.body(&mut response)?;
        let size = size.ok_or_else(|| self.foreign("it gave no size of the log"))?;
        Ok(LogBytes { bytes, size, complete, cut })
    }

    /// Opens an event stream, after the event with that id.
    pub(crate) fn events(&self, path: &str, after: Option<&str>) -> Result<EventReader, ClientError> {
        let mut request = self.agent.get(self.at(path)).header("authorization", self.bearer());
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        let request =
            request.config().timeout_recv_response(Some(REQUEST_TIME_MAX)).timeout_per_read(Some(SILENCE_MAX));
        let response = self.accepted(request.build().call())?;
        Ok(EventReader::new(response.into_body().into_reader()))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.access.url.trim_end_matches('/'))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.access.token.reveal())
    }

    fn view<T: Schema + DeserializeOwned>(
        &self,
        response: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<(StatusCode, T), ClientError> {
        let mut response = self.accepted(response)?;
        let bytes = self.body(&mut response)?;
        let answer: Answer<T> = serde_json::from_slice(&bytes).map_err(|error| self.foreign(&error.to_string()))?;
        if answer.schema != T::SCHEMA {
            return Err(self.foreign(&format!("it answered with {} instead of {}", answer.schema, T::SCHEMA)));
        }
        Ok((response.status(), answer.view))
    }

    /// Lets good answers through and makes errors of refusals.
    fn accepted(
        &self,
        response: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response<ureq::Body>, ClientError> {
        let mut response = response.map_err(|error| ClientError::transport(self.url(), error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.body(&mut response)?;
        match serde_json::from_slice::<Answer<ErrorView>>(&bytes) {
            Ok(answer) if answer.schema == ErrorView::SCHEMA => {
                Err(ClientError::Refused { status: status.as_u16(), view: Box::new(answer.view) })
            }
            Ok(_) | Err(_) => Err(self.foreign(&format!("it answered with HTTP status {status}"))),
        }
    }

    fn body(&self, response: &mut Response<ureq::Body>) -> Result<Vec<u8>, ClientError> {
        let read = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        read.map_err(|error| ClientError::transport(self.url(), error))
    }

    fn foreign(&self, why: &str) -> ClientError {
        ClientError::Foreign { url: self.url().to_owned(), why: why.chars().take(200).collect() }
    }
}

/// Where the server is and what opens it: as the command line says, the rest from the file that the server wrote.
fn access(global: &Global) -> Result<Access, ClientError> {
    let token = global.token_file.as_deref().map(read_token).transpose()?;
    if let (Some(url), Some(token)) = (&global.server, &token) {
        return checked(Access { url: url.clone(), token: token.clone() });
    }
    let file = Home::find(global.dir.as_deref())?.access_file();
    let written = Access::read(&file).map_err(|source| match (&global.server, source) {
        (Some(url), AccessError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            ClientError::NoToken { url: url.chars().filter(|c| !c.is_control()).take(200).collect() }
        }
        (_, source) => ClientError::NoAccess { path: file, source },
    })?;
    checked(Access { url: global.server.clone().unwrap_or(written.url), token: token.unwrap_or(written.token) })
}

fn checked(access: Access) -> Result<Access, ClientError> {
    let authority = access.url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    if authority
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@".contains(&b)))
    {
        return Ok(access);
    }
    Err(ClientError::BadUrl { url: access.url.chars().filter(|c| !c.is_control()).take(200).collect() })
}

fn read_token(path: &std::path::Path) -> Result<Token, ClientError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|source| ClientError::TokenFile { path: path.to_owned(), source })?;
    Token::try_from(text.trim().to_owned()).map_err(|source| ClientError::Token { path: path.to_owned(), source })
}
