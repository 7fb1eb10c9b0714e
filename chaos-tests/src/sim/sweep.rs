//! Many seeds on all cores, each in one thread. Adds up what they came to, and stops at nothing: every broken promise is counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{FaultClass, Options, Outcome, Planted, Violation, run_with_twin};

/// What many runs came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Steps taken.
    pub steps: u64,
    /// Virtual milliseconds that passed.
    pub passed_ms: u64,
    /// Messages numbered.
    pub messages: u64,
    /// Messages handed to the broker again.
    pub resent: u64,
    /// Steps of jobs executed.
    pub executed: u64,
    /// Streams that were stopped for a reason.
    pub stopped: u64,
    /// Faults that happened.
    pub faults: BTreeMap<FaultClass, u64>,
    /// Broken promises, by seed.
    pub violations: BTreeMap<u64, Violation>,
}

impl Summary {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.passed_ms += outcome.passed_ms;
        self.messages += outcome.messages;
        self.resent += outcome.resent;
        self.executed += outcome.executed;
        self.stopped += outcome.stopped;
        for (class, count) in outcome.faults {
            *self.faults.entry(class).or_default() += count;
        }
        self.violations.extend(outcome.violation.map(|violation| (outcome.seed, violation)));
    }
}

/// Runs that many seeds, from `from` on. `progress` is told now and then how many are done and how many promises were broken.
#[must_use]
pub fn sweep(from: u64, count: u64, options: Options, progress: &(dyn Fn(u64, u64) + Sync)) -> Summary {
    let next = AtomicU64::new(0);
    let summary = Mutex::new(Summary::default());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let outcome = run_with_twin(from.wrapping_add(index), options);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.add(outcome);
                    let (seeds, broken) = (summary.seeds, summary.violations.len() as u64);
                    drop(summary);
                    progress(seeds, broken);
                }
            });
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How a planted fault was found, or that it was not.
#[derive(Debug, Clone)]
pub struct Caught {
    /// What was planted.
    pub planted: Planted,
    /// The first seed that shows it, and which promise it breaks.
    pub by: Option<(u64, Violation)>,
}

/// Plants a fault and looks for the first of that many seeds that shows it.
#[must_use]
pub fn hunt(planted: Planted, from: u64, seeds: u64) -> Caught {
    let options = Options { planted: Some(planted), ..Options::default() };
    let found = (from..from.saturating_add(seeds)).find_map(|seed| {
        let outcome = run_with_twin(seed, options);
        outcome.violation.map(|violation| (seed, violation))
    });
    Caught { planted, by: found }
}
