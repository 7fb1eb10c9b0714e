//! The process that becomes the step's program: made early, in the step's control group, and held until the step may begin. Until then it
//! is a copy of the shim that does nothing but wait; it ends by itself when the shim does.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
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

/// A process that is held. Dropped, it is gone, and has done nothing.
pub(super) struct Held {
    pid: Pid,
    /// Nothing once it was let go.
    go: Option<PipeWriter>,
    said: PipeReader,
}

impl Held {
    /// Makes it, in that group. The child never returns from here.
    ///
    /// # Errors
    /// As [`kernel::into_group`].
    pub(super) fn fork(group: &Group, command: &mut Command, steps_umask: Mode) -> io::Result<Self> {
        let folder = group.open()?;
        let (gate, go) = io::pipe()?;
        let (said, say) = io::pipe()?;
        match kernel::into_group(folder.as_fd())? {
            Side::Parent(pid) => Ok(Self { pid, go: Some(go), said }),
            Side::Child => {
                // With them it would wait for itself.
                drop((go, said));
                become_program(gate, say, command, steps_umask)
            }
        }
    }

    /// Lets it become the program, and returns its id when it has. It may have ended since; it is not reaped here.
    ///
    /// # Errors
    /// Why the program cannot be executed. Then nothing of it has run, and nothing is left to reap.
    pub(super) fn let_go(mut self) -> io::Result<Pid> {
        if let Some(mut go) = self.go.take()
            && go.write_all(&[1]).is_err()
        {
            self.reap();
            return Err(io::Error::other("the process that was to become it was ended before"));
        }
        let mut word = Vec::new();
        // The end comes when the program is executed, which closes the other end.
        self.said.read_to_end(&mut word)?;
        match <[u8; WORD_BYTES]>::try_from(word) {
            Ok(number) => {
                self.reap();
                Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
            }
            Err(_) => Ok(self.pid),
        }
    }

    fn reap(&self) {
        // There is nothing to be done about a child that cannot be waited for.
        while matches!(waitpid(Some(self.pid), WaitOptions::empty()), Err(rustix::io::Errno::INTR)) {}
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.go.take().is_some() {
            self.reap();
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a copy of the shim has no `main` of its own to return to, and nothing to tidy up"
)]
fn become_program(mut gate: PipeReader, mut say: PipeWriter, command: &mut Command, steps_umask: Mode) -> ! {
    let mut byte = [0];
    // The end without a byte: the shim is gone, or the step is not to begin.
    if gate.read_exact(&mut byte).is_err() {
        std::process::exit(0);
    }
    umask(steps_umask);
    let error = command.exec();
    let number = error.raw_os_error().unwrap_or(libc::EINVAL);
    // Whoever would read it is gone otherwise.
    let _ = say.write_all(&number.to_ne_bytes());
    std::process::exit(NOT_EXECUTED)
}
