//! How an agent has its shims: by a process that forks them, which is started when one is wanted and ended when none was for a while.
//! Where that cannot be, a shim is executed as ever. It never holds an attempt's lock once a shim has it, and never decides what became
//! of an attempt: its folder tells.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    recv, sendmsg, shutdown, socketpair,
};
use tokio::sync::oneshot;

use super::launch::{self, Claim, LaunchError, ShimCommand, WAITER_STACK_BYTES};
use super::line::{ANSWER_BYTES, Answer, REQUEST_FILES, Said, request_bytes};

/// What the process that forks is told instead of a folder.
pub(crate) const SERVE: &str = "-";

/// After this time without a step it is ended: an idle agent has no process for steps.
const IDLE: Duration = Duration::from_secs(10);

/// The shims of one agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shims(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    command: ShimCommand,
    idle: Duration,
    line: Mutex<Option<Line>>,
    /// The number of the next request: of no two requests the same, whoever they go to.
    next: AtomicU64,
}

/// A process that forks, and the attempts that it was given.
#[derive(Debug)]
struct Line {
    socket: Arc<OwnedFd>,
    waiting: HashMap<u64, oneshot::Sender<Said>>,
}

/// How the end of a shim will be known.
#[derive(Debug)]
pub(super) enum Launched {
    /// It is said here; without a word, the process that would say it is gone.
    Forked(oneshot::Receiver<Said>),
    /// By the lock alone.
    Executed,
}

/// Why no shim is forked.
enum NotForked {
    /// Now; another process could do it.
    Gone,
    /// This way.
    Never,
}

impl Shims {
    /// Shims that are started by that command. Nothing is started yet.
    #[must_use]
    pub fn new(command: ShimCommand) -> Self {
        Self::kept_for(command, IDLE)
    }

    /// The same; the process that forks them is ended when no step wanted it for that time, which is not zero.
    #[must_use]
    pub fn kept_for(command: ShimCommand, idle: Duration) -> Self {
        Self(Arc::new(Inner { command, idle, line: Mutex::default(), next: AtomicU64::new(0) }))
    }

    /// Has a shim executed for that attempt.
    pub(super) fn execute(&self, dir: &Path) -> Result<(), LaunchError> {
        launch::execute(dir, &self.0.command, launch::claim(dir)?).map(launch::reap)
    }

    /// Has a shim take over that attempt. When this returns Ok the attempt counts as running until the shim has ended.
    pub(super) fn launch(&self, dir: &Path) -> Result<Launched, LaunchError> {
        let claim = launch::claim(dir)?;
        // The second time with a new process, if the first one turned out to be gone.
        for _ in 0..2 {
            match self.0.fork(dir, &claim) {
                Ok(said) => return Ok(Launched::Forked(said)),
                Err(NotForked::Gone) => {}
                Err(NotForked::Never) => break,
            }
        }
        launch::execute(dir, &self.0.command, claim).map(launch::reap)?;
        Ok(Launched::Executed)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Line>> {
        // Whatever a panic interrupted, the socket is there or not.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fork(self: &Arc<Self>, dir: &Path, claim: &Claim) -> Result<oneshot::Receiver<Said>, NotForked> {
        let (sender, said) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = request_bytes(number, dir).ok_or(NotForked::Never)?;
        let socket = {
            let mut line = self.lock();
            let open = match &mut *line {
                Some(open) => open,
                None => line.insert(self.open().map_err(|error| {
                    tracing::warn!(%error, "No process that forks shims; each is executed by itself.");
                    NotForked::Never
                })?),
            };
            open.waiting.insert(number, sender);
            Arc::clone(&open.socket)
        };
        // Not under the lock, which whoever listens needs to make room for what is said.
        match request(&socket, &bytes, claim) {
            Ok(()) => Ok(said),
            Err(_) => {
                // Those that wait are told by that, and look at the locks.
                take(&mut self.lock(), &socket);
                Err(NotForked::Gone)
            }
        }
    }

    fn open(self: &Arc<Self>) -> io::Result<Line> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(self.idle))?;
        let mut command = self.command.command(Path::new(SERVE));
        let child = command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
        // With it the other end is this process's, too.
        drop(command);
        let socket = Arc::new(socket);
        let (shims, heard) = (Arc::downgrade(self), Arc::clone(&socket));
        let thread = thread::Builder::new().name("shims".into()).stack_size(WAITER_STACK_BYTES);
        let child = Ended(child);
        thread.spawn(move || listen(&shims, &heard, child))?;
        Ok(Line { socket, waiting: HashMap::new() })
    }

    /// Ends the line if nothing is awaited on it; also one that is this no more.
    fn end_if_idle(&self, socket: &Arc<OwnedFd>) -> bool {
        let mut line = self.lock();
        if line.as_ref().is_some_and(|line| Arc::ptr_eq(&line.socket, socket) && !line.waiting.is_empty()) {
            return false;
        }
        take(&mut line, socket);
        true
    }
}

/// Takes the line away, if it is still that one.
fn take(line: &mut Option<Line>, socket: &Arc<OwnedFd>) {
    if line.as_ref().is_some_and(|line| Arc::ptr_eq(&line.socket, socket)) {
        *line = None;
    }
}

fn request(socket: &OwnedFd, bytes: &[u8], claim: &Claim) -> Result<(), Errno> {
    let files = [claim.lock.as_fd(), claim.errors.as_fd()];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(REQUEST_FILES))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !beside.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(Errno::NOBUFS);
        }
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Passes on what the process says, until it says no more or is not needed any more.
fn listen(shims: &Weak<Inner>, socket: &Arc<OwnedFd>, child: Ended) {
    let mut bytes = [0; ANSWER_BYTES];
    loop {
        let heard = recv(&**socket, &mut bytes[..], RecvFlags::empty());
        let Some(shims) = shims.upgrade() else { break };
        match heard {
            Ok((count, _)) if count > 0 => {
                let Some(answer) = Answer::read(&bytes[..count]) else { break };
                // No other line has that number, so nothing is found in one that has taken this one's place.
                let sender = shims.lock().as_mut().and_then(|line| line.waiting.remove(&answer.number));
                // Nobody listens any more when the wait was abandoned.
                let _ = sender.map(|sender| sender.send(answer.said));
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if !shims.end_if_idle(socket) => {}
            Ok(_) | Err(_) => {
                take(&mut shims.lock(), socket);
                break;
            }
        }
    }
    // Its end of the socket is closed with this one, and that is its end.
    let _ = shutdown(&**socket, Shutdown::Both);
    drop(child);
}

/// The process that forks shims. Dropped, it is waited for: nothing of it stays, and how it ended is said if it ended badly.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        match self.0.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                tracing::warn!(%status, "The process that forks shims ended before its time; steps go on, and the next one has another.")
            }
            Err(error) => tracing::warn!(%error, "The process that forks shims cannot be waited for."),
        }
    }
}
