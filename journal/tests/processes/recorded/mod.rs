//! Losses of power, from recorded calls. A child works with a journal under strace; at each sync, before it takes effect, the disk
//! is left as a loss of power may leave it, in many ways, and each is opened. Whatever was acknowledged is there, what was not
//! is there whole or not at all, and none of it is called damage.

pub(crate) mod expected;
pub(crate) mod life;
pub(crate) mod look;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use journal::Engine;
use rustix::process::Signal;
use tempfile::TempDir;

use self::expected::Expected;
use self::life::{FIRST, PUT_ASIDE, SECOND, SHORT};
use crate::child::{command, start};
use crate::history::Random;
use crate::power_loss::disk::{Disk, Pending, Tree, read, write};
use crate::power_loss::losses::losses;
use crate::power_loss::recording::{Moment, replay};
use crate::power_loss::strace;

/// Images that one child looks at.
const BATCH: usize = 48;
/// Beside nothing and everything, what is tried of the changes before a sync that covers only frames or pages.
const OTHERS: usize = 2;
/// The same where names or lengths changed, or several files.
const OTHERS_MANY: usize = 32;
/// The same while a journal goes on after something else had happened to it.
const OTHERS_AFTER: usize = 10;
/// Images that a further life begins with, so that the power is lost twice.
const TWICE: usize = 4;
/// Processes that are killed at a sync while they create a journal, the first at the first, and then go on.
const KILLED_CREATING: u64 = 9;
/// Processes that are killed later, at a commit by chance. What the next one shows of it must survive from then on.
const KILLED_LATER: u64 = 4;
/// Syncs before which that is, beyond those of creating. A long life has more.
const KILLED_BEFORE: u64 = 30;
/// A folder in memory, where a sync costs nothing: whether these files survive is not what is tried here.
const IN_MEMORY: &str = "/dev/shm";
/// Names a folder that images are copied to that are not as they should be.
const KEEP_VARIABLE: &str = "JOURNAL_TEST_KEEP";

/// A recorded disk, over the processes that work on it one after the other.
struct Recorded {
    dir: TempDir,
    disk: Disk,
    /// Lines of all traces so far.
    lines: u64,
    expected: Expected,
    what: String,
    /// The last process was killed.
    cut_off: bool,
}

impl Recorded {
    /// Begins with what a loss of power left, or with nothing.
    fn new(what: String, image: &Tree, expected: Expected) -> Self {
        let dir = folder();
        let root = dir.path().join("disk");
        write(image, &root);
        Self { disk: Disk::load(&root), dir, lines: 0, expected, what, cut_off: false }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("disk")
    }
}

fn folder() -> TempDir {
    tempfile::tempdir_in(IN_MEMORY).or_else(|_| tempfile::tempdir()).unwrap()
}

/// An image to be looked at.
struct Image {
    expected: Expected,
    /// Where it comes from, in words.
    how: String,
}

/// Everything that is tried with one engine.
struct Trials {
    engine: Engine,
    seed: u64,
    random: Random,
    seen: HashSet<u64>,
    waiting: (TempDir, Vec<Image>),
    /// Steps that were ever tried.
    most: u64,
    looked_at: BTreeMap<String, u64>,
    unacknowledged: u64,
    moments: u64,
    /// Images for a further life.
    again: Vec<(Tree, Expected, String)>,
    failures: Vec<String>,
}

