//! The whole agent with real shims, and a server's endpoint at the other end of a broker in memory. This program is its own shim,
//! so a plain `cargo test` needs nothing else. Tests wait for reports, never for time to pass.

#![allow(clippy::unwrap_used)]

mod agent_life;
mod disk;
mod earlier;
mod ends;
mod orders;
mod steps;
mod world;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// The argument that makes this program a shim.
pub(crate) const SHIM: &str = "as-shim";

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, SHIM, dir] => agent::shim::main(Path::new(dir)),
        _ => libtest_mimic::run(&Arguments::from_args(), trials()).exit_code(),
    }
}

fn trials() -> Vec<Trial> {
    let groups: [&[Test]; 6] =
        [&orders::TESTS, &ends::TESTS, &steps::TESTS, &agent_life::TESTS, &disk::TESTS, &earlier::TESTS];
    let trial = |&(name, test): &Test| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    groups.into_iter().flatten().map(trial).collect()
}
