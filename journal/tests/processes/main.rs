//! Tests that need processes of their own: a journal whose process is killed, and damaged files, where the engine may take
//! the whole process down. The test binary runs itself as the child; what a child reports are lines on its standard output.

#![allow(clippy::unwrap_used)]

mod child;
mod damage;
#[path = "../journal/history.rs"]
#[allow(dead_code, reason = "shared with the other tests of the journal, which use all of it")]
mod history;
mod kill;
mod power;

use std::process::ExitCode;

use journal::Engine;
use libtest_mimic::{Arguments, Trial};

/// Replays a run: the seed that it printed.
const SEED_VARIABLE: &str = "JOURNAL_TEST_SEED";

/// A test: its seed, and the engine that it is about.
type Run = fn(u64, Engine);

/// The seed of this run: given, or fresh.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().expect("the seed is a whole number"),
        Err(_) => RandomState::new().hash_one("journal"),
    }
}

fn main() -> ExitCode {
    if let Some(task) = child::task() {
        return match task {
            child::Task::Commit { dir, seed } => kill::commit_until_killed(&dir, seed),
            child::Task::Recover { dir, seed, steps } => power::open_and_compare(&dir, seed, steps),
            child::Task::Open { dir, seed, steps } => damage::open_and_compare(&dir, seed, steps),
        };
    }
    let seed = seed();
    println!("seed {seed}; the same again: {SEED_VARIABLE}={seed} cargo test -p journal --test processes");
    let tests: [(&str, Run); 3] = [
        ("whatever_was_acknowledged_survives_kill_9", kill::trials),
        ("damaged_files_give_an_error_or_the_whole_journal_and_never_wrong_data", damage::trials),
        ("a_commit_cut_off_by_a_loss_of_power_is_there_whole_or_not_at_all", power::trials),
    ];
    let on = |engine: Engine| {
        tests.map(|(name, run)| {
            Trial::test(format!("{engine}::{name}"), move || {
                run(seed, engine);
                Ok(())
            })
        })
    };
    let trials = Engine::ALL.into_iter().flat_map(on).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
