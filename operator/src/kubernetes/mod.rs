//! The Kubernetes front end: stacks are objects of an API server, and their results are written back to it.
//!
//! The only module that talks to an API server. Nothing behind it knows which front end a stack came from: the engine is
//! given stacks and a [`Source`](crate::source::Source) to ask anew, and tells a [`Listener`](crate::engine::Listener).

mod access;
mod api;
mod backoff;
mod client;
mod deletion;
mod events;
#[cfg(test)]
mod fake;
mod generations;
mod lease;
mod plans;
mod reconcile;
mod run;
mod secrets;
mod source;
mod specs;
mod status;
mod triggers;

pub use access::Reviews;
pub use api::{Read, Stacks};
pub use client::{ApiError, Where, connect, limited};
pub use run::{Settings, run};

/// Who writes, as the API server records it.
pub const MANAGER: &str = "tasktracker-operator";
/// What keeps a deleted stack until its hosts are left as its policy says.
pub const FINALIZER: &str = "tasktracker.dev/hosts";
