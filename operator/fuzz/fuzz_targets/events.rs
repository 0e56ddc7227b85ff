//! Any bytes as Docker's stream of events.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasktracker_operator::host::fuzz::events(data));
