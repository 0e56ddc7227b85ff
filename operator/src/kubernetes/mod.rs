//! The other door: stacks are objects of a Kubernetes API server, and so is what is told of them.
//!
//! The only room that talks with an API server. Nothing behind it knows which door a stack came through: the engine is
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
