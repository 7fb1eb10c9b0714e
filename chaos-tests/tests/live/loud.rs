//! Steps that write much at the same time: every log is whole at both ends, nobody holds a log in memory, a run's end does not wait
//! for its log and neither does anything else.

use chaos_tests::loud::{self, Options, Who};
use libtest_mimic::Failed;

use crate::Test;
use crate::support::ensure;

pub(crate) const TESTS: &[Test] =
    &[("ten_loud_steps_are_whole_at_both_ends_and_nobody_holds_their_output_in_memory", loud)];

/// Bytes that each of the steps writes: together several times what any process may grow by.
const BYTES: u64 = 16_000_000;
/// Bytes by which a process may grow over its idle self: some three times what was ever seen, and far less than the output.
const GROWTH_MAX: u64 = 64 << 20;

fn loud() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let options = Options { dir: dir.path().to_owned(), steps: 10, bytes: BYTES };
    let report = loud::run(&options, &mut |note| eprintln!("{note}"))?;
    ensure(report.is_right(), format!("{report:#?}"))?;
    for who in [Who::Agent, Who::Server] {
        let peak = report.peak(who).ok_or("no memory is known")?;
        ensure(peak.growth() < GROWTH_MAX, format!("{who:?} grew too much: {report:#?}"))?;
    }
    let shim = report.peak(Who::Shim).ok_or("no shim was seen")?;
    ensure(shim.peak < GROWTH_MAX, format!("a shim is too large: {report:#?}"))?;
    ensure(!report.small_loud.is_empty(), format!("nothing else was done meanwhile: {report:#?}"))
}
