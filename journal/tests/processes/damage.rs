//! Damage at rest: a flipped bit, a lost tail, a zeroed page anywhere in the engine's files. Opening must give an error or the
//! whole journal. Each trial is a process of its own, because an engine that aborts or hangs would take the tests with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use journal::{Engine, OpenError, WriteAhead, verify};

use crate::child::start;
use crate::engine::open;
use crate::history::{History, Random, rows_of};

const TRIALS: u64 = 40;
const STEPS: u64 = 400;
const PAGE: u64 = 4_096;

/// The child: opens the journal and says one line about what came of it, then one that it ended in order.
pub(crate) fn open_and_compare(engine: Engine, dir: &Path, seed: u64, steps: u64) -> ExitCode {
    println!("{}", outcome(engine, dir, seed, steps));
    println!("ended");
    ExitCode::SUCCESS
}

fn outcome(engine: Engine, dir: &Path, seed: u64, steps: u64) -> String {
    let opened = match open(engine, dir) {
        Ok((journal, _)) => journal,
        Err(error) => {
            return match error {
                OpenError::Store { source, .. } => format!("refused: store: {source}"),
                OpenError::Row { source, .. } => format!("refused: row: {source}"),
                OpenError::Illegal { source, .. } => format!("refused: illegal: {source}"),
                OpenError::Shorter { shortfalls, .. } => format!("refused: shorter: {shortfalls:?}"),
                OpenError::HighWater { .. } => "refused: mark".to_owned(),
                OpenError::Io { .. }
                | OpenError::Owner { .. }
                | OpenError::Locked { .. }
                | OpenError::Engine { .. }
                | OpenError::Endpoint { .. } => {
                    format!("wrong: {error:?}")
                }
            };
        }
    };
    let mut known = History::after(seed, steps);
    match rows_of(opened.store()) {
        Ok(rows) if rows == known.rows => {}
        Ok(rows) => {
            let missing = known.rows.keys().filter(|key| !rows.contains_key(*key)).count();
            let other =
                known.rows.iter().filter(|(key, row)| rows.get(*key).is_some_and(|found| found != *row)).count();
            return format!("wrong: {missing} rows missing, {other} of other content, {} found", rows.len());
        }
        Err(error) => return format!("wrong: it opened and then could not be read: {error}"),
    }
    match verify(opened.store()) {
        Ok(report) if report.problem_count == 0 => {}
        other => return format!("wrong: {other:?}"),
    }
    for _ in 0..20 {
        if let Err(error) = opened.commit(WriteAhead::new(known.step(), ())).wait() {
            return format!("whole, then closed: {error:?}");
        }
    }
    match rows_of(opened.store()) {
        Ok(rows) if rows == known.rows => "whole".to_owned(),
        other => format!("wrong after going on: {:?}", other.map(|rows| rows.len())),
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.metadata().unwrap().len() > 0 {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Damages one file. Says how; nothing when that changed no byte.
fn damage(store: &Path, random: &mut Random) -> Option<String> {
    let files = files(store);
    // Every second time the largest file, where nearly everything is.
    let chosen = match random.below(2) {
        0 => files.iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap().clone(),
        _ => files[usize::try_from(random.below(files.len() as u64)).unwrap()].clone(),
    };
    let good = fs::read(&chosen).unwrap();
    let mut bad = good.clone();
    let place = random.below(good.len() as u64);
    let at = usize::try_from(place).unwrap();
    let how = match random.below(3) {
        0 => {
            bad[at] ^= 1 << random.below(8);
            "bit flipped"
        }
        1 => {
            let cut = 1 + random.below(PAGE);
            bad.truncate(good.len().saturating_sub(usize::try_from(cut).unwrap()));
            "tail cut"
        }
        _ => {
            let from = usize::try_from(place / PAGE * PAGE).unwrap();
            let to = good.len().min(from + usize::try_from(PAGE).unwrap());
            bad[from..to].fill(0);
            "page zeroed"
        }
    };
    fs::write(&chosen, &bad).unwrap();
    let name = chosen.strip_prefix(store).unwrap().display().to_string();
    let name = name.split('.').next().unwrap_or_default();
    (bad != good).then(|| format!("{name} {how} at {place} of {}", good.len()))
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

pub(crate) fn trials(engine: Engine, seed: u64) {
    let good = tempfile::tempdir().unwrap();
    let mut history = History::new(seed);
    let (journal, _) = open(engine, good.path()).unwrap();
    for _ in 0..STEPS {
        journal.commit(WriteAhead::new(history.step(), ())).wait().unwrap();
    }
    // Closing writes the mark, so everything is older than it.
    drop(journal);
    let mut random = Random(seed ^ 0xda);
    let mut tally = BTreeMap::<String, u64>::new();
    let mut failures = Vec::new();
    for trial in 0..TRIALS {
        let dir = tempfile::tempdir().unwrap();
        copy(good.path(), dir.path());
        let how = damage(&dir.path().join("store"), &mut random);
        let how = how.unwrap_or_else(|| "nothing changed".to_owned());
        let mut what = String::new();
        // Twice: whoever was refused tries again, and the engine may have changed its files meanwhile.
        for attempt in 1..=2 {
            let mut child = start(engine, "open", dir.path(), seed, STEPS);
            let said: Vec<_> = std::iter::from_fn(|| child.line()).collect();
            let status = child.wait();
            let first = said.first().cloned().unwrap_or_else(|| "nothing said".to_owned());
            let in_order = status.success() && said.last().is_some_and(|line| line == "ended");
            if !in_order || !(first.starts_with("whole") || first.starts_with("refused: ")) {
                failures.push(format!("trial {trial}, attempt {attempt}: {how}: {first}; {status}"));
            }
            let refused = first.starts_with("refused: ");
            if attempt == 1 {
                what = first;
            }
            if !refused {
                break;
            }
        }
        let short = what.split(": ").take(2).collect::<Vec<_>>().join(": ");
        *tally.entry(format!("{} -> {short}", how.split(" at ").next().unwrap_or_default())).or_default() += 1;
    }
    for (what, count) in &tally {
        println!("{count:>4}  {what}");
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
