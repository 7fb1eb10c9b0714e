//! How a journal of a trial is opened. The only place that chooses its engine.

use std::path::Path;

use journal::{Engine, Journal, OpenError, Seams, State};

use super::history::opening;

/// Opens the journal of a trial over that engine.
pub(super) fn open(engine: Engine, dir: &Path, seams: Seams) -> Result<(Journal, State), OpenError> {
    Journal::open_through(dir, &opening(), Some(engine), seams)
}
