//! What the files of an attempt say: the plan before it, the mark that it began, the record of its end. Plain data; nothing
//! here touches a disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use messages::limits::TEXT_BYTES_MAX;
use messages::{Digest, Program, StepEnd, Usage};
use serde::{Deserialize, Serialize};

use super::boot::BootId;
use super::record_file::LENGTH_BYTES;

/// Bytes of a plan at most. A run has 256 KiB at most, and the environment that the agent adds is a few KiB.
pub const PLAN_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the mark that a step began: an id and three numbers.
pub(crate) const STARTED_BYTES_MAX: usize = 1024;

/// Bytes of the record of an end, which with its length fill two blocks of a disk. Every reason in words fits in.
pub const EXIT_BYTES_MAX: usize = 8 * 1024 - LENGTH_BYTES;

/// Bytes of the reason why a stream, or what the step hands on, could not be kept: one line from the operating system.
pub(crate) const STREAM_ERROR_BYTES_MAX: usize = 256;

/// Everything that a shim needs to know. It reads nothing else: no configuration, no environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What to execute.
    pub program: Program,
    /// The whole environment; nothing is inherited beside it.
    pub env: BTreeMap<String, String>,
    /// The folder to run in: absolute.
    pub dir: PathBuf,
    /// Milliseconds after which the step's process tree is ended; nothing means never. Time in which the machine sleeps
    /// does not count.
    pub timeout_ms: Option<u64>,
    /// Bytes kept of each output stream; what comes beyond is counted, not kept.
    pub output_bytes_max: u64,
    /// The user to run as; nothing for the shim's own.
    #[serde(default)]
    pub run_as: Option<RunAs>,
    /// Bytes that the address space of each of its processes may have; nothing for no limit.
    #[serde(default)]
    pub memory_bytes_max: Option<u64>,
    /// The control group for its processes; nothing where the host has none for it.
    #[serde(default)]
    pub group: Option<GroupPlan>,
    /// Whether what the step hands on is wanted: the file for it is there beforehand then, and synced behind the step.
    #[serde(default)]
    pub hands_on: bool,
}

/// The control group that a step's processes are to be in, and what they may use together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// Its folder, without the number that tells it from the group of a copy of this attempt.
    pub place: PathBuf,
    /// Bytes of memory of all of them together; nothing for no such limit.
    pub memory_bytes: Option<u64>,
    /// Percent of one core for all of them together; nothing for no such limit.
    pub cpu_percent: Option<u32>,
}

/// A user of the system and its group. A step that runs as such has no other groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// The mark that a step began, written and synced before its program is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The boot in which it began.
    pub boot: BootId,
    /// The shim's process id: of use only with the boot and the start below.
    pub pid: i32,
    /// Clock ticks from the boot to the shim's start.
    pub start_ticks: u64,
    /// When, in milliseconds since 1970. Shown to people, decides nothing.
    pub at_ms: u64,
}

/// The record of an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How the program ended.
    pub end: AttemptEnd,
    /// Whether the shim was asked to end the step before the step ended. `end` says what came of it.
    pub cancelled: bool,
    /// When the program was started, in milliseconds since 1970. Shown to people, decides nothing.
    pub started_at_ms: u64,
    /// When it had ended, in milliseconds since 1970. Shown to people, decides nothing.
    pub ended_at_ms: u64,
    /// What became of its standard output.
    pub stdout: StreamEnd,
    /// What became of its standard error.
    pub stderr: StreamEnd,
    /// Why what the step hands on may be lost with the next loss of power, or cannot be read, if so. A step that removed the file hands
    /// on nothing, which is no error. Nothing, too, when a shim of an older version wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<String>,
    /// Whether the step left processes behind. They were not waited for, and not ended unless the step was.
    pub left_processes: bool,
    /// What its processes used, those that it left behind not counted. Nothing when none was started, the system did not say, or a
    /// shim of an older version wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Whether the kernel ended processes of it because together they needed more memory than they may have.
    #[serde(default)]
    pub out_of_memory: bool,
}

impl Exit {
    /// Whether nothing came on either output.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        [&self.stdout, &self.stderr].into_iter().all(|stream| stream.bytes == 0 && stream.cut_bytes == 0)
    }
}

/// How the program of an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptEnd {
    /// With that exit code.
    Exited(i32),
    /// By the signal with that number.
    Signaled(i32),
    /// The step's own time limit ended it.
    TimedOut,
    /// It was never started, with the reason in words. It has had no effect.
    NotStarted(String),
}

impl AttemptEnd {
    /// Never started; a long reason is cut, so that the record keeps its bound.
    #[must_use]
    pub fn not_started(reason: &str) -> Self {
        Self::NotStarted(cut(reason, TEXT_BYTES_MAX))
    }
}

impl From<AttemptEnd> for StepEnd {
    fn from(end: AttemptEnd) -> Self {
        match end {
            AttemptEnd::Exited(code) => Self::Exited(code),
            AttemptEnd::Signaled(signal) => Self::Signaled(signal),
            AttemptEnd::TimedOut => Self::TimedOut,
            AttemptEnd::NotStarted(reason) => Self::NotStarted(reason),
        }
    }
}

/// What became of one output stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// Bytes kept, which is the size of the file.
    pub bytes: u64,
    /// SHA-256 of the bytes kept.
    pub sha256: Digest,
    /// Bytes that came but were not kept: beyond the limit, or after the file could not be written.
    pub cut_bytes: u64,
    /// Whether some process still held the stream open when the shim stopped reading it.
    pub left_open: bool,
    /// Why the file could not be written or synced, if so.
    pub error: Option<String>,
}

impl StreamEnd {
    /// A stream on which nothing came.
    #[must_use]
    pub fn empty() -> Self {
        Self { bytes: 0, sha256: Digest::of(&[]), cut_bytes: 0, left_open: false, error: None }
    }
}

/// The text, cut to at most that many bytes between two characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(cut("a\u{e9}b", 2), "a");
        assert_eq!(cut("a\u{e9}b", 3), "a\u{e9}");
        assert_eq!(cut("ab", 9), "ab");
    }
}
