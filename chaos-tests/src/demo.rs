//! The demonstration: one job over two agents while everything around it dies. What ran is counted from marks that the steps
//! leave on disk, not from Longshore's own books; the books must then agree.
//!
//! The job is cut into phases. The first step of each waits for a file that this program makes when the outage before it is
//! over, so every outage hits a run in the middle, however fast or slow the machine is.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::live::{Api, ApiError, Fleet, FleetError, FleetOptions, Marks, Resent, Tally, TimedOut, wait_for};

/// Steps of one phase.
const PHASE_STEPS: usize = 9;
/// How long anything may take before the demonstration gives up.
const LIMIT: Duration = Duration::from_secs(180);

/// Why the demonstration could not be carried out. It says nothing about what was lost.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
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
    Io(#[from] io::Error),
    /// The broker refused.
    #[error("the broker does not work")]
    Node(#[from] broker_config::node::NodeError),
}

/// One of the things that die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// The broker, by SIGKILL; its data stays.
    BrokerKilled,
    /// An agent, by SIGKILL; the step that it runs lives on.
    AgentKilled,
    /// The server, by SIGKILL.
    ServerKilled,
    /// The broker with all its data, while the server is down, so that what the agents report is in it.
    BrokerWiped,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BrokerKilled => "broker killed with -9",
            Self::AgentKilled => "agent a2 killed with -9",
            Self::ServerKilled => "server killed with -9",
            Self::BrokerWiped => "broker wiped clean",
        })
    }
}

/// The outages of the demonstration, one after the other.
pub const OUTAGES: [Outage; 5] =
    [Outage::AgentKilled, Outage::BrokerKilled, Outage::ServerKilled, Outage::BrokerKilled, Outage::BrokerWiped];

/// What came of one outage.
#[derive(Debug, Clone)]
pub struct Survived {
    /// Which.
    pub outage: Outage,
    /// From the kill until every endpoint was connected and had nothing unreceived.
    pub lasted: Duration,
    /// Messages that were sent again.
    pub resent: u64,
}

/// What came of the demonstration.
#[derive(Debug, Clone)]
pub struct Report {
    /// Each outage.
    pub outages: Vec<Survived>,
    /// What the marks say.
    pub tally: Tally,
    /// What the server says of the job.
    pub job: String,
    /// Steps that the server calls succeeded.
    pub booked: usize,
    /// Steps that should have run.
    pub steps: usize,
    /// Logs at the server whose content is what the step wrote.
    pub logs_whole: usize,
}

impl Report {
    /// Whether nothing was lost and nothing ran twice, by the marks, and the books agree.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tally.lost.is_empty()
            && self.tally.twice.is_empty()
            && self.tally.unexpected.is_empty()
            && self.tally.once == self.steps
            && self.job == "succeeded"
            && self.booked == self.steps
            && self.logs_whole == self.steps
    }
}

struct Stage {
    fleet: Fleet,
    marks: Marks,
    gates: Gates,
    agents: Vec<String>,
    steps: Vec<String>,
}

/// Carries it out in that folder, which must be empty or not there. Returns the fleet, still running.
///
/// # Errors
/// [`DemoError`]
pub fn run(dir: &Path, note: &mut dyn FnMut(String)) -> Result<(Report, Fleet), DemoError> {
    let agents = vec!["a1".to_owned(), "a2".to_owned()];
    let queue_type = "quorum".to_owned();
    let options = FleetOptions {
        dir: dir.to_owned(),
        agents: agents.clone(),
        slots: 2,
        queue_type,
        monitor: false,
        gated: Vec::new(),
    };
    let begin = Instant::now();
    let fleet = Fleet::start(&options, note)?;
    note(format!("broker, server and 2 agents are up after {:.1} s", begin.elapsed().as_secs_f64()));
    let marks = Marks::new(&dir.join("marks"))?;
    let gates = std::path::absolute(dir.join("gates"))?;
    fs::create_dir_all(&gates)?;
    let phases = OUTAGES.len() + 1;
    let steps = (1..=phases * PHASE_STEPS).map(|number| format!("s{number:02}")).collect();
    let gates = Gates(gates);
    let mut stage = Stage { fleet, marks, gates, agents, steps };
    let job = stage.submit()?;
    note(format!("job {} of {} steps on each of 2 agents", &job[..13], stage.steps.len()));
    let mut outages = Vec::new();
    for (phase, outage) in OUTAGES.into_iter().enumerate() {
        stage.open(phase)?;
        // In the middle: each agent has begun the phase and has more to do.
        let begun = phase * PHASE_STEPS + 2;
        wait_for("the phase to begin", LIMIT, || stage.all_made(begun).then_some(()))?;
        let survived = stage.survive(outage, phase)?;
        note(format!(
            "{:<24} back after {:>5.1} s, {} messages resent, {} of {} steps done",
            survived.outage.to_string(),
            survived.lasted.as_secs_f64(),
            survived.resent,
            stage.marks.made(),
            stage.agents.len() * stage.steps.len()
        ));
        outages.push(survived);
    }
    stage.open(OUTAGES.len())?;
    let report = stage.finish(&job, outages)?;
    Ok((report, stage.fleet))
}

/// The folder of the files that steps wait for. All are made in the end, whatever happened: steps outlive everything, and one
/// that waits for ever would be left behind.
struct Gates(PathBuf);

