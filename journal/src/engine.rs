//! Which engine holds a journal's rows: chosen for a new journal, seen from the files of one that exists. It opens no store.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;

use crate::segments;
use crate::sled_store::is_store as is_sled;

/// An engine on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engine {
    /// sled, the default.
    #[default]
    Sled,
    /// Our own segmented log, [`SegmentStore`](crate::SegmentStore).
    Segments,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Segments];

    /// The engine whose files lie in that folder; nothing where there are none yet. Files of both are said to be of the one
    /// that finds itself first here, and opening then leaves the others alone.
    ///
    /// # Errors
    /// The system's answer, when the folder cannot be read.
    pub(crate) fn of(store: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read_dir(store) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        Ok(if segments::is_store(store)? {
            Some(Self::Segments)
        } else if is_sled(store)? {
            Some(Self::Sled)
        } else {
            None
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sled => "sled",
            Self::Segments => "segments",
        })
    }
}

/// Why a text names no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no journal engine `{name}`; there are sled and segments")]
pub struct EngineNameError {
    /// The text.
    pub name: String,
}

impl FromStr for Engine {
    type Err = EngineNameError;

    fn from_str(name: &str) -> Result<Self, EngineNameError> {
        Self::ALL
            .into_iter()
            .find(|engine| engine.to_string() == name)
            .ok_or_else(|| EngineNameError { name: name.to_owned() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_named_as_they_are_written() {
        for engine in Engine::ALL {
            assert_eq!(engine.to_string().parse(), Ok(engine));
        }
        assert_eq!("Sled".parse::<Engine>().unwrap_err().name, "Sled");
    }
}
