//! Any text as a stack file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = tasktracker_crds::validation::read_stack(&String::from_utf8_lossy(data));
});
