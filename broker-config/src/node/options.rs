//! How a private node is set up. The defaults suit tests: plain, no plugins, small limits.
//!
//! Nothing here is read by a production broker.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::render::{ClientCertificate, TlsFiles};
use crate::topology::DEFAULT_VHOST;

/// A broker user with its password in clear.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Options of a [`Node`](super::Node).
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The user in the node's URL. `None`: `longshore` with a random password, kept with the node. A node that loads
    /// definitions creates no user by itself: give the login that they contain.
    pub login: Option<Login>,
    /// The virtual host in the node's URL; a blank node creates it.
    pub vhost: String,
    /// The text of a `definitions.json`, loaded at each start (also after a wipe). `None` for a blank node, which then
    /// has the virtual host and the user and nothing else.
    pub definitions: Option<String>,
    /// A TLS listener beside the plain one, on loopback too.
    pub tls: Option<(TlsFiles, ClientCertificate)>,
    /// The management plugin. Off by default: it makes each start slower.
    pub management: bool,
    /// Block publishers above this much memory, in bytes; `None` for 1 GiB.
    pub memory_limit: Option<u64>,
    /// Block publishers below this much free disk, in bytes; `None` for 64 MiB.
    pub disk_free_limit: Option<u64>,
    /// Further lines of `rabbitmq.conf`.
    pub extra: Vec<(String, String)>,
    /// How long a start may take before the node is killed. A start takes about 6 s of CPU time, so a busy machine with
    /// few cores needs room.
    pub start_limit: Duration,
    /// How long a graceful stop may take before the node is killed.
    pub stop_limit: Duration,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            login: None,
            vhost: DEFAULT_VHOST.to_owned(),
            definitions: None,
            tls: None,
            management: false,
            memory_limit: None,
            disk_free_limit: None,
            extra: Vec::new(),
            start_limit: Duration::from_secs(120),
            stop_limit: Duration::from_secs(30),
        }
    }
}
