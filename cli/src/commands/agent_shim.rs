//! `longshore agent shim DIR`: the small process above one step. Started by the agent and by nobody else; it does not go through the
//! command line's parser, so that it starts in no time.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::exit::Exit;

/// What people are told who try it.
const HELP: &str =
    "The process above one step. Agents start it; people have no use for it.\n\nUsage: longshore agent shim DIR\n";

/// Runs the step that this folder describes.
pub(crate) fn run(folder: &Path) -> ExitCode {
    if folder.as_os_str() == "--help" || folder.as_os_str() == "-h" {
        // Nothing better can be done when it cannot be printed.
        let _ = std::io::stdout().write_all(HELP.as_bytes());
        return Exit::Ok.into();
    }
    agent::shim::main(folder)
}
