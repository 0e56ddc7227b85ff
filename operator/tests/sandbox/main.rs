//! The operator on real Docker hosts. Needs root; `cargo xtask test` runs it.
#![expect(clippy::too_many_lines, reason = "a scenario reads from top to bottom")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as expected")]

#[path = "../../../frontend/tests/browser/mod.rs"]
#[expect(dead_code, reason = "the page's own test uses the rest")]
mod browser;
mod change;
mod drift;
mod hostile_strings;
mod main_job;
mod safety;
mod stage;
