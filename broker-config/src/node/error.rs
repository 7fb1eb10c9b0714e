//! What can go wrong when installing RabbitMQ and when running a node: one enum each.
//!
//! A message says what happened and what to do; the node's own last log lines are part of it where they explain it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::command::CommandError;
use super::locate::INSTALL_LINE;
use crate::render::ConfError;

/// Why RabbitMQ could not be unpacked. What was there before is unchanged.
#[derive(Debug, Error)]
pub enum InstallError {
    /// A file operation in the cache directory failed.
    #[error("cannot {action} {path} ({source}); set LONGSHORE_CACHE to a directory of yours, or run: {INSTALL_LINE}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// RabbitMQ's start scripts cannot work in such a directory.
    #[error(
        "{path} holds blanks or characters that RabbitMQ's scripts cannot take; set LONGSHORE_CACHE to another directory, or run: {INSTALL_LINE}"
    )]
    Path {
        /// The cache directory.
        path: PathBuf,
    },
    /// One of apt's or dpkg's commands failed.
    #[error("RabbitMQ is not installed and fetching Debian's packages failed: {0}; run: {INSTALL_LINE}")]
    Command(#[from] CommandError),
    /// The package lists know no RabbitMQ, even after an update.
    #[error("RabbitMQ is not installed and the configured package sources do not offer it; run: {INSTALL_LINE}")]
    NotOffered,
    /// The packages were unpacked but lack a file, or Erlang does not run here.
    #[error("the unpacked packages do not work here: {reason}; run: {INSTALL_LINE}")]
    Broken {
        /// What is missing or what Erlang said.
        reason: String,
    },
    /// Another process has been installing for too long.
    #[error("another process has held {path} for more than {} s; end it, then try again", .waited.as_secs())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
}

/// Why an operation on a node failed.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another live process owns this node directory.
    #[error("the broker in {path} belongs to a process that is running; end that one first, or use another directory")]
    InUse {
        /// The node's directory.
        path: PathBuf,
    },
    /// The file that remembers the node cannot be understood.
    #[error("{path} is damaged ({reason}); end any broker started from that directory, then delete the directory")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No free port was found.
    #[error("found no {wanted} free ports on 127.0.0.1")]
    NoPorts {
        /// How many were wanted.
        wanted: usize,
    },
    /// One of the node's ports is taken by something else.
    #[error(
        "port {port} of this node ({purpose}) is taken by another program; end it, or delete {path} to get new ports"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// What the node needs it for.
        purpose: &'static str,
        /// The node's directory.
        path: PathBuf,
    },
    /// The options cannot be written as a configuration.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// It is running already.
    #[error("the broker is running already (pid {pid})")]
    AlreadyRunning {
        /// Its pid.
        pid: u32,
    },
    /// It is not running.
    #[error("the broker is not running; start it first")]
    NotRunning,
    /// The broker ended before it was ready.
    #[error("the broker ended while starting ({status}); its last words:\n{log}")]
    Exited {
        /// How it ended.
        status: String,
        /// The last lines of its logs.
        log: String,
    },
    /// The broker did not answer in time; it has been killed.
    #[error("the broker did not answer within {} s and was killed; its last words:\n{log}", .limit.as_secs())]
    NotReady {
        /// The limit.
        limit: Duration,
        /// The last lines of its logs.
        log: String,
    },
    /// A signal could not be sent.
    #[error("cannot signal the broker (pid {pid}): {source}")]
    Signal {
        /// The process.
        pid: u32,
        /// Why it failed.
        source: io::Error,
    },
    /// A signal had no effect in time.
    #[error("the broker's processes did not {what} within {} s", .limit.as_secs())]
    Stuck {
        /// What they should have done.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// `rabbitmqctl` failed.
    #[error(transparent)]
    Ctl(#[from] CommandError),
}
