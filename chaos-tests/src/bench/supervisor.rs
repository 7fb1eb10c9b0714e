//! The processes of the references that are as durable: this program again, which is told by lines what to do. The supervising ones, one for each
//! place of work, are started beforehand and take one line for a job. Nothing of Longshore's shim is in them.

use std::fs::{File, create_dir};
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
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
    /// What each step has besides its program.
    pub(super) steps: Option<Steps>,
}

/// What each step of a reference has besides its program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Steps {
    /// The group in which each has one of its own.
    pub(super) groups: PathBuf,
    /// Whether each has a working folder, too, and its process is made with a copy of its parent's memory, as one is that is made in a group
    /// with limits.
    pub(super) whole: bool,
}

/// One of them, as who started it has it. It is ended with this value.
pub(super) struct Helper {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    /// Starts the part of that benchmark with that order.
    pub(super) async fn start(id: &str, order: &impl Serialize) -> Result<Self, BenchError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--part", id]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a process was started without the pipes that were asked for").into());
        };
        let mut helper = Self { child, orders, answers: BufReader::new(answers).lines() };
        helper.say(&serde_json::to_string(order)?).await?;
        Ok(helper)
    }

    /// Its process; none once it has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it says next; nothing once it has ended.
    pub(super) async fn said(&mut self) -> io::Result<Option<String>> {
        self.answers.next_line().await
    }

    /// Has a supervising one begin a job, with that program and its arguments as JSON.
    pub(super) async fn begin(&mut self, job: Uuid, program: &str) -> io::Result<()> {
        self.say(&format!("{job} {program}")).await
    }

    /// The exit code of the job that was begun, whose end is recorded then.
    pub(super) async fn ended(&mut self) -> io::Result<i32> {
        let answer = self.said().await?;
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
    let steps = order.steps.as_ref();
    let mut place = steps.map(|steps| Place::new(&steps.groups, &name)).transpose()?;
    let whole = steps.is_some_and(|steps| steps.whole);
    for (number, job) in io::stdin().lock().lines().enumerate() {
        let (code, group) = supervise(&folder, &dir.join(number.to_string()), &job?, place.as_mut(), whole)?;
        writeln!(io::stdout(), "{code}")?;
        // Nobody waits for these.
        group.map_or(Ok(()), Group::remove)?;
        place.as_mut().map_or(Ok(()), Place::prepare)?;
    }
    Ok(())
}

/// Bytes of the place of a mark, and of that of an end, in the file of a job: what a disk writes at once.
const PLACE_BYTES: usize = 4096;

/// Runs one job in a new folder. That it has begun and how it ended are each on stable storage before anything follows from it: in one file, written
/// over zeros. What its program says is kept in files that are made for it, if it says anything.
fn supervise(
    above: &File,
    dir: &Path,
    order: &str,
    place: Option<&mut Place>,
    whole: bool,
) -> io::Result<(i32, Option<Group>)> {
    let (job, program) = order.split_once(' ').ok_or(io::ErrorKind::InvalidInput)?;
    let words: Vec<String> = serde_json::from_str(program)?;
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    create_dir(dir)?;
    let work = dir.join("work");
    if whole {
        create_dir(&work)?;
    }
    let record = File::create(dir.join("record"))?;
    record.write_all_at(&[0; 2 * PLACE_BYTES], 0)?;
    File::open(dir)?.sync_all()?;
    above.sync_all()?;
    record.write_all_at(job.as_bytes(), 0)?;
    record.sync_data()?;
    let mut program = std::process::Command::new(program);
    program.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if whole {
        // With a user to become, even its own, a process is made with a copy of the memory, and not with what it borrows.
        program.current_dir(&work).uid(rustix::process::getuid().as_raw());
    }
    let (child, group) = match place {
        Some(place) => place.start(&mut program).map(|(child, group)| (child, Some(group)))?,
        None => (program.spawn()?, None),
    };
    let ended = child.wait_with_output()?;
    let said = [("stdout", &ended.stdout), ("stderr", &ended.stderr)].map(|(name, bytes)| keep(dir, name, bytes));
    said.into_iter().collect::<io::Result<()>>()?;
    let code = ended.status.code().unwrap_or(-1);
    record.write_all_at(code.to_string().as_bytes(), PLACE_BYTES as u64)?;
    record.sync_data()?;
    Ok((code, group))
}

/// A file with that in it, synced, and its name, if there is anything.
fn keep(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut file = File::create(dir.join(name))?;
    file.write_all(bytes)?;
    file.sync_data()?;
    File::open(dir)?.sync_all()
}
