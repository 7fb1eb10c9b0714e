//! Logs on the wire: pieces of files, outside the journaled stream. The receiver is the authority on the offset; whoever
//! sends rewinds to what the receiver says it has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Digest, EndpointId, RunId, StepId};

/// One of the two outputs of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The stream's name, which is also its file's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Names one log file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogKey {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt at it, from 1.
    pub attempt: u32,
    /// Which output.
    pub stream: LogStream,
}

/// A log envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDatagram {
    /// From the agent: bytes of a log.
    Chunk(LogChunk),
    /// From the server: how much of a log it has.
    Mark(LogMark),
}

/// Bytes of one log at one offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// Who sends it.
    pub from: EndpointId,
    /// Which log.
    pub key: LogKey,
    /// Where in the log the bytes begin.
    pub offset: u64,
    /// The bytes, at most [`LOG_CHUNK_BYTES_MAX`](crate::limits::LOG_CHUNK_BYTES_MAX). May be empty with an end.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// CRC32C of the bytes.
    pub crc32c: u32,
    /// Present when the log ends after these bytes.
    pub end: Option<LogEnd>,
}

/// What a finished log amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// Bytes of the whole log.
    pub size: u64,
    /// SHA-256 of the whole log.
    pub sha256: Digest,
    /// Bytes of output that the agent's limit cut off after it; 0 when the log is whole.
    pub cut: u64,
}

/// How much of a log the receiver has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// Which log.
    pub key: LogKey,
    /// Bytes on the receiver's disk: the offset that it expects next.
    pub have: u64,
    /// Nothing more needs sending: the whole log has arrived and its SHA-256 agrees, or nobody wants it any more.
    pub complete: bool,
}
