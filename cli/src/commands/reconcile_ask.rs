//! Asking an endpoint that runs on this machine about its peers, and what to say when it does not answer. Never reads a folder
//! itself: what stops streams is known only to the running process.

use std::path::PathBuf;

use link::control::{AskError, Question, Reply, ask as ask_running};
use link::{EndpointView, LinkState};
use messages::EndpointId;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::serving;

/// An endpoint of this machine.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Its name.
    pub(crate) id: EndpointId,
    dir: PathBuf,
}

impl Endpoint {
    /// The endpoint of that name in the home folder.
    pub(crate) fn find(home: &Home, id: EndpointId) -> Self {
        let dir = home.endpoint_dir(&id);
        Self { id, dir }
    }

    /// Asks it.
    ///
    /// # Errors
    /// When it does not run or does not answer. `state` says what that means for things.
    pub(crate) fn ask(&self, question: &Question, state: &str) -> Result<Reply, Failure> {
        let answered = serving::wait(ask_running(&self.dir, question))?;
        answered.map_err(|error| match &error {
            AskError::NotRunning { .. } => Failure::words(
                Exit::Unreachable,
                format!("{} does not run in {}", self.id, self.dir.display()),
                "nothing was changed; what stops streams is found again when both ends run",
                "start it and try again; or say which endpoint with --endpoint, and where with --dir",
            ),
            AskError::NotAllowed { .. } => Failure::new(
                Exit::NotAllowed,
                &error,
                "nothing was changed",
                "run this as the endpoint's owner, or as root",
            ),
            AskError::Io { .. } | AskError::TimedOut { .. } | AskError::Unreadable { .. } => {
                Failure::new(Exit::Unreachable, &error, state, self.look())
            }
        })
    }

    /// What to do when an answer did not come or does not fit.
    pub(crate) fn look(&self) -> String {
        format!("`longshore reconcile show --endpoint {}` says how it stands; use one version for all", self.id)
    }
}

/// The streams that an endpoint shares with its peers.
pub(crate) fn links(endpoint: &Endpoint, question: &Question) -> Result<(LinkState, Vec<EndpointView>), Failure> {
    let state = "the endpoint runs, but did not answer; nothing was changed";
    match endpoint.ask(question, state)? {
        Reply::Link(state, views) => Ok((state, views)),
        Reply::Journal(_) | Reply::Resolve(_) => Err(misfit(endpoint, "nothing was changed")),
    }
}

/// An answer to another question.
pub(crate) fn misfit(endpoint: &Endpoint, state: &str) -> Failure {
    let error = format!("the answer of {} does not fit the question", endpoint.id);
    Failure::words(Exit::Unreachable, error, state, endpoint.look())
}

/// A peer that the endpoint does not know.
pub(crate) fn unknown_peer(endpoint: &Endpoint, peer: &EndpointId) -> Failure {
    let id = &endpoint.id;
    Failure::words(
        Exit::Usage,
        format!("{peer} is not known to {id}"),
        "nothing was changed",
        format!("`longshore reconcile show --endpoint {id}` shows the peers that it knows"),
    )
}
