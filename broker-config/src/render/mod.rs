//! The two files a broker reads: `definitions.json` and `rabbitmq.conf`.
//!
//! Rendering is pure and deterministic: the same input gives the same bytes, so a file under version control shows only
//! real changes. Nothing here writes to disk.

mod conf;
mod definitions;
mod password;

pub use conf::{ClientCertificate, ConfError, DefaultLogin, RabbitmqConf, TlsFiles, TlsListener};
pub use definitions::{AgentUser, Definitions, DefinitionsError, MAX_AGENTS, UserLogin};
pub use password::PasswordHash;
