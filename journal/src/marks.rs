//! The marks beside a store, the high-water file and the tail mark, taken together: how far the journal is known to have come. It
//! never writes them.

use std::path::Path;

use crate::high_water::{HighWater, ReadError, Shortfall};
use crate::state::State;
use crate::tail_mark::TailMark;

/// How the state falls short of the marks in that directory.
///
/// # Errors
/// [`ReadError`] when one of them cannot be trusted.
pub(crate) fn shortfalls(dir: &Path, state: &State) -> Result<Vec<Shortfall>, ReadError> {
    let batches = TailMark::read(dir)?;
    Ok(match HighWater::read(dir)? {
        Some(mark) => HighWater { batches: mark.batches.max(batches), ..mark }.shortfalls(state),
        None if state.totals.batches < batches => {
            vec![Shortfall::Batches { marked: batches, found: state.totals.batches }]
        }
        None => Vec::new(),
    })
}
