//! The file in which the course of an attempt is kept. Whoever holds it locked runs the attempt; the processes of its step hold it by a lock of
//! another kind, which they inherit. In it are the mark that the step began
//! and the record of its end, in places whose space is taken beforehand, the plan, and behind it what the shim has to complain about. Nothing
//! here decides what they mean.
//!
//! One file, made once: so neither mark nor record needs a new name, which would have to be synced with its folder, nor any free space, and
//! nobody can hold the lock of one attempt and write into another.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use messages::Program;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::layout::{self, Damage, FILE_MODE, Record};
use super::records::{EXIT_BYTES_MAX, PLAN_BYTES_MAX, Plan, STARTED_BYTES_MAX};

/// The file. It is made first of all, and never removed.
pub(crate) const RECORD: &str = "record";

/// Bytes in front of each place's content: how many there are, which is not zero.
pub(crate) const LENGTH_BYTES: usize = 4;

/// What a disk writes at once. Each place begins at such a border, so that a write to one that is cut short leaves the other alone.
const BLOCK_BYTES: u64 = 4096;

/// A place in the file. Zeros mean that it was not written yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    at: u64,
    bytes_max: usize,
}

impl Place {
    const fn bytes(self) -> usize {
        LENGTH_BYTES + self.bytes_max
    }
}

/// The mark that the step began, written and synced before its program is started: whoever finds it never starts the step again.
pub(crate) const STARTED: Place = Place { at: 0, bytes_max: STARTED_BYTES_MAX };
/// The record of the end.
pub(crate) const EXIT: Place = Place { at: BLOCK_BYTES, bytes_max: EXIT_BYTES_MAX };

/// Bytes of both places. The plan is behind them, with its length in front.
pub(crate) const PLACES_BYTES: usize = 3 * 4096;

const _: () = assert!(LENGTH_BYTES + STARTED_BYTES_MAX <= 4096, "the mark fits into its block");
const _: () = assert!(4096 + LENGTH_BYTES + EXIT_BYTES_MAX <= PLACES_BYTES, "the record fits behind it");

/// Opens it for whoever prepares the attempt, with what is in it; or makes it, if it is missing. Whether it is new.
pub(crate) fn make(stem: &Path) -> io::Result<(File, bool)> {
    let path = layout::file(stem, RECORD);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    match options.clone().create_new(true).open(&path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            layout::plain(&mut options, &path).map(|file| (file, false))
        }
        Err(error) => Err(error),
    }
}

/// Opens it. It is never made here: without it there is no attempt.
pub(crate) fn open(stem: &Path) -> io::Result<File> {
    layout::plain(OpenOptions::new().read(true).write(true), &layout::file(stem, RECORD))
}

