//! Any bytes as a stack file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tasktracker_crds::validation::read_stack;

fuzz_target!(|data: &[u8]| {
    if let Err(mistakes) = read_stack(&String::from_utf8_lossy(data)) {
        assert!(!mistakes.is_empty(), "a file that is refused has a mistake");
        mistakes.iter().for_each(|mistake| drop(mistake.to_string()));
    }
});
