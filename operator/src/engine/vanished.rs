//! What is gone from the source, and for how long: a deletion counts only when it lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

/// How long something must be gone before that counts.
pub(super) const LASTING: Duration = Duration::from_mins(1);

/// Since when things are gone.
#[derive(Debug)]
pub(super) struct Vanished<K> {
    since: BTreeMap<K, Instant>,
    told: BTreeSet<K>,
}

impl<K> Default for Vanished<K> {
    fn default() -> Self {
        Self { since: BTreeMap::new(), told: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Vanished<K> {
    /// Those whose absence has lasted long enough by now, each told once. While the source cannot be relied on, nothing
    /// is gone: what is seen then begins anew.
    pub(super) fn lasting(&mut self, gone: BTreeSet<K>, reliable: bool, now: Instant) -> Vec<K> {
        if !reliable {
            self.since.clear();
            return Vec::new();
        }
        self.since.retain(|key, _| gone.contains(key));
        self.told.retain(|key| gone.contains(key));
        let mut due = Vec::new();
        for key in gone {
            let since = *self.since.entry(key.clone()).or_insert(now);
            if now.duration_since(since) >= LASTING && self.told.insert(key.clone()) {
                due.push(key);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gone_is_what_was_gone_all_the_while_from_a_source_that_could_be_read() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let gone = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<&str>>();
        let mut vanished = Vanished::default();
        let mut lasting =
            |names: &[&'static str], reliable, seconds| vanished.lasting(gone(names), reliable, at(seconds));
        assert!(lasting(&["a", "b"], true, 0).is_empty() && lasting(&["a", "b"], true, 59).is_empty());
        assert!(lasting(&["b"], true, 59).is_empty(), "a is back");
        assert_eq!(lasting(&["a", "b"], true, 60), ["b"]);
        assert!(lasting(&["a", "b"], true, 61).is_empty(), "b is told once");
        assert!(lasting(&["a", "b"], false, 119).is_empty(), "the folder could not be read");
        assert!(lasting(&["a", "b"], true, 121).is_empty(), "and everything is counted anew");
        assert_eq!(lasting(&["a", "b"], true, 181), ["a"]);
    }
}
