//! A part of the matrix that `longshore-chaos work` prints whole: a step of every effect in every phase of its life, and what must
//! become of it.

use chaos_tests::work::{self, Options, Victim};
use libtest_mimic::Failed;

use crate::Test;
use crate::support::ensure;

pub(crate) const TESTS: &[Test] = &[("every_phase_of_a_step_ends_as_the_table_of_outages_says", matrix)];

fn matrix() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let victims = vec![Victim::Worker, Victim::Server, Victim::Shim, Victim::Machine];
    let options = Options { dir: dir.path().to_owned(), victims };
    let report = work::run(&options, &mut |note| eprintln!("{note}"))?;
    // Three victims are there in each of six phases, the shim in three; each by four effects, and six decisions.
    ensure(report.is_right() && report.cells.len() == (3 * 6 + 3) * 4 + 6, format!("\n{report}"))
}
