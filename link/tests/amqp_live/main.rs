//! The wire over a real RabbitMQ. Runs only with `LONGSHORE_LIVE=1`; otherwise each test is reported as ignored.
//!
//! All tests share one private broker and run one after another, because starting a broker is most of their time.

#![allow(clippy::unwrap_used)]

mod faults;
mod support;
mod tls;
mod traffic;

use libtest_mimic::{Arguments, Conclusion, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let live = broker_config::live::enabled();
    let tests: Vec<Trial> = [traffic::tests(), faults::tests(), tls::tests()]
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
    support::end_broker();
    if !live && !arguments.list && conclusion.num_ignored > 0 {
        let skipped = usize::try_from(conclusion.num_ignored).unwrap();
        eprintln!("{}", broker_config::live::skip_notice(skipped));
    }
    conclusion.exit();
}
