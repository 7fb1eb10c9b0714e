//! An agent that is cut off for real: the way between it and its broker is closed while its steps go on and end, and another agent
//! goes on working. Afterwards everything must have been reported, in order and once. What ran is counted from marks that the steps
//! leave on disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use messages::Seq;
use serde_json::Value;

use crate::live::{Api, ApiError, Fleet, FleetError, FleetOptions, Marks, Shut, Tally, TimedOut, longshore, wait_for};

/// The agent that is cut off, and one that is not.
const CUT: &str = "a1";
const OTHER: &str = "a2";
/// Runs that it has in hand, one for each slot.
const RUNS: usize = 2;
/// Steps of each.
const STEPS: usize = 6;
/// How long anything may take that is not asked for.
const LIMIT: Duration = Duration::from_secs(180);

/// How long the agent is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HowLong {
    /// Until its runs have ended there.
    UntilItsRunsEnd,
    /// So long, over which its steps are spread; and until its runs have ended there.
    AtLeast(Duration),
}

/// Why it could not be carried out. It says nothing about what was lost.
#[derive(Debug, thiserror::Error)]
pub enum CutoffError {
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
    /// The journal is not shown.
    #[error("the server's journal is not shown: {said}")]
    Journal {
        /// What was said instead.
        said: String,
    },
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// How long it was cut off.
    pub cut_off: Duration,
    /// Steps of its runs, and of them those that ended meanwhile.
    pub steps: usize,
    /// See there.
    pub steps_ended: usize,
    /// What the server called its jobs when the way was opened again.
    pub jobs_meanwhile: Vec<String>,
    /// What it calls them in the end.
    pub jobs: Vec<String>,
    /// What the other agent's job had come to meanwhile.
    pub other: String,
    /// Messages of the agent that waited for the server.
    pub waited: u64,
    /// Messages that it sent again.
    pub resent: u64,
    /// Messages that the server received twice.
    pub duplicates: u64,
    /// Whether the server's journal holds its messages in order, without gaps and none refused.
    pub in_order: bool,
    /// Logs at the server whose content is what the step wrote.
    pub logs_whole: usize,
    /// What the marks say.
    pub tally: Tally,
}

impl Report {
    /// Whether nothing was lost, nothing ran twice, and everything was reported once and in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let Tally { lost, twice, unexpected, once } = &self.tally;
        lost.is_empty()
            && twice.is_empty()
            && unexpected.is_empty()
            && *once == self.steps
            && self.steps_ended > STEPS
            && self.jobs_meanwhile.iter().all(|state| state == "running")
            && self.jobs.iter().all(|state| state == "succeeded")
            && self.other == "succeeded"
            && self.in_order
            && self.duplicates == 0
            && self.resent <= self.waited
            && self.logs_whole == self.steps
    }
}

/// Carries it out in that folder.
///
/// # Errors
/// [`CutoffError`]
pub fn run(dir: &Path, how_long: HowLong, how: Shut, note: &mut dyn FnMut(String)) -> Result<Report, CutoffError> {
    let options = FleetOptions {
        dir: dir.to_owned(),
        agents: vec![CUT.to_owned(), OTHER.to_owned()],
        slots: 2,
        queue_type: "quorum".to_owned(),
        monitor: false,
        gated: vec![CUT.to_owned()],
    };
    let fleet = Fleet::start(&options, note)?;
    let marks = Marks::new(&dir.join("marks"))?;
    let hold = Hold(std::path::absolute(dir.join("go"))?);
    let pause = match how_long {
        HowLong::UntilItsRunsEnd => Duration::from_millis(50),
        HowLong::AtLeast(time) => time / u32::try_from(STEPS).unwrap_or(u32::MAX),
    };
    let stage = Stage { fleet, marks, hold, pause };
    let mut jobs = Vec::new();
    for run in 0..RUNS {
        jobs.push(stage.submit(CUT, &names(run), true)?);
    }
    let first: Vec<String> = (0..RUNS).map(|run| names(run).swap_remove(0)).collect();
    wait_for("its runs to have begun, as far as the server knows", LIMIT, || {
        jobs.iter().zip(&first).all(|(job, step)| stage.runs(job, step)).then_some(())
    })?;
    stage.fleet.wait_reconciled()?;
    let so_far = stage.cut(&jobs, how_long, how, note)?;
    stage.fleet.wait_reconciled()?;
    stage.report(&jobs, so_far)
}

