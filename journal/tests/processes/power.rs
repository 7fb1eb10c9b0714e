//! A loss of power during a commit: of what the engine wrote since the last sync the disk may hold any prefix, torn anywhere
//! between two sectors, or any other part. The journal must open, with the commits before, and with the last one whole or not at
//! all. A crash is not damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use journal::{Batch, Engine, Seams, Store, StoreError, Visit, WriteAhead, verify};

use crate::child::start;
use crate::engine::{open, open_through};
use crate::history::{History, Random, rows_of};
use crate::images::{Files, images};
use crate::kill::count_of;

/// Between the journal and its store: notes what the files hold after a batch was applied and before it is synced.
struct Noting {
    inner: Arc<dyn Store>,
    dir: PathBuf,
    applied: Arc<Mutex<Files>>,
}

impl Store for Noting {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.inner.apply(batch)?;
        *self.applied.lock().unwrap() = Files::read(&self.dir);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.inner.scan(from, to, visit)
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.inner.size()
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.value(key)
    }
}

/// What a loss of power may leave, and which of that may be without the last commit, or with it.
struct Left {
    image: Files,
    absent: bool,
    whole: bool,
}

/// Everything that may be left of a commit. sled writes while it syncs, before the sync of the file; the segmented log writes when
/// a batch is applied, and what it writes after the sync of the file lies behind a commit that is there for good.
fn left(engine: Engine, [before, applied, after]: [&Files; 3], random: &mut Random) -> Vec<Left> {
    let cut_off = match engine {
        Engine::Sled => after,
        Engine::Segments => applied,
    };
    let of = |image: Files| Left { absent: image != *after, whole: image != *before, image };
    let mut left: Vec<Left> = images(before, cut_off, random).into_iter().map(of).collect();
    if cut_off != after {
        let there = |image| Left { absent: false, whole: true, image };
        left.extend(images(cut_off, after, random).into_iter().map(there));
    }
    left
}

/// Commits that are cut off, each in many ways.
const COMMITS: u64 = 12;

/// The child: opens the images one after the other, and says how many steps each holds, or what is wrong with it.
pub(crate) fn open_and_compare(engine: Engine, dir: &Path, seed: u64, most: u64) -> ExitCode {
    for number in 0.. {
        let image = dir.join(number.to_string());
        if !image.is_dir() {
            break;
        }
        println!("{}", outcome(engine, &image, seed, most));
    }
    ExitCode::SUCCESS
}

fn outcome(engine: Engine, dir: &Path, seed: u64, most: u64) -> String {
    let journal = match open(engine, dir) {
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

/// What lies beside the store. The high-water file is renamed into place at any time, so it is the older one or none; the
/// tail mark is not synced, so it is older or empty.
fn write_marks(live: &Path, image: &Path, random: &mut Random) {
    for (name, empty) in [("high-water", None), ("tail", Some(vec![0; 13]))] {
        match (fs::read(live.join(name)), random.below(3)) {
            (Ok(mark), 0..=1) => fs::write(image.join(name), mark).unwrap(),
            (Ok(_), _) => empty.iter().for_each(|zeros| fs::write(image.join(name), zeros).unwrap()),
            (Err(_), _) => {}
        }
    }
}

pub(crate) fn trials(engine: Engine, seed: u64) {
    let live = tempfile::tempdir().unwrap();
    let mut random = Random(seed ^ 0x9f);
    let mut history = History::new(seed);
    let (store, applied) = (live.path().join("store"), Arc::new(Mutex::new(Files::default())));
    let (dir, note) = (store.clone(), Arc::clone(&applied));
    let seams =
        Seams { store: Box::new(move |inner| Arc::new(Noting { inner, dir, applied: note })), ..Seams::default() };
    let (journal, _) = open_through(engine, live.path(), seams).unwrap();
    let (mut whole, mut absent, mut failures) = (0, 0, Vec::new());
    for commit in 0..COMMITS {
        for _ in 0..random.below(30) {
            journal.commit(WriteAhead::new(history.step(), ())).wait().unwrap();
        }
        let marks = tempfile::tempdir().unwrap();
        write_marks(live.path(), marks.path(), &mut Random(0));
        let (before, steps) = (Files::read(&store), history.steps);
        let changes = (0..=random.below(12)).flat_map(|_| history.step()).collect();
        journal.commit(WriteAhead::new(changes, ())).wait().unwrap();
        let (applied, after) = (applied.lock().unwrap().clone(), Files::read(&store));

        let dir = tempfile::tempdir().unwrap();
        let left = left(engine, [&before, &applied, &after], &mut random);
        for (number, left) in left.iter().enumerate() {
            let folder = dir.path().join(number.to_string());
            left.image.write(&folder.join("store"));
            write_marks(marks.path(), &folder, &mut random);
        }
        let mut child = start(engine, "recover", dir.path(), seed, history.steps);
        for (number, left) in left.iter().enumerate() {
            let said = child.line();
            match said.as_deref().map(str::parse::<u64>) {
                Some(Ok(found)) if found == history.steps && left.whole => whole += 1,
                Some(Ok(found)) if found == steps && left.absent => absent += 1,
                _ => failures.push(format!("commit {commit}, image {number}: {steps} to {}: {said:?}", history.steps)),
            }
        }
        let status = child.wait();
        assert!(status.success(), "commit {commit}: {status}; {failures:#?}");
    }
    println!("{} losses of power: {whole} times the last commit was whole, {absent} times not there", whole + absent);
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(absent > COMMITS && whole >= COMMITS, "the images are not of a loss of power");
}
