//! Benchmarks: Longshore beside the least that could do the same, by turns, in one run. They measure; they judge no figure.

pub mod disk;
pub mod fill;
pub mod journal_commits;
pub mod open;
pub mod usage;