/// The same; nothing if nobody has begun to prepare one.
pub(crate) fn find(stem: &Path) -> io::Result<Option<File>> {
    match open(stem) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Empties it, takes the space for both places and writes down the plan, in its bytes. Of an attempt that has not begun only. Not durable: a loss
/// of power may leave any part of it, which the plan shows.
pub(crate) fn prepare(file: &File, plan: &[u8]) -> io::Result<()> {
    let length = u32::try_from(plan.len()).map_err(io::Error::other)?;
    file.set_len(0)?;
    file.write_all_at(&[&[0; PLACES_BYTES], &length.to_le_bytes()[..], plan].concat(), 0)
}

/// What an attempt is to be.
pub(crate) fn plan(file: &File) -> io::Result<Record<Plan>> {
    let Some((length, at)) = plan_bytes(file)? else { return Ok(Record::Absent) };
    let Some(length) = length else { return Ok(Record::Damaged(Damage::TooLarge { max: PLAN_BYTES_MAX })) };
    Ok(match layout::open_record(&content(file, at, length)?, PLAN_BYTES_MAX) {
        Ok(plan) => Record::Readable(plan),
        Err(damage) => Record::Damaged(damage),
    })
}

/// Writes over what of its plan an attempt needs no more once it has begun: the program and its environment, which holds secrets. The processes of
/// the step inherit this file for reading, also those that have become another user and have lost their environment. Where the step ran stays,
/// since what is left of it is looked for there. Not durable, and only after the mark is: before it, a plan may be carried out once more.
pub(crate) fn forget_program(file: &File, plan: &Plan) -> io::Result<()> {
    let left = Plan {
        program: Program::Shell(String::new()),
        env: BTreeMap::new(),
        dir: plan.dir.clone(),
        group: plan.group.clone(),
        ..*plan
    };
    let left = layout::encode(&left, PLAN_BYTES_MAX)?;
    let Some((Some(length), _)) = plan_bytes(file)? else { return Err(io::ErrorKind::InvalidData.into()) };
    // What complaints there are is behind it.
    let rest = length.checked_sub(left.len()).ok_or(io::ErrorKind::InvalidData)?;
    let length = u32::try_from(left.len()).map_err(io::Error::other)?;
    file.write_all_at(&[&length.to_le_bytes(), &left[..], &vec![0; rest]].concat(), PLACES_BYTES as u64)
}

/// Whether there is a plan, readable or not.
pub(crate) fn has_plan(file: &File) -> io::Result<bool> {
    plan_bytes(file).map(|plan| plan.is_some())
}

/// How long the plan is, unless it is longer than any, and where; nothing if there is none.
fn plan_bytes(file: &File) -> io::Result<Option<(Option<usize>, u64)>> {
    let at = PLACES_BYTES as u64;
    let length = content(file, at, LENGTH_BYTES)?;
    let length = length.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    let within = usize::try_from(length).ok().filter(|length| *length <= PLAN_BYTES_MAX);
    Ok((length > 0).then_some((within, at + LENGTH_BYTES as u64)))
}

/// Fills a place, once and durably. It needs no free space. Whoever reads meanwhile may find a part of it, and knows by the lock that it is
/// just being written.
pub(crate) fn write<T: Serialize>(file: &File, place: Place, value: &T) -> io::Result<Vec<u8>> {
    let record = layout::encode(value, place.bytes_max)?;
    let length = u32::try_from(record.len()).map_err(io::Error::other)?;
    file.write_all_at(&[&length.to_le_bytes(), &record[..]].concat(), place.at)?;
    file.sync_data()?;
    Ok(record)
}

/// What is in a place.
pub(crate) fn read<T: DeserializeOwned>(file: &File, place: Place) -> io::Result<Record<T>> {
    let bytes = content(file, place.at, place.bytes())?;
    if is_empty(&bytes) {
        return Ok(Record::Absent);
    }
    let (length, record) = bytes.split_first_chunk().expect("a place is longer than its length");
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let Some(record) = record.get(..length) else { return Ok(Record::Damaged(Damage::Checksum)) };
    Ok(match layout::open_record(record, place.bytes_max) {
        Ok(value) => Record::Readable(value),
        Err(damage) => Record::Damaged(damage),
    })
}

/// Whether anything was written to a place, readable or not.
pub(crate) fn is_written(file: &File, place: Place) -> io::Result<bool> {
    content(file, place.at, place.bytes()).map(|bytes| !is_empty(&bytes))
}

/// Whether the mark or the record was written, readable or not.
pub(crate) fn has_begun(file: &File) -> io::Result<bool> {
    Ok(is_written(file, STARTED)? || is_written(file, EXIT)?)
}

/// Whether that open file is what has this name: a step may have moved or removed it, or the folder of its run.
pub(crate) fn is_named(file: &File, stem: &Path) -> io::Result<bool> {
    let (own, named) = (file.metadata()?, std::fs::symlink_metadata(layout::file(stem, RECORD))?);
    Ok((own.dev(), own.ino()) == (named.dev(), named.ino()))
}

fn is_empty(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// So many bytes from there on; zeros where the file is too short, as a loss of power may leave it.
fn content(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::records::{AttemptEnd, Exit, GroupPlan, STREAM_ERROR_BYTES_MAX, StreamEnd};
    use super::super::{BootId, Started};
    use super::*;
    use messages::Usage;

    fn longest() -> Exit {
        let error = Some("e".repeat(STREAM_ERROR_BYTES_MAX));
        let stream = StreamEnd { bytes: u64::MAX, cut_bytes: u64::MAX, left_open: true, error, ..StreamEnd::empty() };
        Exit {
            end: AttemptEnd::not_started(&"r".repeat(100_000)),
            cancelled: true,
            started_at_ms: u64::MAX,
            ended_at_ms: u64::MAX,
            stdout: stream.clone(),
            stderr: stream.clone(),
            output_error: stream.error,
            left_processes: true,
            usage: Some(Usage { user_ms: u64::MAX, system_ms: u64::MAX, memory_bytes: u64::MAX }),
            out_of_memory: true,
        }
    }

    #[test]
    fn the_longest_record_of_an_end_fits_its_place_and_leaves_the_mark_and_the_complaints_alone() {
        let dir = tempfile::tempdir().unwrap();
        let stem = dir.path().join("one.1");
        let (file, new) = make(&stem).unwrap();
        assert!(new);
        prepare(&file, b"plan").unwrap();
        assert_eq!(read::<Started>(&file, STARTED).unwrap(), Record::Absent);
        let boot = BootId::new(uuid::Uuid::from_u128(7));
        let started = Started { boot, pid: 7, start_ticks: 8, at_ms: 9 };
        write(&file, STARTED, &started).unwrap();
        assert!(is_written(&file, STARTED).unwrap() && !is_written(&file, EXIT).unwrap());
        file.write_all_at(b"complaint", PLACES_BYTES as u64 + 8).unwrap();
        let exit = longest();
        write(&file, EXIT, &exit).unwrap();
        assert_eq!(read(&file, EXIT).unwrap(), Record::Readable(exit));
        assert_eq!(read(&file, STARTED).unwrap(), Record::Readable(started));
        assert!(std::fs::read(layout::file(&stem, RECORD)).unwrap().ends_with(b"\x04\0\0\0plancomplaint"));
        // What is prepared anew has nothing of before.
        prepare(&file, &[]).unwrap();
        assert_eq!(std::fs::read(layout::file(&stem, RECORD)).unwrap(), [0; PLACES_BYTES + LENGTH_BYTES]);
        assert!(!has_plan(&file).unwrap());
    }

    #[test]
    fn of_a_program_that_is_forgotten_stays_where_it_ran_and_what_was_complained_about() {
        let dir = tempfile::tempdir().unwrap();
        let stem = dir.path().join("one.1");
        let (file, _) = make(&stem).unwrap();
        let group = Some(GroupPlan { place: "/group".into(), memory_bytes: None, cpu_percent: None });
        let whole = Plan {
            program: Program::Exec(vec!["secret".to_owned()]),
            env: BTreeMap::from([("TOKEN".to_owned(), "secret".to_owned())]),
            dir: "/".into(),
            timeout_ms: Some(1),
            output_bytes_max: 2,
            run_as: None,
            memory_bytes_max: None,
            group,
            hands_on: true,
        };
        let bare = Plan { program: Program::Shell(String::new()), env: BTreeMap::new(), ..whole.clone() };
        for before in [whole, bare.clone()] {
            let bytes = layout::encode(&before, PLAN_BYTES_MAX).unwrap();
            prepare(&file, &bytes).unwrap();
            let end = PLACES_BYTES + LENGTH_BYTES + bytes.len();
            file.write_all_at(b"complaint", end as u64).unwrap();
            forget_program(&file, &before).unwrap();
            assert_eq!(plan(&file).unwrap(), Record::Readable(bare.clone()));
            let content = std::fs::read(layout::file(&stem, RECORD)).unwrap();
            assert_eq!(&content[end..], b"complaint");
            assert!(!content.windows(6).any(|bytes| bytes == b"secret"));
        }
    }

    #[test]
    fn a_file_that_is_too_short_was_not_written_and_one_that_was_moved_is_not_the_attempts() {
        let dir = tempfile::tempdir().unwrap();
        let stem = dir.path().join("one.1");
        let (file, new) = make(&stem).unwrap();
        assert!(new);
        assert_eq!(read::<Exit>(&file, EXIT).unwrap(), Record::Absent);
        assert!(is_named(&file, &stem).unwrap() && !make(&stem).unwrap().1);
        std::fs::rename(layout::file(&stem, RECORD), dir.path().join("other")).unwrap();
        assert!(is_named(&file, &stem).is_err());
        make(&stem).unwrap();
        assert!(!is_named(&file, &stem).unwrap());
    }
}
