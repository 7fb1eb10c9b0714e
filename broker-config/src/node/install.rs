//! Unpacks RabbitMQ and Erlang into a cache directory, without root and without touching the system.
//!
//! Everything happens in a temporary directory beside the target, which appears by one rename when it is complete and
//! Erlang has run. Two processes that install at once take turns by a file lock. What is unpacked can be moved: no file
//! in it holds the directory's name.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use super::command::{self, CommandError};
use super::error::InstallError;
use super::locate::{self, Installation, Origin};
use super::packages;

/// How long to wait for another process that installs: longer than a whole installation on a slow line.
const LOCK_LIMIT: Duration = Duration::from_secs(1800);
const LOCK_POLL: Duration = Duration::from_millis(200);
/// Starting Erlang once takes well under a second.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// Inside the cache directory.
const SUBDIR: &str = "rabbitmq";
/// Inside that: the finished tree, the lock, and the prefix of unfinished trees.
const ROOT: &str = "root";
const LOCK: &str = "lock";
const UNFINISHED: &str = "unfinished-";
/// Written last into a tree: without it the tree is not complete.
const COMPLETE: &str = "COMPLETE";

/// What an installation is doing; `Display` gives a line for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Another process is installing; waiting for it.
    Waiting,
    /// Reading the machine's package lists.
    ReadingLists,
    /// Fetching package lists of our own, because the machine's are missing or out of date.
    UpdatingLists,
    /// Downloading.
    Downloading {
        /// How many packages.
        packages: usize,
    },
    /// Unpacking.
    Unpacking {
        /// Packages done.
        done: usize,
        /// Packages in all.
        packages: usize,
    },
    /// Starting Erlang once to see that it works here.
    Checking,
}

impl fmt::Display for Progress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => write!(out, "waiting for another process that fetches RabbitMQ"),
            Self::ReadingLists => write!(out, "looking for RabbitMQ in the package lists"),
            Self::UpdatingLists => write!(out, "fetching package lists"),
            Self::Downloading { packages } => {
                write!(out, "downloading RabbitMQ and Erlang ({packages} Debian packages, about 35 MB)")
            }
            Self::Unpacking { done, packages } => {
                write!(out, "unpacking {} of {packages}", done + 1)
            }
            Self::Checking => write!(out, "checking that Erlang runs"),
        }
    }
}

