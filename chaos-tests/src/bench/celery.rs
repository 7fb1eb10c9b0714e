//! Celery as a reference: set up in the cache, a worker and a client as processes of its own. `scripts/celery.sh` does the work, this
//! file starts it and understands its answers.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use broker_config::node::default_cache;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::json;

use super::messages::runtime;
use super::proc::tree;
use super::raw::Client;
use super::{BenchError, BrokerAt};
use crate::live::{Process, wait_for};

/// The files, so that the program can be moved away from its source.
const FILES: [(&str, &str); 3] = [
    ("celery.sh", include_str!("../../scripts/celery.sh")),
    ("celery/tasks.py", include_str!("../../scripts/celery/tasks.py")),
    ("celery/drive.py", include_str!("../../scripts/celery/drive.py")),
];

/// The queue of its tasks, as in `celery/tasks.py`.
const QUEUE: &str = "bench.celery";

/// Processes of its worker: one for each core of two, as many as it has by default there.
pub(super) const PROCESSES: u16 = 2;

/// How long a worker may take to end in order before it is killed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Celery, set up and ready to be started.
#[derive(Debug, Clone)]
pub(super) struct Kit {
    script: PathBuf,
    environment: PathBuf,
}

impl Kit {
    /// Sets it up, if it is not set up yet. The error is for people: what is missing.
    pub(super) fn find(dir: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("its files cannot be written: {error}");
        for (name, text) in FILES {
            write(&dir.join(name), text).map_err(failed)?;
        }
        let script = dir.join(FILES[0].0);
        let setup = Command::new(&script).arg("setup").arg(default_cache()).output().map_err(failed)?;
        if !setup.status.success() {
            let said = String::from_utf8_lossy(&setup.stderr);
            return Err(said.lines().last().unwrap_or("its setup failed without a word").to_owned());
        }
        let environment = PathBuf::from(String::from_utf8_lossy(&setup.stdout).trim());
        Ok(Self { script, environment })
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// What a client measured.
#[derive(Debug, Deserialize)]
pub(super) struct Ran {
    /// From the first to the last.
    pub(super) seconds: f64,
    times_us: Vec<f64>,
}

impl Ran {
    /// How long each took, from asking to having the result.
    pub(super) fn times(&self) -> Vec<Duration> {
        self.times_us.iter().map(|us| Duration::from_secs_f64(us / 1e6)).collect()
    }
}

/// A worker and a client of it, running.
pub(super) struct Celery {
    worker: Process,
    driver: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Celery {
    /// Starts both.
    pub(super) fn start(kit: &Kit, broker: &BrokerAt, dir: &Path) -> Result<Self, BenchError> {
        runtime()?.block_on(async { Client::connect(broker).await?.delete(QUEUE).await })?;
        let log = dir.join("celery.log");
        let environment = kit.environment.display().to_string();
        let mut worker = Process::new("celery", &kit.script, &log).arguments(&[
            "worker",
            &environment,
            &broker.url,
            &PROCESSES.to_string(),
        ]);
        worker.start()?;
        let mut command = Command::new(&kit.script);
        command.arg("drive").arg(&kit.environment).arg(&broker.url);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?);
        let mut driver = command.spawn()?;
        let (orders, answers) = (driver.stdin.take(), driver.stdout.take());
        let none = || io::Error::other("a process was started without the pipe that was asked for");
        Ok(Self { worker, orders, answers: BufReader::new(answers.ok_or_else(none)?), driver, log })
    }

    /// Runs that many tasks, so many of them under way at a time.
    pub(super) fn run(&mut self, tasks: u64, window: usize) -> Result<Ran, BenchError> {
        let order = json!({ "tasks": tasks, "window": window });
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "{order}")?;
        }
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            let said = std::fs::read_to_string(&self.log)?;
            let said = said.lines().last().unwrap_or_default().to_owned();
            return Err(BenchError::Apart { id: "celery".to_owned(), status: self.driver.wait()?, said });
        }
        let ran: Ran = serde_json::from_str(&answer)?;
        let (expected, found) = (tasks, ran.times_us.len() as u64);
        if found == expected { Ok(ran) } else { Err(BenchError::Wrong { what: "results of tasks", expected, found }) }
    }

    /// The processes of the worker.
    pub(super) fn worker_pids(&self) -> io::Result<Vec<u32>> {
        self.worker.pid().map_or(Ok(Vec::new()), tree)
    }

    /// The same and the client.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = self.worker_pids()?;
        pids.push(self.driver.id());
        Ok(pids)
    }

    /// Ends the client alone.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.orders = None;
        self.driver.wait().map(drop)
    }
}

impl Drop for Celery {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let group = self.worker.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        // Killed alone, the first process would leave the others behind.
        let _ = self.worker.signal(Signal::TERM);
        let ended = wait_for("the end of a worker", END_LIMIT, || (!self.worker.is_running()).then_some(()));
        if let (Err(_), Some(group)) = (ended, group) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
