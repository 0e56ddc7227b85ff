//! Leaf types that every layer shares. No IO, and no import of any other module.

mod answers;
mod component;
mod digest;
mod hold;

pub use answers::{Answers, Question};
pub use component::ComponentName;
pub use digest::sha256;
pub use hold::Hold;
