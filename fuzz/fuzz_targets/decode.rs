//! The fuzz target `decode`. What it checks is in `bodies/decode.rs`, which the tests on stable run as well.
#![no_main]

#[path = "../bodies/decode.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    body::any_bytes(bytes);
});
