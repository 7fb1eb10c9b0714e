//! Folders whose names survive a loss of power. A folder is on stable storage once the one above it was synced, and whatever lies
//! in it is lost with its name before. It removes nothing.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes the names in that folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder, and those above it that are missing, for this user alone. When it returns, their names are on stable storage.
///
/// A folder gets something to hold only after its own name was synced. So of what is there already at most the last folder has
/// a name that is not, left by a process that was killed between the two: that one is synced in any case.
///
/// # Errors
/// The system's answer. What was made before stays.
pub fn make_folder(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut folder = path;
    while !folder.as_os_str().is_empty() && !folder.try_exists()? {
        missing.push(folder);
        folder = folder.parent().unwrap_or(Path::new(""));
    }
    match sync_above(folder) {
        // Whoever made it has rights that this process has not; then this process did not leave it half made.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        synced => synced?,
    }
    for folder in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(folder) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made?,
        }
        sync_above(folder)?;
    }
    Ok(())
}

fn sync_above(folder: &Path) -> io::Result<()> {
    match folder.parent() {
        // The working folder, by a path that does not name it, and the root have no name to sync.
        None => Ok(()),
        Some(above) if above.as_os_str().is_empty() => sync_folder(Path::new(".")),
        Some(above) => sync_folder(above),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn missing_folders_are_made_for_their_user_alone_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        for _ in 0..2 {
            make_folder(&path).unwrap();
            std::fs::write(path.join("file"), "kept").unwrap();
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(make_folder(&path.join("file/d")).is_err(), "a file is no folder");
        make_folder(Path::new("/")).unwrap();
        make_folder(Path::new("src")).unwrap();
    }
}
