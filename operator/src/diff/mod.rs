//! Two differences, kept apart: drift (applied against observed) and change (desired against applied). Pure.

pub(crate) mod adoption;
pub(crate) mod certificate;
mod change;
mod drift;
mod faults;
mod files;
mod host;
mod ignore;
pub(crate) mod secrets;
mod settings;

pub use change::{Change, ChangeItem, change};
pub use drift::{drift, host_defaults};
pub use faults::{Fault, faults, is_ready, serving};
pub use host::{no_room, port_in_the_way};
pub use ignore::judge;
