//! Runs the pairs of a benchmark: the two sides by turns, and by turns first, so that neither profits from what the other left warm.

use super::figures::short;
use super::outcome::FOREIGN_MAX;
use super::{BenchError, Benchmark, Case, CaseOutcome, Figures, Outcome, Pair, Side, Stage};

/// Runs every case of a benchmark.
///
/// # Errors
/// [`BenchError`] of the first run that failed.
pub fn run(benchmark: &Benchmark, stage: &mut Stage<'_>) -> Result<Outcome, BenchError> {
    stage.say(&format!("{}: {}", benchmark.id, benchmark.what));
    let mut cases = Vec::new();
    for case in (benchmark.cases)(stage.options()) {
        cases.push(run_case(benchmark, case, stage)?);
    }
    Ok(Outcome::new(benchmark, stage.options(), cases))
}

fn run_case(benchmark: &Benchmark, mut case: Case, stage: &mut Stage<'_>) -> Result<CaseOutcome, BenchError> {
    let mut pairs = Vec::new();
    let number = stage.options().pairs.min(case.pairs_max);
    for pair in 0..number {
        let title = format!("{} {}, pair {} of {number}", benchmark.id, case.name, pair + 1);
        let first = if pair % 2 == 0 { Side::Ours } else { Side::Reference };
        let [mut ours, mut reference] = [None, None];
        for side in [first, first.other()] {
            match side {
                Side::Ours => ours = Some(run_side(&mut case, stage, side, &title, benchmark.unit)?),
                Side::Reference if case.has_reference => {
                    reference = Some(run_side(&mut case, stage, side, &title, benchmark.unit)?);
                }
                Side::Reference => {}
            }
        }
        pairs.extend(ours.map(|ours| Pair { first, ours, reference }));
    }
    Ok(CaseOutcome::new(&case.name, case.at, &case.goals, pairs))
}

fn run_side(
    case: &mut Case,
    stage: &mut Stage<'_>,
    side: Side,
    title: &str,
    unit: &str,
) -> Result<Figures, BenchError> {
    let figures = (case.run)(stage, side)?;
    let who = match side {
        Side::Ours => "Longshore",
        Side::Reference => "reference",
    };
    let mut line = format!("{title}, {who}: {} {unit}s in {} s", figures.count, short(figures.spent.seconds));
    if let Some(goal) = case.goals.first()
        && let Some(figure) = (goal.measure.of)(&figures)
    {
        line += &format!(", {} {}", short(figure), goal.measure.name);
    }
    if figures.spent.foreign > FOREIGN_MAX {
        line += &format!("; others had {:.0} % of the machine", figures.spent.foreign * 100.0);
    }
    stage.say(&line);
    Ok(figures)
}
