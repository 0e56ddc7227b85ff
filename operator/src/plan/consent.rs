//! Whether a change was approved, by whom, and why not.

use tasktracker_crds::{PolicySpec, Upgrade};

use super::{Plan, RolloutGate};
use crate::{diff::Change, observe::Observed};

/// Whether a change may go ahead as far as people are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    /// Nobody has to approve it, or somebody did: the host knows.
    Given,
    /// The spec approves it; the host does not know of that yet.
    GivenBySpec,
    /// Somebody has to; what for, in words.
    Needed(String),
}

impl Consent {
    /// By what a change is approved of which the host does not know that yet.
    pub(super) fn kept_by(self, named: Option<&str>) -> Option<String> {
        (self == Self::GivenBySpec).then(|| named.unwrap_or("the spec").to_owned())
    }
}

/// Looks for an approval of exactly this plan.
pub(super) fn consent(
    change: &Change,
    plan: &Plan,
    observed: &Observed,
    policy: &PolicySpec,
    gate: &RolloutGate,
) -> Consent {
    if policy.upgrade != Upgrade::Approve {
        return Consent::Given;
    }
    let hash = Plan { rollout: Some(change.clone()), ..plan.clone() }.hash();
    let kept = observed.ledger.as_ref().and_then(|ledger| ledger.approved.as_ref());
    if kept.is_some_and(|kept| kept.plan == hash) {
        return Consent::Given;
    }
    if gate.approved.plan.as_ref() == Some(&hash) {
        return Consent::GivenBySpec;
    }
    let other = kept.map(|kept| {
        format!(
            "; what {} approved ({}) was plan {} of this host, which is {hash} by now: what is asked for or what is in force changed since",
            kept.who, kept.when, kept.plan
        )
    });
    let named = gate.approved.named.as_ref().map(|named| format!("; found {named}"));
    let more: String = other.into_iter().chain(named).collect();
    Consent::Needed(format!(
        "policy.upgrade is Approve: look at `plan`, then run `approve STACK HASH` (or `apply`){more}"
    ))
}
