//! Repairs that held and were undone: a program that fights with the operator is left to a person. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::ledger::Cause;

/// Repairs of one difference within [`WINDOW`] after which somebody is taken to undo them.
const MOST: usize = 30;
/// How long a repair counts.
const WINDOW: Duration = Duration::from_mins(10);

/// When each difference of a project was repaired.
#[derive(Debug, Default)]
pub(super) struct Repaired(BTreeMap<Cause, VecDeque<Instant>>);

impl Repaired {
    pub(super) fn add(&mut self, causes: &BTreeSet<Cause>, now: Instant) {
        for cause in causes {
            let times = self.0.entry(cause.clone()).or_default();
            times.push_back(now);
            if times.len() > MOST {
                times.pop_front();
            }
        }
    }

    /// The differences that were repaired so often that it is in vain, though each repair held for a moment.
    pub(super) fn undone(&mut self, now: Instant) -> BTreeSet<Cause> {
        for times in self.0.values_mut() {
            times.retain(|time| *time + WINDOW > now);
        }
        self.0.retain(|_, times| !times.is_empty());
        let undone = self.0.iter().filter(|(_, times)| times.len() >= MOST);
        undone.map(|(cause, _)| cause.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use tasktracker_crds::DriftKind;

    use super::*;

    #[test]
    fn what_is_undone_again_and_again_is_left_alone_for_a_while() {
        let (start, mut repaired) = (Instant::now(), Repaired::default());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let cause = |path: &str| (DriftKind::ConfigChanged, Some(path.to_owned()));
        let fought = BTreeSet::from([cause("a")]);
        for time in 0..MOST as u64 {
            assert!(repaired.undone(at(5 * time)).is_empty(), "after {time}");
            repaired.add(&fought, at(5 * time));
        }
        repaired.add(&BTreeSet::from([cause("b")]), at(1));
        assert_eq!(repaired.undone(at(160)), fought);
        assert!(repaired.undone(at(601)).is_empty(), "the first of them is over");
        assert!(repaired.undone(at(2_000)).is_empty() && repaired.0.is_empty());
    }
}
