//! `longshore-chaos logs`: many steps that write at the same time, over a real broker. Says whether what each wrote is at both ends,
//! byte for byte, what memory every process took for it, how fast it was, and how long a small job took meanwhile. Knows no internals:
//! it compares files and asks `/proc`.

mod memory;
mod source;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use messages::{Digest, Hasher};
use serde::Serialize;
use serde_json::Value;

use crate::live::{ApiError, Fleet, FleetError, FleetOptions, TimedOut, wait_for};
pub use memory::{Peak, Who};

/// How long all of it may take. Only reached when something is broken, or the disk is very slow.
const LIMIT: Duration = Duration::from_secs(1_800);
/// How often a small job is submitted while the others write.
const SMALL_JOBS_MAX: usize = 200;

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to keep everything.
    pub dir: PathBuf,
    /// Steps that write at the same time, each in a run of its own.
    pub steps: u16,
    /// Bytes that each writes.
    pub bytes: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Steps that wrote.
    pub steps: u16,
    /// Bytes that each wrote.
    pub bytes: u64,
    /// Logs whose size and SHA-256 are those of what was written, at the agent and at the server.
    pub equal: u16,
    /// What is wrong with the others.
    pub wrong: Vec<String>,
    /// Seconds until every run had ended.
    pub ended_after: f64,
    /// Seconds until the server had every log.
    pub arrived_after: f64,
    /// Memory of each kind of process.
    pub memory: Vec<Peak>,
    /// Seconds of a small job while nothing else was done.
    pub small_idle: Vec<f64>,
    /// The same while the logs came in.
    pub small_loud: Vec<f64>,
    /// Runs that had ended before all of their log had arrived.
    pub ended_first: usize,
}

impl Report {
    /// Whether every log is whole at both ends.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.equal == self.steps
    }

    /// Megabytes a second, from the first step's start to the last log's arrival.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * f64::from(self.steps) / 1e6 / self.arrived_after
    }

    /// What one kind of process took.
    #[must_use]
    pub fn peak(&self, who: Who) -> Option<&Peak> {
        self.memory.iter().find(|peak| peak.who == who)
    }
}

/// Why it could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum LoudError {
    /// The fleet does not do as it should.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The server does not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Something did not happen.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// A file or folder does not work.
    #[error("a file does not work")]
    Io(#[from] io::Error),
    /// A small job did not succeed.
    #[error("a small job ended as {state}")]
    Small {
        /// How.
        state: String,
    },
}

/// One step that writes.
struct Loud {
    job: String,
    run: String,
    digest: Digest,
}

/// Carries it out.
///
/// # Errors
/// [`LoudError`]
pub fn run(options: &Options, note: &mut dyn FnMut(String)) -> Result<Report, LoudError> {
    let Options { dir, steps, bytes } = options;
    let sources = dir.join("sources");
    fs::create_dir_all(&sources)?;
    let sums = (0..*steps).map(|step| source::write(&sources.join(step.to_string()), u64::from(step), *bytes));
    let sums: Vec<Digest> = sums.collect::<io::Result<_>>()?;
    note(format!("{steps} files of {bytes} bytes are there"));
    let agents = vec!["a1".to_owned()];
    // One slot more, for the small jobs.
    let slots = steps + 1;
    let (queue_type, monitor) = ("quorum".to_owned(), false);
    let fleet =
        Fleet::start(&FleetOptions { dir: dir.clone(), agents, slots, queue_type, monitor, gated: Vec::new() }, note)?;
    let small_idle: Vec<f64> = (0..5).map(|_| small(&fleet)).collect::<Result<_, _>>()?;
    let mut memory = memory::Watch::idle(&fleet)?;
    let began = Instant::now();
    let louds = submit(&fleet, &sources, &sums)?;
    let mut small_loud = Vec::new();
    let mut ended_after = None;
    let mut ended_first = 0;
    wait_for("every log to be at the server", LIMIT, || {
        memory.look(&fleet);
        let arrived = louds.iter().filter(|loud| has_arrived(&fleet, loud, *bytes)).count();
        if ended_after.is_none() {
            let ended = louds.iter().filter(|loud| has_ended(&fleet, loud)).count();
            if ended == louds.len() {
                (ended_after, ended_first) = (Some(began.elapsed()), ended - arrived);
                note(format!("every run has ended, {arrived} logs have arrived"));
            }
        }
        if arrived < louds.len() && small_loud.len() < SMALL_JOBS_MAX {
            small_loud.push(small(&fleet));
        }
        (arrived == louds.len() && ended_after.is_some()).then_some(())
    })?;
    let arrived_after = began.elapsed().as_secs_f64();
    let small_loud = small_loud.into_iter().collect::<Result<_, _>>()?;
    note("every log has arrived; comparing".to_owned());
    let memory = memory.peaks(&fleet);
    let wrong: Vec<String> = louds.iter().filter_map(|loud| compare(&fleet, loud, *bytes).err()).collect();
    let equal = u16::try_from(louds.len() - wrong.len()).unwrap_or(u16::MAX);
    let ended_after = ended_after.map_or(arrived_after, |after| after.as_secs_f64());
    let (steps, bytes) = (*steps, *bytes);
    Ok(Report { steps, bytes, equal, wrong, ended_after, arrived_after, memory, small_idle, small_loud, ended_first })
}

