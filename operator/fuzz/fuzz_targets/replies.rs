//! Any bytes as an answer of Docker's API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasktracker_operator::host::fuzz::replies(data));