/// A RabbitMQ to run: installed, unpacked before, or unpacked now into `cache`.
///
/// # Errors
/// When there is none and the packages cannot be fetched, unpacked or run. The message ends with the line to install it.
pub fn ensure(cache: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Installation, InstallError> {
    match locate::locate(cache) {
        Some(found) => Ok(found),
        None => unpack(cache, progress),
    }
}

/// What is complete under `cache`.
pub(crate) fn unpacked(cache: &Path) -> Option<Installation> {
    let root = std::path::absolute(cache).ok()?.join(SUBDIR).join(ROOT);
    if !root.join(COMPLETE).is_file() {
        return None;
    }
    in_tree(&root)
}

fn in_tree(root: &Path) -> Option<Installation> {
    let server = root.join("usr/lib/rabbitmq/bin/rabbitmq-server");
    Installation::from_parts(Origin::Unpacked, &server, &root.join("usr/lib/erlang/bin"))
}

/// The RabbitMQ unpacked under `cache`, unpacking it now when it is not there; an installed one does not count.
///
/// # Errors
/// As [`ensure`].
pub fn unpack(cache: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Installation, InstallError> {
    if let Some(found) = unpacked(cache) {
        return Ok(found);
    }
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::Io { action, path, source }
    };
    let dir = std::path::absolute(cache).map_err(io("find", cache))?.join(SUBDIR);
    check_path(&dir)?;
    packages::create_dir(&dir)?;
    let lock = lock(&dir.join(LOCK), progress)?;
    // Whoever held the lock before may have finished the work.
    if let Some(found) = unpacked(cache) {
        return Ok(found);
    }
    remove_unfinished(&dir);
    let work = dir.join(format!("{UNFINISHED}{}", std::process::id()));
    let result = build(&work, progress).and_then(|tree| {
        let root = dir.join(ROOT);
        // Only an incomplete tree can be here, left by hand or by an older version.
        if root.exists() {
            fs::remove_dir_all(&root).map_err(io("remove", &root))?;
        }
        fs::rename(&tree, &root).map_err(io("rename to", &root))
    });
    remove_unfinished(&dir);
    drop(lock);
    result?;
    unpacked(cache).ok_or_else(|| InstallError::Broken { reason: "a part of it is missing".to_owned() })
}

/// RabbitMQ's scripts do not quote their own directory, and apt's options end at a semicolon.
fn check_path(dir: &Path) -> Result<(), InstallError> {
    let harmless = |c: char| c.is_alphanumeric() || "/._-+@,=~:".contains(c);
    match dir.to_str() {
        Some(text) if text.chars().all(harmless) => Ok(()),
        _ => Err(InstallError::Path { path: dir.to_owned() }),
    }
}

fn lock(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<File, InstallError> {
    let io = |source| InstallError::Io { action: "lock", path: path.to_owned(), source };
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(io)?;
    let deadline = Instant::now() + LOCK_LIMIT;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(io(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(InstallError::Busy { path: path.to_owned(), waited: LOCK_LIMIT });
            }
            Err(TryLockError::WouldBlock) => {
                if !told {
                    progress(Progress::Waiting);
                    told = true;
                }
                thread::sleep(LOCK_POLL);
            }
        }
    }
}

/// Leftovers of installations that were killed. Called under the lock, so none of them is in use; what cannot be removed
/// is in nobody's way.
fn remove_unfinished(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes the whole tree under `work` and returns its place.
fn build(work: &Path, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, InstallError> {
    let root = work.join(ROOT);
    packages::create_dir(work)?;
    let debs = packages::download(work, &work.join("debs"), progress)?;
    packages::unpack(&debs, &root, progress)?;
    relocate_erlang(&root)?;
    let broken = |reason: &str| InstallError::Broken { reason: reason.to_owned() };
    let installation = in_tree(&root).ok_or_else(|| broken("the start script or Erlang is missing"))?;
    progress(Progress::Checking);
    check_erlang(&installation, work)?;
    let version = installation.version.as_deref().unwrap_or("unknown");
    let marker = root.join(COMPLETE);
    let text = format!("RabbitMQ {version}, unpacked from {} Debian packages\n", debs.len());
    fs::write(&marker, text).map_err(|source| InstallError::Io { action: "write", path: marker, source })?;
    Ok(root)
}

/// Debian's `erl` holds the absolute path of an installed Erlang. This one finds itself.
fn relocate_erlang(root: &Path) -> Result<(), InstallError> {
    let erlang = root.join("usr/lib/erlang");
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::Io { action, path, source }
    };
    let runtime = fs::read_dir(&erlang)
        .map_err(io("read", &erlang))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| {
            name.strip_prefix("erts-").is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
        })
        .ok_or_else(|| InstallError::Broken { reason: "Erlang's runtime is missing".to_owned() })?;
    let script = format!(
        "#!/bin/sh\n\
         # Debian's script names /usr/lib/erlang; this one finds the tree that it lies in.\n\
         ROOTDIR=$(CDPATH= cd -- \"$(dirname -- \"$(readlink -f -- \"$0\")\")/..\" && pwd) || exit 1\n\
         BINDIR=$ROOTDIR/{runtime}/bin\n\
         EMU=beam\n\
         PROGNAME=erl\n\
         export ROOTDIR BINDIR EMU PROGNAME\n\
         exec \"$BINDIR/erlexec\" \"$@\"\n"
    );
    let path = erlang.join("bin/erl");
    fs::write(&path, script).map_err(io("write", &path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(io("write", &path))
}

/// Loads the crypto library too: it is the one that needs a library of the machine's (OpenSSL).
fn check_erlang(installation: &Installation, work: &Path) -> Result<(), InstallError> {
    let mut command = Command::new(installation.erlang.join("erl"));
    command
        .args(["-noshell", "-boot", "start_clean", "-eval"])
        .arg("ok = crypto:start(), halt(0).")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", work)
        .env("ERL_CRASH_DUMP", "/dev/null")
        .current_dir(work);
    match command::run(&mut command, CHECK_LIMIT) {
        Ok(_) => Ok(()),
        Err(CommandError::Failed { output, .. }) => Err(InstallError::Broken { reason: output }),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_rabbitmqs_scripts_cannot_take_is_refused_with_the_way_out() {
        for dir in ["/tmp/my projects", "/tmp/a;b", "/tmp/$x", "/tmp/a'b"] {
            let error = ensure_in(dir);
            assert!(error.contains("LONGSHORE_CACHE") && error.contains(locate::INSTALL_LINE), "{error}");
        }
    }

    fn ensure_in(dir: &str) -> String {
        check_path(Path::new(dir)).unwrap_err().to_string()
    }

    #[test]
    fn a_tree_without_its_marker_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(SUBDIR).join(ROOT);
        for name in [
            "usr/lib/rabbitmq/bin/rabbitmq-server",
            "usr/lib/rabbitmq/bin/rabbitmqctl",
            "usr/lib/erlang/bin/erl",
            "usr/lib/erlang/bin/epmd",
        ] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(unpacked(dir.path()), None);
        fs::write(root.join(COMPLETE), "").unwrap();
        assert!(unpacked(dir.path()).is_some());
    }

    #[test]
    fn leftovers_of_killed_installations_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("unfinished-1/root")).unwrap();
        fs::create_dir_all(dir.path().join(ROOT)).unwrap();
        remove_unfinished(dir.path());
        assert!(!dir.path().join("unfinished-1").exists());
        assert!(dir.path().join(ROOT).exists());
    }
}
