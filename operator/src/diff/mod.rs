//! Two differences, kept apart: drift (applied against observed) and change (desired against applied). Pure.

mod change;
mod drift;

pub use change::{Change, ChangeItem, change};
pub use drift::{drift, faults, serving};
