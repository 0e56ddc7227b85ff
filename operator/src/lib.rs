//! Keeps Docker hosts equal to a `TaskTrackerStack`.
//!
//! The folders carry the names of the way of the data, in this order: `source`, `component`, `observe`,
//! `diff`, `plan`, `apply`, `report`. `docs/architecture.md` is the map.

pub mod apply;
pub mod certificate;
pub mod cli;
pub mod component;
pub mod diff;
pub mod engine;
pub mod failpoint;
pub mod host;
pub mod import;
pub mod json;
pub mod kubernetes;
pub mod ledger;
pub mod logs;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod plan;
pub mod project;
pub mod registry;
pub mod release;
pub mod report;
pub mod secret;
pub mod server;
pub mod source;
pub mod state;
pub mod telemetry;
pub mod text;
