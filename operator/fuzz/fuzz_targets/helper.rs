//! Any bytes as an answer of the helper on a host.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasktracker_operator::host::fuzz::helper(data));
