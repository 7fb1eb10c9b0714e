//! Runs one external command with a time limit and bounded output.
//!
//! A command that overruns is killed with its whole process group. Nothing is read from its input.

use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;

/// Most bytes kept of each output: a recursive dependency listing is about 300 KiB.
const MAX_OUTPUT: usize = 4 << 20;

/// How often to look whether the command ended.
const POLL: Duration = Duration::from_millis(10);

/// How much of a failed command's output goes into its error: the end of it explains most.
const ERROR_TAIL: usize = 800;

/// Why a command gave no result.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It is not there or may not be run.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// It took too long and was killed.
    #[error("{program} did not end within {} s and was killed", .limit.as_secs())]
    Overran {
        /// The program.
        program: String,
        /// The limit.
        limit: Duration,
    },
}

/// Runs `command` and returns its standard output.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<String, CommandError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let spawn_error = |source| CommandError::Spawn { program: program.clone(), source };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(spawn_error)?;
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait().map_err(spawn_error)? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                kill_group(&mut child);
                return Err(CommandError::Overran { program, limit });
            }
            None => thread::sleep(POLL),
        }
    };
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    if status.success() {
        return Ok(stdout);
    }
    let said = format!("{}\n{}", stdout.trim(), stderr.trim());
    let output = tail(said.trim(), ERROR_TAIL).to_owned();
    Err(CommandError::Failed { program, status: status.to_string(), output })
}

/// The child has not been waited for, so its pid, which is its group's id, cannot belong to anyone else.
fn kill_group(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended in between; then there is nothing left to kill.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

/// Reads to the end so that the command never blocks on a full pipe, but keeps only [`MAX_OUTPUT`] bytes.
fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut pipe) = pipe {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let room = MAX_OUTPUT.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

/// The last `max` bytes of `text`, from a character boundary on.
pub(crate) fn tail(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_output_is_returned_and_its_failure_explained() {
        let limit = Duration::from_secs(30);
        assert_eq!(run(Command::new("sh").args(["-c", "echo out; echo err >&2"]), limit).unwrap(), "out\n");
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), limit).unwrap_err();
        assert!(error.to_string().contains("why") && error.to_string().contains('3'), "{error}");
        let error = run(&mut Command::new("no-such-program-here"), limit).unwrap_err();
        assert!(matches!(error, CommandError::Spawn { .. }));
    }

    #[test]
    fn a_command_that_overruns_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & wait"]);
        let error = run(&mut command, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, CommandError::Overran { .. }));
    }

    #[test]
    fn a_tail_never_cuts_a_character() {
        assert_eq!(tail("aé", 1), "");
        assert_eq!(tail("aé", 2), "é");
        assert_eq!(tail("ab", 10), "ab");
    }
}
