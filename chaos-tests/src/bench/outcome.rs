//! What the pairs of a benchmark amount to: medians with their spread, goals reached or not, and how noisy it was. Judges by the goals
//! alone and hides nothing.

use std::fmt;

use serde::Serialize;

use super::figures::short;
use super::{Against, Benchmark, Bound, Figures, Goal, Options, Side};

/// Share of the machine that others may have had in a run before it is marked. A quarter of two cores is half of one: from about there
/// absolute figures mean little, and ratios within a pair still something.
pub(super) const FOREIGN_MAX: f64 = 0.25;

/// One pair of runs.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Who went first.
    pub first: Side,
    /// Longshore's.
    pub ours: Figures,
    /// The reference's; nothing where there is none.
    pub reference: Option<Figures>,
}

/// The least, the median and the most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The median; of an even number the higher one of the middle two.
    pub median: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of these; nothing if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self { least: *values.first()?, median: *values.get(values.len() / 2)?, most: *values.last()? })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} to {}", short(self.least), short(self.most)))
    }
}

/// Whether a goal was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// It was.
    Reached,
    /// It was not.
    NotReached,
    /// There is no goal: it is shown.
    NoGoal,
    /// The figure could not be had.
    NoFigure,
    /// Less than the usual amount was done, which shows that everything works and nothing else.
    NotJudged,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reached => "reached",
            Self::NotReached => "not reached",
            Self::NoGoal => "",
            Self::NoFigure => "no figure",
            Self::NotJudged => "not judged",
        })
    }
}

/// What one goal came to.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// What was looked at.
    pub measure: &'static str,
    /// Whether it is set against the reference's.
    pub against: Against,
    /// What it should be.
    pub bound: Option<Bound>,
    /// The median of our figures.
    pub ours: Option<Spread>,
    /// The median of the reference's.
    pub reference: Option<Spread>,
    /// What the goal is about: the ratios of the pairs, or our figures. The median decides.
    pub value: Option<Spread>,
    /// Whether it was reached.
    pub reached: Reached,
}

/// What one case came to.
#[derive(Debug, Clone, Serialize)]
pub struct CaseOutcome {
    /// Its name.
    pub name: String,
    /// Where it lies on the axis of the picture.
    pub at: Option<f64>,
    /// Every run, in order.
    pub pairs: Vec<Pair>,
    /// What its goals came to.
    pub verdicts: Vec<Verdict>,
    /// Runs in which others had more than [`FOREIGN_MAX`] of the machine.
    pub noisy_runs: usize,
    /// The most that others had in any run.
    pub foreign_most: f64,
}

/// What a benchmark came to.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its id.
    pub id: &'static str,
    /// What was measured.
    pub what: &'static str,
    /// How, and against what.
    pub how: &'static str,
    /// What its figures count.
    pub unit: &'static str,
    /// The type of the queues.
    pub queue_type: &'static str,
    /// How much of the usual amount was done, in percent.
    pub percent: u64,
    /// Its rows.
    pub cases: Vec<CaseOutcome>,
}

impl Outcome {
    /// Whether every goal was reached.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        let verdicts = self.cases.iter().flat_map(|case| &case.verdicts);
        verdicts.into_iter().all(|verdict| matches!(verdict.reached, Reached::Reached | Reached::NoGoal))
    }

    /// Of a benchmark with these rows.
    #[must_use]
    pub fn new(benchmark: &Benchmark, options: &Options, mut cases: Vec<CaseOutcome>) -> Self {
        let judged = options.percent >= 100;
        for verdict in cases.iter_mut().flat_map(|case| &mut case.verdicts).filter(|_| !judged) {
            verdict.reached = match verdict.reached {
                Reached::Reached | Reached::NotReached => Reached::NotJudged,
                other @ (Reached::NoGoal | Reached::NoFigure | Reached::NotJudged) => other,
            };
        }
        Self {
            id: benchmark.id,
            what: benchmark.what,
            how: benchmark.how,
            unit: benchmark.unit,
            queue_type: options.queue_type.as_str(),
            percent: options.percent,
            cases,
        }
    }
}

impl CaseOutcome {
    /// What these pairs amount to.
    #[must_use]
    pub fn new(name: &str, at: Option<f64>, goals: &[Goal], pairs: Vec<Pair>) -> Self {
        let runs = || pairs.iter().flat_map(|pair| [Some(&pair.ours), pair.reference.as_ref()]).flatten();
        let noisy_runs = runs().filter(|figures| figures.spent.foreign > FOREIGN_MAX).count();
        let foreign_most = runs().map(|figures| figures.spent.foreign).fold(0.0, f64::max);
        let verdicts = goals.iter().map(|goal| verdict(goal, &pairs)).collect();
        Self { name: name.to_owned(), at, pairs, verdicts, noisy_runs, foreign_most }
    }

    /// CPU time for one, in microseconds, of clients and broker: ours and the reference's, medians.
    #[must_use]
    pub fn cpu_us_each(&self, side: Side) -> Option<(f64, f64)> {
        let each = || self.side(side).filter_map(Figures::cpu_us_each);
        let clients = Spread::of(each().map(|(clients, _)| clients))?;
        let broker = Spread::of(each().map(|(_, broker)| broker))?;
        Some((clients.median, broker.median))
    }

