//! A matrix with real processes: what is killed with -9, how far a step has come, and its declared effect. What becomes of each step
//! must be what the server's table says, in the server's books, in the marks that the step left, and in the records of its attempts.
//! It tells apart phases that last microseconds by stopping processes, never by sleeping.

mod cell;
mod decide;
mod proc;
mod report;
mod round;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::live::{ApiError, Fleet, FleetError, FleetOptions, TimedOut};
pub use table::{Decision, Effect, Fate, Outcome, Phase, Table, Victim, decided, expected};

/// The only agent.
const AGENT: &str = "a1";
/// How long anything may take. Only reached when something is broken.
const LIMIT: Duration = Duration::from_secs(120);
/// Rounds of one victim until every step is caught in its phase. A shim waits half a second at its mark, a machine may sleep longer.
const ROUNDS_MAX: usize = 5;

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// What to kill, one after the other.
    pub victims: Vec<Victim>,
}

/// Why the matrix could not be carried out. It says nothing about what becomes of a step.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The fleet does not do as it should.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// Something did not happen.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The API does not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The operating system refused.
    #[error("a file or process does not work")]
    Io(#[from] std::io::Error),
    /// The broker refused.
    #[error("the broker does not work")]
    Node(#[from] broker_config::node::NodeError),
    /// A step did not begin, such as on a full disk.
    #[error("the agent begins nothing: {why}")]
    NotBegun {
        /// What the server says.
        why: String,
        /// How long it was waited for.
        source: TimedOut,
    },
    /// The server's table cannot be had.
    #[error("the table of outages: {0}")]
    Table(String),
    /// The agent does not run.
    #[error("the agent does not run")]
    NoAgent,
    /// A decision was not taken.
    #[error("a decision was not taken: {0}")]
    Decision(String),
    /// A step could not be held where it should have been.
    #[error("a step that should have been held in the phase `{}` was not in it", .0.as_str())]
    Missed(Phase),
}

/// One cell of the matrix.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// How far the step had come.
    pub phase: Phase,
    /// What was killed.
    pub victim: Victim,
    /// The declared effect.
    pub effect: Effect,
    /// What the table says.
    pub fate: Fate,
    /// What a person then said. Without it the cell is judged before anybody did.
    pub decision: Option<Decision>,
    /// What must come of it.
    pub expected: Outcome,
    /// What came of it.
    pub found: Outcome,
    /// Whether that is the same.
    pub ok: bool,
    /// The job's id.
    pub job: String,
}

/// Every cell.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Phase by phase, victim by victim.
    pub cells: Vec<Judged>,
}

impl Report {
    /// Whether there are cells and none is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        !self.cells.is_empty() && self.cells.iter().all(|cell| cell.ok)
    }
}

/// Starts a broker, a server and an agent, and kills each victim in turn.
///
/// # Errors
/// [`WorkError`] when the matrix could not be carried out.
pub fn run(options: &Options, note: &mut dyn FnMut(String)) -> Result<Report, WorkError> {
    let fleet = FleetOptions {
        dir: options.dir.clone(),
        agents: vec![AGENT.to_owned()],
        slots: round::SLOTS,
        queue_type: "quorum".to_owned(),
        monitor: true,
        gated: Vec::new(),
    };
    let mut fleet = Fleet::start(&fleet, note)?;
    let table = Table::read(fleet.dir())?;
    let mut cells = Vec::new();
    for victim in &options.victims {
        let judged = caught(&mut fleet, *victim, &table, note)?;
        let right = judged.iter().filter(|cell| cell.ok).count();
        note(format!("{} killed: {right} of {} cells as the table says", victim.as_str(), judged.len()));
        cells.extend(judged);
    }
    cells.sort_by_key(|cell| (cell.phase, cell.victim, cell.effect, cell.decision));
    Ok(Report { cells })
}

/// One victim's round, and another one where a step got past the phase in which it was to be held. Nothing was killed then.
fn caught(
    fleet: &mut Fleet,
    victim: Victim,
    table: &Table,
    note: &mut dyn FnMut(String),
) -> Result<Vec<Judged>, WorkError> {
    for _ in 1..ROUNDS_MAX {
        match round::run(fleet, victim, table) {
            Err(error @ WorkError::Missed(_)) => note(format!("{error}; before anything was killed, so once more")),
            other => return other,
        }
    }
    round::run(fleet, victim, table)
}
