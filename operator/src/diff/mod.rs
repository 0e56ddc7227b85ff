//! Two differences, kept apart: drift (applied against observed) and change (desired against applied). Pure.

pub(crate) mod adoption;
pub(crate) mod certificate;
mod change;
mod drift;
mod files;
mod host;
mod ignore;
pub(crate) mod secrets;
mod settings;

pub use change::{Change, ChangeItem, change};
pub use drift::{Fault, drift, faults, host_defaults, is_ready, serving};
pub use host::{no_room, port_in_the_way};
pub use ignore::judge;
