//! A private RabbitMQ node for development and tests.
//!
//! [`locate`] finds an installed RabbitMQ or one that was unpacked before, [`ensure`] unpacks Debian's packages without
//! root when there is none, and [`Node`] runs it with directories, ports and a node name of its own. Everything is
//! synchronous; asynchronous callers use a blocking thread.
//!
//! Another broker on the machine is never touched: a process is signalled only after its environment has shown this
//! node's random token, through a pidfd, never by a bare pid or by name. Linux only.

mod command;
mod error;
mod install;
mod launch;
mod locate;
mod options;
mod packages;
mod ports;
mod process;
mod runner;
mod state;

pub use error::{InstallError, NodeError};
pub use install::{Progress, ensure, unpack};
pub use locate::{CACHE_ENV, INSTALL_LINE, Installation, Origin, default_cache, find_installed, find_unpacked, locate};
pub use options::{Login, NodeOptions};
pub use runner::{Node, NodeInfo, Stopped};
