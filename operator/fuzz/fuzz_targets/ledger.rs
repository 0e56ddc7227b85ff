//! Any bytes as a ledger, a manifest or a `HOLD` file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tasktracker_operator::{ledger::Ledger, observe::Hold, release::Release};

fuzz_target!(|data: &[u8]| {
    let _ = Ledger::read(data);
    let _ = Release::read(data);
    let _ = Hold::read(data);
});
