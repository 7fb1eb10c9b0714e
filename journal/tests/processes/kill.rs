//! kill -9 at any moment: what the child called acknowledged is there, whole commits only, and the journal goes on.

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use journal::{Engine, Key, State, WriteAhead, verify};

use crate::child::start;
use crate::engine::open;
use crate::history::{COUNT, History, Random, Rows, opening, rows_of};

const ROUNDS: u64 = 20;

/// The child: commits on from where the journal stands, up to eight at a time, and says each step that is acknowledged.
pub(crate) fn commit_until_killed(engine: Engine, dir: &Path, seed: u64) -> ExitCode {
    let (journal, _) = open(engine, dir).unwrap();
    let mut history = History::after(seed, count_of(&rows_of(journal.store()).unwrap()));
    let mut random = Random(history.steps);
    let mut waiting = VecDeque::new();
    let mut out = std::io::stdout();
    loop {
        for _ in 0..=random.below(8) {
            let changes = history.step();
            waiting.push_back(journal.commit(WriteAhead::new(changes, history.steps)));
        }
        while let Some(commit) = waiting.pop_front() {
            let step = commit.wait().unwrap();
            writeln!(out, "{step}").and_then(|()| out.flush()).unwrap();
        }
    }
}

pub(crate) fn trials(engine: Engine, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let mut known = History::new(seed);
    let mut epoch = 0;
    let mut unacknowledged = 0;
    for round in 0..ROUNDS {
        let mut child = start(engine, "commit", dir.path(), seed, 0);
        let last = known.steps + random.below(120);
        let mut acknowledged = known.steps;
        // It may also be killed while it opens, before it has said anything.
        while acknowledged < last {
            let line = child.line().expect("the child lives until it is killed");
            acknowledged = line.parse().expect("the child says only steps");
        }
        child.kill();
        while let Some(line) = child.line() {
            // The pipe may end in the middle of a line; the lines come in order, so a piece of one is a smaller number.
            acknowledged = acknowledged.max(line.parse().unwrap_or(0));
        }
        child.wait();

        let (journal, state) = open(engine, dir.path()).unwrap();
        let rows = rows_of(journal.store()).unwrap();
        let count = count_of(&rows);
        assert!(count >= acknowledged, "round {round}: {acknowledged} were acknowledged, {count} are there");
        unacknowledged += count - acknowledged;
        while known.steps < count {
            known.step();
        }
        assert!(rows == known.rows, "round {round}: the rows are not those of {count} whole steps");
        check_state(&state, &known);
        let report = verify(journal.store()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "round {round}");
        let meta = journal.meta();
        assert!(meta.epoch.value() > epoch, "round {round}: each opening has an epoch of its own");
        assert_eq!(meta.incarnation, opening().incarnation);
        epoch = meta.epoch.value();
        journal.commit(WriteAhead::new(known.step(), ())).wait().unwrap();
    }
    println!("{ROUNDS} kills, {} steps, {unacknowledged} more than were acknowledged", known.steps);
}

pub(crate) fn check_state(state: &State, known: &History) {
    let streams = state.peers.get(&known.peer);
    assert_eq!(streams.map(|streams| streams.outgoing.clone()).unwrap_or_default(), known.outgoing);
    if let Some(incoming) = streams.and_then(|streams| streams.incoming.as_ref()) {
        assert_eq!(incoming, &known.incoming);
    }
}

/// The steps that a store holds.
pub(crate) fn count_of(rows: &Rows) -> u64 {
    let row = rows.get(&Key::App(COUNT.to_vec()).bytes());
    row.map_or(0, |value| u64::from_be_bytes(value[5..].try_into().unwrap()))
}