    /// The median of the most memory that a process of that side had, in KiB.
    #[must_use]
    pub fn peak_kib(&self, side: Side) -> Option<f64> {
        Some(Spread::of(self.side(side).filter_map(|figures| Some(figures.peak_kib? as f64)))?.median)
    }

    fn side(&self, side: Side) -> impl Iterator<Item = &Figures> {
        self.pairs.iter().filter_map(move |pair| match side {
            Side::Ours => Some(&pair.ours),
            Side::Reference => pair.reference.as_ref(),
        })
    }
}

fn verdict(goal: &Goal, pairs: &[Pair]) -> Verdict {
    let of = goal.measure.of;
    let ours = Spread::of(pairs.iter().filter_map(|pair| of(&pair.ours)));
    let reference = Spread::of(pairs.iter().filter_map(|pair| of(pair.reference.as_ref()?)));
    let (ours, reference, found) = match goal.against {
        Against::Reference | Against::Nothing => (ours, reference, None),
        // A ratio already, and nobody's figure.
        Against::Floor => (None, None, reference),
    };
    let ratio = |pair: &Pair| {
        let under = of(pair.reference.as_ref()?).filter(|under| *under > 0.0)?;
        Some(of(&pair.ours)? / under)
    };
    let value = match goal.against {
        Against::Reference => Spread::of(pairs.iter().filter_map(ratio)),
        Against::Nothing => ours,
        Against::Floor => found,
    };
    let reached = match (goal.bound, value) {
        (None, _) => Reached::NoGoal,
        (Some(_), None) => Reached::NoFigure,
        (Some(bound), Some(value)) if bound.holds(value.median) => Reached::Reached,
        (Some(_), Some(_)) => Reached::NotReached,
    };
    Verdict { measure: goal.measure.name, against: goal.against, bound: goal.bound, ours, reference, value, reached }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Measure, PER_SECOND, Spent};
    use super::*;

    fn figures(count: u64, foreign: f64) -> Figures {
        Figures::of(count, Spent { seconds: 1.0, client_cpu_s: 0.5, broker_cpu_s: 0.25, foreign })
    }

    fn pairs(counts: &[(u64, u64)]) -> Vec<Pair> {
        let pair = |(ours, reference): &(u64, u64)| Pair {
            first: Side::Ours,
            ours: figures(*ours, 0.1),
            reference: Some(figures(*reference, 0.3)),
        };
        counts.iter().map(pair).collect()
    }

    #[test]
    fn the_median_of_the_ratios_of_pairs_decides_and_not_the_ratio_of_medians() {
        let goal = Goal::ratio(PER_SECOND, Bound::AtLeast(0.8));
        // The machine was slow in the first pair and fast in the last: each ratio is within its pair.
        let case = CaseOutcome::new("x", None, &[goal], pairs(&[(9, 10), (50, 100), (850, 1_000)]));
        let verdict = &case.verdicts[0];
        assert_eq!(verdict.value.unwrap(), Spread { least: 0.5, median: 0.85, most: 0.9 });
        assert_eq!(verdict.reached, Reached::Reached);
        let stricter = Goal::ratio(PER_SECOND, Bound::AtLeast(0.86));
        let case = CaseOutcome::new("x", None, &[stricter], pairs(&[(9, 10), (50, 100), (850, 1_000)]));
        assert_eq!(case.verdicts[0].reached, Reached::NotReached);
    }

    #[test]
    fn what_can_be_had_at_all_is_a_ratio_of_the_references_run_alone() {
        let floor = Measure { name: "at all", of: |figures| figures.other.get("at all").copied() };
        let mut pairs = pairs(&[(1, 2), (1, 4), (1, 3)]);
        for (pair, ratio) in pairs.iter_mut().zip([0.4, 0.5, 0.3]) {
            pair.ours = pair.ours.clone().with("at all", 7.0);
            pair.reference = pair.reference.take().map(|figures| figures.with("at all", ratio));
        }
        let case = CaseOutcome::new("x", None, &[Goal::floor(floor)], pairs);
        let verdict = &case.verdicts[0];
        assert_eq!((verdict.ours, verdict.reference, verdict.reached), (None, None, Reached::NoGoal));
        assert_eq!(verdict.value.unwrap(), Spread { least: 0.3, median: 0.4, most: 0.5 });
    }

    #[test]
    fn a_goal_without_a_figure_is_not_reached_and_noise_is_counted() {
        let nothing = Goal::ratio(super::super::P50_US, Bound::AtMost(2.0));
        let case = CaseOutcome::new("x", None, &[nothing], pairs(&[(1, 1), (1, 1)]));
        assert_eq!(case.verdicts[0].reached, Reached::NoFigure);
        assert_eq!(case.noisy_runs, 2);
        assert_eq!(case.cpu_us_each(Side::Ours).unwrap(), (500_000.0, 250_000.0));
    }
}
