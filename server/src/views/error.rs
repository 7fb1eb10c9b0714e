//! A refusal or failure as the API shows it. Says what happened, what state things are in, and what to do next.

use serde::{Deserialize, Serialize};

use crate::job_file::Problem;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// What happened, in one line.
    pub error: String,
    /// What state things are in now: above all, whether anything was changed.
    pub state: String,
    /// What to do next.
    pub next: String,
    /// The problems of a job file, if it is about one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemView>,
}

/// A problem of a job file, with its place in lines as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemView {
    /// The problem.
    #[serde(flatten)]
    pub problem: Problem,
    /// Where it begins, if it is about a place.
    pub position: Option<Position>,
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl ProblemView {
    /// The problem of that text.
    #[must_use]
    pub fn new(problem: Problem, text: &str) -> Self {
        let position = problem.position(text).map(|(line, column)| Position { line, column });
        Self { problem, position }
    }
}
