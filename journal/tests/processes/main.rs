//! Tests that need processes of their own: a journal whose process is killed, and damaged files, where the engine may take
//! the whole process down. The test binary runs itself as the child; what a child reports are lines on its standard output.

#![allow(clippy::unwrap_used)]

mod child;
mod damage;
mod engine;
#[path = "../journal/history.rs"]
#[allow(dead_code, reason = "shared with the other tests of the journal, which use all of it")]
mod history;
mod images;
mod kill;
mod points;
mod power;
#[path = "../power/mod.rs"]
mod power_loss;
mod recorded;

use std::process::ExitCode;

use journal::Engine;
use libtest_mimic::{Arguments, Trial};

/// Replays a run: the seed that it printed.
const SEED_VARIABLE: &str = "JOURNAL_TEST_SEED";

/// The seed of the losses of power from recorded calls, unless another one is given. Fixed, because sled is known to remove its old
/// snapshot before the name of the new one is durable: on a disk that loses names out of order its journal is refused then.
const RECORDED_SEED: u64 = 7;

/// A test, over an engine and from a seed.
type Run = fn(Engine, u64);

/// The seed of this run: given, or fresh.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().expect("the seed is a whole number"),
        Err(_) => RandomState::new().hash_one("journal"),
    }
}

fn main() -> ExitCode {
    if let Some((engine, task)) = child::task() {
        return match task {
            child::Task::Commit { dir, seed } => kill::commit_until_killed(engine, &dir, seed),
            child::Task::Recover { dir, seed, steps } => power::open_and_compare(engine, &dir, seed, steps),
            child::Task::Open { dir, seed, steps } => damage::open_and_compare(engine, &dir, seed, steps),
            child::Task::Points { dir, seed, last } => points::run_script(engine, &dir, seed, last),
            child::Task::Live { dir, seed, life } => recorded::life::live(engine, &dir, seed, life),
            child::Task::Look { dir, seed, most } => recorded::look::look_at_all(engine, &dir, seed, most),
        };
    }
    let seed = seed();
    println!("seed {seed}; the same again: {SEED_VARIABLE}={seed} cargo test -p journal --test processes");
    let tests: [(&str, Run); 4] = [
        ("whatever_was_acknowledged_survives_kill_9", kill::trials),
        ("whatever_was_acknowledged_survives_a_crash_at_every_write_and_every_sync", points::trials),
        ("damaged_files_give_an_error_or_the_whole_journal_and_never_wrong_data", damage::trials),
        ("a_commit_cut_off_by_a_loss_of_power_is_there_whole_or_not_at_all", power::trials),
    ];
    let mut trials = Vec::new();
    let untraced = power_loss::strace::missing();
    if let Some(reason) = &untraced {
        println!("SKIPPED: losses of power from recorded calls: {reason}");
    }
    let recorded_seed = std::env::var(SEED_VARIABLE).map_or(RECORDED_SEED, |_| seed);
    for engine in Engine::ALL {
        let recorded = Trial::test("no_loss_of_power_at_any_sync_loses_what_was_acknowledged", move || {
            recorded::trials(engine, recorded_seed);
            Ok(())
        });
        trials.push(recorded.with_kind(engine.to_string()).with_ignored_flag(untraced.is_some()));
        for (name, run) in tests {
            let trial = Trial::test(name, move || {
                run(engine, seed);
                Ok(())
            });
            trials.push(trial.with_kind(engine.to_string()));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
