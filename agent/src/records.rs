//! What the agent keeps of a run: rows of its journal. One holds what is to be done and never changes; one, small, how far that
//! has come, and is changed together with every report about it; one, if there is anything, what was ordered of it. After a
//! restart they say how far the run had come; what became of a step that had begun is read from its attempt's files.

use std::collections::BTreeMap;

use journal::{Change, Journal, ReadError, put_app};
use messages::{DecodeError, MessageId, RunEnd, RunId, RunStart, Seq, StepId, StepSpec, from_msgpack, to_msgpack};
use serde::{Deserialize, Serialize};

use crate::clock::RunClock;
use crate::control::Orders;

/// What the names of rows begin with that hold what is to be done.
const STARTS: &[u8] = b"start/";
/// What the names of rows begin with that hold how far it has come.
const RUNS: &[u8] = b"run/";
/// What the names of rows begin with that hold what was ordered of it.
const ORDERS: &[u8] = b"order/";

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRecord {
    /// What is to be done.
    pub(crate) start: RunStart,
    /// How far it has come.
    pub(crate) progress: Progress,
    /// What was ordered of it, as far as an earlier process knew.
    pub(crate) orders: Orders,
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The run.
    pub(crate) run: RunId,
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
    /// What is known of the attempt under way, when that is not enough to go on: the run waits for a person's decision.
    #[serde(default)]
    pub(crate) undecided: Option<String>,
    /// Whether the server has all of its logs.
    pub(crate) logs_done: bool,
    /// The agent's journal was lost or restored since the run was sent: it may have come further than this row says.
    #[serde(default)]
    pub(crate) doubtful: bool,
    /// How often the server had found this agent's journal to have lost something, when this was last looked at.
    #[serde(default)]
    pub(crate) losses: u32,
    /// What happened at the step that is under way, besides its attempts.
    #[serde(default)]
    pub(crate) at: AtStep,
    /// The first step that failed.
    #[serde(default)]
    pub(crate) failed: Option<StepId>,
    /// It was cancelled for that reason, and what ran then has been ended.
    #[serde(default)]
    pub(crate) cancelled: Option<String>,
    /// Its time is over, and what ran then has been ended.
    #[serde(default)]
    pub(crate) timed_out: bool,
    /// The time that it has taken, if that is limited.
    #[serde(default)]
    pub(crate) clock: Option<RunClock>,
    /// What its steps hand on, by step and name.
    #[serde(default)]
    pub(crate) outputs: BTreeMap<StepId, BTreeMap<String, String>>,
    /// Bytes of its folder when it was over.
    #[serde(default)]
    pub(crate) folder_bytes: u64,
}

/// What happened at the step that is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AtStep {
    /// Further attempts after known failures.
    #[serde(default)]
    pub(crate) retries: u32,
    /// Further attempts after unknown outcomes, begun by themselves.
    #[serde(default)]
    pub(crate) resumes: u32,
    /// The last attempt failed, and another is begun after so many milliseconds.
    #[serde(default)]
    pub(crate) retry_in_ms: Option<u64>,
}

