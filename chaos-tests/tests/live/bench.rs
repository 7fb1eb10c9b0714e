//! Benchmarks, with very little to do: that both sides run to their end and everything comes out on the page. No figure is judged.

use std::path::PathBuf;

use broker_config::QueueType;
use chaos_tests::bench::{self, Benchmark, Options, PAGE, Stage};
use libtest_mimic::Failed;

use crate::Test;

pub(crate) const TESTS: &[Test] =
    &[("a_benchmark_has_figures_of_both_sides_and_puts_them_on_the_page", both_sides_are_on_the_page)];

/// The benchmarks that have real endpoints, with the smallest part of the usual amount.
const IDS: [&str; 2] = ["R1", "R2"];

fn both_sides_are_on_the_page() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let options = Options {
        pairs: 1,
        queue_type: QueueType::Quorum,
        dir: dir.path().to_owned(),
        program: PathBuf::from(env!("CARGO_BIN_EXE_longshore-chaos")),
        percent: 1,
    };
    let mut say = |line: &str| eprintln!("{line}");
    let mut stage = Stage::new(&options, &mut say);
    let mut outcomes = Vec::new();
    for id in IDS {
        outcomes.push(bench::run(Benchmark::of(id).ok_or("it is not there")?, &mut stage)?);
    }
    for case in outcomes.iter().flat_map(|outcome| &outcome.cases) {
        let pair = case.pairs.first().ok_or("there is no pair")?;
        let reference = pair.reference.as_ref().ok_or("there is no reference")?;
        assert!(pair.ours.count > 0 && pair.ours.count == reference.count, "{pair:?}");
        // So little work can take less processor time than the system counts in, and nothing is so many times nothing.
        let too_little = |verdict: &bench::Verdict| {
            verdict.measure == bench::CPU_US.name && verdict.reference.is_some_and(|reference| reference.median == 0.0)
        };
        let judged = |verdict: &bench::Verdict| verdict.value.is_some() || too_little(verdict);
        assert!(case.verdicts.iter().all(judged), "{:?}", case.verdicts);
    }
    let page = dir.path().join(PAGE);
    std::fs::write(&page, "<!-- bench machine: begin --><!-- bench machine: end -->\n<!-- bench: end -->\n")?;
    bench::write(dir.path(), &outcomes)?;
    let written = std::fs::read_to_string(&page)?;
    for expected in ["| segments | a second |", "| sled | p50, us |", "<!-- bench R2: end -->\n\n<!-- bench: end -->"] {
        assert!(written.contains(expected), "{expected} is not in {written}");
    }
    Ok(())
}
