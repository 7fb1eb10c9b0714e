//! The server's API as anybody else sees it: HTTP and JSON, none of the server's own types.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Why the API gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server's access file is not there or not readable.
    #[error("{} cannot be read", path.display())]
    Access {
        /// The file.
        path: PathBuf,
    },
    /// The server does not answer, or refuses.
    #[error("{method} {path}: {reason}")]
    Http {
        /// The method.
        method: &'static str,
        /// The path.
        path: String,
        /// What came back.
        reason: String,
    },
}

/// A client of the API of one server, wherever that now listens.
#[derive(Debug, Clone)]
pub struct Api {
    access: PathBuf,
    agent: ureq::Agent,
}

impl Api {
    /// A client for the server whose folder that is.
    #[must_use]
    pub fn new(server_dir: &Path) -> Self {
        // A limit for the whole would have the library start a thread for each request, to look up a name that is an address.
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(ANSWER_LIMIT))
            .timeout_send_request(Some(ANSWER_LIMIT))
            .timeout_send_body(Some(ANSWER_LIMIT))
            .timeout_recv_response(Some(ANSWER_LIMIT))
            .timeout_recv_body(Some(ANSWER_LIMIT))
            .http_status_as_error(false);
        Self { access: server_dir.join("api.json"), agent: config.build().new_agent() }
    }

    fn access(&self) -> Result<(String, String), ApiError> {
        let read = || -> Option<(String, String)> {
            let text = std::fs::read_to_string(&self.access).ok()?;
            let value: Value = serde_json::from_str(&text).ok()?;
            Some((value.get("url")?.as_str()?.to_owned(), value.get("token")?.as_str()?.to_owned()))
        };
        read().ok_or_else(|| ApiError::Access { path: self.access.clone() })
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// [`ApiError`]
    pub fn get(&self, path: &str) -> Result<Value, ApiError> {
        let (url, token) = self.access()?;
        let failed = |reason: String| ApiError::Http { method: "GET", path: path.to_owned(), reason };
        let call = self.agent.get(format!("{url}{path}")).header("authorization", format!("Bearer {token}")).call();
        let mut answer = call.map_err(|error| failed(error.to_string()))?;
        let text = answer.body_mut().read_to_string().map_err(|error| failed(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(failed(format!("{}: {text}", answer.status())));
        }
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    /// Asks for a log: its text, and whether that is the whole log.
    ///
    /// # Errors
    /// [`ApiError`]
    pub fn text(&self, path: &str) -> Result<(String, bool), ApiError> {
        let (url, token) = self.access()?;
        let failed = |reason: String| ApiError::Http { method: "GET", path: path.to_owned(), reason };
        let call = self.agent.get(format!("{url}{path}")).header("authorization", format!("Bearer {token}")).call();
        let mut answer = call.map_err(|error| failed(error.to_string()))?;
        let complete = answer.headers().get("x-longshore-complete").is_some_and(|value| value == "true");
        let text = answer.body_mut().read_to_string().map_err(|error| failed(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(failed(format!("{}: {text}", answer.status())));
        }
        Ok((text, complete))
    }

    /// Submits a job, with an id of the caller's.
    ///
    /// # Errors
    /// [`ApiError`]
    pub fn submit(&self, id: &str, definition: &str) -> Result<Value, ApiError> {
        let (url, token) = self.access()?;
        let failed = |reason: String| ApiError::Http { method: "POST", path: "/v1/jobs".to_owned(), reason };
        let request = self.agent.post(format!("{url}/v1/jobs")).header("authorization", format!("Bearer {token}"));
        let body = json!({ "id": id, "definition": definition, "params": {} });
        let mut answer = request.send_json(&body).map_err(|error| failed(error.to_string()))?;
        let text = answer.body_mut().read_to_string().map_err(|error| failed(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(failed(format!("{}: {text}", answer.status())));
        }
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    /// The state of a job, such as `running`; nothing while the server does not answer.
    #[must_use]
    pub fn job_state(&self, id: &str) -> Option<String> {
        self.get(&format!("/v1/jobs/{id}")).ok()?.get("state")?.as_str().map(str::to_owned)
    }

    /// The same, once it is settled or after that many milliseconds, at most 25,000.
    #[must_use]
    pub fn job_state_within(&self, id: &str, wait_ms: u64) -> Option<String> {
        self.get(&format!("/v1/jobs/{id}?wait_ms={wait_ms}")).ok()?.get("state")?.as_str().map(str::to_owned)
    }
}
