//! A lock on a file that ends when it is dropped, also when a process that is just being started from another thread has the file
//! open for a moment longer. It takes no lock itself.

use std::fs::File;

/// A locked file, unlocked on drop.
#[derive(Debug)]
pub(crate) struct HeldLock(File);

impl HeldLock {
    /// From here on the lock is this one's.
    pub(crate) const fn new(locked: File) -> Self {
        Self(locked)
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "A lock could not be ended; it ends when the last process closes its file.");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_though_somebody_still_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = File::create(&path).unwrap();
        file.lock().unwrap();
        // What a process that is being started has until it becomes another program.
        let inherited = file.try_clone().unwrap();
        let other = File::open(&path).unwrap();
        let held = HeldLock::new(file);
        assert!(other.try_lock().is_err());
        drop(held);
        other.try_lock().unwrap();
        drop(inherited);
    }
}
