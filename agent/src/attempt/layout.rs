//! The files of an attempt: their names, and how they are written so that a crash leaves either the whole record
//! or none, or one that shows that it is torn. What becomes of the attempt is in [`super::record_file`]. Nothing here decides what a record means.
//!
//! An attempt has no folder of its own. Its files lie in that of its run and share a stem, `STEP.N`: `STEP.N.record`, `STEP.N.stdout`. So before a
//! step begins there is one name less to be made and made durable.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use messages::Digest;
use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

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
    /// The attempt has a folder of its own, as builds before this one made them.
    #[error("an earlier build of the agent made this attempt, in a folder of its own, and this build cannot read it")]
    EarlierBuild,
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

/// The file of that name of an attempt, whose files share that stem.
pub(crate) fn file(stem: &Path, name: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(".");
    path.push(name);
    path.into()
}

/// The folder in which an attempt's files are.
pub(crate) fn folder(stem: &Path) -> &Path {
    // An attempt is absolute, and the root is none.
    stem.parent().unwrap_or(stem)
}

/// Makes a folder's entries durable: what was created in it or renamed into it.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens a file of the attempt for writing, empty, made if it is missing. As with [`open_as_left`], whatever a step made in its place.
pub(crate) fn open_empty(stem: &Path, name: &str) -> io::Result<File> {
    plain(OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE), &file(stem, name))
}

/// Makes a file that must not exist yet, for writing. It follows no link, whoever put one there.
pub(crate) fn make_new(stem: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(file(stem, name))
}

/// Opens a file that a step could write to, for reading. It neither follows a link nor waits for a writer, whatever
/// the step made of the file.
pub(crate) fn open_as_left(path: &Path) -> io::Result<File> {
    plain(OpenOptions::new().read(true), path)
}

/// Opens it so. It neither follows a link nor waits for whoever has the other end, and what is no plain file is refused: a step can put
/// anything into the folder of its run.
pub(super) fn plain(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a plain file any more")),
    }
}

/// Whether there is anything of that name.
pub(crate) fn exists(stem: &Path, name: &str) -> io::Result<bool> {
    match fs::symlink_metadata(file(stem, name)) {
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
