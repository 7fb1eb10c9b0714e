//! Which names on the way to an attempt are on stable storage, as far as this process knows, and the syncs that put the others
//! there. It makes no folder and removes none.
//!
//! **What must hold.** Once the step's program has begun, no loss of power may make it look as if it had not. What says that it began is
//! the mark in the attempt's file `record`; whoever looks finds that only through its name and those of all folders above. A name
//! is on stable storage once the folder that holds it was synced after the name was made, and by nothing else that POSIX promises.
//!
//! **Why no sync here can be left out.** Each folder from the run's, which holds the record's name, up to one that is settled holds a name on
//! that way which may be new. Without its sync that name may be lost, and everything below it. A folder that this process found is no
//! better than one that it made: the process that made it may have been killed before its sync. So a folder counts as settled only
//! when this process has synced the one above it: for a run's first attempt two folders are synced, for a further attempt one.
//!
//! **Why no other sync is needed to prepare an attempt.** The mark is written into a file that has its name then, and that file is synced
//! before the program begins (`shim/`). If the mark is lost, nothing has begun, and whatever
//! else the loss of power left of it, a torn plan or an empty `record`, is made again before anything is launched
//! ([`super::Attempt::prepare`]). If it is there, the plan decides nothing any more. The space for the record of the end is taken by
//! writing zeros: file systems that choose the place of bytes later set the space aside at once, and the sync of the mark takes it for good.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::sync_dir;

/// Folders whose names, with those of all folders above them, are on stable storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled(BTreeSet<PathBuf>);

impl Settled {
    /// That folder is. It must be absolute, as attempts are.
    #[must_use]
    pub fn folder(folder: &Path) -> Self {
        Self(BTreeSet::from([folder.to_owned()]))
    }

    /// Makes the names in that folder durable, its own, and those of the folders above it up to one that is settled.
    ///
    /// # Errors
    /// The folder that cannot be synced, and what the system says. Nothing more counts as settled then.
    pub(super) fn settle(&mut self, dir: &Path) -> Result<(), (PathBuf, io::Error)> {
        let mut way = Vec::new();
        for folder in dir.ancestors() {
            sync_dir(folder).map_err(|error| (folder.to_owned(), error))?;
            if self.0.contains(folder) {
                break;
            }
            way.push(folder);
        }
        self.0.extend(way.into_iter().map(Path::to_owned));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_settled_only_once_those_above_it_were_synced() {
        let dir = tempfile::tempdir().unwrap();
        let (runs, one) = (dir.path().join("runs"), dir.path().join("runs/a/r"));
        std::fs::create_dir_all(&one).unwrap();
        let mut settled = Settled::folder(&runs);
        let (missing, _) = settled.settle(&runs.join("none/r")).unwrap_err();
        assert_eq!((missing, &settled), (runs.join("none/r"), &Settled::folder(&runs)));
        settled.settle(&one).unwrap();
        let known = ["", "a", "a/r"].map(|name| runs.join(name));
        assert_eq!(settled, Settled(known.into()));
    }
}
