//! `longshore agent shim STEM`: the small process above one step. Started by the agent and by nobody else; it does not go through the
//! command line's parser, so that it starts in no time.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::exit::Exit;

/// What people are told who try it.
const HELP: &str =
    "The process above one step. Agents start it; people have no use for it.\n\nUsage: longshore agent shim STEM\n";

/// Runs the step of the attempt whose files have names that begin so.
pub(crate) fn run(stem: &Path) -> ExitCode {
    if stem.as_os_str() == "--help" || stem.as_os_str() == "-h" {
        // Nothing better can be done when it cannot be printed.
        let _ = std::io::stdout().write_all(HELP.as_bytes());
        return Exit::Ok.into();
    }
    agent::shim::main(stem)
}
