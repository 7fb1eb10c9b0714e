//! Attempts with real processes. This program is its own shim and its own launcher: it starts itself again with an argument that
//! says which, so a plain `cargo test` needs nothing else to be built. It never waits by sleeping: steps and tests meet at
//! named pipes and locks.

#![allow(clippy::unwrap_used)]

mod bad_files;
mod checks;
mod crashes;
mod earlier;
mod ends;
mod full_disk;
mod groups;
mod power;
#[path = "../../../journal/tests/power/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the journal, which use all of it")]
mod power_loss;
mod stays;
mod support;
mod swarm;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// The argument that makes this program a shim.
pub(crate) const SHIM: &str = "as-shim";

/// The argument that makes this program a shim with a second thread, which cannot fork.
pub(crate) const SHIM_OF_TWO: &str = "as-shim-of-two";

/// The argument that makes this program an agent that launches and then stays until it is killed.
pub(crate) const LAUNCHER: &str = "as-launcher";

/// The argument that makes this program an agent whose shims stay, and that waits for one.
pub(crate) const STAYING: &str = "as-launcher-of-those-that-stay";

/// The argument that makes this program wait for an attempt of another and print the state.
pub(crate) const WAITER: &str = "as-waiter";

/// The argument that makes this program an agent of which every call is recorded.
pub(crate) const RECORDED: &str = "as-recorded";

/// The argument that makes this program say what the host allows of control groups.
pub(crate) const GROUPS: &str = "as-groups";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, SHIM, dir] => agent::shim::main(Path::new(dir)),
        [_, SHIM_OF_TWO, dir] => {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
            agent::shim::main(Path::new(dir))
        }
        [_, LAUNCHER, dir] => support::launch_and_stay(Path::new(dir)),
        [_, STAYING, dir] => stays::run_and_say(Path::new(dir)),
        [_, RECORDED, dir] => power::live(Path::new(dir)),
        [_, GROUPS] => groups::say(),
        [_, WAITER, dir] => support::wait_and_print(Path::new(dir)),
        _ => libtest_mimic::run(&Arguments::from_args(), trials()).exit_code(),
    }
}

fn trials() -> Vec<Trial> {
    let mut tests: Vec<(&'static str, fn())> = Vec::new();
    tests.extend(ends::TESTS);
    tests.extend(crashes::TESTS);
    tests.extend(bad_files::TESTS);
    tests.extend(earlier::TESTS);
    tests.extend(checks::TESTS);
    tests.extend(full_disk::TESTS);
    tests.extend(swarm::TESTS);
    tests.extend(groups::TESTS);
    tests.extend(stays::TESTS);
    let untraced = power_loss::strace::missing();
    if let Some(reason) = &untraced {
        println!("SKIPPED: losses of power from recorded calls: {reason}");
    }
    let trial = |(name, test): (&'static str, fn())| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let recorded = power::TESTS.into_iter().map(|test| trial(test).with_ignored_flag(untraced.is_some()));
    tests.into_iter().map(trial).chain(recorded).collect()
}
