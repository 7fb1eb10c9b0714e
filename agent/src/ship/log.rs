//! One log on its way: where it is, what of it may go out next, where it ends. Reads the file of an output, a piece at a time, and keeps
//! nothing of it.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use messages::{Digest, EndpointId, Hasher, LogChunk, LogEnd, LogKey};

use crate::attempt::layout::open_as_left;

/// Bytes of one piece. Well under an envelope.
pub(super) const PIECE_BYTES: usize = 48 * 1024;
/// Bytes under way that the server has not said it has, for one log.
const WINDOW_BYTES: u64 = 8 * PIECE_BYTES as u64;

/// Where a log ends.
pub(super) enum End {
    /// Its step still writes.
    Open,
    /// Its attempt is over without a record: it ends where the file does, which is measured once that much was sent.
    File,
    /// As recorded or measured.
    Known(LogEnd),
}

/// One log on its way.
pub(super) struct Log {
    pub(super) path: PathBuf,
    /// What the server said it has.
    pub(super) have: u64,
    /// Sent up to here.
    pub(super) sent: u64,
    /// The server said what it has, so that what an earlier process sent is known.
    pub(super) known: bool,
    /// When the server last had more than before, or this was last sent anew.
    pub(super) moved: Instant,
    pub(super) end: End,
    /// The end was sent since the server last said something.
    pub(super) end_sent: bool,
    /// There may be something to send.
    pub(super) due: bool,
    /// It could not be read, which was said.
    pub(super) unreadable: bool,
}

impl Log {
    const fn known_end(&self) -> Option<&LogEnd> {
        match &self.end {
            End::Known(end) => Some(end),
            End::Open | End::File => None,
        }
    }

    /// Bytes that are lost with a file that cannot be read, if its step is over.
    const fn lost(&self) -> Option<u64> {
        match &self.end {
            End::Open => None,
            End::File => Some(0),
            End::Known(end) => Some(end.size.saturating_add(end.cut)),
        }
    }

    pub(super) const fn under_way(&self) -> u64 {
        self.sent.saturating_sub(self.have)
    }

    /// The next piece, if one may go out and there is one.
    pub(super) fn next(&mut self, key: &LogKey, from: &EndpointId) -> Option<LogChunk> {
        while !self.end_sent && self.under_way() < WINDOW_BYTES {
            let bytes = match read_piece(&self.path, self.sent, self.known_end()) {
                Ok(bytes) => bytes,
                Err(error) => {
                    if !std::mem::replace(&mut self.unreadable, true) {
                        tracing::warn!(run = %key.run, step = %key.step, %error, "A log cannot be read.");
                    }
                    let cut = self.lost()?;
                    // Its step is over, and nobody mends what it made of the file: nothing of it is left.
                    (self.sent, self.end) = (0, End::Known(LogEnd { size: 0, sha256: Digest::of(&[]), cut }));
                    continue;
                }
            };
            match &self.end {
                End::File if bytes.is_empty() => {
                    self.end = End::Known(measure(&self.path));
                    continue;
                }
                End::Known(end) if bytes.is_empty() && self.sent < end.size => {
                    // The file is shorter than it was when the step ended. What is left of it is the log; the rest was cut.
                    let (whole, left) = (end.size.saturating_add(end.cut), measure(&self.path));
                    tracing::warn!(run = %key.run, step = %key.step, "A log was cut after its step had ended.");
                    (self.sent, self.end) = (0, End::Known(LogEnd { cut: whole.saturating_sub(left.size), ..left }));
                    continue;
                }
                End::Open | End::File | End::Known(_) => {}
            }
            let after = self.sent + bytes.len() as u64;
            let end = self.known_end().filter(|end| end.size <= after).cloned();
            if bytes.is_empty() && end.is_none() {
                return None;
            }
            if self.sent == self.have {
                self.moved = Instant::now();
            }
            let offset = self.sent;
            (self.sent, self.end_sent) = (after, end.is_some());
            let crc32c = crc32c::crc32c(&bytes);
            return Some(LogChunk { from: from.clone(), key: key.clone(), offset, bytes, crc32c, end });
        }
        None
    }
}

/// What a file holds whose attempt left no record.
fn measure(path: &Path) -> LogEnd {
    let read = || -> io::Result<(u64, Digest)> {
        let mut file = open_as_left(path)?;
        let (mut hasher, mut size, mut buffer) = (Hasher::default(), 0, vec![0; 64 * 1024]);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok((size, hasher.finish()));
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
    };
    // A file that is gone or unreadable is an empty log.
    let (size, sha256) = read().unwrap_or_else(|_| (0, Digest::of(&[])));
    LogEnd { size, sha256, cut: 0 }
}

fn read_piece(path: &Path, offset: u64, end: Option<&LogEnd>) -> io::Result<Vec<u8>> {
    if end.is_some_and(|end| end.size <= offset) {
        return Ok(Vec::new());
    }
    // A named pipe that the step put in its place would keep the one thread that reads all logs.
    let mut file = match open_as_left(path) {
        Ok(file) => file,
        // Not made yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset))?;
    // What a process left behind writes after the end is not part of the log.
    let left = end.map_or(u64::MAX, |end| end.size.saturating_sub(offset));
    let mut bytes = Vec::with_capacity(PIECE_BYTES);
    file.take(left.min(PIECE_BYTES as u64)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
