//! The agent's disk: whether it is too full for new work, and the space that is set aside so that the outcomes of work that was
//! taken can still be journaled on a disk that is full. It never gives up anything that is not over.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use journal::{Room, Short};
use link::Lately;

use crate::service::DiskLimits;

/// How long an answer about the room for new work holds. Less than a disk with room for it takes to fill up.
const ANSWER_HOLDS: Duration = Duration::from_millis(10);

/// The disk of one agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    room: Room,
    short: Lately<Option<Short>>,
    quota_bytes: Option<u64>,
    /// Bytes of the agent's folder, when it was last counted. Only with a quota.
    used: Mutex<u64>,
}

impl Disk {
    pub(crate) fn new(dir: PathBuf, limits: DiskLimits) -> Self {
        let room = Room::new(dir.clone(), limits.room());
        let (short, quota_bytes) = (Lately::new(ANSWER_HOLDS), limits.quota_bytes);
        Self(Arc::new(Inner { dir, room, short, quota_bytes, used: Mutex::new(0) }))
    }

    /// Why the disk is too full for new work, if it was a moment ago. Asks the system, which is quick.
    pub(crate) fn short(&self) -> Option<String> {
        let used = *self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = self.0.quota_bytes.filter(|quota| used > *quota) {
            return Some(format!("the agent's folder has {used} bytes, and may have {quota} for new work"));
        }
        match self.0.short.get(|| self.0.room.short()) {
            Ok(short) => short.map(|Short { free, wanted }| {
                format!("the agent's disk has {free} bytes free, and {wanted} are to be for new work")
            }),
            // Work that cannot be kept must not be taken.
            Err(error) => Some(format!("the agent's disk cannot be asked for its free space: {error}")),
        }
    }

    /// Counts the folder, if there is a quota, and sets space aside again, if there is enough. Reads many folders: not for a
    /// runtime's own threads.
    pub(crate) fn look(&self) {
        if self.0.quota_bytes.is_some() {
            let used = folder_bytes(&self.0.dir);
            *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = used;
        }
        if let Err(error) = self.0.room.set_aside() {
            tracing::debug!(%error, "No space could be set aside for outcomes; it is tried again.");
        }
    }
}

/// Bytes that a folder's files take. What vanishes or cannot be read meanwhile is not counted, and links are not followed.
pub(crate) fn folder_bytes(dir: &Path) -> u64 {
    folder_bytes_without(dir, None)
}

/// The same without what is in one of the folders below it, which is known to be nothing.
pub(crate) fn folder_bytes_without(dir: &Path, empty: Option<&Path>) -> u64 {
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
                folders.extend(Some(entry.path()).filter(|path| Some(path.as_path()) != empty));
            }
        }
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_over_its_quota_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let roomy = DiskLimits { free_bytes_min: 1, free_percent_min: 0, reserve_bytes: 0, ..DiskLimits::default() };
        let short = |limits| {
            let disk = Disk::new(dir.path().to_owned(), limits);
            disk.look();
            disk.short()
        };
        assert!(short(DiskLimits { free_bytes_min: u64::MAX, ..roomy }).unwrap().contains("bytes free"));
        let quota = DiskLimits { quota_bytes: Some(100_000), ..roomy };
        assert_eq!(short(quota), None);
        fs::write(dir.path().join("large"), vec![1; 200_000]).unwrap();
        assert!(short(quota).unwrap().contains("may have 100000"));
        fs::remove_file(dir.path().join("large")).unwrap();
        assert_eq!(short(quota), None);
    }
}
