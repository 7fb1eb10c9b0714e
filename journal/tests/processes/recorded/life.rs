//! What the recorded child does with a journal, and says of it: a line for whatever must survive from then on.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use journal::{Change, Engine, Journal, OpenError, Seams, State, WriteAhead, put_app, quarantine, segments};

use crate::engine::open_through;
use crate::history::{History, Random, rows_of, write};
use crate::kill::count_of;

/// Where the journal is on the recorded disk: in folders that opening it must make.
const PLACE: &str = "var/lib/journal";

/// Commits of a long life, a second one, and a short one. Together they go through several segments of either engine.
const COMMITS: [u64; 3] = [60, 30, 4];

/// Lives by their number.
pub(crate) const FIRST: u64 = 0;
/// One that comes after another.
pub(crate) const SECOND: u64 = 1;
/// A short one.
pub(crate) const SHORT: u64 = 2;
/// One in which the journal is put aside, and a new one is begun.
pub(crate) const PUT_ASIDE: u64 = 3;

/// Bytes of a row that is written again and again, so that there is something to compact.
const CHURN_BYTES: usize = 5_000;
/// Rows that are written again and again.
const CHURNED: u64 = 3;

pub(crate) fn place(root: &Path) -> PathBuf {
    root.join(PLACE)
}

/// A journal with segments so small that a short history goes through many of them.
pub(crate) fn open(engine: Engine, dir: &Path) -> Result<(Journal, State), OpenError> {
    let sizes =
        segments::Options { segment_bytes: 32 * 1024, compact_bytes: 8 * 1024, ahead_bytes: 16 * 1024, observer: None };
    open_through(engine, dir, Seams { segments: sizes, ..Seams::default() })
}

/// The history, with rows that are written again and again.
pub(crate) struct Script {
    seed: u64,
    pub(crate) history: History,
}

impl Script {
    pub(crate) fn after(seed: u64, steps: u64) -> Self {
        let mut script = Self { seed, history: History::new(seed) };
        for _ in 0..steps {
            script.step();
        }
        script
    }

    pub(crate) fn step(&mut self) -> Vec<Change> {
        let mut changes = self.history.step();
        let step = self.history.steps;
        let content = Random(self.seed ^ step).bytes(CHURN_BYTES);
        let churn = put_app(format!("churn/{}", step % CHURNED).into_bytes(), content);
        write(&mut self.history.rows, &churn);
        changes.push(churn);
        changes
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// The child: lives that life, on the disk below that folder.
pub(crate) fn live(engine: Engine, root: &Path, seed: u64, life: u64) -> ExitCode {
    let dir = place(root);
    match life {
        PUT_ASIDE => {
            commit(engine, &dir, seed, COMMITS[2]);
            say("putting aside");
            quarantine(&dir).unwrap().expect("there is a journal");
            say("put aside");
            commit(engine, &dir, seed, COMMITS[2]);
        }
        life => commit(engine, &dir, seed, COMMITS[usize::try_from(life).unwrap()]),
    }
    ExitCode::SUCCESS
}

/// Opens the journal, commits, sometimes several at once, and closes it.
fn commit(engine: Engine, dir: &Path, seed: u64, commits: u64) {
    let (journal, _) = open(engine, dir).unwrap();
    let steps = count_of(&rows_of(journal.store()).unwrap());
    let mut script = Script::after(seed, steps);
    let mut random = Random(seed ^ steps);
    say(&format!("opened {} {steps}", journal.meta().epoch.value()));
    let mut left = commits;
    while left > 0 {
        let together = if random.below(6) == 0 { left.min(1 + random.below(6)) } else { 1 };
        let mut waiting = Vec::new();
        for _ in 0..together {
            let changes = script.step();
            say(&format!("trying {}", script.history.steps));
            waiting.push(journal.commit(WriteAhead::new(changes, script.history.steps)));
        }
        for commit in waiting {
            say(&format!("committed {}", commit.wait().unwrap()));
        }
        left -= together;
    }
}
