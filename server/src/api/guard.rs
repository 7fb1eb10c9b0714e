//! Who may ask at all. Checks come before the request's path or body is looked at: the Host header first, since a web page on
//! the same machine must not reach the API under a name of its own (DNS rebinding), then the token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::REQUEST_TIME_MAX;
use super::access::Token;
use super::answer::Refused;
use super::desk::Desk;

/// What a request is measured against.
#[derive(Debug)]
pub(super) struct Guard {
    /// The token.
    pub(super) token: Token,
    /// Host names under which the API may be asked besides those of loopback, in lower case and without port.
    pub(super) hosts: Vec<String>,
}

/// Lets a request through, or answers it.
pub(super) async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).map(without_port);
    if !host.is_some_and(|host| guard.knows(host)) {
        return Refused::new(
            StatusCode::FORBIDDEN,
            "the request's Host header does not name this server",
            "nothing was changed",
            "use the address in the server's api.json, or allow the name in its configuration",
        )
        .into_response();
    }
    if request.uri().path() == "/healthz" || guard.opens(&request) {
        return next.run(request).await;
    }
    let refused = Refused::new(
        StatusCode::UNAUTHORIZED,
        "the token is missing or not the server's",
        "nothing was changed",
        "read it from the server's api.json, or give --token-file",
    );
    ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response()
}

/// Gives up on requests whose answer does not begin in time.
pub(super) async fn within_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refused::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("no answer within {} s", REQUEST_TIME_MAX.as_secs()),
            "a job that was being submitted may have been taken",
            "ask again: a job submitted with the same id is taken only once",
        )
        .into_response(),
    }
}

/// Holds an answer back until all that it says is on stable storage.
pub(super) async fn keep<D: Desk>(State(desk): State<D>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    match desk.kept().await {
        Ok(()) => response,
        Err(error) => Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_string(),
            "what was asked may have been done; jobs that were taken are safe in the journal",
            "ask again when the server is up",
        )
        .into_response(),
    }
}

impl Guard {
    fn knows(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if host == "localhost" || self.hosts.contains(&host) {
            return true;
        }
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        literal.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    fn opens(&self, request: &Request) -> bool {
        let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.split_once(' ')).filter(|(how, _)| how.eq_ignore_ascii_case("bearer"));
        token.is_some_and(|(_, token)| self.token.matches(token.trim()))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        Some(_) | None => host,
    }
}
