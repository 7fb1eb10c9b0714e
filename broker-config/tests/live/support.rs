//! What every live test needs: an installation and a node in a directory of its own.

use std::path::PathBuf;
use std::sync::OnceLock;

use broker_config::node::{CACHE_ENV, Installation, Node, NodeOptions, ensure};
use tempfile::TempDir;

/// A test by name.
pub(crate) type Test = (&'static str, fn());

/// The workspace's cache, unless the environment names another one.
pub(crate) fn cache() -> PathBuf {
    match std::env::var_os(CACHE_ENV) {
        Some(dir) => dir.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache"),
    }
}

pub(crate) fn installation() -> Installation {
    static FOUND: OnceLock<Installation> = OnceLock::new();
    FOUND.get_or_init(|| ensure(&cache(), &mut |step| eprintln!("{step}")).unwrap_or_else(|e| panic!("{e}"))).clone()
}

pub(crate) fn started(options: NodeOptions) -> (TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::create(&dir.path().join("node"), installation(), options).unwrap();
    node.start().unwrap_or_else(|e| panic!("{e}"));
    (dir, node)
}
