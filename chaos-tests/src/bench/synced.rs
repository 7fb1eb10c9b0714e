//! R5: journal commits of 1 KiB, each on stable storage before its task goes on, beside a bare log of the same bytes.

use std::time::Duration;

use journal::Engine;

use super::journal_commits::{Rate, Setup, Subject, one};
use super::{Benchmark, Bound, Case, Figures, Goal, Options, PER_SECOND, Side, Spent};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R5",
    what: "synced commits of 1 KiB, from 1, 16 and 256 tasks",
    how: "Tasks commit one after the other, each when its last commit is on stable storage; those that wait share a sync. The reference is \
          the least that a log can do: a thread that takes what waits, adds a checksum to each record, writes all with one call at the \
          end of a file that grows, and syncs it.",
    unit: "commit",
    cases,
    part: None,
    picture: None,
};

/// How long one side has its turn, in milliseconds.
const TURN_MS: u64 = 1_500;

/// Tasks, and what should be reached with segments and with sled.
const GOALS: [(usize, f64, f64); 3] = [(1, 0.9, 0.5), (16, 0.9, 0.45), (256, 0.8, 0.24)];

fn cases(options: &Options) -> Vec<Case> {
    let turn = Duration::from_millis(options.amount(TURN_MS));
    let of = |engine, tasks, goal| Case {
        name: format!("{engine}, {tasks} tasks"),
        at: None,
        goals: vec![Goal::ratio(PER_SECOND, Bound::AtLeast(goal))],
        pairs_max: usize::MAX,
        has_reference: true,
        run: Box::new(move |stage, side| {
            let setup = Setup { dir: stage.dir().to_owned(), engine, tasks, turn };
            let subject = match side {
                Side::Ours => Subject::of(engine),
                Side::Reference => Subject::Bare,
            };
            Ok(figures(&one(&setup, subject)?))
        }),
    };
    let segments = GOALS.map(|(tasks, goal, _)| of(Engine::Segments, tasks, goal));
    segments.into_iter().chain(GOALS.map(|(tasks, _, goal)| of(Engine::Sled, tasks, goal))).collect()
}

fn figures(rate: &Rate) -> Figures {
    let spent =
        Spent { seconds: rate.time.as_secs_f64(), client_cpu_s: rate.cpu.as_secs_f64(), ..Spent::default() };
    Figures::of(rate.commits, spent)
}