fn names(run: usize) -> Vec<String> {
    (1..=STEPS).map(|step| format!("r{run}s{step}")).collect()
}

fn is_over(state: &str) -> bool {
    !matches!(state, "waiting" | "running")
}

/// The file that the first steps wait for. It is made in the end, whatever happened: steps outlive everything.
struct Hold(PathBuf);

impl Drop for Hold {
    fn drop(&mut self) {
        // Without its folder there is no step that waits.
        let _ = fs::write(&self.0, "");
    }
}

struct Stage {
    fleet: Fleet,
    marks: Marks,
    hold: Hold,
    /// How long a step takes.
    pause: Duration,
}

impl Stage {
    fn gate(&self) -> &crate::live::Gate {
        self.fleet.gates.get(CUT).expect("the fleet was started with a gate before that agent")
    }

    fn submit(&self, agent: &str, steps: &[String], held: bool) -> Result<String, CutoffError> {
        let mut text = format!("name = \"cut-off\"\ntarget = {{ agents = [\"{agent}\"] }}\n");
        for (at, step) in steps.iter().enumerate() {
            let hold = if held && at == 0 {
                format!("while [ ! -e '{}' ]; do sleep 0.05; done\n", self.hold.0.display())
            } else {
                String::new()
            };
            // No effect is declared, so it is `once`: nothing may ever be run again by itself.
            let (pause, mark) = (self.pause.as_secs_f64(), self.marks.line());
            let run = format!("echo {step} begins\n{hold}sleep {pause}\n{mark}\necho {step} done");
            text.push_str(&format!("[[step]]\nid = \"{step}\"\nrun = '''\n{run}\n'''\n"));
        }
        let id = uuid::Uuid::now_v7().to_string();
        self.fleet.api().submit(&id, &text)?;
        Ok(id)
    }

    /// Cuts the agent off, and lets it come back.
    fn cut(
        &self,
        jobs: &[String],
        how_long: HowLong,
        how: Shut,
        note: &mut dyn FnMut(String),
    ) -> Result<Report, CutoffError> {
        let api = self.fleet.api();
        let before = self.written()?;
        self.gate().shut(how);
        let begin = Instant::now();
        note(format!("{CUT} is cut off, with {RUNS} runs of {STEPS} steps in hand"));
        fs::write(&self.hold.0, "")?;
        let other = self.submit(OTHER, &["other".to_owned()], false)?;
        let other =
            wait_for("the other agent's job to end", LIMIT, || api.job_state(&other).filter(|state| is_over(state)))?;
        note(format!("{OTHER} goes on: its job {other}"));
        // The end of each step and the beginning of the next, and the ends of the runs.
        let all = before + (RUNS * (2 * STEPS - 1) + RUNS) as u64;
        let limit = LIMIT + self.pause * u32::try_from(STEPS).unwrap_or(u32::MAX);
        wait_for("its runs to end, as far as its own journal knows", limit, || {
            self.written().is_ok_and(|written| written >= all).then_some(())
        })?;
        if let HowLong::AtLeast(time) = how_long {
            // It was asked for so long; nothing is waited for.
            std::thread::sleep(time.saturating_sub(begin.elapsed()));
        }
        let outgoing = self.fleet.link(CUT)?.1.swap_remove(0).streams.outgoing;
        let waited = Seq::count(outgoing.last) - Seq::count(outgoing.received);
        let jobs_meanwhile = jobs.iter().filter_map(|job| api.job_state(job)).collect();
        let steps_ended = self.marks.made_by(CUT);
        self.gate().open();
        let cut_off = begin.elapsed();
        let seconds = cut_off.as_secs_f64();
        note(format!("back after {seconds:.1} s: {steps_ended} steps ended meanwhile, {waited} messages wait"));
        let (steps, tally) = (RUNS * STEPS, self.tally()?);
        let (resent, duplicates, in_order, logs_whole) = (0, 0, false, 0);
        let jobs = Vec::new();
        Ok(Report {
            cut_off,
            steps,
            steps_ended,
            jobs_meanwhile,
            jobs,
            other,
            waited,
            resent,
            duplicates,
            in_order,
            logs_whole,
            tally,
        })
    }

