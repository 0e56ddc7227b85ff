//! Any bytes as Docker's archive of a file in a container.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tasktracker_operator::host::fuzz::archive(data));
