//! Where the course of an attempt is read: in its record, or in the files of their own that builds before had for plan, lock, mark and end. A
//! step that such a build began goes on under its shim, which writes those. Nothing is ever written there by this one.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::layout::{self, Damage, Record};
use super::record_file::{self, EXIT, STARTED};
use super::records::{EXIT_BYTES_MAX, Exit, PLAN_BYTES_MAX, Plan, STARTED_BYTES_MAX, Started};

/// The names of those files.
const LOCK: &str = "lock";
const PLAN: &str = "plan";
pub(super) const MARK: &str = "started";
pub(super) const END: &str = "exit";

/// The open file whose lock is held by whoever runs the attempt, and where the rest is.
pub(super) enum Course {
    Record(File),
    /// In that folder, of which this is the lock.
    Files(File, PathBuf),
}

impl Course {
    /// Of the attempt in that folder; nothing if nobody has begun to prepare one there.
    pub(super) fn open(dir: &Path) -> io::Result<Option<Self>> {
        let earlier = || Ok(found(layout::open_lock(dir, LOCK))?.map(|lock| Self::Files(lock, dir.to_owned())));
        found(record_file::open(dir))?.map_or_else(earlier, |record| Ok(Some(Self::Record(record))))
    }

    pub(super) const fn lock(&self) -> &File {
        let (Self::Record(lock) | Self::Files(lock, _)) = self;
        lock
    }

    pub(super) fn plan(&self) -> io::Result<Record<Plan>> {
        match self {
            Self::Record(record) => record_file::plan(record),
            Self::Files(_, dir) => read(dir, PLAN, PLAN_BYTES_MAX),
        }
    }

    pub(super) fn started(&self) -> io::Result<Record<Started>> {
        match self {
            Self::Record(record) => record_file::read(record, STARTED),
            Self::Files(_, dir) => read(dir, MARK, STARTED_BYTES_MAX),
        }
    }

    pub(super) fn exit(&self) -> io::Result<Record<Exit>> {
        match self {
            Self::Record(record) => record_file::read(record, EXIT),
            Self::Files(_, dir) => read(dir, END, EXIT_BYTES_MAX),
        }
    }

    /// Whether a shim may have it, or have had it.
    pub(super) fn has_begun(&self) -> io::Result<bool> {
        Ok(self.started()? != Record::Absent || self.exit()? != Record::Absent)
    }
}

fn found<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads one record of at most `max` bytes. An error is the disk's; a file that makes no sense is [`Record::Damaged`].
fn read<T: DeserializeOwned>(dir: &Path, name: &str, max: usize) -> io::Result<Record<T>> {
    let path = dir.join(name);
    // Looked at before it is opened: opening a named pipe would wait for a writer.
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(Record::Damaged(Damage::NotAFile)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::Absent),
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    let bound = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(&path)?.take(bound).read_to_end(&mut bytes)?;
    Ok(match layout::open_record(&bytes, max) {
        Ok(value) => Record::Readable(value),
        Err(damage) => Record::Damaged(damage),
    })
}