    /// Messages that the agent has written for the server.
    fn written(&self) -> Result<u64, CutoffError> {
        let (_, views) = self.fleet.link(CUT)?;
        Ok(views.first().map_or(0, |view| Seq::count(view.streams.outgoing.last)))
    }

    fn tally(&self) -> io::Result<Tally> {
        let names: Vec<String> = (0..RUNS).flat_map(names).collect();
        let mut tally = self.marks.tally(&[CUT.to_owned()], &names)?;
        tally.unexpected.retain(|mark| *mark != format!("{OTHER}.other"));
        Ok(tally)
    }

    /// Whether the server knows that the step runs.
    fn runs(&self, job: &str, step: &str) -> bool {
        let Ok(view) = self.fleet.api().get(&format!("/v1/jobs/{job}")) else { return false };
        let steps = view["runs"][0]["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().any(|found| found["id"] == step && found["state"] == "running")
    }

    fn report(&self, jobs: &[String], so_far: Report) -> Result<Report, CutoffError> {
        let api = self.fleet.api();
        let ended =
            |job: &String| wait_for("its jobs to end", LIMIT, || api.job_state(job).filter(|state| is_over(state)));
        let states = jobs.iter().map(ended).collect::<Result<Vec<String>, TimedOut>>()?;
        let whole =
            || jobs.iter().enumerate().map(|(run, job)| logs_whole(&api, job, &names(run))).sum::<Result<usize, _>>();
        // A job's end never waits for its logs.
        let logs = wait_for("the logs to be complete", LIMIT, || whole().ok().filter(|logs| *logs == so_far.steps));
        let (state, _) = self.fleet.link(CUT)?;
        let (_, views) = self.fleet.link("server")?;
        let seen = views.iter().find(|view| view.streams.peer.as_str() == CUT).map(|view| view.streams.duplicates);
        Ok(Report {
            jobs: states,
            resent: state.resent,
            duplicates: seen.unwrap_or(u64::MAX),
            in_order: self.in_order()?,
            logs_whole: logs.or_else(|_| whole())?,
            tally: self.tally()?,
            ..so_far
        })
    }

    /// Whether the server has the agent's messages in the order of their numbers, without gaps and none refused.
    fn in_order(&self) -> Result<bool, CutoffError> {
        let mut command = Command::new(longshore()?);
        command.arg("--dir").arg(self.fleet.home()).args(["journal", "list", "--endpoint", "server", "--peer", CUT]);
        let output = command.args(["--direction", "in", "--from", "1", "-o", "json"]).output()?;
        let unreadable = || CutoffError::Journal { said: String::from_utf8_lossy(&output.stderr).into_owned() };
        let listed: Value = serde_json::from_slice(&output.stdout).map_err(|_| unreadable())?;
        let messages = listed["entries"].as_array().ok_or_else(unreadable)?;
        let numbered = messages.iter().zip(1..).all(|(message, seq)| message["seq"] == seq);
        let taken = messages.iter().all(|message| message["state"] != "refused");
        // What the agent is, and for each run two reports of each step and its end.
        Ok(numbered && taken && messages.len() == 1 + RUNS * (2 * STEPS + 1))
    }
}

/// Logs at the server that hold just what their step wrote.
fn logs_whole(api: &Api, job: &str, steps: &[String]) -> Result<usize, ApiError> {
    let view = api.get(&format!("/v1/jobs/{job}"))?;
    let run = view["runs"][0]["id"].as_str().unwrap_or_default().to_owned();
    let mut whole = 0;
    for step in steps {
        let path = format!("/v1/jobs/{job}/logs?run={run}&step={step}&stream=stdout");
        whole += usize::from(api.text(&path)? == (format!("{step} begins\n{step} done\n"), true));
    }
    Ok(whole)
}