pub(crate) fn trials(engine: Engine, seed: u64) {
    let mut trials = Trials {
        engine,
        seed,
        random: Random(seed ^ 0x50),
        seen: HashSet::new(),
        waiting: (folder(), Vec::new()),
        most: 0,
        looked_at: BTreeMap::new(),
        unacknowledged: 0,
        moments: 0,
        again: Vec::new(),
        failures: Vec::new(),
    };
    let mut whole = Recorded::new("whole lives".to_owned(), &Tree::new(), Expected::default());
    for life in [FIRST, SECOND, PUT_ASIDE] {
        assert!(
            trials.record(&mut whole, life, None, Some((OTHERS, OTHERS_MANY))),
            "a life that nobody ended has a loose end"
        );
    }
    covered(engine, &whole);
    trials.kill();
    for (image, expected, how) in std::mem::take(&mut trials.again) {
        let mut again = Recorded::new(format!("after a loss of power ({how})"), &image, expected);
        trials.record(&mut again, SHORT, None, Some((OTHERS_AFTER, OTHERS_AFTER)));
    }
    trials.flush();
    trials.judge();
}

/// The recording went through what it is there for.
fn covered(engine: Engine, recorded: &Recorded) {
    let kept = life::place(&recorded.root()).join("damaged-1/store");
    let names: Vec<_> = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    match engine {
        Engine::Sled => {
            let bytes = std::fs::metadata(kept.join("db")).unwrap().len();
            assert!(bytes > 512 * 1024, "sled's file never went beyond its first segment");
        }
        Engine::Segments => {
            let there = |number: u32| names.iter().any(|name| name.to_str() == Some(&format!("{number:012}.seg")));
            assert!(!there(1) && !there(2), "nothing was compacted: {names:?}");
        }
    }
}

impl Trials {
    /// Kills processes at their syncs, has another one go on each time, and lets that one lose power.
    fn kill(&mut self) {
        let creating = (1..=KILLED_CREATING).map(|number| (SHORT, number));
        let later = (0..KILLED_LATER).map(|_| (FIRST, KILLED_CREATING + self.random.below(KILLED_BEFORE)));
        let all: Vec<(u64, u64)> = creating.chain(later).collect();
        let mut cut_off = 0;
        for (life, number) in all {
            let what = format!("killed at a sync (number {number})");
            let mut killed = Recorded::new(what, &Tree::new(), Expected::default());
            let known = self.record(&mut killed, life, Some(number), None);
            cut_off += u64::from(killed.cut_off);
            if known {
                self.record(&mut killed, SHORT, None, Some((OTHERS_AFTER, OTHERS_AFTER)));
            }
        }
        assert!(cut_off >= KILLED_CREATING, "only {cut_off} processes were killed where they were to be");
    }

    /// Says what was looked at, and fails if any of it was not as it should be.
    fn judge(mut self) {
        for (what, count) in &self.looked_at {
            println!("{count:>6}  {what}");
        }
        let (all, moments, more) = (self.looked_at.values().sum::<u64>(), self.moments, self.unacknowledged);
        println!("{all} losses of power at {moments} moments, {more} times with something unacknowledged");
        let failed = self.failures.len();
        self.failures.truncate(20);
        assert!(
            failed == 0,
            "{failed} losses of power came out wrong, the first of them:\n{}",
            self.failures.join("\n")
        );
        assert!(more > 20 && all > 4 * moments / 3, "these are no losses of power");
    }

    /// Records one life on that disk, and tries so many losses of power in it, where it is to try any. False when the process was killed in
    /// the middle of a call of which nobody knows whether it came about.
    fn record(&mut self, on: &mut Recorded, life: u64, kill_at: Option<u64>, others: Option<(usize, usize)>) -> bool {
        let (root, trace) = (on.root(), on.dir.path().join("trace"));
        let child = command(self.engine, "live", &root, self.seed, life);
        let run = strace::traced(&child, &trace, kill_at).stdin(Stdio::null()).output().unwrap();
        on.cut_off = run.status.signal() == Some(Signal::KILL.as_raw());
        if !(run.status.success() || on.cut_off && kill_at.is_some()) {
            let said = String::from_utf8_lossy(&run.stderr).replace('\n', " ");
            self.failures.push(format!("{}: it could not be lived with: {}, {said}", on.what, run.status));
            return false;
        }
        let mut calls = strace::read(&trace);
        for call in &mut calls {
            call.begin += on.lines;
            call.end = call.end.map(|end| end + on.lines);
        }
        on.lines = calls.iter().filter_map(|call| call.end).max().unwrap_or(on.lines) + 1;
        let (mut expected, mut since) = (on.expected.clone(), None);
        let what = on.what.clone();
        replay(&calls, &root, &mut on.disk, &mut |moment| match moment {
            Moment::Said(line) => {
                expected.hear(line);
                self.most =
                    line.strip_prefix("trying ").and_then(|steps| steps.parse().ok()).unwrap_or(0).max(self.most);
            }
            Moment::Loss(disk) => {
                let Some(others) = others else { return };
                let pending = disk.pending();
                self.lose(&what, disk, &pending, since, &expected, others);
                since = pending.last().map(|pending| pending.change).max(since);
            }
        });
        on.expected = expected;
        let same = on.disk.live() == read(&root);
        assert!(same || kill_at.is_some(), "{}: what was recorded is not all that was done", on.what);
        same
    }

