//! The worker's end of what ties it to its monitor: it says that it is ready and that it lives, and is gone when the monitor is. It
//! never decides anything about work.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use rustix::process::{Signal, set_parent_process_death_signal};

/// What the worker says, one byte each.
pub(super) const READY: u8 = b'r';
pub(super) const BEAT: u8 = b'.';
const HELLO: u8 = b'h';

/// Tied to a monitor.
#[derive(Debug)]
pub struct Lifeline {
    stream: UnixStream,
}

/// Why there is no lifeline.
#[derive(Debug, thiserror::Error)]
pub enum LifelineError {
    /// The monitor ended while the worker was starting. The next monitor starts a worker of its own.
    #[error("the monitor is gone")]
    Gone,
    /// The worker was not started by a monitor, or the system refuses.
    #[error("there is no line to a monitor; a worker is started by `longshore agent run`, not from a shell")]
    NoLine(#[source] io::Error),
}

impl Lifeline {
    /// Takes the line that the monitor gave as standard input. From here on the kernel kills this process when the monitor ends,
    /// however that happens: two workers must not meet at one journal, and a kill is what every journal and every step is made
    /// for. To be called in the main thread, before there are others.
    ///
    /// # Errors
    /// [`LifelineError`]
    pub fn from_stdin() -> Result<Self, LifelineError> {
        let no_line = LifelineError::NoLine;
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| no_line(error.into()))?;
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(no_line)?);
        // No process started from here may hold the line: the monitor would think that the worker lives.
        let null = File::open("/dev/null").map_err(no_line)?;
        rustix::stdio::dup2_stdin(&null).map_err(|error| no_line(error.into()))?;
        stream.set_nonblocking(true).map_err(no_line)?;
        let lifeline = Self { stream };
        // Had the monitor ended before the first line of this function, no signal would ever come.
        lifeline.say(HELLO).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => LifelineError::Gone,
            _ => LifelineError::NoLine(error),
        })?;
        Ok(lifeline)
    }

    /// The worker takes work.
    pub fn ready(&self) {
        // A monitor that is gone takes this process with it.
        let _ = self.say(READY);
    }

    /// The worker lives. To be called from its runtime every [`super::BEAT_EVERY`], so that a runtime that hangs is noticed.
    pub fn beat(&self) {
        let _ = self.say(BEAT);
    }

    fn say(&self, word: u8) -> io::Result<()> {
        match (&self.stream).write_all(&[word]) {
            // A monitor that is stopped reads later what is there already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            said => said,
        }
    }
}
