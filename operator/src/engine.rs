//! The driver: from a stack and a host to a plan, and from a plan to an outcome.

mod absence;
mod act;
mod audit_push;
mod check;
mod context;
mod coordinator;
mod error;
mod evaluation;
mod hosts;
mod images;
mod left;
mod notifier;
mod push;
mod requests;
mod retire;
mod rollback;
mod run;
mod stacks;
mod watcher;
mod worker;
mod writers;

use jiff::Timestamp;

pub use context::{CheckOptions, ProjectContext};
pub use coordinator::RolloutCoordinator;
pub use error::Error;
pub use evaluation::Evaluation;
pub use hosts::Hosts;
pub use images::Images;
pub use retire::{Removal, Retired, retained};
pub use rollback::RollbackError;
pub use run::{Settings, run};
pub use stacks::{Parts, Stacks};
pub use watcher::Listener;

pub use crate::state::{Deployed, DeployedHost, Deployment, Memory, is_wanted};

/// Who writes where no person asks for it.
pub const OPERATOR: &str = "tasktracker-operator";

/// Reads the clock: the one place that does, beside the command line.
#[expect(clippy::disallowed_methods, reason = "the engine is where time comes in")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