    fn lose(
        &mut self,
        what: &str,
        disk: &Disk,
        pending: &[Pending],
        since: Option<u64>,
        expected: &Expected,
        (plain, special): (usize, usize),
    ) {
        self.moments += 1;
        let new: Vec<&Pending> = pending.iter().filter(|pending| Some(pending.change) > since).collect();
        let is_plain = new.iter().all(|pending| pending.sectors.is_some());
        let others = if is_plain { plain } else { special };
        let random = &mut self.random;
        let chosen = losses(pending, since, others, &mut |limit| random.below(limit));
        for loss in chosen {
            let loss = match self.engine {
                Engine::Sled => loss.with_names_in_order(pending),
                Engine::Segments => loss,
            };
            let tree = disk.after(&loss);
            let mut hasher = DefaultHasher::new();
            (&tree, expected).hash(&mut hasher);
            if !self.seen.insert(hasher.finish()) {
                continue;
            }
            let how = format!("{what}: {}", loss.how);
            if how.contains("torn") && self.random.below(8) == 0 && self.again.len() < TWICE {
                self.again.push((tree.clone(), expected.clone(), loss.how));
            }
            let kind = what.split('(').next().unwrap_or_default();
            *self.looked_at.entry(kind.to_owned()).or_default() += 1;
            let (dir, images) = &mut self.waiting;
            write(&tree, &dir.path().join(images.len().to_string()));
            let all: Vec<&str> = pending.iter().map(|pending| pending.what.as_str()).collect();
            let last = all[all.len().saturating_sub(6)..].join(", ");
            images.push(Image {
                expected: expected.clone(),
                how: format!("{how}; {} may be lost, the last {last}", all.len()),
            });
            if self.waiting.1.len() == BATCH {
                self.flush();
            }
        }
    }

    /// Has the images that wait looked at.
    fn flush(&mut self) {
        let (dir, images) = std::mem::replace(&mut self.waiting, (folder(), Vec::new()));
        let mut child = start(self.engine, "look", dir.path(), self.seed, self.most);
        for (number, image) in images.iter().enumerate() {
            let line = child.line().unwrap_or_else(|| "wrong: the process ended".to_owned());
            match image.expected.compare(&line) {
                Ok(more) => self.unacknowledged += u64::from(more),
                Err(failure) => {
                    self.failures.push(format!("{}: {failure}", image.how));
                    self.keep(&dir.path().join(number.to_string()));
                }
            }
        }
        let status = child.wait();
        assert!(status.success(), "{status}; {:#?}", self.failures);
    }

    /// Copies an image that is not as it should be to where somebody looks for it. It has been opened by then.
    fn keep(&self, image: &Path) {
        if let Some(folder) = std::env::var_os(KEEP_VARIABLE) {
            let number = self.failures.len();
            crate::damage::copy(image, &PathBuf::from(folder).join(format!("{}-{number}", self.engine)));
        }
    }
}
