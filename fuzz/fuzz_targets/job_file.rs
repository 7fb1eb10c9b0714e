//! The fuzz target `job_file`. What it checks is in `bodies/job_file.rs`, which the tests on stable run as well.
#![no_main]

#[path = "../bodies/job_file.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    body::any_bytes(bytes);
});
