//! The shims of one agent. One that has ended its step and is as it was before stays for the next step, for a while: then nothing has to
//! be executed, linked and set up for that. It never holds an attempt's lock once a shim has it, and never decides what became of an
//! attempt: its files tell.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;

use super::launch::{self, Claim, LaunchError, ShimCommand, WAITER_STACK_BYTES};
use super::layout;
use super::line::{REQUEST_FILES, request_bytes};
use super::records::{EXIT_BYTES_MAX, Exit};

/// What a shim that stays is told instead of a stem.
pub(crate) const SERVE: &str = "-";

/// After this time without a step a shim is ended: an idle agent has no process for steps.
const IDLE: Duration = Duration::from_secs(10);

/// Shims that may be without a step at once. More end with theirs.
const FREE_MAX: usize = 16;

/// The shims of one agent. Cheap to clone. All their steps are waited for in one runtime, which hears the shims.
#[derive(Debug, Clone)]
pub struct Shims(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    command: ShimCommand,
    idle: Duration,
    free: Mutex<Free>,
}

/// Shims without a step.
#[derive(Debug, Default)]
struct Free {
    /// The one that was the last to end a step comes last, and is the first to have another.
    shims: Vec<(Shim, Instant)>,
    /// A thread ends them in time.
    watched: bool,
}

/// A shim that stays. Dropped, it ends: at once, or with the step that it runs.
#[derive(Debug)]
pub(super) struct Shim {
    socket: UnixStream,
    child: Option<Child>,
}

/// How the end of an attempt will be known.
#[derive(Debug)]
pub(super) enum Launched {
    /// The shim says it, and may have another then; or it ends.
    Stays(Shim),
    /// By the lock alone.
    Executed,
}

impl Shims {
    /// Shims that are started by that command. Nothing is started yet.
    #[must_use]
    pub fn new(command: ShimCommand) -> Self {
        Self::kept_for(command, IDLE)
    }

    /// The same; a shim is ended when no step wanted it for that time.
    #[must_use]
    pub fn kept_for(command: ShimCommand, idle: Duration) -> Self {
        Self(Arc::new(Inner { command, idle, free: Mutex::default() }))
    }

    /// Has a shim that is free take over that attempt. When this returns Ok the attempt counts as running until the shim has let go of its
    /// lock. Otherwise there is none, and the attempt is still the caller's. Waits for nothing.
    pub(super) fn give(&self, stem: &Path, claim: Claim) -> Result<Launched, Claim> {
        let Some(bytes) = request_bytes(stem) else { return Err(claim) };
        // One that was ended meanwhile has not taken it.
        while let Some((shim, _)) = { self.0.lock().shims.pop() } {
            shim.go_on();
            if request(shim.socket.as_fd(), bytes, &claim).is_ok() {
                return Ok(Launched::Stays(shim));
            }
        }
        Err(claim)
    }

    /// The same with a new shim.
    pub(super) fn launch(&self, stem: &Path, claim: Claim) -> Result<Launched, LaunchError> {
        if let Some(bytes) = request_bytes(stem) {
            let new = self.0.start().map_err(|source| self.0.command.failed(source))?;
            match request(new.socket.as_fd(), bytes, &claim) {
                Ok(()) => return Ok(Launched::Stays(new)),
                Err(error) => tracing::warn!(%error, "A shim cannot be asked; one is executed for this step alone."),
            }
        }
        launch::execute(stem, &self.0.command, claim).map(launch::reap)?;
        Ok(Launched::Executed)
    }

    /// Takes back a shim that is free, for the next step.
    pub(super) fn keep(&self, shim: Shim) {
        let mut free = self.0.lock();
        if free.shims.len() >= FREE_MAX {
            return;
        }
        free.shims.push((shim, Instant::now()));
        if !free.watched {
            let shims = Arc::downgrade(&self.0);
            let thread = thread::Builder::new().name("shims".into()).stack_size(WAITER_STACK_BYTES);
            match thread.spawn(move || end_idle(&shims)) {
                Ok(_) => free.watched = true,
                Err(error) => {
                    tracing::warn!(%error, "No thread to end shims that are not wanted; none stays.");
                    free.shims.clear();
                }
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Free> {
        // Whatever a panic interrupted, a shim is among them or not.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Within a runtime, which hears the shim.
    fn start(&self) -> io::Result<Shim> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        ioctl_fionbio(&socket, true)?;
        let socket = UnixStream::from_std(socket.into())?;
        let mut command = self.command.command(Path::new(SERVE));
        // What it has to complain about beside its attempts is said by its agent's standard error, and there only.
        let child = command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
        Ok(Shim { socket, child: Some(child) })
    }
}

impl Shim {
    /// Lets it go on if somebody stopped it while it had no step: it would keep the next one for good.
    fn go_on(&self) {
        let pid = self.child.as_ref().map(Pid::from_child);
        // It is not waited for before this is dropped, so the id is nobody else's.
        let _ = pid.map(|pid| kill_process(pid, Signal::CONT));
    }

    /// Waits until it is free, and says how its step ended, as it recorded it. Nothing if it is gone, or not to be trusted with another: then
    /// the files tell. May be cancelled.
    pub(super) async fn is_free(&self) -> Option<Exit> {
        let mut record = vec![0; EXIT_BYTES_MAX + 1];
        loop {
            // An error is a runtime that ends; the lock tells as well.
            self.socket.readable().await.ok()?;
            match self.socket.try_read(&mut record) {
                Ok(count) => return layout::open_record(&record[..count], EXIT_BYTES_MAX).ok(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // The socket is closed behind this, which is its end.
        if let Some(child) = self.child.take() {
            launch::reap(child);
        }
    }
}

/// Ends shims that no step has wanted for a while, until none is left.
fn end_idle(shims: &Weak<Inner>) {
    while let Some(inner) = shims.upgrade() {
        let idle = inner.idle;
        let (over, wait) = {
            let mut free = inner.lock();
            let over: Vec<_> = free.shims.extract_if(.., |(_, since)| since.elapsed() >= idle).collect();
            let wait = free.shims.iter().map(|(_, since)| idle.saturating_sub(since.elapsed())).min();
            free.watched = wait.is_some();
            (over, wait)
        };
        drop((over, inner));
        match wait {
            Some(wait) => thread::sleep(wait),
            None => return,
        }
    }
}

fn request(socket: BorrowedFd<'_>, bytes: &[u8], claim: &Claim) -> Result<(), Errno> {
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
