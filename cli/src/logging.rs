//! Where the program's own log goes: standard error, never standard output, which belongs to data. A log that cannot be written is
//! lost, and never ends the process.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::Global;

/// The variable that sets the level in detail, for example `info,lapin=debug`.
const VARIABLE: &str = "LONGSHORE_LOG";

/// Starts logging for a process that serves. May be called once; a second call changes nothing.
pub(crate) fn start(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error,lapin=off",
        (false, 0) => "info,lapin=off",
        (false, 1) => "debug,lapin=warn",
        (false, _) => "trace,lapin=info",
    };
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let colours = !global.no_color && std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_target(global.verbose > 0)
        .with_writer(std::io::stderr)
        // It would report them with `eprintln!`, on the same standard error, and that panics: a full disk under the log, or a reader
        // that has gone, would end whatever logs.
        .log_internal_errors(false)
        .try_init();
}
