//! What the status of a stack keeps for the next operator, where there is no folder. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{VERSION, deployed::DeployedHost};
use crate::{json, report::news::Told};

/// Notification state as it is stored, in `notifications.json` and in notes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredNotifications {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    known: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    in_force: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rolled_back: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting_plans: Option<String>,
}

impl From<Told> for StoredNotifications {
    fn from(told: Told) -> Self {
        let Told { known, in_force, rolled_back, waiting_plans } = told;
        Self { known, in_force, rolled_back, waiting_plans }
    }
}

impl From<StoredNotifications> for Told {
    fn from(stored: StoredNotifications) -> Self {
        let StoredNotifications { known, in_force, rolled_back, waiting_plans } = stored;
        Self { known, in_force, rolled_back, waiting_plans }
    }
}

/// The content of the notes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Notes {
    /// What is deployed where.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) hosts: BTreeMap<String, DeployedHost>,
    /// Notification state.
    #[serde(default)]
    pub(super) notifications: StoredNotifications,
}

/// What notes turned out to be.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// There are none, or they are no notes.
    Nothing,
    /// Notes.
    Notes(Notes),
    /// Notes of another version, which this operator must not replace.
    UnknownVersion,
}

/// Notes as a status keeps them.
pub(super) fn write(notes: &Notes) -> Value {
    json::to_value(super::files::Versioned { version: VERSION, content: notes })
}

/// Reads the notes of a status.
pub(super) fn read(notes: &Value) -> Found {
    match notes.get("version").and_then(Value::as_u64) {
        None => Found::Nothing,
        Some(version) if version == VERSION => {
            serde_json::from_value(notes.clone()).map_or(Found::Nothing, Found::Notes)
        }
        Some(_) => Found::UnknownVersion,
    }
}
