//! Absence from the source, and for how long: a deletion counts only when it lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

/// How long something must be absent before that counts.
const LASTING: Duration = Duration::from_mins(1);

/// Since when things are absent.
#[derive(Debug)]
pub(super) struct AbsenceTracker<K> {
    since: BTreeMap<K, Instant>,
}

impl<K> Default for AbsenceTracker<K> {
    fn default() -> Self {
        Self { since: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> AbsenceTracker<K> {
    /// Those whose absence has lasted long enough by now, each time that this is asked: what is to be done about one may
    /// change while it lasts. While the source cannot be relied on, nothing is absent, and everything is counted anew.
    pub(super) fn expired(&mut self, absent: BTreeSet<K>, reliable: bool, now: Instant) -> Vec<K> {
        if !reliable {
            self.since.clear();
            return Vec::new();
        }
        self.since.retain(|key, _| absent.contains(key));
        let mut expired = Vec::new();
        for key in absent {
            let since = *self.since.entry(key.clone()).or_insert(now);
            if now.duration_since(since) >= LASTING {
                expired.push(key);
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_counts_when_it_lasts_and_the_source_could_be_read_all_the_while() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let names = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<&str>>();
        let mut tracker = AbsenceTracker::default();
        let mut expired = |absent: &[&'static str], reliable, seconds| {
            tracker.expired(names(absent), reliable, at(seconds))
        };
        assert!(expired(&["a", "b"], true, 0).is_empty() && expired(&["a", "b"], true, 59).is_empty());
        assert!(expired(&["b"], true, 59).is_empty(), "a is back");
        assert_eq!(expired(&["a", "b"], true, 60), ["b"]);
        assert_eq!(expired(&["a", "b"], true, 61), ["b"], "as long as it lasts");
        assert!(expired(&["a", "b"], false, 119).is_empty(), "the folder could not be read");
        assert!(expired(&["a", "b"], true, 121).is_empty(), "and everything is counted anew");
        assert_eq!(expired(&["a", "b"], true, 181), ["a", "b"]);
    }
}
