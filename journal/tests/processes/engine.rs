//! The engines that the tests in processes of their own are run over.

use std::path::Path;

use journal::{Journal, OpenError, Seams, State};

use crate::history::opening;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sled,
}

impl Engine {
    pub(crate) const ALL: [Self; 1] = [Self::Sled];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name() == name)
    }

    pub(crate) fn open(self, dir: &Path) -> Result<(Journal, State), OpenError> {
        self.open_through(dir, Seams::default())
    }

    pub(crate) fn open_through(self, dir: &Path, seams: Seams) -> Result<(Journal, State), OpenError> {
        match self {
            Self::Sled => Journal::open_through(dir, &opening(), seams),
        }
    }
}
