//! What a command prints when it does not end well: what happened, what state things are in, what to do next. Made from the
//! typed error of an operation, at the end of the way up.

use std::error::Error;

use server::api::BindError;
use server::views::{Answer, ErrorView, ProblemView};

use crate::exit::Exit;

/// A failure in its printed form.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened, what state things are in, what to do next.
    pub(crate) view: Box<ErrorView>,
    /// The text that the problems are about, with its name.
    pub(crate) source: Option<Box<(String, String)>>,
}

impl Failure {
    /// A failure with the causes of an error behind its own words.
    pub(crate) fn new(exit: Exit, error: &dyn Error, state: &str, next: impl Into<String>) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let words = error.to_string();
            // Some errors repeat their cause in their own words.
            if !text.contains(&words) {
                text = format!("{text}: {words}");
            }
            cause = error.source();
        }
        Self::words(exit, text, state, next)
    }

    /// A failure that no other error caused.
    pub(crate) fn words(exit: Exit, error: impl Into<String>, state: &str, next: impl Into<String>) -> Self {
        let view = ErrorView { error: error.into(), state: state.to_owned(), next: next.into(), problems: Vec::new() };
        Self { exit, view: Box::new(view), source: None }
    }

    /// The same, with problems of a text.
    pub(crate) fn with_problems(mut self, problems: Vec<ProblemView>, name: &str, text: &str) -> Self {
        self.view.problems = problems;
        self.source = Some(Box::new((name.to_owned(), text.to_owned())));
        self
    }

    /// As JSON, in one line.
    pub(crate) fn json(&self) -> String {
        // A view of texts and numbers can always be written.
        serde_json::to_string(&Answer::new(ErrorView::clone(&self.view))).unwrap_or_default()
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let next = match &error {
            BindError::InUse { .. } => {
                "stop the other process, or give another address with --listen (port 0 takes a free one)"
            }
            BindError::Address { .. } | BindError::NotLoopback { .. } => "give --listen 127.0.0.1:7766",
            BindError::Random(_) | BindError::Io { .. } => {
                "look at the system's limits and permissions, then start again"
            }
        };
        Self::new(Exit::Config, &error, "the server was not started", next)
    }
}

/// A command whose parts are not connected yet.
#[derive(Debug, thiserror::Error)]
#[error("`longshore {command}` is not part of this build yet")]
pub(crate) struct NotWired {
    /// The command.
    pub(crate) command: &'static str,
}

impl From<NotWired> for Failure {
    fn from(error: NotWired) -> Self {
        Self::new(Exit::Failed, &error, "nothing was changed", "use a later build")
    }
}
