//! Cached answers of Docker about networks and volumes. An entry is valid while events are received and none names it.

use std::collections::BTreeMap;

use super::docker::{NetworkOrVolume, ProjectResource, Subject};

/// A network or volume; nothing where there is none of that name.
type Answer = Option<NetworkOrVolume>;

/// The last answers over one connection.
#[derive(Default)]
pub(super) struct Cache {
    /// Whether events are received.
    is_subscribed: bool,
    version: Version,
    entries: BTreeMap<Name, Answer>,
    /// By Compose project. No event tells the labels of a new network or volume.
    project_resources: BTreeMap<String, Vec<ProjectResource>>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Network(String),
    Volume(String),
}

/// Changes with each invalidation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Version(u64);

impl Cache {
    /// Events are received from now on.
    pub(super) fn subscribed(&mut self) {
        self.clear();
        self.is_subscribed = true;
    }

    /// Events are received no longer: nothing is cached until they are.
    pub(super) fn unsubscribed(&mut self) {
        self.clear();
        self.is_subscribed = false;
    }

    /// Removes what an event is about.
    pub(super) fn invalidate(&mut self, subject: Subject<'_>) {
        let name = match subject {
            Subject::Network(name, _) => Name::Network(name.to_owned()),
            Subject::Volume(name) => Name::Volume(name.to_owned()),
            Subject::Unknown => return self.clear(),
            Subject::Project(_) | Subject::OutOfMemory { .. } | Subject::Other => return,
        };
        self.version.0 += 1;
        self.entries.remove(&name);
        self.project_resources.clear();
    }

    fn clear(&mut self) {
        self.version.0 += 1;
        self.entries.clear();
        self.project_resources.clear();
    }

    /// The version before a request; [`Cache::insert`] takes it.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Stores an answer, unless something was invalidated since its request: the answer may be older than the event.
    pub(super) fn insert(&mut self, name: Name, answer: Answer, version: Version) {
        if self.is_subscribed && self.version == version {
            self.entries.insert(name, answer);
        }
    }

    /// As [`Cache::insert`], of the networks and volumes labelled with a Compose project.
    pub(super) fn insert_project_resources(
        &mut self,
        project: String,
        project_resources: Vec<ProjectResource>,
        version: Version,
    ) {
        if self.is_subscribed && self.version == version {
            self.project_resources.insert(project, project_resources);
        }
    }

    /// The networks and volumes labelled with a Compose project, where they are cached.
    pub(super) fn project_resources(&self, project: &str) -> Option<&Vec<ProjectResource>> {
        self.project_resources.get(project)
    }

    /// The cached answer.
    pub(super) fn get(&self, name: &Name) -> Option<&Answer> {
        self.entries.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> Name {
        Name::Network(name.to_owned())
    }

    fn insert(cache: &mut Cache, name: &Name) {
        let version = cache.version();
        cache.insert(name.clone(), Some(NetworkOrVolume::default()), version);
    }

    #[test]
    fn an_answer_is_valid_until_an_event_names_it_or_events_end() {
        let (ours, other) = (network("tt-a"), network("tt-b"));
        let mut cache = Cache::default();
        insert(&mut cache, &ours);
        assert_eq!(cache.get(&ours), None, "no events are received");
        cache.subscribed();
        for (subject, is_valid) in [
            (Subject::Project("tt-a"), true),
            (Subject::Volume("tt-a"), true),
            (Subject::Other, true),
            (Subject::Network("tt-a", None), false),
            (Subject::Unknown, false),
        ] {
            insert(&mut cache, &ours);
            cache.invalidate(subject);
            assert_eq!(cache.get(&ours).is_some(), is_valid, "{subject:?}");
        }
        insert(&mut cache, &other);
        cache.invalidate(Subject::Network("tt-a", None));
        assert!(cache.get(&other).is_some());
        cache.unsubscribed();
        assert_eq!(cache.get(&other), None);
        insert(&mut cache, &other);
        assert_eq!(cache.get(&other), None);
    }

    #[test]
    fn an_answer_that_may_be_older_than_an_event_is_not_cached() {
        let mut cache = Cache::default();
        cache.subscribed();
        let version = cache.version();
        cache.invalidate(Subject::Network("tt-a", None));
        cache.insert(network("tt-a"), None, version);
        assert_eq!(cache.get(&network("tt-a")), None);
        let version = cache.version();
        cache.insert(network("tt-a"), None, version);
        assert_eq!(cache.get(&network("tt-a")), Some(&None));
    }
}
