//! What opening a journal full of unsettled messages costs after its process was killed, beside the recovery of a bare log of the same
//! bytes: the log reads all of it and checks every checksum, and keeps nothing. Each opening is a process of its own, which is killed
//! afterwards, so that the next one finds a killed journal too. It judges no figure.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use journal::Engine;
use rustix::fs::{Advice, fadvise};
use rustix::process::{Signal, getpid, kill_process};

use super::fill::{FillError, bare_path, fill, journal_dir, open, recover_bare};
use super::sled_alone::SledAlone;
use super::usage;

/// Where a journal has the files of its engine.
const STORE: &str = "store";

/// Why an opening cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The journal cannot be filled or opened.
    #[error("the journal cannot be filled or opened")]
    Fill(#[from] FillError),
    /// The journal cannot be opened.
    #[error("the journal cannot be opened")]
    Open(#[from] journal::OpenError),
    /// The size of the store cannot be had.
    #[error("the size of the store cannot be had")]
    Store(#[from] journal::StoreError),
    /// The operating system refused.
    #[error("the operating system refused")]
    Io(#[from] std::io::Error),
    /// A process that was to do one thing did not.
    #[error("the process for {phase} failed: {said}")]
    Phase {
        /// What it was to do.
        phase: &'static str,
        /// What it said last.
        said: String,
    },
    /// What a process printed are no figures.
    #[error("the figures of a process cannot be read")]
    Figures(#[from] serde_json::Error),
}

/// What a process of its own does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Fills the journal and the bare log, and is killed.
    Fill,
    /// Opens the journal, and is killed.
    Journal,
    /// Recovers the bare log.
    Bare,
    /// Opens what the journal has in sled with sled alone and reads every row once, and is killed.
    SledAlone,
}

impl Phase {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Fill, Self::Journal, Self::Bare, Self::SledAlone];

    /// As it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Journal => "journal",
            Self::Bare => "bare",
            Self::SledAlone => "sled-alone",
        }
    }
}

/// What a pair is measured with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// A program that calls [`run_phase`] when it is called with `opening --phase`: `longshore-chaos`.
    pub program: PathBuf,
    /// Where journal and log are, kept from pair to pair. They are made with the first one.
    pub dir: PathBuf,
    /// The journal's engine.
    pub engine: Engine,
    /// Messages that nobody has settled, 1 KiB each.
    pub messages: u64,
    /// Whether the files are to be read from the disk, and not from memory.
    pub cold: bool,
}

/// What one opening took.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Opened {
    /// From the call to what it gives.
    pub time: Duration,
    /// Time on the processors meanwhile.
    pub cpu: Duration,
    /// The most memory that the process ever had, in KiB.
    pub peak_kib: u64,
    /// Of that, before anything was opened.
    pub before_kib: u64,
    /// Bytes of the files; of keys and values where sled was alone.
    pub bytes: u64,
    /// Rows of the journal or of sled, or records of the log.
    pub rows: u64,
}

/// One opening of each, right after the other.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Pair {
    /// Messages in both.
    pub messages: u64,
    /// The journal.
    pub ours: Opened,
    /// The bare log.
    pub reference: Opened,
}

/// Opens the journal and recovers the bare log, one after the other; makes them first if they are not there.
///
/// # Errors
/// [`OpeningError`]
pub fn pair(setup: &Setup) -> Result<Pair, OpeningError> {
    let reference = one(setup, Phase::Bare)?;
    Ok(Pair { messages: setup.messages, ours: one(setup, Phase::Journal)?, reference })
}

/// Opens one of them; makes both first if they are not there.
///
/// # Errors
/// [`OpeningError`]
pub fn one(setup: &Setup, phase: Phase) -> Result<Opened, OpeningError> {
    if !bare_path(&setup.dir).exists() {
        apart(setup, Phase::Fill)?;
    }
    if setup.cold {
        forget(&setup.dir)?;
    }
    Ok(serde_json::from_str(&apart(setup, phase)?)?)
}

/// A pair for each of these numbers of messages: what grows, and how. Each size is made in a folder of its own and removed.
///
/// # Errors
/// [`OpeningError`]
pub fn curve(setup: &Setup, sizes: &[u64], say: &mut dyn FnMut(Pair)) -> Result<(), OpeningError> {
    for messages in sizes.iter().copied() {
        let dir = tempfile::tempdir_in(&setup.dir)?;
        say(pair(&Setup { dir: dir.path().to_owned(), messages, ..setup.clone() })?);
    }
    Ok(())
}

/// Does one thing in a process that does nothing else, and gives what it printed.
fn apart(setup: &Setup, phase: Phase) -> Result<String, OpeningError> {
    let mut command = Command::new(&setup.program);
    command.args(["opening", "--phase", phase.name(), "--engine", &setup.engine.to_string()]);
    command.args(["--messages", &setup.messages.to_string(), "--dir"]).arg(&setup.dir);
    let output = command.output()?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // It kills itself once it has printed.
    if printed.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(OpeningError::Phase { phase: phase.name(), said });
    }
    Ok(printed)
}

/// Lets the system forget what it has of these files in memory.
fn forget(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Does what [`pair`] wants of a process of its own: prints the figures and kills the process, so that nothing is closed in order.
///
/// # Errors
/// [`OpeningError`]; otherwise it does not return.
pub fn run_phase(dir: &Path, engine: Engine, messages: u64, phase: Phase) -> Result<(), OpeningError> {
    match phase {
        Phase::Fill => {
            std::fs::create_dir_all(journal_dir(dir))?;
            let filler = fill(dir, engine, messages)?;
            println!("filled");
            end()?;
            drop(filler);
        }
        Phase::Journal => {
            let (before_kib, cpu, began) = (usage::peak_kib()?, usage::cpu()?, Instant::now());
            let (journal, state) = open(dir, engine)?;
            let (time, cpu) = (began.elapsed(), usage::cpu()?.saturating_sub(cpu));
            let (bytes, rows) = (journal.store().size()?, state.totals.rows);
            print(&Opened { time, cpu, peak_kib: usage::peak_kib()?, before_kib, bytes, rows })?;
            end()?;
        }
        Phase::Bare => {
            let (before_kib, cpu, began) = (usage::peak_kib()?, usage::cpu()?, Instant::now());
            let (rows, bytes) = recover_bare(&bare_path(dir))?;
            let (time, cpu) = (began.elapsed(), usage::cpu()?.saturating_sub(cpu));
            print(&Opened { time, cpu, peak_kib: usage::peak_kib()?, before_kib, bytes, rows })?;
        }
        Phase::SledAlone => {
            let store = journal_dir(dir).join(STORE);
            forget_snapshots(&store)?;
            let (before_kib, cpu, began) = (usage::peak_kib()?, usage::cpu()?, Instant::now());
            let alone = SledAlone::open(&store)?;
            let (rows, bytes) = alone.read()?;
            let (time, cpu) = (began.elapsed(), usage::cpu()?.saturating_sub(cpu));
            print(&Opened { time, cpu, peak_kib: usage::peak_kib()?, before_kib, bytes, rows })?;
            end()?;
        }
    }
    Ok(())
}

/// Removes what an opening of sled left to spare the next one the reading of its log. Whoever filled the journal was killed before there was any,
/// and the first to open it had to do without.
fn forget_snapshots(store: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn print(opened: &Opened) -> Result<(), OpeningError> {
    println!("{}", serde_json::to_string(opened)?);
    Ok(())
}

/// Ends this process as a crash does.
fn end() -> std::io::Result<()> {
    Ok(kill_process(getpid(), Signal::KILL)?)
}
