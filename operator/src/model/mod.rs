//! Leaf types that every layer shares. No IO, and no import of any other module.

mod component;
mod digest;
mod hold;
mod probe;

pub use component::ComponentName;
pub use digest::{hexadecimal, sha256};
pub use hold::Hold;
pub use probe::{LastProbes, LastPublished, Probe, ProbeFailure, ProbeResults, Unserved};
