//! The task API: one resource, its storage, and what a service needs to be run well.
//!
//! [`router`] puts the rooms together: [`tasks`] is the resource, [`storage`] the only place that
//! holds SQL, [`problem`] the one shape of errors, [`health`], [`metrics`] and [`docs`] what operators
//! and people read; [`settings`] is the configuration. How it is run is shared with the other server, in
//! `tasktracker-service`.

pub mod clock;
pub mod docs;
pub mod extract;
pub mod health;
pub mod metrics;
pub mod middleware;
pub mod problem;
pub mod router;
pub mod settings;
pub mod state;
pub mod storage;
pub mod tasks;
