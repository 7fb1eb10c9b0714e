//! A journal that nobody has open, for reading: from its files, or from a copy where the engine writes while it reads. Beside the rows
//! it looks at the marks, as opening does. It never changes the original.

use std::fs;
use std::io::{Error, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::inspect::{self, Answer, InspectError, Query};
use crate::journal::STORE_DIR;
use crate::marks;
use crate::row::Row;
use crate::segments::SegmentStore;
use crate::sled_store::SledStore;
use crate::state::State;
use crate::store::Store;

/// A stopped journal, opened so that looking at it changes nothing.
pub struct Stopped {
    store: Box<dyn Store>,
    dir: PathBuf,
    _copy: Option<tempfile::TempDir>,
}

impl Stopped {
    /// Opens the journal's files for reading, or a copy of them.
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn open(dir: &Path) -> Result<Self, InspectError> {
        let original = dir.join(STORE_DIR);
        if !original.is_dir() {
            return Err(InspectError::Missing { path: dir.to_owned() });
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| InspectError::Copy { path, source }
        };
        let engine = Engine::of(&original).map_err(failed(&original))?;
        if engine == Some(Engine::Segments) {
            let store = Box::new(SegmentStore::open_read_only(&original)?);
            return Ok(Self { store, dir: dir.to_owned(), _copy: None });
        }
        let copy = tempfile::Builder::new().prefix("longshore-inspect-").tempdir().map_err(failed(dir))?;
        copy_tree(&original, &copy.path().join(STORE_DIR))?;
        let store = SledStore::open(&copy.path().join(STORE_DIR))?;
        Ok(Self { store: Box::new(store), dir: dir.to_owned(), _copy: Some(copy) })
    }

    /// The store, for [`inspect::answer`].
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Answers a question as the running journal would have. What the marks beside the store say is missing is among what
    /// [`Query::Verify`] finds: opening refuses the journal for it.
    ///
    /// # Errors
    /// As for [`inspect::answer`].
    pub fn answer(&self, query: &Query) -> Result<Answer, InspectError> {
        match inspect::answer(self.store(), query)? {
            Answer::Verify(mut report) => {
                for problem in self.missing()? {
                    report.problem(problem);
                }
                Ok(Answer::Verify(report))
            }
            answer => Ok(answer),
        }
    }

    /// How the journal falls short of its marks, in words.
    fn missing(&self) -> Result<Vec<String>, InspectError> {
        let mut state = State::default();
        self.store.scan(&[0], &[0xff], &mut |key, value| {
            // Rows that are damaged or contradict others are reported by whoever verifies them.
            if let Ok(Some(row)) = Row::decode_meaning(key, value, &|_, _| false) {
                let _ = state.put(&row);
            }
            ControlFlow::Continue(())
        })?;
        Ok(match marks::shortfalls(&self.dir, &state) {
            Ok(shortfalls) => shortfalls.iter().map(ToString::to_string).collect(),
            Err(error) => vec![format!("the high-water file or the tail mark {error}")],
        })
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), InspectError> {
    let failed = |source| InspectError::Copy { path: from.to_owned(), source };
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let failed = |source| InspectError::Copy { path: path.clone(), source };
        if entry.file_type().map_err(failed)?.is_dir() {
            copy_tree(&path, &target)?;
        } else if fs::metadata(&path).map_err(failed)?.is_file() {
            fs::copy(&path, target).map_err(failed)?;
        } else {
            // Reading a pipe would wait for whoever writes it.
            return Err(failed(Error::new(ErrorKind::InvalidInput, "neither a file nor a folder")));
        }
    }
    Ok(())
}
