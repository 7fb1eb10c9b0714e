//! Crash points: a scripted history over a real journal, killed at every numbered point where something is written or synced, one
//! process for each. The script is run again and again, until it comes through without reaching the point.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::{Batch, Engine, Seams, Store, StoreError, Visit, WriteAhead, verify};
use rustix::process::{Signal, getpid, kill_process};

use crate::child::start;
use crate::engine::{open, open_through};
use crate::history::{History, rows_of};
use crate::kill::{check_state, count_of};

/// Steps of each opening of the script. The journal is closed between them, which writes the high-water file.
const SCRIPT: [u64; 3] = [9, 6, 3];

/// Points beyond which no script of that length goes. Each step has three, each opening three and each closing five.
const POINTS_MAX: u64 = 300;

/// Counts points, and kills this process at one of them.
struct Points {
    passed: AtomicU64,
    last: u64,
}

impl Points {
    fn pass(&self) {
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.last {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }
}

struct Numbered {
    inner: Arc<dyn Store>,
    points: Arc<Points>,
}

impl Store for Numbered {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.points.pass();
        self.inner.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.points.pass();
        self.inner.sync()?;
        self.points.pass();
        Ok(())
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

/// The child: runs the script and says each step that is acknowledged, until it reaches its point.
pub(crate) fn run_script(engine: Engine, dir: &Path, seed: u64, last: u64) -> ExitCode {
    let points = Arc::new(Points { passed: AtomicU64::new(0), last });
    let mut history = History::new(seed);
    let mut out = std::io::stdout();
    for steps in SCRIPT {
        let (for_store, for_mark) = (Arc::clone(&points), Arc::clone(&points));
        let seams = Seams {
            store: Box::new(move |inner| Arc::new(Numbered { inner, points: for_store })),
            mark: Arc::new(move |_| {
                for_mark.pass();
                Ok(())
            }),
            ..Seams::default()
        };
        let (journal, _) = open_through(engine, dir, seams).unwrap();
        for _ in 0..steps {
            let step = journal.commit(WriteAhead::new(history.step(), history.steps)).wait().unwrap();
            writeln!(out, "{step}").and_then(|()| out.flush()).unwrap();
        }
    }
    println!("through");
    ExitCode::SUCCESS
}

/// What a process that was killed at that point left, against what it said before.
fn check(engine: Engine, dir: &Path, seed: u64, point: u64, acknowledged: u64) {
    let (journal, state) = open(engine, dir).unwrap_or_else(|error| panic!("point {point}: {error}: {error:?}"));
    let rows = rows_of(journal.store()).unwrap();
    let count = count_of(&rows);
    let may = acknowledged..=acknowledged + 1;
    assert!(may.contains(&count), "point {point}: {acknowledged} were acknowledged, {count} are there");
    let mut known = History::after(seed, count);
    assert!(rows == known.rows, "point {point}: the rows are not those of {count} whole steps");
    check_state(&state, &known);
    assert_eq!(verify(journal.store()).unwrap().problems, Vec::<String>::new(), "point {point}");
    journal.commit(WriteAhead::new(known.step(), ())).wait().unwrap();
}

pub(crate) fn trials(engine: Engine, seed: u64) {
    let mut points = 0;
    loop {
        let point = points + 1;
        assert!(point < POINTS_MAX, "the script never comes through");
        let dir = tempfile::tempdir().unwrap();
        let mut child = start(engine, "points", dir.path(), seed, point);
        let said: Vec<String> = std::iter::from_fn(|| child.line()).collect();
        let status = child.wait();
        let acknowledged = said.iter().filter_map(|line| line.parse().ok()).max().unwrap_or(0);
        let through = said.last().is_some_and(|line| line == "through") && status.success();
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(through || killed, "point {point}: {said:?}, {status}");
        check(engine, dir.path(), seed, point, acknowledged);
        if through {
            break;
        }
        points = point;
    }
    let (openings, steps) = (SCRIPT.len() as u64, SCRIPT.iter().sum::<u64>());
    let least = 3 * (steps + openings) + 5 * openings;
    assert!(points >= least, "only {points} points were passed, there must be {least}");
    println!("killed at each of {points} points");
}
