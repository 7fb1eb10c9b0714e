//! What a journal takes on disk after very many messages were settled and dropped, beside what is still alive in it. The reference is
//! the live bytes themselves: nothing can take less. It judges no figure.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use journal::{Change, Engine, Row, Store};
use messages::Seq;

use super::ends::body;
use super::fill::{FillError, Filler, journal_dir};
use super::sled_alone::SledAlone;
use super::usage;

/// Messages that one status settles.
const SETTLED_AT_ONCE: u64 = 256;

/// How far apart the disk is looked at while the journal rests.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why it cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The journal cannot be filled.
    #[error("the journal cannot be filled")]
    Fill(#[from] FillError),
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Store(#[from] journal::StoreError),
    /// The operating system refused.
    #[error("the operating system refused")]
    Io(#[from] std::io::Error),
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where to put the journal, in a folder that is made and removed.
    pub dir: PathBuf,
    /// The journal's engine.
    pub engine: Engine,
    /// Messages that are sent, settled and dropped, 1 KiB each.
    pub messages: u64,
    /// Messages that are sent besides and stay: the newest. The stream is never further ahead of what is settled.
    pub kept: u64,
    /// How long the journal is left alone afterwards at most.
    pub rest: Duration,
}

/// What it takes.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Space {
    /// Bytes of all keys and values that are there: the reference.
    pub live_bytes: u64,
    /// Bytes of what was ever journaled: keys and values of the messages.
    pub journaled_bytes: u64,
    /// Bytes handed to the disk meanwhile.
    pub written_bytes: u64,
    /// The most that was ever taken on disk.
    pub most_bytes: u64,
    /// What is taken on disk when the last message was settled, and then each second for as long as the journal rests.
    pub taken_bytes: Vec<u64>,
}

/// Sends, settles and drops, then waits and looks.
///
/// # Errors
/// [`DiskError`]
pub fn measure(setup: &Setup) -> Result<Space, DiskError> {
    let dir = tempfile::tempdir_in(&setup.dir)?;
    std::fs::create_dir_all(journal_dir(dir.path()))?;
    let written = usage::written_bytes()?;
    let mut filler = Filler::open(dir.path(), setup.engine)?;
    let (mut journaled_bytes, mut most_bytes) = (0, 0);
    for number in 1..=setup.messages + setup.kept {
        filler.send(&mut |changes| {
            let rows = changes.iter().filter_map(|change| match change {
                Change::Put(row @ (Row::Header(..) | Row::Body(..))) => Some(row.encode()),
                _ => None,
            });
            journaled_bytes += rows.map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
            Ok(())
        })?;
        let behind = number.saturating_sub(setup.kept);
        if behind % SETTLED_AT_ONCE == 0 || behind == setup.messages {
            Seq::new(behind).map_or(Ok(()), |behind| filler.settle(behind))?;
        }
        if number % 10_000 == 0 {
            most_bytes = most_bytes.max(taken(&journal_dir(dir.path()))?);
        }
    }
    filler.wait(0)?;
    let live_bytes = live(filler.journal.store())?;
    let taken_bytes = rest(&journal_dir(dir.path()), setup.rest)?;
    let written_bytes = usage::written_bytes()? - written;
    most_bytes = most_bytes.max(taken_bytes.iter().copied().max().unwrap_or_default());
    Ok(Space { live_bytes, journaled_bytes, written_bytes, most_bytes, taken_bytes })
}

/// The same with sled alone: what is in it are bodies by number. The engine of the journal is not looked at.
///
/// # Errors
/// [`DiskError`]
pub fn measure_sled_alone(setup: &Setup) -> Result<Space, DiskError> {
    let dir = tempfile::tempdir_in(&setup.dir)?;
    let written = usage::written_bytes()?;
    let alone = SledAlone::open(dir.path())?;
    let (mut journaled_bytes, mut most_bytes) = (0, 0);
    for number in 1..=setup.messages + setup.kept {
        let body = body(number);
        alone.insert(number, &body)?;
        journaled_bytes += (size_of_val(&number) + body.len()) as u64;
        let behind = number.saturating_sub(setup.kept);
        if behind > 0 && (behind % SETTLED_AT_ONCE == 0 || behind == setup.messages) {
            let first = (behind - 1) / SETTLED_AT_ONCE * SETTLED_AT_ONCE + 1;
            (first..=behind).try_for_each(|settled| alone.remove(settled))?;
        }
        if number % SETTLED_AT_ONCE == 0 {
            alone.sync()?;
        }
        if number % 10_000 == 0 {
            most_bytes = most_bytes.max(taken(dir.path())?);
        }
    }
    alone.sync()?;
    let (_, live_bytes) = alone.read()?;
    let taken_bytes = rest(dir.path(), setup.rest)?;
    let written_bytes = usage::written_bytes()? - written;
    most_bytes = most_bytes.max(taken_bytes.iter().copied().max().unwrap_or_default());
    Ok(Space { live_bytes, journaled_bytes, written_bytes, most_bytes, taken_bytes })
}

/// What a folder takes now, and then each second for so long.
fn rest(dir: &Path, rest: Duration) -> std::io::Result<Vec<u64>> {
    let began = Instant::now();
    let mut taken_bytes = vec![taken(dir)?];
    while began.elapsed() < rest {
        std::thread::sleep(LOOK_EVERY);
        taken_bytes.push(taken(dir)?);
    }
    Ok(taken_bytes)
}

fn live(store: &dyn Store) -> Result<u64, journal::StoreError> {
    let mut bytes = 0;
    store.scan(&[0], &[0xff], &mut |key, value| {
        bytes += (key.len() + value.len()) as u64;
        ControlFlow::Continue(())
    })?;
    Ok(bytes)
}

/// Bytes that the files of a folder take on disk, holes and lengths not counted but blocks.
fn taken(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes += taken(&entry.path())?,
            Ok(meta) => bytes += meta.blocks() * 512,
            // Removed while it was looked at.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
