//! What containers are asked over HTTP, and what they answer.

use std::collections::BTreeMap;

/// What a container is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Whether it serves.
    Ready,
    /// Whether it may go, and the next one after it.
    Gate,
    /// Whether it has loaded something, by what that is called.
    Loaded(String),
    /// Whether it has an object, by the path of that.
    Object(String),
}

/// What containers answered, by their IDs: as it must be, or what is wrong. Who could not be asked is not there.
pub type Answers = BTreeMap<(String, Question), Result<(), String>>;
