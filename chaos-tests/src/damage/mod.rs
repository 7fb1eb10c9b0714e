//! Damage trials on real files: a journal with a known history is written through the public interface, one thing is broken, and
//! whatever then comes out of the journal is compared with what was acknowledged. Every trial follows from the run's seed and
//! its number. Nothing here repairs anything.

mod child;
mod engine;
mod failing;
mod files;
mod history;
mod judge;
mod plan;
mod random;
mod report;
mod run;
mod verdict;

pub use child::run_phase;
pub use plan::{Ending, Fault, Phase, Trial};
pub use report::report;
pub use run::{Options, Outcome, RunError, run};
pub use verdict::{Judgement, Verdict};
