//! The engines that the tests in processes of their own are run over.

use std::path::Path;

use journal::{Engine, Journal, OpenError, Seams, State};

use crate::history::opening;

pub(crate) fn open(engine: Engine, dir: &Path) -> Result<(Journal, State), OpenError> {
    open_through(engine, dir, Seams::default())
}

pub(crate) fn open_through(engine: Engine, dir: &Path, seams: Seams) -> Result<(Journal, State), OpenError> {
    Journal::open_through(dir, &opening(), Some(engine), seams)
}
