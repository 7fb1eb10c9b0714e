//! A shim that stays: it runs one step after the other for its agent, which names them at the other end of its standard input. Before it
//! takes another it is as it was before the last one: no process, no thread, no signal and no lock of that is left, and nothing was done to
//! it; or it ends. It ends when its agent does, after the step that it runs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send};

use super::conditions::Conditions;
use super::{Itself, ShimError, io_error};
use crate::attempt::layout::{self, CANCEL};
use crate::attempt::line::{REQUEST_BYTES_MAX, REQUEST_FILES};
use crate::attempt::record_file::RECORD;
use crate::attempt::take_lock;
use crate::kernel::{self, Waited};

/// Looks at the own threads, each after the others had their turn: one that was waited for is not gone from the list at once.
const LOOKS_MAX: u32 = 1_000;

/// Why it ends before its agent does.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error(transparent)]
    Attempt(#[from] ShimError),
    #[error("cannot hear its agent, or not be heard")]
    Line(#[source] Errno),
    #[error("was asked for something that no agent of this version asks for")]
    Request,
    #[error("cannot use standard input or standard error")]
    Streams(#[source] io::Error),
}

/// An attempt, with what belongs to it.
struct Request {
    stem: PathBuf,
    lock: OwnedFd,
    errors: OwnedFd,
}

/// Serves the agent at the other end of the socket that is standard input, until that is closed.
///
/// # Errors
/// [`ServeError`].
pub(super) fn serve() -> Result<(), ServeError> {
    let mut itself = Itself::prepare()?;
    let streams = |error: Errno| ServeError::Streams(error.into());
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(ServeError::Streams)?;
    let complaints = io::stderr().as_fd().try_clone_to_owned().map_err(ServeError::Streams)?;
    let null = File::open("/dev/null").map_err(ServeError::Streams)?;
    rustix::stdio::dup2_stdin(&null).map_err(streams)?;
    // Where the kernel does not say, one step is all.
    let conditions = Conditions::now().ok();
    while let Some(Request { stem, lock, errors }) = next(&socket, &mut itself)? {
        // Meant for a process without a step, which ends by it: whoever wants this one ended has noted that.
        if itself.signals.terminate() && !layout::exists(&stem, CANCEL).unwrap_or(false) {
            return Ok(());
        }
        rustix::stdio::dup2_stderr(&errors).map_err(streams)?;
        drop(errors);
        let lock = File::from(lock);
        take_lock(&lock).map_err(|source| io_error(RECORD, source))?.ok_or(ShimError::Held)?;
        let record = itself.carry_out(&stem, &lock)?;
        // Whoever else has it open, too, does not hold it any longer.
        lock.unlock().map_err(|source| io_error(RECORD, source))?;
        drop(lock);
        rustix::stdio::dup2_stderr(&complaints).map_err(streams)?;
        if !is_as_before(&mut itself, &stem) || !conditions.as_ref().is_some_and(Conditions::are_the_same) {
            return Ok(());
        }
        tell(&socket, &record)?;
    }
    Ok(())
}

/// Whether nothing is left of the attempt of that stem, whose lock is free again.
fn is_as_before(itself: &mut Itself, stem: &Path) -> bool {
    // Whoever wants a step ended notes that wish first and looks at the lock then. A wish that is not there yet finds the lock free, and
    // no signal follows it; one that is there may be followed by a signal at any time, which must not hit another step.
    let wished = layout::exists(stem, CANCEL).unwrap_or(true) || itself.signals.terminate();
    !wished && has_no_child() && is_alone()
}

fn has_no_child() -> bool {
    loop {
        match kernel::wait_any() {
            Ok(Waited::Ended(..)) => {}
            Ok(Waited::Nobody) => return true,
            Ok(Waited::NotYet) | Err(_) => return false,
        }
    }
}

fn is_alone() -> bool {
    for _ in 0..LOOKS_MAX {
        if kernel::alone().is_ok() {
            return true;
        }
        thread::yield_now();
    }
    false
}

fn tell(socket: &OwnedFd, record: &[u8]) -> Result<(), ServeError> {
    loop {
        match send(socket, record, SendFlags::NOSIGNAL) {
            // Its agent is gone; the next look at the socket says so.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(ServeError::Line(error)),
        }
    }
}

/// The next attempt; nothing when there will be none, or somebody asks that this process end.
fn next(socket: &OwnedFd, itself: &mut Itself) -> Result<Option<Request>, ServeError> {
    loop {
        let mut asked =
            [PollFd::new(socket, PollFlags::IN), PollFd::from_borrowed_fd(itself.signals.asks(), PollFlags::IN)];
        match poll(&mut asked, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(ServeError::Line(error)),
        }
        let [request, end] = asked.each_ref().map(|fd| !fd.revents().is_empty());
        if end && itself.signals.terminate() {
            return Ok(None);
        }
        if request {
            return receive(socket);
        }
    }
}

fn receive(socket: &OwnedFd) -> Result<Option<Request>, ServeError> {
    let mut bytes = [0; REQUEST_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(REQUEST_FILES))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(ServeError::Line(error)),
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut files = beside
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten();
    let whole = !received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    match (files.next(), files.next()) {
        (Some(lock), Some(errors)) if whole => {
            let stem = PathBuf::from(OsString::from_vec(bytes[..received.bytes].to_vec()));
            Ok(Some(Request { stem, lock, errors }))
        }
        (_, _) => Err(ServeError::Request),
    }
}
