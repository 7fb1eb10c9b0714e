//! What the journal promises, tested through its public interface: stores against a model, commits, openings, inspection.
//! Real processes, kills and damaged files are in `processes`.

#![allow(clippy::unwrap_used)]

/// The tests of that module that every engine must pass, as tests of their own for each.
macro_rules! on_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod on_sled {
            $(#[test]
            fn $test() {
                super::$test(journal::Engine::Sled);
            })+
        }
        mod on_segments {
            $(#[test]
            fn $test() {
                super::$test(journal::Engine::Segments);
            })+
        }
    };
}
pub(crate) use on_each_engine;

mod any_bytes;
mod commits;
mod failures;
mod gate;
mod high_water;
mod history;
mod inspect;
mod moving;
mod opening;
#[path = "../power/mod.rs"]
#[allow(dead_code, reason = "shared with the tests that record losses of power, which use all of it")]
mod power_loss;
mod power_model;
mod quarantine;
mod reading;
mod segments;
mod sled_store;
mod store_model;
