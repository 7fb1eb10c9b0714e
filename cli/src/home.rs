//! The home folder: where everything of this user's Longshore lies when nothing else is said. Only finds it; whoever needs it
//! makes it.

use std::env;
use std::path::{Path, PathBuf};

use messages::EndpointId;

use crate::exit::Exit;
use crate::failure::Failure;

/// The folder that a checkout or a demonstration keeps everything in.
const LOCAL: &str = ".longshore";

/// Why there is no home folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// The environment names none.
    #[error("there is no home folder: neither XDG_DATA_HOME nor HOME is set to an absolute path")]
    NoHome,
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        Self::new(Exit::Config, &error, "nothing was changed", "say where with --dir DIR or LONGSHORE_DIR")
    }
}

/// The home folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// Finds the home folder: the one given, else `./.longshore` if it exists, else the user's data folder.
    ///
    /// # Errors
    /// [`HomeError::NoHome`].
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, HomeError> {
        if let Some(given) = given {
            return Ok(Self(given.to_owned()));
        }
        if Path::new(LOCAL).is_dir() {
            return Ok(Self(PathBuf::from(LOCAL)));
        }
        Self::of_user(env::var_os("XDG_DATA_HOME").map(PathBuf::from), env::var_os("HOME").map(PathBuf::from))
    }

    fn of_user(data: Option<PathBuf>, home: Option<PathBuf>) -> Result<Self, HomeError> {
        let home = home.filter(|home| home.is_absolute()).map(|home| home.join(".local/share"));
        // A relative XDG_DATA_HOME is to be ignored, says its specification.
        let base = data.filter(|data| data.is_absolute()).or(home).ok_or(HomeError::NoHome)?;
        Ok(Self(base.join("longshore")))
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the server writes how to reach it.
    pub(crate) fn access_file(&self) -> PathBuf {
        self.server_dir().join(server::ACCESS_FILE)
    }

    /// The folder of the server.
    pub(crate) fn server_dir(&self) -> PathBuf {
        self.0.join("server")
    }

    /// The folder of an endpoint.
    pub(crate) fn endpoint_dir(&self, endpoint: &EndpointId) -> PathBuf {
        match endpoint {
            EndpointId::Server => self.server_dir(),
            EndpointId::Agent(name) => self.0.join("agents").join(name.as_str()),
        }
    }

    /// The folder of the private broker.
    pub(crate) fn broker_dir(&self) -> PathBuf {
        self.0.join("broker")
    }

    /// Where the configuration is.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.0.join("config.toml")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_data_folder_of_the_user_is_home() {
        let of = |data: &str, home: &str| {
            Home::of_user(Some(data.into()), Some(home.into())).map(|home| home.path().to_owned()).ok()
        };
        assert_eq!(of("/data", "/home/a"), Some("/data/longshore".into()));
        assert_eq!(of("data", "/home/a"), Some("/home/a/.local/share/longshore".into()));
        assert_eq!(of("", ""), None);
        assert_eq!(Home::find(Some(Path::new("x"))).unwrap().access_file(), Path::new("x/server/api.json"));
    }
}
