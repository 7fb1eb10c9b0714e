//! What the live tests share: a fleet in a temporary folder, jobs, and the command line.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use chaos_tests::live::{Fleet, FleetOptions, longshore, wait_for};
use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up. Only reached when something is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// A fleet and its folder, which is removed after it.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn start(agents: &[&str]) -> Result<Self, Failed> {
        let dir = tempfile::tempdir()?;
        let options = FleetOptions {
            dir: dir.path().to_owned(),
            agents: agents.iter().map(|name| (*name).to_owned()).collect(),
            slots: 2,
            queue_type: "quorum".to_owned(),
            monitor: false,
            gated: Vec::new(),
        };
        let fleet = Fleet::start(&options, &mut |note| eprintln!("{note}"))?;
        Ok(Self { fleet, dir })
    }

    /// Submits a job of those steps for all agents, and returns its id.
    pub(crate) fn submit(&self, steps: &str) -> Result<String, Failed> {
        let id = uuid::Uuid::now_v7().to_string();
        self.fleet.api().submit(&id, &format!("name = \"test\"\ntarget = {{ all = true }}\n{steps}"))?;
        Ok(id)
    }

    /// Waits until the job no longer runs, and returns what the server says of it.
    pub(crate) fn ended(&self, job: &str) -> Result<Value, Failed> {
        let api = self.fleet.api();
        wait_for("the job to end", LIMIT, || {
            api.job_state(job).filter(|state| !matches!(state.as_str(), "waiting" | "running"))
        })?;
        Ok(api.get(&format!("/v1/jobs/{job}"))?)
    }

    /// Runs the command line against this fleet.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<Output, Failed> {
        let mut command = Command::new(longshore()?);
        command.arg("--dir").arg(self.fleet.home()).args(arguments).env("NO_COLOR", "1");
        Ok(command.output()?)
    }

    /// A file in the test's folder.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// The text that a command printed, on either stream.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The state of each step of the job's only run, by id.
pub(crate) fn steps(job: &Value) -> Vec<(String, String)> {
    let steps = job["runs"][0]["steps"].as_array().cloned().unwrap_or_default();
    let word = |step: &Value, field: &str| step[field].as_str().unwrap_or_default().to_owned();
    steps.iter().map(|step| (word(step, "id"), word(step, "state"))).collect()
}

/// How many lines a file has; 0 when it is not there.
pub(crate) fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map(|text| text.lines().count()).unwrap_or(0)
}

/// Fails a test with a reason.
pub(crate) fn ensure(holds: bool, what: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed::from(what.into())) }
}
