//! The simulator: one server, a few agents, a broker, disks and time in one thread, moved by one seed. The protocol core
//! (`link::session::Session`) and the journal run in it unchanged; what is around them can do everything that goes wrong. It reads
//! no clock, and two runs of a seed are the same to the byte.
//!
//! - [`run`]: one seed. [`sweep`]: many, on all cores. [`hunt`]: planted faults, to show that the checkers bite.
//! - [`cut_off`]: a script, with an agent that is cut off for a day.

mod acting;
mod application;
mod broker;
mod checkers;
mod cutoff;
mod disk;
mod faults;
mod node;
mod planted;
mod rest;
mod rng;
mod scenario;
mod starting;
mod sweep;
mod trace;
mod work;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use messages::EndpointId;

pub use checkers::{Promise, Violation};
pub use cutoff::{CUT_OFF_MS, CutOff, cut_off};
pub use planted::Planted;
pub use scenario::{Expectation, FaultClass};
pub use sweep::{Caught, Summary, hunt, sweep};
use world::{Step, World};

/// How to run a seed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Keep the timeline.
    pub trace: bool,
    /// Let wall clocks jump where the scenario says so.
    pub jumps: bool,
    /// A mistake to plant.
    pub planted: Option<Planted>,
}

impl Default for Options {
    fn default() -> Self {
        Self { trace: false, jumps: true, planted: None }
    }
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first promise that was broken.
    pub violation: Option<Violation>,
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
    /// A digest of everything that was published, in order.
    pub fingerprint: u64,
    /// The timeline, if it was kept.
    pub lines: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut world = World::new(seed, options);
    let violation = judged(&mut world, World::run);
    Outcome::of(seed, world, violation)
}

/// Moves a world. A panic anywhere below is a finding like any other, with its seed and its timeline.
fn judged(world: &mut World, how: impl FnOnce(&mut World) -> Step) -> Option<Violation> {
    let ended = catch_unwind(AssertUnwindSafe(|| how(world)));
    match ended {
        Ok(step) => step.err(),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            Some(world.violation(Promise::P6, "no-panic", words.unwrap_or_default()))
        }
    }
}

impl Outcome {
    fn of(seed: u64, world: World, violation: Option<Violation>) -> Self {
        let World { at, counts, trace, .. } = world;
        Self {
            seed,
            violation,
            steps: counts.steps,
            passed_ms: at,
            messages: counts.messages,
            resent: counts.resent,
            executed: counts.executed,
            stopped: counts.stopped,
            faults: counts.faults,
            fingerprint: trace.fingerprint(),
            lines: trace.into_lines(),
        }
    }
}

/// Runs one seed and holds it to what only two runs show: that no wall clock decides anything.
#[must_use]
pub fn run_with_twin(seed: u64, options: Options) -> Outcome {
    let mut outcome = run(seed, options);
    let jumped = outcome.faults.contains_key(&FaultClass::ClockJump);
    if outcome.violation.is_none() && jumped {
        let twin = run(seed, Options { jumps: false, trace: false, ..options });
        if twin.fingerprint != outcome.fingerprint || twin.violation.is_some() {
            let what = "with steady wall clocks the same seed says something else".to_owned();
            let at = outcome.passed_ms;
            outcome.violation = Some(Violation { promise: Promise::P8, checker: "no-clock-decides", at, what });
        }
    }
    outcome
}

/// An endpoint's place: 0 for the server, then the agents in the order of their names.
fn seat_of(endpoint: &EndpointId) -> usize {
    match endpoint {
        EndpointId::Server => 0,
        EndpointId::Agent(agent) => agent.as_str().trim_start_matches('a').parse().unwrap_or(usize::MAX),
    }
}
