//! Why the server could not be asked, or what it answered instead of what was asked for.

use std::io;
use std::path::PathBuf;

use server::api::{AccessError, TokenError};
use server::views::ErrorView;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::HomeError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There is no home folder to look in.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The file that the server writes cannot be used.
    #[error("it is not known where the server is")]
    NoAccess {
        /// The file.
        path: PathBuf,
        /// Why.
        source: AccessError,
    },
    /// Where the server is was said, and nothing opens it.
    #[error("there is no token for the server at {url}")]
    NoToken {
        /// Its address.
        url: String,
    },
    /// The address cannot be used.
    #[error("`{url}` is not the address of a server: expected http://HOST:PORT")]
    BadUrl {
        /// The address, cut to a printable length.
        url: String,
    },
    /// The token file cannot be read.
    #[error("cannot read the token file {}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token file holds something else.
    #[error("{} holds no token", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TokenError,
    },
    /// The server was not reached, or was lost on the way.
    #[error("the server at {url} cannot be reached")]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        source: ureq::Error,
    },
    /// What answers is not our server, or of another version.
    #[error("what answers at {url} is not a Longshore server of this version: {why}")]
    Foreign {
        /// Its address.
        url: String,
        /// How that shows.
        why: String,
    },
    /// The server refused.
    #[error("{}", view.error)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        view: Box<ErrorView>,
    },
}

impl ClientError {
    /// An error of the way there.
    pub(super) fn transport(url: &str, error: ureq::Error) -> Self {
        let url = url.to_owned();
        match error {
            ureq::Error::BodyExceedsLimit(limit) => {
                Self::Foreign { url, why: format!("its answer is larger than {limit} bytes") }
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Self::BadUrl { url },
            source => Self::Unreachable { url, source },
        }
    }

    /// Whether the request surely never arrived: nobody listens there.
    pub(crate) fn never_arrived(&self) -> bool {
        let refused = |error: &ureq::Error| match error {
            ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        };
        matches!(self, Self::Unreachable { source, .. } if refused(source))
    }

    /// Whether asking again may help: the server was away, or cannot serve at present.
    pub(crate) const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            // A full disk is mended by a person.
            Self::Refused { status, .. } => *status >= 500 && *status != 507,
            // The file is missing for a moment while a server is set up anew.
            Self::NoAccess { source, .. } => matches!(source, AccessError::Read { .. }),
            Self::Home(_)
            | Self::NoToken { .. }
            | Self::BadUrl { .. }
            | Self::TokenFile { .. }
            | Self::Token { .. }
            | Self::Foreign { .. } => false,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        const NOT_ASKED: &str = "the server was not asked; nothing was changed";
        let start = "start it with `longshore server run` or `longshore dev`";
        match &error {
            ClientError::Home(_) => match error {
                ClientError::Home(error) => error.into(),
                error => Self::new(Exit::Config, &error, NOT_ASKED, ""),
            },
            ClientError::NoAccess { source: AccessError::Read { source, .. }, .. }
                if source.kind() == io::ErrorKind::NotFound =>
            {
                let next = format!("{start}, or say where it is: --dir DIR, or --server URL with --token-file FILE");
                Self::new(Exit::Unreachable, &error, NOT_ASKED, next)
            }
            ClientError::NoAccess { source: AccessError::Read { source, .. }, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Self::new(
                    Exit::NotAllowed,
                    &error,
                    NOT_ASKED,
                    "run this as the server's user, or give --token-file FILE",
                )
            }
            ClientError::NoAccess { source: AccessError::Exposed { path, .. }, .. } => {
                let next =
                    format!("chmod 600 {}, then restart the server: its token may be known to others", path.display());
                Self::new(Exit::Config, &error, NOT_ASKED, next)
            }
            ClientError::NoAccess { .. } => {
                Self::new(Exit::Config, &error, NOT_ASKED, "restart the server: it writes the file anew")
            }
            ClientError::NoToken { .. } => {
                let next = "give --token-file FILE or LONGSHORE_TOKEN_FILE: a file with the token of the server's server/api.json";
                Self::new(Exit::Config, &error, NOT_ASKED, next)
            }
            ClientError::BadUrl { .. } => {
                Self::new(Exit::Config, &error, NOT_ASKED, "write for example --server http://127.0.0.1:7766")
            }
            ClientError::TokenFile { .. } | ClientError::Token { .. } => {
                let next = "give a file with nothing in it but the value of `token` from the server's server/api.json";
                Self::new(Exit::Config, &error, NOT_ASKED, next)
            }
            ClientError::Unreachable { .. } => {
                let state = "jobs that were taken go on at the agents";
                Self::new(Exit::Unreachable, &error, state, format!("{start}, or check --server and --dir"))
            }
            ClientError::Foreign { .. } => {
                let next = "check --server; `longshore version` shows both versions";
                Self::new(Exit::Unreachable, &error, "it is not known whether anything was changed", next)
            }
            ClientError::Refused { status, view } => {
                let exit = match status {
                    401 | 403 => Exit::NotAllowed,
                    429 | 507 => Exit::Failed,
                    500.. => Exit::Unreachable,
                    _ => Exit::Usage,
                };
                Self { exit, view: view.clone(), source: None }
            }
        }
    }
}
