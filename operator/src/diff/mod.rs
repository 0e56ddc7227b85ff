//! Two differences, kept apart: drift (applied against observed) and change (desired against applied). Pure.

pub(crate) mod adoption;
pub(crate) mod certificate;
mod change;
mod drift;
mod faults;
mod files;
mod host;
mod ignore;
mod memory;
pub(crate) mod secrets;
mod settings;

pub use change::{Change, ChangeItem, change, with_images};
pub(crate) use drift::is_cause;
pub use drift::{configured_defaults, drift, host_defaults};
pub use faults::{Fault, faults, is_serving, serving};
pub(crate) use files::{FOLDER_MODE, folders as file_folders, foreign_to};
pub use host::{no_room, port_in_the_way};
pub use ignore::judge;
pub use memory::{MemoryRemedy, OOM_KILLS, memory_remedy};
