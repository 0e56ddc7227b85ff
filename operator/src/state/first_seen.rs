//! Since when the differences of each project are there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tasktracker_crds::{DriftItem, DriftKind, HostStatus};

/// What makes a difference the same one at the next check: kind, service, path.
pub(crate) type ItemKey = (DriftKind, Option<String>, Option<String>);

/// Since when each difference of a project is there.
pub(crate) type Since = BTreeMap<ItemKey, Timestamp>;

/// The key of a difference.
pub(crate) fn item_key(item: &DriftItem) -> ItemKey {
    (item.kind, item.service.clone(), item.path.clone())
}

/// Differences that are another container's by now, each with the key that it had before: a container that was made anew
/// has another name, and where its setting differs still, nothing was healed and nothing began.
pub(crate) fn moved(before: &Since, now: &BTreeSet<ItemKey>) -> BTreeMap<ItemKey, ItemKey> {
    let mut gone: Vec<&ItemKey> = before.keys().filter(|key| !now.contains(*key)).collect();
    let mut moved = BTreeMap::new();
    for key in now.iter().filter(|key| !before.contains_key(*key)) {
        let Some(setting) = setting(key) else { continue };
        let is_it = |one: &&ItemKey| one.1 == key.1 && self::setting(one) == Some(setting);
        if let Some(place) = gone.iter().position(is_it) {
            moved.insert(key.clone(), gone.remove(place).clone());
        }
    }
    moved
}

/// The setting of a container, whatever the container's name is.
fn setting((kind, _, path): &ItemKey) -> Option<&str> {
    let path = path.as_deref().filter(|_| *kind == DriftKind::ConfigChanged)?;
    path.split_once('/').map(|(_, setting)| setting)
}

/// A project: a component of a stack on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    stack: String,
    host: String,
    component: String,
}

/// First-seen times of every project.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FirstSeen(BTreeMap<Key, Since>);

impl FirstSeen {
    /// The times of a stack, by host and component.
    pub(super) fn of_stack(&self, stack: &str) -> BTreeMap<(String, String), Since> {
        let ours = self.0.iter().filter(|(key, _)| key.stack == stack);
        ours.map(|(key, since)| ((key.host.clone(), key.component.clone()), since.clone())).collect()
    }

    /// When a difference of a project was first seen.
    pub(super) fn of_item(&self, stack: &str, item: &DriftItem, host: &str) -> Option<Timestamp> {
        let key = Key { stack: stack.to_owned(), host: host.to_owned(), component: item.component.clone() };
        self.0.get(&key)?.get(&item_key(item)).copied()
    }

    /// Replaces the times of a project; whether they are others than before.
    pub(super) fn set(&mut self, stack: &str, host: &str, component: &str, since: &Since) -> bool {
        let key = Key { stack: stack.to_owned(), host: host.to_owned(), component: component.to_owned() };
        if since.is_empty() {
            return self.0.remove(&key).is_some();
        }
        self.0.insert(key, since.clone()).as_ref() != Some(since)
    }

    /// Keeps the times of a stack on these hosts only; whether any others were there.
    pub(super) fn retain_hosts(&mut self, stack: &str, hosts: &BTreeSet<String>) -> bool {
        let before = self.0.len();
        self.0.retain(|key, _| key.stack != stack || hosts.contains(&key.host));
        self.0.len() != before
    }

    /// Adds the times that a status shows, where none of the stack are known; whether there were any. What is known
    /// already is at least as new: a status is made of it.
    pub(super) fn restore(&mut self, stack: &str, hosts: &[HostStatus]) -> bool {
        if self.0.keys().any(|key| key.stack == stack) {
            return false;
        }
        let components = hosts.iter().flat_map(|host| host.components.iter().map(move |one| (host, one)));
        for (host, item) in components.flat_map(|(host, one)| one.drift.iter().map(move |item| (host, item)))
        {
            let Some(first) = item.first_seen.as_ref().and_then(|text| text.parse().ok()) else { continue };
            let key =
                Key { stack: stack.to_owned(), host: host.name.clone(), component: item.component.clone() };
            self.0.entry(key).or_default().insert(item_key(item), first);
        }
        self.0.keys().any(|key| key.stack == stack)
    }
}

/// The content of `first-seen.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stored {
    projects: Vec<StoredProject>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredProject {
    stack: String,
    host: String,
    component: String,
    drift: Vec<StoredItem>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredItem {
    kind: DriftKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    first_seen: Timestamp,
}

impl From<FirstSeen> for Stored {
    fn from(all: FirstSeen) -> Self {
        let item = |((kind, service, path), first_seen)| StoredItem { kind, service, path, first_seen };
        let project = |(Key { stack, host, component }, since): (Key, Since)| StoredProject {
            stack,
            host,
            component,
            drift: since.into_iter().map(item).collect(),
        };
        Self { projects: all.0.into_iter().map(project).collect() }
    }
}

impl From<Stored> for FirstSeen {
    fn from(stored: Stored) -> Self {
        let item = |item: StoredItem| ((item.kind, item.service, item.path), item.first_seen);
        let project = |StoredProject { stack, host, component, drift }| {
            (Key { stack, host, component }, drift.into_iter().map(item).collect())
        };
        Self(stored.projects.into_iter().map(project).collect())
    }
}
