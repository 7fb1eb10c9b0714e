//! What a node remembers in its directory: name, token, ports, login and the pid of the running broker.
//!
//! The file is replaced by rename and readable by its owner only, for it holds the password. Reading never changes it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::NodeError;
use super::options::Login;
use super::ports;

/// The name of the file in a node's directory.
pub(crate) const STATE_FILE: &str = "node.json";
/// Changes when a field changes its meaning.
const SCHEMA: u32 = 1;
/// Far more than the file ever needs.
const MAX_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeState {
    schema: u32,
    /// 128 random bits in hex; every process of the node carries them in its environment.
    pub(crate) token: String,
    /// The Erlang node name. Queue data belongs to it, so it never changes.
    pub(crate) name: String,
    pub(crate) ports: Ports,
    pub(crate) login: Login,
    pub(crate) vhost: String,
    pub(crate) tls: bool,
    pub(crate) management: bool,
    /// The Erlang machine that was started last; it proves nothing without the token.
    pub(crate) pid: Option<u32>,
}

/// Chosen once, kept for the node's whole life.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) amqp: u16,
    pub(crate) tls: u16,
    pub(crate) management: u16,
    pub(crate) epmd: u16,
    pub(crate) distribution: u16,
}

impl NodeState {
    pub(crate) fn fresh(login: Option<Login>, vhost: &str) -> Result<Self, NodeError> {
        let token = random_hex()?;
        let picked = ports::pick(5)?;
        let ports =
            Ports { amqp: picked[0], tls: picked[1], management: picked[2], epmd: picked[3], distribution: picked[4] };
        let login = match login {
            Some(login) => login,
            None => Login { user: "longshore".to_owned(), password: random_hex()? },
        };
        let name = format!("longshore-{}@localhost", &token[..12]);
        let vhost = vhost.to_owned();
        Ok(Self { schema: SCHEMA, token, name, ports, login, vhost, tls: false, management: false, pid: None })
    }

    /// `None` when there is no file.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, NodeError> {
        let path = dir.join(STATE_FILE);
        let io = |source| NodeError::Io { action: "read", path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        let damaged = |reason: String| NodeError::State { path: path.clone(), reason };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(damaged("it is too large".to_owned()));
        }
        let state: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        state.check().map_err(damaged)?;
        Ok(Some(state))
    }

    /// An empty or short token would match processes that are not ours.
    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("its schema is {}, this version knows {SCHEMA}", self.schema));
        }
        let is_token = self.token.len() == 32 && self.token.bytes().all(|b| b.is_ascii_hexdigit());
        let is_name = self.name.split_once('@').is_some_and(|(name, host)| {
            host == "localhost" && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
        if is_token && is_name { Ok(()) } else { Err("its token or name is not valid".to_owned()) }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), NodeError> {
        let mut text = serde_json::to_string_pretty(self).expect("plain strings and numbers always serialise");
        text.push('\n');
        write_private(&dir.join(STATE_FILE), &text)
    }
}

/// Replaces a file as a whole, readable by its owner only.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), NodeError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| NodeError::Io { action: "write", path: path.to_owned(), source })
}

/// 128 bits from the kernel, as 32 hex digits.
fn random_hex() -> Result<String, NodeError> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|source| NodeError::Io { action: "read", path: "/dev/urandom".into(), source })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        assert!(NodeState::read(dir.path()).unwrap().is_none());
        let state = NodeState::fresh(None, "v").unwrap();
        state.write(dir.path()).unwrap();
        let again = NodeState::read(dir.path()).unwrap().unwrap();
        assert_eq!((again.token, again.ports.amqp), (state.token, state.ports.amqp));
        let mode = fs::metadata(dir.path().join(STATE_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_guess() {
        let dir = tempfile::tempdir().unwrap();
        let state = NodeState::fresh(None, "v").unwrap();
        let good = serde_json::to_string(&state).unwrap();
        let cases = [
            "{".to_owned(),
            good.replace(&state.token, ""),
            good.replace("\"schema\":1", "\"schema\":2"),
            good.replace("@localhost", "@elsewhere"),
            "x".repeat(100_000),
        ];
        for text in cases {
            fs::write(dir.path().join(STATE_FILE), &text).unwrap();
            let error = NodeState::read(dir.path()).unwrap_err();
            assert!(matches!(error, NodeError::State { .. }), "{error}");
        }
    }
}
