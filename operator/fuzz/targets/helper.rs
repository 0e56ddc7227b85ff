//! Any bytes as what the helper program says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasktracker_operator::host::fuzz::helper(data));
