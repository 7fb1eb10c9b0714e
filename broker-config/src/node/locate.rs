//! Finds a RabbitMQ to run: an installed one, else one that was unpacked into the cache.
//!
//! Looking changes nothing. The wrapper that Debian puts on the PATH is never used: it insists on root and on the
//! system's own directories.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::install;

/// The environment variable that replaces `.cache` as the cache directory.
pub const CACHE_ENV: &str = "LONGSHORE_CACHE";

/// What to type when nothing else works.
pub const INSTALL_LINE: &str = "sudo apt-get install rabbitmq-server";

/// Where Debian's package puts the real start script.
const DEBIAN_SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Where Erlang is when it is installed but not on the PATH.
const DEBIAN_ERLANG: &str = "/usr/lib/erlang/bin";
/// Debian's wrapper; the real script is beside it.
const WRAPPER: &str = "rabbitmq-script-wrapper";

/// Where an installation came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The machine's own.
    Installed,
    /// Debian's packages, unpacked into a cache directory.
    Unpacked,
}

/// A RabbitMQ that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Where it came from.
    pub origin: Origin,
    /// RabbitMQ's version, such as `3.10.8`, where its directory tells it.
    pub version: Option<String>,
    /// The start script.
    pub(crate) server: PathBuf,
    /// The directory that holds `erl` and `epmd`.
    pub(crate) erlang: PathBuf,
}

impl Installation {
    /// The start script, for people.
    #[must_use]
    pub fn server(&self) -> &Path {
        &self.server
    }

    /// From a start script and Erlang's directory, if both are complete.
    pub(crate) fn from_parts(origin: Origin, server: &Path, erlang: &Path) -> Option<Self> {
        let server = fs::canonicalize(server).ok()?;
        let erlang = erlang.to_owned();
        let complete = server.is_file()
            && server.with_file_name("rabbitmqctl").exists()
            && erlang.join("erl").exists()
            && erlang.join("epmd").exists();
        // The script lies in .../rabbitmq_server-<version>/sbin/.
        let version = server
            .ancestors()
            .filter_map(|dir| dir.file_name()?.to_str()?.strip_prefix("rabbitmq_server-"))
            .next()
            .map(str::to_owned);
        complete.then_some(Self { origin, version, server, erlang })
    }
}

/// The cache directory: `LONGSHORE_CACHE`, else `.cache` under the current directory.
#[must_use]
pub fn default_cache() -> PathBuf {
    match std::env::var_os(CACHE_ENV) {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(".cache"),
    }
}

/// An installed RabbitMQ, else an unpacked one under `cache`, else `None`.
#[must_use]
pub fn locate(cache: &Path) -> Option<Installation> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_installed(&path).or_else(|| find_unpacked(cache))
}

/// A RabbitMQ in Debian's usual place or on a search path such as that of `PATH`, with an Erlang to run it.
#[must_use]
pub fn find_installed(path: &OsStr) -> Option<Installation> {
    let on_path = |name: &'static str| {
        std::env::split_paths(path)
            .filter(|dir| dir.is_absolute())
            .map(move |dir| dir.join(name))
            .filter(|file| file.is_file())
    };
    let erlangs: Vec<PathBuf> =
        on_path("erl").filter_map(|erl| Some(erl.parent()?.to_owned())).chain([PathBuf::from(DEBIAN_ERLANG)]).collect();
    on_path("rabbitmq-server")
        .chain([PathBuf::from(DEBIAN_SERVER)])
        .filter_map(|script| real_script(&script))
        .flat_map(|script| erlangs.iter().map(move |erlang| (script.clone(), erlang)))
        .find_map(|(script, erlang)| Installation::from_parts(Origin::Installed, &script, erlang))
}

/// What was unpacked completely under `cache` before.
#[must_use]
pub fn find_unpacked(cache: &Path) -> Option<Installation> {
    install::unpacked(cache)
}

fn real_script(script: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(script).ok()?;
    if real.file_name() == Some(OsStr::new(WRAPPER)) {
        return Some(real.with_file_name("rabbitmq-server"));
    }
    Some(real)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The shape of Debian's package.
    fn debian_tree(root: &Path) {
        let sbin = root.join("lib/rabbitmq/lib/rabbitmq_server-3.10.8/sbin");
        let bin = root.join("lib/rabbitmq/bin");
        for dir in [&sbin, &bin, &root.join("sbin"), &root.join("erlang")] {
            fs::create_dir_all(dir).unwrap();
        }
        for name in ["rabbitmq-server", "rabbitmqctl"] {
            fs::write(sbin.join(name), "").unwrap();
            symlink(sbin.join(name), bin.join(name)).unwrap();
        }
        fs::write(bin.join(WRAPPER), "").unwrap();
        symlink(bin.join(WRAPPER), root.join("sbin/rabbitmq-server")).unwrap();
        fs::write(root.join("erlang/epmd"), "").unwrap();
    }

    #[test]
    fn the_real_script_is_found_behind_debians_wrapper() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        debian_tree(&root);
        fs::write(root.join("erlang/erl"), "").unwrap();
        let path = std::env::join_paths([root.join("sbin"), root.join("erlang")]).unwrap();
        let found = find_installed(&path).unwrap();
        assert!(found.server.ends_with("rabbitmq_server-3.10.8/sbin/rabbitmq-server"), "{found:?}");
        assert_eq!((found.origin, found.version.as_deref()), (Origin::Installed, Some("3.10.8")));
        assert_eq!(found.erlang, root.join("erlang"));
    }

    #[test]
    fn a_rabbitmq_without_erlang_is_not_an_installation() {
        let dir = tempfile::tempdir().unwrap();
        debian_tree(dir.path());
        let server = dir.path().join("lib/rabbitmq/bin/rabbitmq-server");
        let erlang = dir.path().join("erlang");
        assert_eq!(Installation::from_parts(Origin::Installed, &server, &erlang), None);
    }

    #[test]
    fn an_empty_cache_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find_unpacked(dir.path()), None);
    }
}
