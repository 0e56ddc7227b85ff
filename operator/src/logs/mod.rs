//! What services have written, from the log store of a stack, or from its Docker hosts where it has none.

mod hosts;
mod store;

use std::collections::BTreeMap;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

pub use hosts::Containers;
pub use store::Store;

/// How grave what a line says is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
    /// What ends a service.
    Fatal,
}

impl Level {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Trace, "trace"),
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Warn, "warn"),
        (Self::Error, "error"),
        (Self::Fatal, "fatal"),
    ];

    /// As documents of the store name it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(level, _)| *level == self).map_or("info", |(_, name)| name)
    }

    /// By whatever name programs have for it, where it is one.
    pub fn of(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let known = match name.as_str() {
            "warning" => "warn",
            "err" => "error",
            "critical" | "crit" | "panic" | "emerg" | "alert" => "fatal",
            "notice" | "information" | "log" => "info",
            other => other,
        };
        Self::ALL.iter().find(|(_, name)| *name == known).map(|(level, _)| *level)
    }

    /// This one and all that are graver.
    fn and_above(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(move |(level, _)| *level >= self).map(|(_, name)| *name)
    }
}

/// Which lines are asked for: all of this must fit.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Of which services; of every one where none is named.
    pub services: Vec<String>,
    /// Written from then on.
    pub since: Timestamp,
    /// ID of the request that they belong to.
    pub request: Option<String>,
    /// At least this grave; a line that does not say how grave it is is none then.
    pub level: Option<Level>,
    /// A text in them.
    pub text: Option<String>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// When.
    pub time: Timestamp,
    /// On which host.
    pub host: String,
    /// By which service.
    pub service: String,
    /// In which container; none of what is no container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// How grave it is, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What it says.
    pub message: String,
    /// What it says beside that, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
    /// By which it is the same line wherever it is found again.
    #[serde(skip)]
    pub id: String,
}

impl Line {
    /// Whether a text is in it.
    fn has(&self, text: &str) -> bool {
        let is_in = |value: &Value| {
            value.as_str().map_or_else(|| value.to_string().contains(text), |value| value.contains(text))
        };
        self.message.contains(text) || self.fields.values().any(is_in)
    }
}
