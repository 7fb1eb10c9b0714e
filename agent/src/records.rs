//! What the agent keeps of a run: one row of its journal, changed together with every report about it. After a restart the
//! row says how far the run had come; what became of a step that had begun is read from its attempt's folder.

use messages::{DecodeError, MessageId, RunEnd, RunId, RunStart, Seq, StepSpec, from_msgpack, to_msgpack};
use serde::{Deserialize, Serialize};

/// What the names of run rows begin with.
pub(crate) const RUNS: &[u8] = b"run/";

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// What is to be done.
    pub(crate) start: RunStart,
    /// The place of the message that started it, in the stream from the server.
    pub(crate) seq: Seq,
    /// That message.
    pub(crate) message: MessageId,
    /// When it was taken, in milliseconds since 1970, for people; the place above gives the order.
    pub(crate) taken_ms: u64,
    /// The step that is next or under way, from 0.
    pub(crate) step: usize,
    /// Attempts that were begun, by step. The last entry is of the step that is under way.
    pub(crate) attempts: Vec<u32>,
    /// How it ended.
    pub(crate) end: Option<RunEnd>,
    /// Whether the server has all of its logs.
    pub(crate) logs_done: bool,
}

impl RunRecord {
    pub(crate) fn new(start: RunStart, seq: Seq, message: MessageId, taken_ms: u64) -> Self {
        Self { start, seq, message, taken_ms, step: 0, attempts: Vec::new(), end: None, logs_done: false }
    }

    /// The step that is next or under way; nothing when all are done.
    pub(crate) fn spec(&self) -> Option<&StepSpec> {
        self.start.steps.get(self.step)
    }

    /// The attempt under way at that step, from 1; 0 when it has not begun.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempts.get(self.step).copied().unwrap_or(0)
    }

    /// Notes that another attempt at the step is begun.
    pub(crate) fn begin(&mut self) {
        if self.attempts.len() == self.step {
            self.attempts.push(0);
        }
        if let Some(attempt) = self.attempts.last_mut() {
            *attempt += 1;
        }
    }

    /// Every attempt that was begun: the step, and the attempt at it.
    pub(crate) fn begun(&self) -> impl Iterator<Item = (&StepSpec, u32)> {
        let steps = self.start.steps.iter().zip(&self.attempts);
        steps.flat_map(|(step, attempts)| (1..=*attempts).map(move |attempt| (step, attempt)))
    }

    pub(crate) fn key(run: RunId) -> Vec<u8> {
        [RUNS, run.uuid().as_bytes()].concat()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        to_msgpack(self).expect("plain structs of text and numbers always encode")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        from_msgpack(bytes)
    }
}
