//! The agent's disk: whether it is too full for new work, and the space that is set aside so that the outcomes of work that was
//! taken can still be journaled on a disk that is full. It never gives up anything that is not over.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::statvfs;

use crate::service::DiskLimits;

/// The file that holds the space that is set aside.
const RESERVE: &str = "reserve";
/// Bytes that a share of the disk comes to at most: a hundredth of a very large one is more than any work here needs.
const SHARE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes written at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// The disk of one agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    limits: DiskLimits,
    /// Bytes of the agent's folder, when it was last counted. Only with a quota.
    used: Mutex<u64>,
}

impl Disk {
    pub(crate) fn new(dir: PathBuf, limits: DiskLimits) -> Self {
        Self(Arc::new(Inner { dir, limits, used: Mutex::new(0) }))
    }

    /// Why the disk is too full for new work, if it is. Asks the system, which is quick.
    pub(crate) fn short(&self) -> Option<String> {
        let limits = &self.0.limits;
        let used = *self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = limits.quota_bytes.filter(|quota| used > *quota) {
            return Some(format!("the agent's folder has {used} bytes, and may have {quota} for new work"));
        }
        match space(&self.0.dir) {
            Ok((free, size)) => {
                // What was taken from the space that is set aside is owed first.
                let wanted = wanted(limits, size).saturating_add(limits.reserve_bytes.saturating_sub(self.reserved()));
                (free < wanted)
                    .then(|| format!("the agent's disk has {free} bytes free, and {wanted} are to be for new work"))
            }
            // Work that cannot be kept must not be taken.
            Err(error) => Some(format!("the agent's disk cannot be asked for its free space: {error}")),
        }
    }

    /// Counts the folder, if there is a quota, and sets space aside again, if there is enough. Reads many folders: not for a
    /// runtime's own threads.
    pub(crate) fn look(&self) {
        if self.0.limits.quota_bytes.is_some() {
            let used = folder_bytes(&self.0.dir);
            *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = used;
        }
        if let Err(error) = self.reserve() {
            tracing::debug!(%error, "No space could be set aside for outcomes; it is tried again.");
        }
    }

    /// Bytes that are set aside.
    fn reserved(&self) -> u64 {
        fs::metadata(self.0.dir.join(RESERVE)).map_or(0, |file| file.len())
    }

    fn reserve(&self) -> io::Result<()> {
        let limits = &self.0.limits;
        let path = self.0.dir.join(RESERVE);
        let (free, size) = space(&self.0.dir)?;
        if self.reserved() == limits.reserve_bytes || free < wanted(limits, size).saturating_add(limits.reserve_bytes) {
            return Ok(());
        }
        let mut file = File::create(&path)?;
        let mut left = limits.reserve_bytes;
        while left > 0 {
            let chunk = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            // Not zeroes: some file systems keep those without taking space.
            file.write_all(&vec![0xa5; chunk])?;
            left -= chunk as u64;
        }
        file.sync_all()
    }
}

/// Gives the space that was set aside to the journal, if the disk is full. To be called before the journal is opened: one that met
/// a full disk has ended itself, and is opened again by a process that finds room.
pub(crate) fn release_if_full(dir: &Path, limits: &DiskLimits) {
    let full = space(dir).is_ok_and(|(free, _)| free < limits.reserve_bytes / 2);
    if full && fs::remove_file(dir.join(RESERVE)).is_ok() {
        tracing::error!("The disk is full. The space that was set aside for outcomes is used now; make room.");
    }
}

/// Bytes free for such a user, and of the whole disk.
fn space(dir: &Path) -> io::Result<(u64, u64)> {
    let disk = statvfs(dir)?;
    Ok((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}

fn wanted(limits: &DiskLimits, size: u64) -> u64 {
    let share = size / 100 * u64::from(limits.free_percent_min);
    limits.free_bytes_min.max(share.min(SHARE_BYTES_MAX))
}

/// Bytes that a folder's files take. What vanishes or cannot be read meanwhile is not counted, and links are not followed.
pub(crate) fn folder_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;

    /// Bytes of one block of the system's count.
    const BLOCK: u64 = 512;
    let (mut bytes, mut folders) = (0u64, vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            bytes = bytes.saturating_add(metadata.blocks().saturating_mul(BLOCK));
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ROOMY: DiskLimits = DiskLimits {
        free_bytes_min: 1,
        free_percent_min: 0,
        quota_bytes: None,
        reserve_bytes: 3_000_000,
        output_bytes_max: 1,
        ended_runs_max: 1,
        ended_bytes_max: 1,
    };

    #[test]
    fn space_is_set_aside_once_and_only_where_enough_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = dir.path().join(RESERVE);
        Disk::new(dir.path().to_owned(), DiskLimits { free_bytes_min: u64::MAX / 2, ..ROOMY }).look();
        assert!(!reserve.exists());
        let disk = Disk::new(dir.path().to_owned(), ROOMY);
        disk.look();
        assert_eq!(fs::metadata(&reserve).unwrap().len(), 3_000_000);
        assert!(folder_bytes(dir.path()) >= 3_000_000);
        assert_eq!(disk.short(), None);
        // The disk of this test is not full: nothing is released.
        release_if_full(dir.path(), &ROOMY);
        assert!(reserve.exists());
    }

    #[test]
    fn too_little_free_space_and_a_folder_over_its_quota_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let short = |limits| {
            let disk = Disk::new(dir.path().to_owned(), limits);
            disk.look();
            disk.short()
        };
        assert!(short(DiskLimits { free_bytes_min: u64::MAX, ..ROOMY }).unwrap().contains("bytes free"));
        let quota = DiskLimits { quota_bytes: Some(100_000), reserve_bytes: 0, ..ROOMY };
        assert_eq!(short(quota), None);
        fs::write(dir.path().join("large"), vec![1; 200_000]).unwrap();
        assert!(short(quota).unwrap().contains("may have 100000"));
        fs::remove_file(dir.path().join("large")).unwrap();
        assert_eq!(short(quota), None);
    }

    #[test]
    fn the_larger_of_both_thresholds_counts() {
        let limits = DiskLimits { free_bytes_min: 500, free_percent_min: 2, ..ROOMY };
        assert_eq!((wanted(&limits, 10_000), wanted(&limits, 100_000)), (500, 2_000));
        assert_eq!(wanted(&limits, 1 << 50), SHARE_BYTES_MAX);
    }
}
