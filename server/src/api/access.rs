//! How a command line on the same machine finds the API and proves that it may use it: a file that only the server's user can
//! read. The token is never printed and never compared in a way that tells by its time how much of it was right.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Characters of a token: enough that nobody guesses it, and that a header can carry it.
const TOKEN_CHARS: std::ops::RangeInclusive<usize> = 32..=256;
/// Bytes of the access file. It holds one address and one token.
const FILE_BYTES_MAX: u64 = 4 * 1024;

/// Why a text cannot be a token. The text is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Too short or too long.
    #[error("a token has 32 to 256 characters, this has {chars}")]
    Length {
        /// Characters of the text.
        chars: usize,
    },
    /// A character that a header cannot carry.
    #[error("a token holds only visible ASCII characters")]
    Characters,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// The secret that opens the API. Its `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

impl Token {
    /// A fresh token of 256 random bits.
    ///
    /// # Errors
    /// [`TokenError::Random`] when the system gives no random bytes.
    pub fn generate() -> Result<Self, TokenError> {
        let mut bytes = [0_u8; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The token as text, to be sent.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether a text is this token. Looks at every byte whatever it finds; only the length can be told from the time.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), text.as_bytes());
        let differences = own.iter().zip(other).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        own.len() == other.len() && std::hint::black_box(differences) == 0
    }
}

impl TryFrom<String> for Token {
    type Error = TokenError;

    fn try_from(text: String) -> Result<Self, TokenError> {
        if !TOKEN_CHARS.contains(&text.len()) {
            return Err(TokenError::Length { chars: text.chars().count() });
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::Characters);
        }
        Ok(Self(text))
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Where the API is and what opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// The address, for example `http://127.0.0.1:7766`.
    pub url: String,
    /// The token.
    pub token: Token,
}

/// Why an access file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could have read the token.
    #[error("{} can be read by others (mode {mode:o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{} is not an access file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Access {
    /// Reads an access file.
    ///
    /// # Errors
    /// [`AccessError::Read`], [`AccessError::Exposed`] when its group or others have any right to it, and
    /// [`AccessError::Malformed`].
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let read = |source| AccessError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let mode = file.metadata().map_err(read)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(AccessError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(read)?;
        serde_json::from_slice(&text).map_err(|source| AccessError::Malformed { path: path.to_owned(), source })
    }

    /// Writes the access file, readable by its owner only, in one piece: a reader sees the old file or the new one.
    ///
    /// # Errors
    /// [`AccessError::Write`]. Blocks on the disk.
    pub fn write(&self, path: &Path) -> Result<(), AccessError> {
        let write = |source| AccessError::Write { path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| write(error.into()))?;
        let fresh = path.with_extension("json.new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(write(error)),
            Err(_) | Ok(()) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(write)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(write)?;
        fs::rename(&fresh, path).map_err(write)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else_and_does_not_print() {
        let token = Token::generate().unwrap();
        let text = token.reveal().to_owned();
        assert!(token.matches(&text));
        for other in ["", &text[1..], &format!("{text}0"), Token::generate().unwrap().reveal()] {
            assert!(!token.matches(other), "{other}");
        }
        assert!(!format!("{token:?}").contains(&text));
        assert!(Token::try_from("short".to_owned()).is_err());
        assert!(Token::try_from(" ".repeat(40)).is_err());
    }

    #[test]
    fn an_access_file_is_private_and_refused_when_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.json");
        let access = Access { url: "http://127.0.0.1:1".into(), token: Token::generate().unwrap() };
        access.write(&path).unwrap();
        access.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Access::read(&path).unwrap(), access);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Access::read(&path), Err(AccessError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "{\"url\":\"x\",\"token\":\"y\"}").unwrap();
        assert!(matches!(Access::read(&path), Err(AccessError::Malformed { .. })));
        assert!(matches!(Access::read(&folder.path().join("none")), Err(AccessError::Read { .. })));
    }
}
