//! Putting a damaged journal aside, so that its endpoint can begin a new one: something that a person asks for. It never deletes,
//! never repairs, and never looks into what it moves.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::folders::sync_folder;
use crate::high_water;
use crate::journal::STORE_DIR;
use crate::opening::{OpenError, claim};
use crate::tail_mark;

/// Journals that are kept aside in one folder at most. Whoever gets there has a broken disk, not a damaged journal.
const KEPT_MAX: u32 = 1_000;

/// What was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The folder that it is in now: `damaged-1` in the journal's own, or the next number.
    pub kept: PathBuf,
    /// What was moved there.
    pub moved: Vec<&'static str>,
}

/// Moves the journal in that directory aside, with its marks; nothing when there is none. The next opening creates a new journal
/// there. Its peers see an endpoint that lost everything, and say what they hold.
///
/// # Errors
/// [`OpenError`]: the directory is in use, belongs to somebody else, or cannot be changed. Whatever was moved before is kept, and the
/// journal does not open as a new one until the rest is moved, too.
pub fn quarantine(dir: &Path) -> Result<Option<Quarantined>, OpenError> {
    if !dir.is_dir() {
        return Ok(None);
    }
    let _lock = claim(dir)?;
    // The store goes first: if this is cut off, its marks remain, and refuse to be those of a new journal.
    let names = [STORE_DIR, high_water::NAME, tail_mark::NAME];
    let there: Vec<_> = names.into_iter().filter(|name| dir.join(name).symlink_metadata().is_ok()).collect();
    if there.is_empty() {
        return Ok(None);
    }
    let kept = make_folder(dir)?;
    let io = |path: &Path, operation| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, operation, source }
    };
    // Its own name first: a loss of power must not leave the journal in a folder that nobody finds.
    sync_folder(dir).map_err(io(dir, "syncing it"))?;
    for name in &there {
        fs::rename(dir.join(name), kept.join(name)).map_err(io(&dir.join(name), "putting it aside"))?;
        for folder in [&kept, dir] {
            sync_folder(folder).map_err(io(folder, "syncing it"))?;
        }
    }
    Ok(Some(Quarantined { kept, moved: there }))
}

fn make_folder(dir: &Path) -> Result<PathBuf, OpenError> {
    for number in 1..=KEPT_MAX {
        let kept = dir.join(format!("damaged-{number}"));
        match fs::create_dir(&kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => return Err(OpenError::Io { path: kept, operation: "creating it", source }),
        }
    }
    let source = ErrorKind::AlreadyExists.into();
    Err(OpenError::Io { path: dir.to_owned(), operation: "finding a free name in it", source })
}
