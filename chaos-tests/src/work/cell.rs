//! One step of the matrix: its script, the files with which it is steered and in which it leaves its marks, and what can be seen of
//! it from outside. Kills nothing.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::table::{Effect, Outcome, Phase, Victim};
use super::{AGENT, WorkError};
use crate::live::Fleet;

/// Steps that nobody lets go on end by themselves, should this program be killed.
const TIMEOUT: &str = "10m";
/// How the name ends of the file in which the course of an attempt is kept, and where in it the mark of the beginning and the record of the end are.
const RECORD: &str = ".record";
pub(super) const BEGINNING: Range<usize> = 0..4096;
const END: Range<usize> = 4096..12_288;
/// The step's id.
const STEP: &str = "one";

/// A job of one step.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) phase: Phase,
    pub(super) effect: Effect,
    pub(super) job: String,
    dir: PathBuf,
    run: String,
    gate: Option<File>,
}

impl Cell {
    /// Makes its files and submits it.
    pub(super) fn submit(fleet: &Fleet, victim: Victim, phase: Phase, effect: Effect) -> Result<Self, WorkError> {
        let name = format!("{}-{}-{}", victim.as_str(), phase.as_str(), effect.as_str());
        let job = uuid::Uuid::now_v7().to_string();
        let dir = fleet.dir().join("marks").join(format!("{name}-{job}"));
        fs::create_dir_all(&dir)?;
        // A pipe, so that a step waits in the kernel: twenty that look again and again would slow down what is tested.
        let made = Command::new("mkfifo").arg(dir.join("gate")).status()?;
        if !made.success() {
            return Err(io::Error::other("mkfifo failed").into());
        }
        fleet.api().submit(&job, &definition(&name, effect, &dir))?;
        Ok(Self { phase, effect, job, dir, run: String::new(), gate: None })
    }

    /// Looks whether the agent says that it has the run, and takes note of the run's id.
    pub(super) fn is_accepted(&mut self, fleet: &Fleet) -> bool {
        let Ok(job) = fleet.api().get(&format!("/v1/jobs/{}", self.job)) else { return false };
        let run = &job["runs"][0];
        let Some(id) = run["id"].as_str() else { return false };
        id.clone_into(&mut self.run);
        matches!(run["state"].as_str(), Some("accepted" | "running"))
    }

    /// Why its run does not go on, in the server's words; nothing when it has none.
    pub(super) fn reason(&self, fleet: &Fleet) -> String {
        let job = fleet.api().get(&format!("/v1/jobs/{}", self.job)).unwrap_or_default();
        job["runs"][0]["reason"].as_str().unwrap_or("the server says nothing").to_owned()
    }

    /// Lets the step end, now and whenever it is run again.
    pub(super) fn open(&mut self) -> io::Result<()> {
        // Opened for both, it waits for nobody; as long as it is held, no reader waits.
        self.gate = Some(File::options().read(true).write(true).open(self.dir.join("gate"))?);
        Ok(())
    }

    /// How often the program began.
    pub(super) fn executions(&self) -> usize {
        lines(&self.dir.join("began")).len()
    }

    /// The step's own process, once it has begun.
    pub(super) fn leader(&self) -> Option<i32> {
        lines(&self.dir.join("began")).last()?.parse().ok()
    }

    /// The folder of the run, in which the files of its attempts are.
    fn run_dir(&self, fleet: &Fleet) -> PathBuf {
        fleet.endpoint_dir(AGENT).join("runs").join(&self.run)
    }

    /// The record of its first attempt.
    pub(super) fn first(&self, fleet: &Fleet) -> PathBuf {
        record(&self.run_dir(fleet), 1)
    }

    /// Whether its first attempt is marked as begun.
    pub(super) fn has_begun(&self, fleet: &Fleet) -> bool {
        let record = fs::read(self.first(fleet)).unwrap_or_default();
        is_written(&record, BEGINNING)
    }

    /// Whether the end of its first attempt is recorded.
    pub(super) fn has_ended(&self, fleet: &Fleet) -> bool {
        let record = fs::read(self.first(fleet)).unwrap_or_default();
        is_written(&record, END)
    }

    /// Whether a person or nobody has to do anything about the job any more, or it waits at its gate for the second time.
    pub(super) fn is_settled(&self, fleet: &Fleet) -> bool {
        let is_back = self.gate.is_none() && self.executions() > 1;
        is_back
            || fleet.api().job_state(&self.job).is_some_and(|state| !matches!(state.as_str(), "waiting" | "running"))
    }

    /// How it stands.
    pub(super) fn outcome(&self, fleet: &Fleet) -> Result<Outcome, WorkError> {
        let job = fleet.api().get(&format!("/v1/jobs/{}", self.job))?;
        let step = &job["runs"][0]["steps"][0];
        let word = |value: &Value| value["state"].as_str().unwrap_or_default().to_owned();
        let (executions, completions) = (self.executions(), lines(&self.dir.join("done")).len());
        let recorded = recorded(&self.run_dir(fleet))?;
        Ok(Outcome { job: word(&job), step: word(step), executions, completions, recorded })
    }
}

fn definition(name: &str, effect: Effect, dir: &Path) -> String {
    let dir = dir.display();
    let check = if effect == Effect::Guarded { format!("check = \"test -e '{dir}/done'\"\n") } else { String::new() };
    format!(
        "name = \"{name}\"\ntarget = {{ all = true }}\n[[step]]\nid = \"{STEP}\"\neffect = \"{}\"\n{check}timeout = \"{TIMEOUT}\"\n\
         run = '''\necho $$ >> '{dir}/began'\n: < '{dir}/gate'\necho x >> '{dir}/done'\n'''\n",
        effect.as_str()
    )
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn record(run_dir: &Path, number: u32) -> PathBuf {
    run_dir.join(format!("{STEP}.{number}{RECORD}"))
}

/// Whether anything is in that place of an attempt's record.
fn is_written(record: &[u8], place: Range<usize>) -> bool {
    record.iter().take(place.end).skip(place.start).any(|byte| *byte != 0)
}

/// For each attempt in order, whether its end is recorded.
fn recorded(run_dir: &Path) -> io::Result<Vec<bool>> {
    let mut numbers = Vec::new();
    match fs::read_dir(run_dir) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                let number =
                    |name: &str| name.strip_prefix(STEP)?.strip_prefix('.')?.strip_suffix(RECORD)?.parse::<u32>().ok();
                numbers.extend(name.to_str().and_then(number));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    numbers.sort_unstable();
    let has_ended = |number: &u32| fs::read(record(run_dir, *number)).map(|record| is_written(&record, END));
    numbers.iter().map(has_ended).collect()
}
