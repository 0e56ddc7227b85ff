//! Repairs that did not hold: what still differs after it was repaired three times is left to a person.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tasktracker_crds::{DriftItem, DriftKind};

use crate::{plan::Plan, source::StackKey};

/// How often a difference is repaired before it is left alone.
const TRIES: u32 = 3;

type Cause = (DriftKind, Option<String>);

/// How often each difference was repaired in vain, by stack and host.
#[derive(Default)]
pub(super) struct Attempts(Mutex<BTreeMap<(StackKey, String), BTreeMap<Cause, u32>>>);

impl Attempts {
    /// Takes repairs out of a plan that were tried often enough, and tells of what.
    pub(super) fn hold_back(
        &self,
        stack: &StackKey,
        host: &str,
        drift: &[DriftItem],
        plan: &mut Plan,
    ) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counts) = all.get_mut(&(stack.clone(), host.to_owned())) else { return Vec::new() };
        // What is gone was mended, by whomever.
        counts.retain(|cause, _| drift.iter().any(|item| *cause == (item.kind, item.path.clone())));
        let mut given_up = Vec::new();
        for repair in plan.repairs.iter_mut().filter(|repair| !repair.later) {
            let tried = |cause: &Cause| counts.get(cause).is_some_and(|count| *count >= TRIES);
            if repair.because.iter().all(tried) {
                repair.later = true;
                given_up.push(repair.action.words());
            }
        }
        given_up
    }

    /// Counts what still differs after a plan was carried out.
    pub(super) fn count(&self, stack: &StackKey, host: &str, plan: &Plan, left: &[DriftItem]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = all.entry((stack.clone(), host.to_owned())).or_default();
        for cause in plan.repairs.iter().filter(|repair| !repair.later).flat_map(|repair| &repair.because) {
            if left.iter().any(|item| *cause == (item.kind, item.path.clone())) {
                *counts.entry(cause.clone()).or_default() += 1;
            }
        }
    }

    /// A stack has another spec, or goes: everything may be tried again.
    pub(super) fn forget(&self, stack: &StackKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(key, _), _| key != stack);
    }
}

#[cfg(test)]
mod tests {
    use tasktracker_crds::Answer;

    use super::*;
    use crate::plan::{Action, Repair};

    #[test]
    fn what_was_repaired_three_times_in_vain_is_left_alone_until_it_is_gone() {
        let key = StackKey { namespace: "default".to_owned(), name: "a".to_owned() };
        let cause = (DriftKind::ConfigChanged, Some("c/ulimits/nofile".to_owned()));
        let item = DriftItem {
            host: "h".to_owned(),
            component: "app".to_owned(),
            service: Some("s".to_owned()),
            kind: cause.0,
            path: cause.1.clone(),
            wanted: "a".to_owned(),
            found: "b".to_owned(),
            first_seen: None,
            answer: Answer::Heal,
        };
        let action = Action::Recreate { service: "s".to_owned() };
        let plan = Plan {
            repairs: vec![Repair { action, because: vec![cause], why: "", later: false }],
            ..Plan::default()
        };
        let attempts = Attempts::default();
        let given_up = |drift: &[DriftItem]| attempts.hold_back(&key, "h", drift, &mut plan.clone());
        let drift = [item];
        for _ in 0..TRIES {
            assert!(given_up(&drift).is_empty());
            attempts.count(&key, "h", &plan, &drift);
        }
        assert_eq!(given_up(&drift), ["recreate s"]);
        assert!(given_up(&[]).is_empty());
        assert!(given_up(&drift).is_empty(), "it was gone in between");
    }
}
