//! The supervising processes of the workers that are as durable: one for each place of work, started beforehand. Each is this program again,
//! apart from its worker, and takes one line for a job. Nothing of Longshore's shim is in it.

use std::fs::{File, create_dir, rename};
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use uuid::Uuid;

use super::BenchError;
use super::control_group::{Group, Place};

/// What one of them is told first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Supervise {
    /// A folder of its own, which is not there yet. Its name is that of the place.
    pub(super) dir: PathBuf,
    /// The group in which each step has one of its own.
    pub(super) groups: Option<PathBuf>,
}

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

/// Does what a supervising process does, until nobody is left who could order anything.
pub(super) fn serve(order: &Supervise) -> io::Result<()> {
    let dir = &order.dir;
    create_dir(dir)?;
    let folder = File::open(dir)?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let mut place = order.groups.as_deref().map(|groups| Place::new(groups, &name)).transpose()?;
    for (number, job) in io::stdin().lock().lines().enumerate() {
        let (code, group) = supervise(&folder, &dir.join(number.to_string()), &job?, place.as_mut())?;
        writeln!(io::stdout(), "{code}")?;
        // Nobody waits for these.
        group.map_or(Ok(()), Group::remove)?;
        place.as_mut().map_or(Ok(()), Place::prepare)?;
    }
    Ok(())
}

/// Runs one job in a new folder. That it has begun and how it ended are each on stable storage before anything follows from it.
fn supervise(above: &File, dir: &Path, order: &str, place: Option<&mut Place>) -> io::Result<(i32, Option<Group>)> {
    let (job, program) = order.split_once(' ').ok_or(io::ErrorKind::InvalidInput)?;
    let words: Vec<String> = serde_json::from_str(program)?;
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    create_dir(dir)?;
    let (stdout, stderr) = (File::create(dir.join("stdout"))?, File::create(dir.join("stderr"))?);
    above.sync_all()?;
    let folder = File::open(dir)?;
    record(&dir.join("started"), job)?;
    folder.sync_all()?;
    let mut program = std::process::Command::new(program);
    program.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let (mut child, group) = match place {
        Some(place) => place.start(&mut program).map(|(child, group)| (child, Some(group)))?,
        None => (program.spawn()?, None),
    };
    let code = child.wait()?.code().unwrap_or(-1);
    let unfinished = dir.join("exit.new");
    record(&unfinished, &code.to_string())?;
    rename(unfinished, dir.join("exit"))?;
    folder.sync_all()?;
    Ok((code, group))
}

/// A file with that in it, synced. Its name is not: that is up to its folder.
fn record(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()
}
