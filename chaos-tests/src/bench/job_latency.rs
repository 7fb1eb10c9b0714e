//! R4: one job of one step `true` at a time, from submitting it to its outcome in the server's journal, against Celery.

use journal::Engine;

use super::celery::Celery;
use super::crew::{Crew, CrewOptions};
use super::jobs::{Against, PAIRS_MAX, WARM_UP, bare, cases_against};
use super::shown::{Shown, compared, show_beside};
use super::{
    BenchError, Benchmark, Bound, Case, Figures, Goal, Latency, Meter, Options, P50_US, P99_US, Side, Stage,
};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R4",
    what: "one job of one step `true` at a time, from submitting it to its outcome",
    how: "As in R3, but the next job is submitted when a client sees that the server has the outcome of the one before, for which it asks \
          the server to answer once it has. The references are the same, one task at a time; the workers that are as \
          durable have one place, and share no sync. The one with an API is asked for an outcome as Longshore is.",
    unit: "job",
    cases,
    part: None,
    picture: None,
};

/// Jobs of a run: a few seconds.
const JOBS: u64 = 150;

fn cases(options: &Options) -> Vec<Case> {
    let goal = Goal::ratio(P50_US, Bound::AtMost(1.2));
    let tail = Goal::shown(P99_US);
    let mut cases = cases_against(options, true, &[goal, tail], PAIRS_MAX, run);
    let bare = cases_against(options, false, &[Goal::shown(P50_US), tail], PAIRS_MAX, run);
    cases.extend(show_beside(bare, Shown::of_one));
    cases
}

fn run(stage: &mut Stage<'_>, side: Side, engine: Engine, against: &Against) -> Result<Figures, BenchError> {
    let jobs = stage.options().amount(JOBS);
    let broker = stage.broker()?;
    match (side, against) {
        (Side::Ours, Against::Bare | Against::Celery(_)) => {
            let dir = stage.folder("jobs")?;
            let crew = Crew::start(&CrewOptions { broker: &broker, dir: &dir, engine, slots: 1, monitor: false })?;
            for _ in 0..WARM_UP {
                crew.clients.one()?;
            }
            let meter = Meter::begin(&crew.pids()?, Some(broker.pid))?;
            let times = (0..jobs).map(|_| crew.clients.one()).collect::<Result<Vec<_>, _>>()?;
            let spent = meter.end()?;
            crew.end()?;
            Ok(compared(Figures { latency: Latency::of(times), ..Figures::of(jobs, spent) }))
        }
        (Side::Reference, Against::Bare) => bare(stage, jobs, 1, 1),
        (Side::Reference, Against::Celery(kit)) => {
            let dir = stage.folder("celery")?;
            let mut celery = Celery::start(kit, &broker, &dir)?;
            celery.run(WARM_UP, 1)?;
            let meter = Meter::begin(&celery.pids()?, Some(broker.pid))?;
            let ran = celery.run(jobs, 1)?;
            Ok(Figures { latency: Latency::of(ran.times()), ..Figures::of(jobs, meter.end()?) })
        }
    }
}
