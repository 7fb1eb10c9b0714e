//! What the journal promises, tested through its public interface: stores against a model, commits, openings, inspection.
//! Real processes, kills and damaged files are in `processes`.

#![allow(clippy::unwrap_used)]

mod any_bytes;
mod commits;
mod failures;
mod gate;
mod high_water;
mod history;
mod inspect;
mod opening;
mod quarantine;
mod reading;
mod segments;
mod sled_store;
mod store_model;
