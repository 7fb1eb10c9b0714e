//! The fuzz target `segments`. What it checks is in `bodies/segments.rs`, which the tests on stable run as well.
#![no_main]

#[path = "../bodies/segments.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    body::any_bytes(dir.path(), bytes);
});
