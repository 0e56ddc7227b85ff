//! Names that the operator asks about on a host, and what it found: each for as long as it is asked about.

use std::{borrow::Borrow, collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{PresentedCertificate, docker::Subject};
use crate::model::{LastProbes, LastPublished};

/// How long an entry outlives its last use: a stack in use is checked about once a minute, whatever its interval.
const LIFETIME: Duration = Duration::from_mins(10);

/// What is known of the stacks on a host.
#[derive(Default)]
pub(super) struct Known {
    /// Folders of stacks.
    pub(super) stacks: Recent<String, ()>,
    /// Compose projects, with the IDs of their containers.
    pub(super) projects: Recent<String, Vec<String>>,
    /// Names of networks.
    pub(super) networks: Recent<String, ()>,
    /// Names of volumes.
    pub(super) volumes: Recent<String, ()>,
    /// Probe results, by Compose project.
    pub(super) probes: Recent<String, LastProbes>,
    /// What users got, by Compose project.
    pub(super) published: Recent<String, LastPublished>,
    /// Certificates by port and name.
    pub(super) certificates: Recent<(u16, String), PresentedCertificate>,
    /// How often a process was OOM-killed, by Compose project, service and number of the container.
    pub(super) oom_kills: BTreeMap<(String, String, String), u64>,
    /// How often that was when it last served, or something was done about it.
    pub(super) oom_kills_before: BTreeMap<(String, String, String), u64>,
}

impl Known {
    /// Counts what an event says of memory, where it is about a project that the operator asks about.
    pub(super) fn count(&mut self, subject: Subject<'_>) {
        if let Subject::OutOfMemory { project, service, replica } = subject
            && self.projects.contains(project)
        {
            let replica = (project.to_owned(), service.to_owned(), replica.to_owned());
            *self.oom_kills.entry(replica).or_default() += 1;
        }
    }

    /// Whether an event is about a project, container, network or volume of a stack.
    pub(super) fn has(&self, subject: Subject<'_>) -> bool {
        match subject {
            Subject::Project(name) | Subject::OutOfMemory { project: name, .. } => {
                self.projects.contains(name)
            }
            Subject::Network(name, container) => {
                let is_known = |id: &str| self.projects.values().flatten().any(|known| known == id);
                self.networks.contains(name) || container.is_some_and(is_known)
            }
            Subject::Volume(name) => self.volumes.contains(name),
            Subject::Other | Subject::Unknown => false,
        }
    }
}

/// A map whose entries expire unless they are used.
pub(super) struct Recent<K, V> {
    entries: BTreeMap<K, Entry<V>>,
}

struct Entry<V> {
    used: Instant,
    value: V,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<K: Ord, V> Recent<K, V> {
    /// Puts a value, and removes the entries that expired.
    pub(super) fn insert(&mut self, key: K, value: V, now: Instant) {
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.used) < LIFETIME);
        self.entries.insert(key, Entry { used: now, value });
    }

    /// The value of a key, which counts as used.
    pub(super) fn get<Q: Ord + ?Sized>(&mut self, key: &Q, now: Instant) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.get_mut(key)?;
        entry.used = now;
        Some(&entry.value)
    }

    /// Removes the entry of a key.
    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key);
    }

    /// Whether there is an entry; it does not count as used.
    pub(super) fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.contains_key(key)
    }

    /// The values in the order of their keys.
    fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &entry.value)
    }

    /// The keys in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire_unless_they_are_used() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut recent: Recent<String, u8> = Recent::default();
        recent.insert("used".to_owned(), 1, begin);
        recent.insert("unused".to_owned(), 2, begin);
        assert_eq!(recent.get("used", at(400)), Some(&1));
        recent.insert("new".to_owned(), 3, at(700));
        assert_eq!(recent.keys().collect::<Vec<_>>(), ["new", "used"]);
        assert!(recent.contains("used") && !recent.contains("unused"));
        assert_eq!(recent.get("unused", at(700)), None);
    }

    #[test]
    fn events_of_other_projects_are_not_known() {
        let now = Instant::now();
        let mut known = Known::default();
        known.projects.insert("tt-a-app".to_owned(), vec!["c0ffee".to_owned()], now);
        known.networks.insert("tt-a".to_owned(), (), now);
        known.volumes.insert("tt-a-app-data".to_owned(), (), now);
        for (subject, expected) in [
            (Subject::Project("tt-a-app"), true),
            (Subject::Network("tt-a", None), true),
            (Subject::Network("bridge", Some("c0ffee")), true),
            (Subject::Network("bridge", Some("bad")), false),
            (Subject::Volume("tt-a-app-data"), true),
            (Subject::Project("tt-a"), false),
            (Subject::Network("tt-a-app-data", None), false),
            (Subject::Volume("tt-a-app"), false),
            (Subject::Other, false),
            (Subject::Unknown, false),
        ] {
            assert_eq!(known.has(subject), expected, "{subject:?}");
        }
    }
}
