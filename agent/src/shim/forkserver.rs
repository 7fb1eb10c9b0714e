//! A process that has done once what every shim does before its work: been executed, linked and set up. For each attempt that its agent
//! names it forks a shim, which is a copy of it, and says when that has ended. It has one thread, knows nothing but its socket, reads
//! no attempt, and ends when its agent does. The shims outlive it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, setsid, waitpid};

use super::fork::{self, Side};
use messages::Digest;

use crate::attempt::line::{self, Answer, REQUEST_BYTES_MAX, REQUEST_FILES, Said};

/// Why it ends before its agent does. Whoever waits for a shim sees the end of the socket, and waits in another way.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("cannot prepare itself; it is started by its agent, not from a shell")]
    Itself(#[source] io::Error),
    #[error("cannot hear its agent, or not be heard")]
    Line(#[source] Errno),
    #[error("was asked for something that no agent of this version asks for")]
    Request,
    #[error("cannot wait for its shims")]
    Wait(#[source] Errno),
}

/// A shim that lives, or that nobody has waited for yet.
struct Shim {
    number: u64,
    pid: Pid,
    over: OwnedFd,
}

/// What this process is when [`serve`] returns.
pub(super) enum Role {
    /// Its agent is gone, and so is its work.
    Server,
    /// It is the shim of that attempt. Standard input is the attempt's lock, held, and standard error the file for complaints.
    Shim(PathBuf),
}

/// A request with what belongs to it.
struct Request {
    number: u64,
    dir: PathBuf,
    lock: OwnedFd,
    errors: OwnedFd,
}

/// Serves the agent at the other end of the socket that is standard input, until that is closed; in each copy it returns at once.
///
/// # Errors
/// [`ServeError`].
pub(super) fn serve() -> Result<Role, ServeError> {
    let own = |error: Errno| ServeError::Itself(error.into());
    // What a terminal says to its agent is not for it.
    setsid().map_err(own)?;
    super::be_called(c"longshore-forks");
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(ServeError::Itself)?;
    let null = File::open("/dev/null").map_err(ServeError::Itself)?;
    rustix::stdio::dup2_stdin(&null).map_err(own)?;
    prepare();
    let mut shims: Vec<Shim> = Vec::new();
    loop {
        let mut asked = vec![PollFd::new(&socket, PollFlags::IN)];
        asked.extend(shims.iter().map(|shim| PollFd::new(&shim.over, PollFlags::IN)));
        match poll(&mut asked, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(ServeError::Wait(error)),
        }
        let mut ready = asked.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        let request = ready.next().unwrap_or(false);
        let over = shims.extract_if(.., |_| ready.next().unwrap_or(false)).collect::<Vec<_>>();
        for shim in over {
            while matches!(waitpid(Some(shim.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
            tell(&socket, Answer { number: shim.number, said: Said::Ended })?;
        }
        if !request {
            continue;
        }
        let Some(request) = receive(&socket)? else { return Ok(Role::Server) };
        let number = request.number;
        match fork::copy() {
            Ok(Side::Child) => {
                drop((socket, shims));
                return become_shim(request);
            }
            Ok(Side::Parent(pid)) => match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(over) => shims.push(Shim { number, pid, over }),
                // It runs, and nobody here would see its end. The agent sees it by its lock once this process is gone.
                Err(error) => return Err(ServeError::Wait(error)),
            },
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(Errno::AGAIN.raw_os_error());
                tell(&socket, Answer { number, said: Said::NotForked(errno) })?;
            }
        }
    }
}

/// What every shim would find out anew: which instructions the processor has for SHA-256, which a virtual machine says slowly.
fn prepare() {
    let _ = Digest::of(&[]);
}

fn become_shim(request: Request) -> Result<Role, ServeError> {
    let Request { dir, lock, errors, .. } = request;
    let own = |error: Errno| ServeError::Itself(error.into());
    rustix::stdio::dup2_stdin(&lock).map_err(own)?;
    rustix::stdio::dup2_stderr(&errors).map_err(own)?;
    Ok(Role::Shim(dir))
}

fn tell(socket: &OwnedFd, answer: Answer) -> Result<(), ServeError> {
    loop {
        match send(socket, &answer.bytes(), SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(ServeError::Line(error)),
        }
    }
}

/// The next request; nothing when there will be none.
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
    match (line::request(&bytes[..received.bytes]), files.next(), files.next()) {
        (Some((number, dir)), Some(lock), Some(errors)) if whole => {
            Ok(Some(Request { number, dir: PathBuf::from(OsString::from_vec(dir.to_vec())), lock, errors }))
        }
        _ => Err(ServeError::Request),
    }
}
