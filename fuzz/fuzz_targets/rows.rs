//! The fuzz target `rows`. What it checks is in `bodies/rows.rs`, which the tests on stable run as well.
#![no_main]

#[path = "../bodies/rows.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    body::any_bytes(bytes);
});