impl Drop for Gates {
    fn drop(&mut self) {
        for phase in 0..=OUTAGES.len() {
            // Without its folder there is no step that waits.
            let _ = fs::write(self.0.join(phase.to_string()), "");
        }
    }
}

impl Stage {
    fn submit(&self) -> Result<String, DemoError> {
        let mut text = "name = \"outage-demo\"\ntarget = { all = true }\n".to_owned();
        for (index, step) in self.steps.iter().enumerate() {
            let gate = if index % PHASE_STEPS == 0 {
                let gate = self.gate(index / PHASE_STEPS);
                format!("while [ ! -e '{}' ]; do sleep 0.05; done\n", gate.display())
            } else {
                String::new()
            };
            // No effect is declared, so it is `once`: nothing may ever be run again by itself.
            let run = format!("{gate}sleep 0.12\n{}\necho {step} done", self.marks.line());
            text.push_str(&format!("[[step]]\nid = \"{step}\"\nrun = '''\n{run}\n'''\n"));
        }
        let id = uuid::Uuid::now_v7().to_string();
        self.fleet.api().submit(&id, &text)?;
        Ok(id)
    }

    fn gate(&self, phase: usize) -> PathBuf {
        self.gates.0.join(phase.to_string())
    }

    fn open(&self, phase: usize) -> io::Result<()> {
        fs::write(self.gate(phase), "")
    }

    fn all_made(&self, count: usize) -> bool {
        self.agents.iter().all(|agent| self.marks.made_by(agent) >= count)
    }

    fn survive(&mut self, outage: Outage, phase: usize) -> Result<Survived, DemoError> {
        let mut before = self.fleet.resent();
        let begin = Instant::now();
        match outage {
            Outage::BrokerKilled => {
                self.fleet.node.kill()?;
                self.fleet.node.start()?;
            }
            Outage::AgentKilled => {
                self.restart("a2", &mut before)?;
            }
            Outage::ServerKilled => {
                self.restart("server", &mut before)?;
            }
            Outage::BrokerWiped => {
                self.fleet.server.kill()?;
                // Now the agents' reports stay in the broker, and go down with it.
                let reports = phase * PHASE_STEPS + 6;
                wait_for("reports to pile up in the broker", LIMIT, || self.all_made(reports).then_some(()))?;
                wait_for("the reports to be in the broker", LIMIT, || self.confirmed().then_some(()))?;
                self.fleet.node.wipe()?;
                self.fleet.node.start()?;
                before.insert("server".to_owned(), 0);
                self.fleet.server.start()?;
            }
        }
        self.fleet.wait_reconciled()?;
        let after = self.fleet.resent();
        Ok(Survived { outage, lasted: begin.elapsed(), resent: grown(&before, &after) })
    }

    fn restart(&mut self, name: &str, before: &mut Resent) -> Result<(), DemoError> {
        if let Some(process) = self.fleet.process(name) {
            process.kill()?;
            process.start()?;
        }
        // A new process counts from 0.
        before.insert(name.to_owned(), 0);
        Ok(())
    }

    /// Whether the broker has confirmed something to each agent that the server has not received.
    fn confirmed(&self) -> bool {
        self.agents.iter().all(|agent| {
            self.fleet
                .link(agent)
                .is_ok_and(|(_, views)| views.iter().all(|view| view.confirmed > view.streams.outgoing.received))
        })
    }

    fn finish(&self, job: &str, outages: Vec<Survived>) -> Result<Report, DemoError> {
        let api = self.fleet.api();
        let ended = |state: &String| !matches!(state.as_str(), "waiting" | "running");
        let state = wait_for("the job to end", LIMIT, || api.job_state(job).filter(ended))?;
        let view = api.get(&format!("/v1/jobs/{job}"))?;
        let steps = self.agents.len() * self.steps.len();
        let logs_whole = wait_for("the logs to be complete", LIMIT, || {
            let whole = self.logs_whole(&api, job, &view).unwrap_or(0);
            (whole == steps).then_some(whole)
        });
        Ok(Report {
            outages,
            tally: self.marks.tally(&self.agents, &self.steps)?,
            job: state,
            booked: booked(&view),
            steps,
            logs_whole: logs_whole.or_else(|_| self.logs_whole(&api, job, &view))?,
        })
    }

    /// Logs at the server that hold just what their step wrote.
    fn logs_whole(&self, api: &Api, job: &str, view: &Value) -> Result<usize, ApiError> {
        let mut whole = 0;
        for run in view.get("runs").and_then(Value::as_array).into_iter().flatten() {
            let Some(id) = run.get("id").and_then(Value::as_str) else { continue };
            for step in &self.steps {
                let path = format!("/v1/jobs/{job}/logs?run={id}&step={step}&stream=stdout");
                if api.text(&path)? == (format!("{step} done\n"), true) {
                    whole += 1;
                }
            }
        }
        Ok(whole)
    }
}

fn grown(before: &Resent, after: &Resent) -> u64 {
    after.iter().map(|(name, count)| count.saturating_sub(before.get(name).copied().unwrap_or(0))).sum()
}

/// Steps that the server calls succeeded.
fn booked(view: &Value) -> usize {
    let runs = view.get("runs").and_then(Value::as_array).into_iter().flatten();
    let steps = runs.flat_map(|run| run.get("steps").and_then(Value::as_array).into_iter().flatten());
    steps.filter(|step| step.get("state").is_some_and(|state| state == "succeeded")).count()
}
