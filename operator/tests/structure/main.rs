//! What must not change by accident: rendered bytes, hashes, and who may know of whom.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

mod golden;
mod modules;