/// Why the runs cannot be read from the journal.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The journal refused.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// A run's row cannot be read.
    #[error("a run's row cannot be read; was it written by a later version?")]
    Row(#[from] DecodeError),
    /// The endpoint does not take changes.
    #[error(transparent)]
    Endpoint(#[from] link::SubmitError),
    /// Only one of a run's two rows is there, although they are written and removed together.
    #[error("half of the record of run {run} is missing")]
    Half {
        /// The run.
        run: RunId,
    },
}

impl RunRecord {
    pub(crate) fn new(start: RunStart, seq: Seq, message: MessageId, taken_ms: u64) -> Self {
        let run = start.run;
        let outputs = start.earlier.as_ref().map(|earlier| earlier.outputs.clone()).unwrap_or_default();
        let progress = Progress {
            run,
            seq,
            message,
            taken_ms,
            step: 0,
            attempts: Vec::new(),
            end: None,
            undecided: None,
            logs_done: false,
            doubtful: false,
            losses: 0,
            at: AtStep::default(),
            failed: None,
            cancelled: None,
            timed_out: false,
            clock: None,
            outputs,
            folder_bytes: 0,
        };
        Self { start, progress, orders: Orders::default() }
    }

    /// The step that is next or under way; nothing when all are done.
    pub(crate) fn spec(&self) -> Option<&StepSpec> {
        self.start.steps.get(self.progress.step)
    }

    /// The attempt under way at that step, from 1; 0 when it has not begun.
    pub(crate) fn attempt(&self) -> u32 {
        self.progress.attempts.get(self.progress.step).copied().unwrap_or(0)
    }

    /// Notes that another attempt at the step is begun.
    pub(crate) fn begin(&mut self) {
        let progress = &mut self.progress;
        // Steps before it that were not run have none.
        progress.attempts.resize(progress.step + 1, 0);
        if let Some(attempt) = progress.attempts.last_mut() {
            *attempt += 1;
        }
    }

    /// Every attempt that was begun: the step, and the attempt at it.
    pub(crate) fn begun(&self) -> impl Iterator<Item = (&StepSpec, u32)> {
        let steps = self.start.steps.iter().zip(&self.progress.attempts);
        steps.flat_map(|(step, attempts)| (1..=*attempts).map(move |attempt| (step, attempt)))
    }

    /// Both rows, for a run that is taken.
    pub(crate) fn rows(&self) -> [Change; 2] {
        [put_app(key(STARTS, self.start.run), encode(&self.start)), self.progress_row()]
    }

    /// The row that says how far the run has come.
    pub(crate) fn progress_row(&self) -> Change {
        put_app(key(RUNS, self.start.run), encode(&self.progress))
    }

    /// The row that says what was ordered of a run.
    pub(crate) fn orders_row(run: RunId, orders: &Orders) -> Change {
        put_app(key(ORDERS, run), encode(orders))
    }

    /// Removes its rows.
    pub(crate) fn delete(run: RunId) -> [Change; 3] {
        [STARTS, RUNS, ORDERS].map(|prefix| Change::DeleteApp(key(prefix, run)))
    }

    /// Reads every run, in the order in which they came.
    pub(crate) fn load(journal: &Journal) -> Result<Vec<Self>, ResumeError> {
        let (mut starts, mut progress, mut failure) = (BTreeMap::new(), Vec::new(), None);
        journal.app_rows(STARTS, &mut |_, bytes| match from_msgpack::<RunStart>(bytes) {
            Ok(start) => drop(starts.insert(start.run, start)),
            Err(error) => failure = Some(error),
        })?;
        journal.app_rows(RUNS, &mut |_, bytes| match from_msgpack::<Progress>(bytes) {
            Ok(row) => progress.push(row),
            Err(error) => failure = Some(error),
        })?;
        let mut orders = BTreeMap::new();
        journal.app_rows(ORDERS, &mut |name, bytes| match from_msgpack::<Orders>(bytes) {
            Ok(row) => drop(orders.insert(name.to_vec(), row)),
            Err(error) => failure = Some(error),
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        progress.sort_by_key(|row: &Progress| row.seq);
        let mut records = Vec::with_capacity(progress.len());
        for progress in progress {
            let run = progress.run;
            let start = starts.remove(&run).ok_or(ResumeError::Half { run })?;
            let orders = orders.remove(&key(ORDERS, run)).unwrap_or_default();
            records.push(Self { start, progress, orders });
        }
        match starts.into_keys().next() {
            Some(run) => Err(ResumeError::Half { run }),
            None => Ok(records),
        }
    }
}

fn key(prefix: &[u8], run: RunId) -> Vec<u8> {
    [prefix, run.uuid().as_bytes()].concat()
}

pub(crate) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    to_msgpack(row).expect("plain structs of text and numbers always encode")
}
