//! The operator on real Docker hosts. Needs root; `cargo xtask test` runs it.
#![expect(clippy::too_many_lines, reason = "a scenario reads from top to bottom")]
#![expect(clippy::print_stdout, reason = "which case of a table ran, and the figures of a soak")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as expected")]

#[path = "../../../frontend/tests/browser/mod.rs"]
#[expect(dead_code, reason = "the page's own test uses the rest")]
mod browser;
mod change;
mod components;
mod crash;
mod drift;
mod echo;
mod engine;
mod events;
mod faults;
mod first_use;
#[cfg(test)]
mod fleet;
mod golden;
mod helper;
mod host_abilities;
mod hostile_strings;
mod import;
mod kubernetes;
mod logging;
mod main_job;
mod metrics;
mod monitoring;
mod news;
mod ownership;
mod policy;
mod quiet;
mod registry;
mod rollout;
mod safety;
mod secrets;
mod serving;
mod stage;
mod tls;
