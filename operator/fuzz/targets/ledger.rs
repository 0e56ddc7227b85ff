//! Any bytes as what is kept on a host: ledger, manifest of a release, `HOLD`.
#![no_main]

use tasktracker_operator::{
    observe::Hold,
    release::{Ledger, Release},
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = (Ledger::read(data), Release::read(data), Hold::read(data));
});
