//! Where tests reach between a journal and its disk: around the store, before each step of writing the high-water file, and
//! with other sizes. A running endpoint has nothing there.

use std::io;
use std::sync::Arc;

use crate::segments;
use crate::store::Store;

/// A step of writing the high-water file, named before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkStep {
    /// Creating the new file beside the old one.
    Create,
    /// Writing its content.
    Write,
    /// Syncing it.
    Sync,
    /// Renaming it over the old one.
    Rename,
    /// Syncing the folder.
    SyncFolder,
}

/// What is asked before each step of writing the high-water file; its error takes the step's place.
pub type BeforeMark = dyn Fn(MarkStep) -> io::Result<()> + Send + Sync;

/// Gets the store that was just opened, and gives the one to be used.
pub type WrapStore = dyn FnOnce(Arc<dyn Store>) -> Arc<dyn Store>;

/// What is put between a journal and its disk.
pub struct Seams {
    /// Puts something around the store.
    pub store: Box<WrapStore>,
    /// Asked before each step of writing the high-water file.
    pub mark: Arc<BeforeMark>,
    /// Sizes of the segmented log, where that is the engine: small ones let a short history go through many segments.
    pub segments: segments::Options,
}

impl Default for Seams {
    fn default() -> Self {
        Self { store: Box::new(|store| store), mark: Arc::new(|_| Ok(())), segments: segments::Options::default() }
    }
}
