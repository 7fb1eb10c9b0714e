//! Tests against a real RabbitMQ. They run only with `LONGSHORE_LIVE=1`; otherwise each is reported as ignored.
//!
//! The harness is our own so that a plain `cargo test` can say what it skipped and how to run it.

#![allow(clippy::unwrap_used)]

mod amqp;
mod install;
mod nodes;
mod rights;
mod support;
mod tls;
mod topology;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Conclusion, Trial};

fn main() -> ExitCode {
    // Started again by a test of ours, as a second process that installs.
    if let Some(cache) = std::env::var_os(install::INSTALL_INTO) {
        return install::install_into(cache.as_ref());
    }
    let arguments = Arguments::from_args();
    let live = broker_config::live::enabled();
    let tests: Vec<Trial> = [install::tests(), nodes::tests(), topology::tests(), rights::tests(), tls::tests()]
        .into_iter()
        .flatten()
        .map(|(name, test)| {
            let run = move || {
                test();
                Ok(())
            };
            Trial::test(name, run).with_ignored_flag(!live)
        })
        .collect();
    let conclusion: Conclusion = libtest_mimic::run(&arguments, tests);
    if !live && !arguments.list && conclusion.num_ignored > 0 {
        let skipped = usize::try_from(conclusion.num_ignored).unwrap();
        eprintln!("{}", broker_config::live::skip_notice(skipped));
    }
    conclusion.exit_code()
}
