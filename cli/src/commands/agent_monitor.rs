//! `longshore agent monitor LIMIT PROGRAM ARGUMENT...`: the small process above an agent. `longshore agent run` turns into it and
//! nobody else starts it; it does not go through the command line's parser, so that it stays small for as long as it lives.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use agent::monitor::MonitorConfig;

use crate::exit::Exit;
use crate::failure::Failure;

/// Makes a worker of `longshore agent run`.
const AS_WORKER: &str = "--as-worker";
/// Makes it one that takes nothing new.
const DRAINING: &str = "--draining";
/// Added to the path of a running program whose file is gone.
const DELETED: &str = " (deleted)";

/// Turns this process into the monitor of an agent with this process's own arguments. Returns only when that is not possible.
pub(crate) fn become_one(drain_limit: Option<u64>) -> Failure {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return failure(&error),
    };
    let limit = drain_limit.map_or_else(|| "-".to_owned(), |seconds| seconds.to_string());
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("longshore")
        .args(["agent", "monitor", &limit])
        .arg(on_disk(program))
        .args(std::env::args_os().skip(1));
    failure(&command.exec())
}

fn failure(error: &dyn Error) -> Failure {
    let next = "look at the limits of this user's processes, or give --no-monitor";
    Failure::new(Exit::Failed, error, "nothing was started", next)
}

// Replaced between its start and here: the new one is meant.
fn on_disk(program: PathBuf) -> PathBuf {
    match program.to_str().and_then(|path| path.strip_suffix(DELETED)) {
        Some(path) if !program.exists() => path.into(),
        _ => program,
    }
}

/// Is the monitor.
pub(crate) fn run(words: &[OsString]) -> ExitCode {
    let Some(config) = parse(words) else {
        let _ = writeln!(io::stderr(), "longshore monitor: it is started by `longshore agent run`, not from a shell");
        return Exit::Usage.into();
    };
    match agent::monitor::main(&config) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
            let _ = writeln!(io::stderr(), "longshore monitor: {error}{cause}");
            Exit::Failed.into()
        }
    }
}

fn parse(words: &[OsString]) -> Option<MonitorConfig> {
    let [limit, program, arguments @ ..] = words else { return None };
    let drain_limit = match limit.to_str()? {
        "-" => None,
        seconds => Some(Duration::from_secs(seconds.parse().ok()?)),
    };
    let arguments = arguments.iter().map(OsString::as_os_str).chain([OsStr::new(AS_WORKER)]).map(OsStr::to_owned);
    Some(MonitorConfig {
        program: program.into(),
        arguments: arguments.collect(),
        draining: DRAINING.into(),
        drain_limit,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_monitor_was_given_is_what_its_worker_gets() {
        let words: Vec<OsString> = ["60", "/opt/longshore", "agent", "run", "--name", "a1"].map(Into::into).into();
        let config = parse(&words).unwrap();
        assert_eq!((config.program, config.drain_limit), ("/opt/longshore".into(), Some(Duration::from_secs(60))));
        assert_eq!(config.arguments, ["agent", "run", "--name", "a1", "--as-worker"]);
        assert!(parse(&["-".into(), "x".into()]).is_some_and(|config| config.drain_limit.is_none()));
        assert!(parse(&["soon".into(), "x".into()]).is_none() && parse(&["-".into()]).is_none());
    }

    #[test]
    fn a_program_that_was_replaced_is_looked_for_at_its_old_place() {
        assert_eq!(on_disk("/nowhere/longshore (deleted)".into()), PathBuf::from("/nowhere/longshore"));
        assert_eq!(on_disk("/nowhere/longshore".into()), PathBuf::from("/nowhere/longshore"));
    }
}
