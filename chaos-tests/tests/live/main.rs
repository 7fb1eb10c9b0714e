//! Live tests: real processes over a real RabbitMQ. They run only when asked for, and say plainly when they were not.
#![allow(clippy::unwrap_used)]

mod bench;
mod copies;
mod cutoff;
mod effects;
mod loud;
mod monitor;
mod orders;
mod orders_outages;
mod outages;
mod refusals;
mod retry;
mod support;
mod walk;
mod work;

use broker_config::live::{enabled, skip_notice};
use libtest_mimic::{Arguments, Failed, Trial};

type Test = (&'static str, fn() -> Result<(), Failed>);

fn main() {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let tests: Vec<Test> = [
        outages::TESTS,
        walk::TESTS,
        effects::TESTS,
        orders::TESTS,
        orders_outages::TESTS,
        refusals::TESTS,
        retry::TESTS,
        copies::TESTS,
        cutoff::TESTS,
        monitor::TESTS,
        loud::TESTS,
        work::TESTS,
        bench::TESTS,
    ]
    .concat();
    let skipped = if enabled() { 0 } else { tests.len() };
    let trials = tests.into_iter().map(|(name, test)| Trial::test(name, test).with_ignored_flag(!enabled())).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if skipped > 0 && !arguments.list {
        eprintln!("{}", skip_notice(skipped));
    }
    conclusion.exit();
}
