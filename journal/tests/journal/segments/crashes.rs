//! A crash after each step of a history that rotates and compacts all the time: of the process, which leaves every write, and
//! of the machine, which leaves any mixture of what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use journal::segments::{Options, Point};
use journal::{Batch, SegmentStore, Store};

use super::{commit, open, put, rows, segments};
use crate::history::Random;
use crate::store_model::{Model, change};

const SECTOR: usize = 512;
/// Mixtures of old and new sectors that are tried at each step.
const MIXTURES: u64 = 2;

/// The segments by name, as they are or as the disk has them.
type Files = BTreeMap<String, Vec<u8>>;

fn options() -> Options {
    Options { segment_bytes: 3_000, compact_bytes: 900, ahead_bytes: 700, observer: None }
}

fn files(dir: &Path) -> Files {
    let read =
        |path: &std::path::PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
    segments(dir).iter().map(read).collect()
}

/// What is known while the history runs.
struct World {
    random: Random,
    /// What the store may show: from what was synced last to what is being applied.
    allowed: Vec<Model>,
    /// Whether the last of them is being applied just now.
    applying: bool,
    /// What the disk has for certain.
    stable: Files,
    seen: BTreeMap<Point, u64>,
}

impl World {
    fn reach(&mut self, point: Point, dir: &Path) {
        *self.seen.entry(point).or_default() += 1;
        let now = files(dir);
        // The process dies: its writes are all there, and what was applied before with them.
        let sure = if self.applying { 2 } else { 1 };
        let from = self.allowed.len().saturating_sub(sure);
        check(&now, &self.allowed[from..], &format!("killed at {point:?}"));
        if matches!(point, Point::Synced | Point::TailCut | Point::RoomGivenBack) {
            self.stable.clone_from(&now);
            self.allowed.drain(..from);
        }
        if point == Point::NameSynced {
            let (name, bytes) = now.last_key_value().unwrap();
            self.stable.insert(name.clone(), bytes.clone());
        }
        for mixture in 0..MIXTURES {
            let disk = self.disk(&now);
            check(&disk, &self.allowed, &format!("power lost at {point:?}, mixture {mixture}"));
        }
    }

    /// What the disk may have: of each file the older or the newer sectors, of each name the older or the newer state.
    fn disk(&mut self, now: &Files) -> Files {
        let names: BTreeSet<_> = now.keys().chain(self.stable.keys()).cloned().collect();
        let mut disk = Files::new();
        for name in names {
            let bytes = match (self.stable.get(&name), now.get(&name)) {
                (Some(old), Some(new)) => mixed(old, new, &mut self.random),
                (None, Some(new)) if self.random.below(2) == 0 => mixed(&[], new, &mut self.random),
                // Removed, which may not have come to the disk: then it is there whole.
                (Some(old), None) if self.random.below(2) == 0 => old.clone(),
                (Some(_) | None, None) | (None, Some(_)) => continue,
            };
            disk.insert(name, bytes);
        }
        disk
    }
}

fn mixed(old: &[u8], new: &[u8], random: &mut Random) -> Vec<u8> {
    let mut disk = new.to_vec();
    for (number, sector) in disk.chunks_mut(SECTOR).enumerate() {
        let from = number * SECTOR;
        let before = old.get(from..old.len().min(from + sector.len())).unwrap_or_default();
        if sector != before && random.below(2) == 0 {
            // Where the file had not reached yet there are zeros.
            sector.fill(0);
            sector[..before.len()].copy_from_slice(before);
        }
    }
    if new.len() < old.len() && random.below(2) == 0 {
        // Cut off, which may not have come to the disk.
        disk.extend_from_slice(&old[new.len()..]);
    }
    if new.len() > old.len() && random.below(3) == 0 {
        let grown = (new.len() - old.len()) as u64;
        disk.truncate(old.len() + usize::try_from(random.below(grown + 1)).unwrap());
    }
    disk
}

/// These files must open, show one of those, and go on.
fn check(disk: &Files, allowed: &[Model], when: &str) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in disk {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let found = SegmentStore::open_read_only(dir.path()).map(|reader| rows(&reader));
    let store = open(dir.path(), &options()).unwrap_or_else(|error| panic!("{when}: {error}"));
    let now = rows(&store);
    assert!(allowed.contains(&now), "{when}: {} rows that were never there together", now.len());
    assert!(found.unwrap_or_else(|error| panic!("{when}: {error}")) == now, "{when}: a reader sees something else");
    commit(&store, &put(b"\xf0after", b"x"));
    drop(store);
    let store = open(dir.path(), &options()).unwrap_or_else(|error| panic!("{when}, then again: {error}"));
    assert_eq!(rows(&store).len(), now.len() + 1, "{when}");
}

fn run(seed: u64, batches: u64) -> BTreeMap<Point, u64> {
    let dir = tempfile::tempdir().unwrap();
    let (allowed, stable, seen) = (vec![Model::new()], Files::new(), BTreeMap::new());
    let world = World { random: Random(seed), allowed, applying: false, stable, seen };
    let world = Arc::new(Mutex::new(world));
    let observer = {
        let (world, dir) = (Arc::clone(&world), dir.path().to_owned());
        Arc::new(move |point| world.lock().unwrap().reach(point, &dir))
    };
    let store = open(dir.path(), &Options { observer: Some(observer), ..options() }).unwrap();
    let (mut model, mut random) = (Model::new(), Random(seed ^ 0x51));
    for _ in 0..batches {
        let mut batch = Batch::default();
        for _ in 0..=random.below(3) {
            let key = vec![1, u8::try_from(random.below(12)).unwrap()];
            match random.below(4) {
                0 => batch.delete(key),
                _ => {
                    let length = usize::try_from(random.below(500)).unwrap();
                    batch.put(key, random.bytes(length));
                }
            }
        }
        change(&mut model, &batch);
        {
            let mut world = world.lock().unwrap();
            world.allowed.push(model.clone());
            world.applying = true;
        }
        store.apply(&batch).unwrap();
        world.lock().unwrap().applying = false;
        match random.below(6) {
            0 | 1 => {}
            2..=4 => store.sync().unwrap(),
            // Nothing is written for a while: space is given back, and all of it is synced.
            _ => drop(store.rest().unwrap()),
        }
    }
    assert!(rows(&store) == model);
    drop(store);
    let world = world.lock().unwrap();
    world.seen.clone()
}

#[test]
fn a_crash_after_any_step_leaves_a_store_that_opens_with_whole_batches_and_all_that_was_synced() {
    for seed in 0..3 {
        println!("seed {seed} of this test's own list");
        let seen = run(seed, 45);
        for point in [
            Point::SegmentMade,
            Point::HeaderWritten,
            Point::HeaderSynced,
            Point::NameSynced,
            Point::RoomMade,
            Point::RoomGivenBack,
            Point::SealWritten,
            Point::FrameWritten,
            Point::Synced,
            Point::MarkWritten,
            Point::SegmentRemoved,
        ] {
            assert!(seen.contains_key(&point), "{point:?} was not reached: {seen:?}");
        }
    }
}
