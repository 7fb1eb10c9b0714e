//! From a program of the vocabulary to a command of the operating system. It starts nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use messages::Program;

/// The shell for scripts, by its full path: which shell runs must not depend on the step's own `PATH`.
const SHELL: &str = "/bin/sh";

/// What to start: in a process group of its own, with exactly that environment, reading nothing. Or why there is nothing.
pub(crate) fn command(program: &Program, env: &BTreeMap<String, String>, dir: &Path) -> Result<Command, String> {
    let mut command = match program {
        Program::Shell(script) => {
            let mut command = Command::new(SHELL);
            command.args(["-eu", "-c", "--", script]);
            command
        }
        Program::Exec(words) => {
            let (name, arguments) = words.split_first().ok_or("the program is empty")?;
            let mut command = Command::new(name);
            command.args(arguments);
            command
        }
    };
    // Looked at first: the operating system would report a missing folder as if the program were missing.
    match std::fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(format!("the working folder `{}` is not a folder", dir.display())),
        Err(error) => return Err(format!("the working folder `{}` cannot be used: {error}", dir.display())),
    }
    command.env_clear().envs(env).current_dir(dir).stdin(Stdio::null()).process_group(0);
    Ok(command)
}

/// The same program, under a limit for the address space of each of its processes. A shell sets the limit on itself and becomes the
/// program: set on a process that runs already, the limit would miss what that has started, and set on the shim it could keep
/// the program from being started. The price: a program that is missing shows as the shell's exit code 127.
pub(crate) fn limited(program: &Program, bytes_max: u64) -> Program {
    let words = match program {
        Program::Shell(script) => [SHELL, "-eu", "-c", "--", script].map(str::to_owned).to_vec(),
        // Refused as empty when it is to be started.
        Program::Exec(words) if words.is_empty() => return program.clone(),
        Program::Exec(words) => words.clone(),
    };
    let limit = format!("ulimit -v {} || exit 125; exec \"$@\"", bytes_max / 1024);
    Program::Exec([SHELL, "-c", &limit, "longshore"].map(str::to_owned).into_iter().chain(words).collect())
}

/// Why a program could not be started, in words for its author.
pub(crate) fn spawn_reason(program: &Program, error: &io::Error) -> String {
    let name = match program {
        Program::Shell(_) => SHELL,
        Program::Exec(words) => words.first().map_or("", String::as_str),
    };
    let name: String = name.chars().take(200).collect();
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; it, or the interpreter its first line names, is not there or not in PATH",
        io::ErrorKind::ArgumentListTooLong => "; put a long script into a file and run that",
        _ => "",
    };
    format!("`{}` cannot be started: {error}{hint}", name.escape_debug())
}
