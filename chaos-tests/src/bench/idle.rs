//! R7: what an agent costs that has nothing to do, monitor and worker together, against an idle Celery worker with all its processes.

use std::time::Duration;

use journal::Engine;

use super::celery::{Celery, PROCESSES};
use super::crew::{Crew, CrewOptions};
use super::jobs::{Against, cases_against};
use super::proc::{memory, run_ns, tree};
use super::{BenchError, Benchmark, Bound, Case, Figures, Goal, Measure, Meter, Options, Side, Stage};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R7",
    what: "an agent with nothing to do",
    how: "An agent, monitor and worker as two processes, has run a few jobs and is then left alone, connected, until its \
          shims have ended. Its memory is taken from \
          /proc: PSS divides what is shared by those who share it, which no process outside the agent does here, since it runs from a \
          copy of the program; RSS counts it for everybody. CPU time is what its threads ran during the last 15 s. The reference is \
          an idle Celery worker of 2 processes and their parent, after as many tasks.",
    unit: "agent",
    cases,
    part: None,
    picture: None,
};

/// Jobs before.
const JOBS: u64 = 10;

/// How long it is left alone before anybody looks: what follows the last job takes a few seconds.
const SETTLE: Duration = Duration::from_secs(10);

/// Over which its CPU time is taken: two heartbeats of the broker's connections, and four signs of life to its monitor.
const WINDOW: Duration = Duration::from_secs(15);

const PSS: &str = "PSS, MiB";
const RSS: &str = "RSS, MiB";
const CPU: &str = "CPU, percent of a core";

fn cases(options: &Options) -> Vec<Case> {
    let measure = |name, of| Measure { name, of };
    let pss = measure(PSS, |figures| figures.other.get(PSS).copied());
    let rss = measure(RSS, |figures| figures.other.get(RSS).copied());
    let cpu = measure(CPU, |figures| figures.other.get(CPU).copied());
    let goals = [
        Goal::ratio(pss, Bound::AtMost(0.15)),
        Goal::ratio(rss, Bound::AtMost(0.15)),
        Goal::own(cpu, Bound::AtMost(0.1)),
    ];
    cases_against(options, true, &goals, 1, run)
}

fn run(stage: &mut Stage<'_>, side: Side, engine: Engine, against: &Against) -> Result<Figures, BenchError> {
    let broker = stage.broker()?;
    let dir = stage.folder("idle")?;
    match (side, against) {
        (Side::Ours, Against::Bare | Against::Celery(_)) => {
            let crew = Crew::start(&CrewOptions { broker: &broker, dir: &dir, engine, slots: PROCESSES, monitor: true })?;
            crew.clients.saturate(JOBS, 1)?;
            crew.rested()?;
            let figures = idle(|| crew.agent.pid().map_or(Ok(Vec::new()), tree), broker.pid)?;
            crew.end()?;
            Ok(figures)
        }
        (Side::Reference, Against::Bare) => Err(BenchError::NoPart { id: BENCHMARK.id }),
        (Side::Reference, Against::Celery(kit)) => {
            let mut celery = Celery::start(kit, &broker, &dir)?;
            celery.run(JOBS, 1)?;
            celery.leave()?;
            idle(|| celery.worker_pids(), broker.pid)
        }
    }
}

/// Leaves these processes alone, and says what they cost meanwhile.
fn idle(pids: impl Fn() -> std::io::Result<Vec<u32>>, broker: u32) -> Result<Figures, BenchError> {
    std::thread::sleep(SETTLE);
    let pids = pids()?;
    let (meter, before) = (Meter::begin(&pids, Some(broker))?, run_ns(&pids)?);
    std::thread::sleep(WINDOW);
    let (ran, memory) = (run_ns(&pids)?.saturating_sub(before), memory(&pids)?);
    let spent = meter.end()?;
    let percent = ran as f64 / 1e9 / spent.seconds * 100.0;
    Ok(Figures::of(1, spent)
        .with(PSS, memory.pss_kib as f64 / 1_024.0)
        .with(RSS, memory.rss_kib as f64 / 1_024.0)
        .with(CPU, percent)
        .with("processes", pids.len() as f64))
}
