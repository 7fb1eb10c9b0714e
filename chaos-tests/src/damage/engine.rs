//! The engines that a journal can be tried over, and how one is opened. The only place that knows which engines there are.

use std::path::Path;

use clap::ValueEnum;
use journal::{Journal, OpenError, Seams, State};
use serde::Serialize;

use super::history::opening;

/// An engine under the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// sled, as the journal uses it.
    Sled,
}

impl Engine {
    /// Opens the journal of a trial over this engine.
    pub(super) fn open(self, dir: &Path, seams: Seams) -> Result<(Journal, State), OpenError> {
        match self {
            Self::Sled => Journal::open_through(dir, &opening(), seams),
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Sled => "sled",
        })
    }
}
