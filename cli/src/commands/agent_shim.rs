//! `longshore agent shim DIR`: the small process above one step. Started by the agent and by nobody else; it does not go through the
//! command line's parser, so that it starts in no time.

use std::path::Path;
use std::process::ExitCode;

/// Runs the step that this folder describes.
pub(crate) fn run(folder: &Path) -> ExitCode {
    agent::shim::main(folder)
}
