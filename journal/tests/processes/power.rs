//! A loss of power during a commit: of the pages that the engine wrote since the last sync some are on the disk, some are not.
//! The journal must open, with the commits before, and with the last one whole or not at all. A crash is not damage.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use journal::{Engine, Journal, WriteAhead, verify};

use crate::child::start;
use crate::damage::copy;
use crate::history::{History, Random, opening, rows_of};
use crate::kill::count_of;

const TRIALS: u64 = 25;
const PAGE: usize = 4_096;

/// The child: opens the journal and says how many steps it holds, or what is wrong with it.
pub(crate) fn open_and_compare(dir: &Path, seed: u64, most: u64) -> ExitCode {
    println!("{}", outcome(dir, seed, most));
    ExitCode::SUCCESS
}

fn outcome(dir: &Path, seed: u64, most: u64) -> String {
    let journal = match Journal::open(dir, &opening()) {
        Ok((journal, _)) => journal,
        Err(error) => return format!("refused: {error}: {error:?}"),
    };
    let rows = rows_of(journal.store()).unwrap();
    let steps = count_of(&rows);
    let mut known = History::after(seed, steps.min(most));
    if rows != known.rows {
        return format!("wrong: not the rows of {steps} steps");
    }
    let problems = verify(journal.store()).unwrap().problems;
    if !problems.is_empty() {
        return format!("wrong: {problems:?}");
    }
    match journal.commit(WriteAhead::new(known.step(), ())).wait() {
        Ok(()) => steps.to_string(),
        Err(error) => format!("wrong: it does not go on: {error:?}"),
    }
}

/// What the disk may hold of a file: page by page the older or the newer content.
fn cut_off(before: &[u8], after: &[u8], random: &mut Random) -> Vec<u8> {
    let mut disk = after.to_vec();
    let odds = 1 + random.below(6);
    for (number, page) in disk.chunks_mut(PAGE).enumerate() {
        let from = number * PAGE;
        let old = before.get(from..before.len().min(from + page.len())).unwrap_or_default();
        if page != old && random.below(7) >= odds {
            // Where the file had not reached yet there are zeros.
            page.fill(0);
            page[..old.len()].copy_from_slice(old);
        }
    }
    // The length may not have come to the disk, either.
    if after.len() > before.len() && random.below(3) == 0 {
        let lost = random.below((after.len() - before.len()) as u64 + 1);
        disk.truncate(after.len() - usize::try_from(lost).unwrap());
    }
    disk
}

/// Where all of this history is: it does not fill a second segment.
const fn data_file(engine: Engine) -> &'static str {
    match engine {
        Engine::Sled => "db",
        Engine::Segments => "000000000001.seg",
    }
}

/// Bytes at the end of that file that say that the last commit was synced. They are written after its sync, so a disk that lost
/// part of the commit cannot have them.
const fn written_after_the_sync(engine: Engine) -> usize {
    match engine {
        Engine::Sled => 0,
        Engine::Segments => 32,
    }
}

pub(crate) fn trials(seed: u64, engine: Engine) {
    let live = tempfile::tempdir().unwrap();
    let mut random = Random(seed ^ 0x9f);
    let mut history = History::new(seed);
    let (journal, _) = Journal::open_as(live.path(), &opening(), engine).unwrap();
    let (mut whole, mut absent, mut failures) = (0, 0, Vec::new());
    for trial in 0..TRIALS {
        for _ in 0..random.below(30) {
            journal.commit(WriteAhead::new(history.step(), ())).wait().unwrap();
        }
        let (before, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [store, old, new] = [live.path(), before.path(), dir.path()].map(|dir| dir.join("store"));
        copy(&store, &old);
        // The mark is written by rename, at any time: it is the older one or none.
        if let Ok(mark) = fs::read(live.path().join("high-water")) {
            fs::write(dir.path().join("high-water"), mark).unwrap();
        }
        let steps = history.steps;
        let changes = (0..=random.below(12)).flat_map(|_| history.step()).collect();
        journal.commit(WriteAhead::new(changes, ())).wait().unwrap();
        copy(&store, &new);
        let file = data_file(engine);
        let [old, mut disk] = [old, new.clone()].map(|store| fs::read(store.join(file)).unwrap());
        disk.truncate(disk.len() - written_after_the_sync(engine));
        fs::write(new.join(file), cut_off(&old, &disk, &mut random)).unwrap();

        let mut child = start("recover", dir.path(), seed, history.steps);
        let said = child.line();
        let status = child.wait();
        match said.as_deref().map(str::parse::<u64>) {
            Some(Ok(found)) if found == history.steps => whole += 1,
            Some(Ok(found)) if found == steps => absent += 1,
            _ => failures.push(format!("trial {trial}: {steps} to {}: {said:?}, {status}", history.steps)),
        }
    }
    println!("{engine}: {TRIALS} losses of power: {whole} times the last commit was whole, {absent} times not there");
    assert!(failures.is_empty(), "{failures:#?}");
}
