//! The step's program as a new process. Until it is the program it is a copy of the shim; it never runs anything of its own.

use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::Mode;
use rustix::process::{Pid, WaitOptions, umask, waitpid};

use crate::groups::Group;
use crate::kernel::{self, Side};

/// What it says when the program cannot be executed: the number of the error.
const WORD_BYTES: usize = size_of::<i32>();

/// Its exit code then, as a shell's. Nobody looks at it.
const NOT_EXECUTED: i32 = 127;

/// Starts the program in whatever group this process is in.
///
/// # Errors
/// Why it cannot be executed, or no process be made. Nothing of it has run.
pub(super) fn start(command: &mut Command, steps_umask: Mode) -> io::Result<Pid> {
    let own = umask(steps_umask);
    let child = command.spawn();
    umask(own);
    // Not waited for through the handle: the reaper waits for all children alike.
    child.map(|child| Pid::from_child(&child))
}

/// Starts the program in that group. Inside: its id when it is the program, which may have ended since and is not reaped here; or why it
/// cannot be executed, and nothing is left to reap. The copy of this process shares its memory until it is the program, and each page
/// that either of them writes to meanwhile is copied; so this does nothing but wait for that.
///
/// # Errors
/// As [`kernel::into_group`]; no process was made.
pub(super) fn start_in(group: &Group, command: &mut Command, steps_umask: Mode) -> io::Result<io::Result<Pid>> {
    let folder = group.open()?;
    let (mut said, say) = io::pipe()?;
    let pid = match kernel::into_group(folder.as_fd())? {
        Side::Parent(pid) => pid,
        Side::Child => become_program(say, command, steps_umask),
    };
    drop(say);
    let mut word = [0; WORD_BYTES];
    // The end without a word comes when the program is executed, which closes the other end.
    match said.read_exact(&mut word) {
        Ok(()) => {
            // There is nothing to be done about a child that cannot be waited for.
            while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(rustix::io::Errno::INTR)) {}
            Ok(Err(io::Error::from_raw_os_error(i32::from_ne_bytes(word))))
        }
        Err(_) => Ok(Ok(pid)),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a copy of the shim has no `main` of its own to return to, and nothing to tidy up"
)]
fn become_program(mut say: PipeWriter, command: &mut Command, steps_umask: Mode) -> ! {
    umask(steps_umask);
    let error = command.exec();
    let number = error.raw_os_error().unwrap_or(libc::EINVAL);
    // Whoever would read it is gone otherwise.
    let _ = say.write_all(&number.to_ne_bytes());
    std::process::exit(NOT_EXECUTED)
}
