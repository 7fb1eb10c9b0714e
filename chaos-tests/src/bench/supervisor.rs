//! The supervising processes of the worker that is as durable: one for each place of work, started beforehand. Each is this program again,
//! apart from its worker, and takes one line for a job. Nothing of Longshore's shim is in it.

use std::fs::{File, create_dir, rename};
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use uuid::Uuid;

use super::BenchError;

/// One of them, as its worker has it. It is ended with this value.
pub(super) struct Supervisor {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Supervisor {
    /// Starts the part of that benchmark with that order, which comes to [`serve`].
    pub(super) async fn start(id: &str, order: &impl Serialize) -> Result<Self, BenchError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--part", id]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a process was started without the pipes that were asked for").into());
        };
        let mut supervisor = Self { child, orders, answers: BufReader::new(answers).lines() };
        supervisor.say(&serde_json::to_string(order)?).await?;
        Ok(supervisor)
    }

    /// Its process; none once it has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Has it begin a job, with that program and its arguments as JSON.
    pub(super) async fn begin(&mut self, job: Uuid, program: &str) -> io::Result<()> {
        self.say(&format!("{job} {program}")).await
    }

    /// The exit code of the job that was begun, whose end is recorded then.
    pub(super) async fn ended(&mut self) -> io::Result<i32> {
        let answer = self.answers.next_line().await?;
        let code = answer.and_then(|line| line.parse().ok());
        code.ok_or_else(|| io::Error::other("a supervising process has answered no exit code"))
    }

    async fn say(&mut self, line: &str) -> io::Result<()> {
        self.orders.write_all(format!("{line}\n").as_bytes()).await
    }
}

/// Does what a supervising process does, in that folder of its own, until nobody is left who could order anything.
pub(super) fn serve(dir: &Path) -> io::Result<()> {
    create_dir(dir)?;
    let place = File::open(dir)?;
    for (number, job) in io::stdin().lock().lines().enumerate() {
        let code = supervise(&place, &dir.join(number.to_string()), &job?)?;
        writeln!(io::stdout(), "{code}")?;
    }
    Ok(())
}

/// Runs one job in a new folder. That it has begun and how it ended are each on stable storage before anything follows from it.
fn supervise(place: &File, dir: &Path, order: &str) -> io::Result<i32> {
    let (job, program) = order.split_once(' ').ok_or(io::ErrorKind::InvalidInput)?;
    let words: Vec<String> = serde_json::from_str(program)?;
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    create_dir(dir)?;
    let (stdout, stderr) = (File::create(dir.join("stdout"))?, File::create(dir.join("stderr"))?);
    place.sync_all()?;
    let folder = File::open(dir)?;
    record(&dir.join("started"), job)?;
    folder.sync_all()?;
    let mut program = std::process::Command::new(program);
    let status = program.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr).status()?;
    let code = status.code().unwrap_or(-1);
    let unfinished = dir.join("exit.new");
    record(&unfinished, &code.to_string())?;
    rename(unfinished, dir.join("exit"))?;
    folder.sync_all()?;
    Ok(code)
}

/// A file with that in it, synced. Its name is not: that is up to its folder.
fn record(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()
}
