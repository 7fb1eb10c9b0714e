//! Room on an endpoint's disk: whether there is enough for new work, and the space that is set aside so that the outcomes of work that
//! was taken can still be journaled on a disk that is full. It decides nothing about work, and never removes anything but the space
//! that it set aside.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

/// The file that holds the space that is set aside.
const RESERVE: &str = "reserve";
/// Bytes that a share of the disk comes to at most: a hundredth of a very large one is more than any work here needs.
const SHARE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes written at once.
const CHUNK_BYTES: usize = 1024 * 1024;

const MIB: u64 = 1024 * 1024;

/// How much is to be free, and how much is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomLimits {
    /// Bytes that are to be free for new work to be taken.
    pub free_bytes_min: u64,
    /// The same, in percent of the disk, but at most 1 GiB. The larger of the two counts.
    pub free_percent_min: u8,
    /// Bytes that are set aside for the outcomes of work that was taken; 0 for none.
    pub reserve_bytes: u64,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self { free_bytes_min: 256 * MIB, free_percent_min: 2, reserve_bytes: 16 * MIB }
    }
}

/// There is too little room for new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes that are to be.
    pub wanted: u64,
}

/// The room of one endpoint.
#[derive(Debug, Clone)]
pub struct Room {
    dir: PathBuf,
    limits: RoomLimits,
}

impl Room {
    /// The room on the disk of that folder.
    #[must_use]
    pub const fn new(dir: PathBuf, limits: RoomLimits) -> Self {
        Self { dir, limits }
    }

    /// Whether there is too little for new work. Asks the system, which is quick.
    ///
    /// # Errors
    /// The system's. Work that cannot be kept must not be taken.
    pub fn short(&self) -> io::Result<Option<Short>> {
        let (free, size) = space(&self.dir)?;
        // What was taken from the space that is set aside is owed first.
        let owed = self.limits.reserve_bytes.saturating_sub(self.reserved());
        let wanted = wanted(&self.limits, size).saturating_add(owed);
        Ok((free < wanted).then_some(Short { free, wanted }))
    }

    /// Whether so little is free that all of it is for the journal.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        space(&self.dir).is_ok_and(|(free, _)| free < self.limits.reserve_bytes)
    }

    /// Whether so little is free that the journal may not be able to go on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        space(&self.dir).is_ok_and(|(free, _)| free < self.limits.reserve_bytes / 2)
    }

    /// Bytes that are set aside.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        fs::metadata(self.path()).map_or(0, |file| file.len())
    }

    /// Sets space aside, if that is not done and enough is left. Writes many bytes: not for a runtime's own threads.
    ///
    /// # Errors
    /// The system's. It may be tried again.
    pub fn set_aside(&self) -> io::Result<()> {
        let limits = &self.limits;
        let (free, size) = space(&self.dir)?;
        let enough = wanted(limits, size).saturating_add(limits.reserve_bytes);
        if self.reserved() == limits.reserve_bytes || free < enough {
            return Ok(());
        }
        let mut file = File::create(self.path())?;
        let mut left = limits.reserve_bytes;
        while left > 0 {
            let chunk = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            // Not zeroes: some file systems keep those without taking space.
            file.write_all(&vec![0xa5; chunk])?;
            left -= chunk as u64;
        }
        file.sync_all()
    }

    /// Gives the space that was set aside to the journal, if the disk is full. To be called before the journal is opened: one that
    /// met a full disk has ended itself. Whether there was any.
    pub fn release_if_full(&self) -> bool {
        let released = self.is_full() && fs::remove_file(self.path()).is_ok();
        if released {
            tracing::error!("The disk is full. The space that was set aside for outcomes is used now; make room.");
        }
        released
    }

    fn path(&self) -> PathBuf {
        self.dir.join(RESERVE)
    }
}

/// Bytes free for such a user, and of the whole disk.
fn space(dir: &Path) -> io::Result<(u64, u64)> {
    let disk = statvfs(dir)?;
    Ok((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}

fn wanted(limits: &RoomLimits, size: u64) -> u64 {
    let share = size / 100 * u64::from(limits.free_percent_min);
    limits.free_bytes_min.max(share.min(SHARE_BYTES_MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ROOMY: RoomLimits = RoomLimits { free_bytes_min: 1, free_percent_min: 0, reserve_bytes: 3_000_000 };

    #[test]
    fn space_is_set_aside_once_and_only_where_enough_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let room = |limits| Room::new(dir.path().to_owned(), limits);
        room(RoomLimits { free_bytes_min: u64::MAX / 2, ..ROOMY }).set_aside().unwrap();
        assert_eq!(room(ROOMY).reserved(), 0);
        room(ROOMY).set_aside().unwrap();
        assert_eq!(room(ROOMY).reserved(), 3_000_000);
        assert_eq!(room(ROOMY).short().unwrap(), None);
        // The disk of this test is not full: nothing is released.
        assert!(!room(ROOMY).release_if_full());
        assert_eq!(room(ROOMY).reserved(), 3_000_000);
    }

    #[test]
    fn too_little_free_space_is_said_and_what_is_owed_to_the_reserve_counts() {
        let dir = tempfile::tempdir().unwrap();
        let short = |limits| Room::new(dir.path().to_owned(), limits).short().unwrap();
        assert!(short(RoomLimits { free_bytes_min: u64::MAX, ..ROOMY }).is_some());
        let owing = short(RoomLimits { reserve_bytes: u64::MAX / 2, ..ROOMY }).unwrap();
        assert!(owing.wanted > owing.free);
    }

    #[test]
    fn the_larger_of_both_thresholds_counts() {
        let limits = RoomLimits { free_bytes_min: 500, free_percent_min: 2, ..ROOMY };
        assert_eq!((wanted(&limits, 10_000), wanted(&limits, 100_000)), (500, 2_000));
        assert_eq!(wanted(&limits, 1 << 50), SHARE_BYTES_MAX);
    }
}
