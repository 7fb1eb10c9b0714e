//! What happens to a step, one thing after the other, as its one thread sees it: it sleeps until a signal, a child or an output has
//! something for it. A step that says nothing has no other thread. It decides nothing: [`super::supervise`] does.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use super::output::Capture;
use super::supervise::{Event, ProcessEnd};
use super::usage::Used;
use crate::kernel::{self, Waited};

/// After a failure to wait, which only a kernel without memory has.
const PAUSE: Duration = Duration::from_millis(10);

/// Where the process's signals come to.
pub(super) struct Signals {
    /// Somebody asks that the step be ended.
    terminate: UnixStream,
    /// A child ended.
    children: UnixStream,
}

impl Signals {
    /// Takes them. All of SIGTERM, SIGINT and SIGHUP mean the same: end the step. Their default would end the shim and leave the step
    /// without one.
    ///
    /// # Errors
    /// The operating system's: too many open files.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self { terminate: raised_by(&[SIGTERM, SIGINT, SIGHUP])?, children: raised_by(&[SIGCHLD])? })
    }

    /// What is readable when somebody asks.
    pub(super) fn asks(&self) -> BorrowedFd<'_> {
        self.terminate.as_fd()
    }

    /// Whether somebody asked, since it was asked last.
    pub(super) fn terminate(&mut self) -> bool {
        drain(&mut self.terminate)
    }
}

fn raised_by(signals: &[i32]) -> io::Result<UnixStream> {
    let (incoming, raised) = UnixStream::pair()?;
    incoming.set_nonblocking(true)?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, raised.try_clone()?)?;
    }
    Ok(incoming)
}

/// Whether there was anything. Nothing of it is left.
fn drain(stream: &mut UnixStream) -> bool {
    let mut any = false;
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return any,
            Ok(_) => any = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It has said everything.
            Err(_) => return any,
        }
    }
}

/// Looks out for a step.
pub(super) struct Watch<'a> {
    leader: Pid,
    signals: &'a mut Signals,
    outputs: [&'a mut Capture; 2],
    seen: VecDeque<Event>,
    /// Whether a child may still be there to be reaped.
    children: bool,
    used: Used,
}

impl<'a> Watch<'a> {
    /// Of the step whose own process that is. It may have ended already.
    pub(super) fn new(leader: Pid, signals: &'a mut Signals, outputs: [&'a mut Capture; 2]) -> Self {
        Self { leader, signals, outputs, seen: VecDeque::new(), children: true, used: Used::default() }
    }

    /// The next thing that happens, or nothing when it is that late.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Option<Event> {
        loop {
            if let Some(event) = self.seen.pop_front() {
                return Some(event);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let Some(ready) = self.wait(left) else { continue };
            self.look(ready);
            if self.seen.is_empty() && left.is_some_and(|left| left.is_zero()) {
                return None;
            }
        }
    }

    /// What those have used that were reaped.
    pub(super) const fn used(&self) -> &Used {
        &self.used
    }

    /// Whether output waits to be copied.
    pub(super) fn bytes_wait(&self) -> bool {
        self.outputs.iter().any(|output| output.bytes_wait())
    }

    // What each of the four has; nothing if that has to be asked again.
    fn wait(&self, left: Option<Duration>) -> Option<[PollFlags; 4]> {
        // Longer than any machine runs is no limit.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let [stdout, stderr] = [0, 1].map(|number| self.outputs[number].wakes());
        let own: [Option<BorrowedFd<'_>>; 4] =
            [Some(self.signals.terminate.as_fd()), Some(self.signals.children.as_fd()), stdout, stderr];
        let mut asked: Vec<PollFd<'_>> =
            own.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut asked, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return None,
            Err(_) => {
                std::thread::sleep(PAUSE);
                return None;
            }
        }
        let mut answers = asked.iter().map(PollFd::revents);
        Some(own.map(|fd| fd.and_then(|_| answers.next()).unwrap_or(PollFlags::empty())))
    }

    fn look(&mut self, [terminate, children, stdout, stderr]: [PollFlags; 4]) {
        if !terminate.is_empty() && self.signals.terminate() {
            self.seen.push_back(Event::Terminate);
        }
        for (has, output) in [stdout, stderr].into_iter().zip(&mut self.outputs) {
            if !has.is_empty() && output.advance(has) {
                self.seen.push_back(Event::StreamEnded);
            }
        }
        if !children.is_empty() {
            drain(&mut self.signals.children);
            self.reap();
        }
    }

    // All that ended, since several signals of a kind come as one.
    fn reap(&mut self) {
        while self.children {
            match kernel::wait_any() {
                Ok(Waited::Ended(pid, status, used)) => {
                    self.used.add(&used);
                    if pid == self.leader {
                        self.seen.push_back(Event::LeaderEnded(ProcessEnd::of(status)));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Waited::NotYet) => return,
                // No child is left, which is the only other answer there is.
                Ok(Waited::Nobody) | Err(_) => {
                    self.children = false;
                    self.seen.push_back(Event::AllGone);
                }
            }
        }
    }
}