fn submit(fleet: &Fleet, sources: &Path, sums: &[Digest]) -> Result<Vec<Loud>, LoudError> {
    let mut louds = Vec::new();
    for (step, digest) in sums.iter().enumerate() {
        let job = uuid::Uuid::now_v7().to_string();
        let source = sources.join(step.to_string());
        let script = format!("exec cat '{}'", source.display());
        let definition = format!(
            "name = \"loud\"\ntarget = {{ all = true }}\n[[step]]\nid = \"one\"\neffect = \"read-only\"\nrun = '''{script}'''\n"
        );
        fleet.api().submit(&job, &definition)?;
        louds.push(Loud { job, run: String::new(), digest: *digest });
    }
    for loud in &mut louds {
        let view = fleet.api().get(&format!("/v1/jobs/{}", loud.job))?;
        view["runs"][0]["id"].as_str().unwrap_or_default().clone_into(&mut loud.run);
    }
    Ok(louds)
}

/// Seconds from submitting a job that does nothing to its end.
fn small(fleet: &Fleet) -> Result<f64, LoudError> {
    let (began, job) = (Instant::now(), uuid::Uuid::now_v7().to_string());
    let definition = "name = \"small\"\ntarget = { all = true }\n[[step]]\nid = \"one\"\nrun = 'true'\n";
    fleet.api().submit(&job, definition)?;
    let ended = |state: &String| !matches!(state.as_str(), "waiting" | "running");
    let state = wait_for("a small job", LIMIT, || fleet.api().job_state(&job).filter(ended))?;
    if state == "succeeded" { Ok(began.elapsed().as_secs_f64()) } else { Err(LoudError::Small { state }) }
}

fn has_ended(fleet: &Fleet, loud: &Loud) -> bool {
    fleet.api().job_state(&loud.job).is_some_and(|state| state == "succeeded")
}

/// Whether the server calls the log complete: asked for what would be behind it.
fn has_arrived(fleet: &Fleet, loud: &Loud, bytes: u64) -> bool {
    let Loud { job, run, .. } = loud;
    let path = format!("/v1/jobs/{job}/logs?run={run}&step=one&stream=stdout&offset={bytes}");
    fleet.api().text(&path).is_ok_and(|(text, complete)| complete && text.is_empty())
}

/// Compares what a step wrote with what is kept of it at both ends, and with the record of the step's end.
fn compare(fleet: &Fleet, loud: &Loud, bytes: u64) -> Result<(), String> {
    let Loud { run, digest, .. } = loud;
    let near = fleet.endpoint_dir("a1").join(format!("runs/{run}/one.1.stdout"));
    let far = fleet.endpoint_dir("server").join(format!("logs/{run}/one.1.stdout"));
    for (end, path) in [("the agent", &near), ("the server", &far)] {
        let (size, found) = sum(path).map_err(|error| format!("{run}: {}: {error}", path.display()))?;
        if (size, found) != (bytes, *digest) {
            return Err(format!(
                "{run}: {end} has {size} bytes with SHA-256 {found}, written were {bytes} with {digest}"
            ));
        }
    }
    let note = fs::read(far.with_file_name("one.1.stdout.end")).map_err(|error| format!("{run}: {error}"))?;
    let note: Value = serde_json::from_slice(&note).map_err(|error| format!("{run}: {error}"))?;
    let said = (note["size"].as_u64(), note["sha256"].as_str(), note["cut"].as_u64());
    if said != (Some(bytes), Some(digest.to_string().as_str()), Some(0)) {
        return Err(format!("{run}: the agent recorded {note}, written were {bytes} with {digest}"));
    }
    Ok(())
}

fn sum(path: &Path) -> io::Result<(u64, Digest)> {
    let (mut file, mut hasher, mut size) = (fs::File::open(path)?, Hasher::default(), 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok((size, hasher.finish())),
            read => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}
