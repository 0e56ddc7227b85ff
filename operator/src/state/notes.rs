//! What the status of a stack keeps for the next operator, where there is no folder. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tasktracker_crds::HostSpec;

use super::{
    VERSION,
    deployed::{Deployed, DeployedHost},
    files::Versioned,
};
use crate::{json, model::ComponentName, report::notifications::NotificationState};

/// What notes keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Notes {
    /// What is deployed where.
    pub(super) hosts: BTreeMap<String, DeployedHost>,
    /// Notification state.
    pub(super) notifications: NotificationState,
}

/// The content of the notes. Hosts with the same release have the same project: it is stored once, since every write of
/// a status carries it.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    projects: Vec<Deployed>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    hosts: BTreeMap<String, StoredHost>,
    #[serde(default)]
    notifications: NotificationState,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredHost {
    spec: HostSpec,
    /// The position of each project in the list, by component.
    components: BTreeMap<ComponentName, usize>,
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
    let mut stored = Stored { notifications: notes.notifications.clone(), ..Stored::default() };
    for (name, host) in &notes.hosts {
        let mut components = BTreeMap::new();
        for (component, project) in &host.components {
            let known = stored.projects.iter().position(|known| known == project);
            let position = known.unwrap_or_else(|| {
                stored.projects.push(project.clone());
                stored.projects.len() - 1
            });
            components.insert(*component, position);
        }
        let host = StoredHost { spec: host.spec.clone(), components };
        stored.hosts.insert(name.clone(), host);
    }
    json::to_value(Versioned { version: VERSION, content: stored })
}

/// Reads the notes of a status.
pub(super) fn read(notes: &Value) -> Found {
    match notes.get("version").and_then(Value::as_u64) {
        None => Found::Nothing,
        Some(version) if version == VERSION => {
            let stored = serde_json::from_value::<Stored>(notes.clone()).ok();
            stored.and_then(restored).map_or(Found::Nothing, Found::Notes)
        }
        Some(_) => Found::UnknownVersion,
    }
}

/// None where a host has a project that is not in the list.
fn restored(stored: Stored) -> Option<Notes> {
    let Stored { projects, hosts, notifications } = stored;
    let restored = |(name, host): (String, StoredHost)| {
        let project = |(component, position): (ComponentName, usize)| {
            Some((component, projects.get(position)?.clone()))
        };
        let components = host.components.into_iter().map(project).collect::<Option<_>>()?;
        Some((name, DeployedHost { spec: host.spec, components }))
    };
    let hosts = hosts.into_iter().map(restored).collect::<Option<_>>()?;
    Some(Notes { hosts, notifications })
}
