//! The folder of an attempt: the names in it, and how its files are written so that a crash leaves either the whole record
//! or none, or one that shows that it is torn. What becomes of the attempt is in [`super::record_file`]. Nothing here decides what a record means.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use messages::Digest;
use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Held by the processes of the step, which inherit it: while it is held, something of the step lives.
pub(crate) const TREE: &str = "tree";
/// Somebody wants the step ended.
pub(crate) const CANCEL: &str = "cancel";
/// What the step wrote to its standard output, from the first byte on.
pub(crate) const STDOUT: &str = "stdout";
/// What the step wrote to its standard error, from the first byte on.
pub(crate) const STDERR: &str = "stderr";
/// What the step hands on to later ones: it is told where this is.
pub(crate) const OUTPUT: &str = "output";

/// Only the agent's own user reads what a step wrote.
pub(super) const FILE_MODE: u32 = 0o600;

/// Bytes of the SHA-256 in front of a record.
const DIGEST_BYTES: usize = 32;

/// What is wrong with a file of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is missing, although other files of the attempt are there.
    #[error("it is missing, although the rest of the attempt is there")]
    Missing,
    /// It is a folder, a link or something stranger.
    #[error("it is not a plain file")]
    NotAFile,
    /// It has more bytes than such a record ever has. Nothing was parsed.
    #[error("it has more than {max} bytes")]
    TooLarge {
        /// Bytes allowed.
        max: usize,
    },
    /// It is not what was written: torn by a crash, changed, or overwritten.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is whole, but this version cannot read it.
    #[error("this version cannot read it: {reason}")]
    Content {
        /// What the decoder says.
        reason: String,
    },
}

/// One record file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record<T> {
    /// There is no such file.
    Absent,
    /// It is there and whole.
    Readable(T),
    /// It is there, and cannot be believed.
    Damaged(Damage),
}

/// Reads the bytes of a record, which has at most `max`.
pub(crate) fn open_record<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, Damage> {
    if bytes.len() > max {
        return Err(Damage::TooLarge { max });
    }
    let (digest, payload) = bytes.split_at_checked(DIGEST_BYTES).ok_or(Damage::Checksum)?;
    if Digest::of(payload).bytes() != digest {
        return Err(Damage::Checksum);
    }
    messages::from_msgpack(payload).map_err(|error| Damage::Content { reason: chain(&error) })
}

/// A record's bytes: its SHA-256, then MessagePack. Refused beyond `max`.
pub(crate) fn encode<T: Serialize>(value: &T, max: usize) -> io::Result<Vec<u8>> {
    let payload =
        messages::to_msgpack(value).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, chain(&error)))?;
    let mut bytes = Digest::of(&payload).bytes().to_vec();
    bytes.extend_from_slice(&payload);
    if bytes.len() > max {
        let reason = format!("{} bytes, at most {max} are allowed", bytes.len());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Makes a folder's entries durable: what was created in it or renamed into it.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens a file of the folder for writing, empty, made if it is missing.
pub(crate) fn open_empty(dir: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(dir.join(name))
}

/// Makes a file that must not exist yet, for writing. It follows no link, whoever put one there.
pub(crate) fn make_new(dir: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(dir.join(name))
}

/// Removes a file of the folder, if it is there.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Opens a lock file of the folder. It is never made here: without it the folder is not one of an attempt.
pub(crate) fn open_lock(dir: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(dir.join(name))
}

/// Opens a file that a step could write to, for reading. It neither follows a link nor waits for a writer, whatever
/// the step made of the file.
pub(crate) fn open_as_left(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a plain file any more")),
    }
}

/// Whether there is anything of that name.
pub(crate) fn exists(dir: &Path, name: &str) -> io::Result<bool> {
    match fs::symlink_metadata(dir.join(name)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Milliseconds since 1970, for people.
pub(crate) fn now_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "written into files for people; nothing is decided by it")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
