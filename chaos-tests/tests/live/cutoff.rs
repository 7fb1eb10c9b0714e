//! An agent that cannot reach its broker while the others can.

use chaos_tests::cutoff::{HowLong, run};
use chaos_tests::live::Shut;
use libtest_mimic::Failed;

use crate::Test;
use crate::support::ensure;

pub(crate) const TESTS: &[Test] =
    &[("an_agent_that_was_cut_off_while_its_steps_ended_reports_everything_in_order_and_once", cut_off)];

fn cut_off() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let report = run(dir.path(), HowLong::UntilItsRunsEnd, Shut::WithItsConnections, &mut |line| eprintln!("{line}"))?;
    ensure(report.is_clean(), format!("{report:#?}"))
}
