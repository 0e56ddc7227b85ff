//! The smallest list of actions, and what has to wait. Pure: a plan can only be made from differences.

mod action;
mod hold;
mod repair;

use serde::Serialize;
use tasktracker_crds::{DriftItem, PolicySpec, Upgrade, conditions::reasons};

pub use action::Action;
pub use hold::{Hold, hold};
pub use repair::Repair;

use crate::{
    desired::{Project, sha256},
    diff::Change,
    observe::Observed,
};

/// What is to be done with one project on one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Hash of the desired state that it was made for.
    pub desired_hash: String,
    /// Repairs, smallest first: files, then containers.
    pub repairs: Vec<Repair>,
    /// The change to carry out.
    pub rollout: Option<Change>,
    /// A change that has to wait, and why.
    pub waiting: Option<Waiting>,
    /// Why nothing at all is written at present.
    pub hold: Option<Hold>,
}

/// A change that has to wait.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Reason, as in conditions.
    pub reason: &'static str,
    /// For whom or what it waits, in words.
    pub message: String,
    /// The change.
    pub change: Change,
}

/// Who may release a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Nobody asked: the policy decides.
    Policy,
    /// A person asks for it now.
    Person,
}

impl Plan {
    /// Whether there is nothing to do and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.repairs.is_empty() && self.rollout.is_none() && self.waiting.is_none()
    }

    /// Whether there is something to be done now.
    pub fn has_work(&self) -> bool {
        self.hold.is_none() && (self.rollout.is_some() || self.repairs.iter().any(|repair| !repair.later))
    }

    /// The change, whether it waits or not.
    pub fn change(&self) -> Option<&Change> {
        self.rollout.as_ref().or(self.waiting.as_ref().map(|waiting| &waiting.change))
    }

    /// Hash of the desired state and of what is done about it, the same before and after a change was released: a
    /// released change takes the place of every repair. Actions count with what they presuppose; what was found beyond
    /// that does not.
    pub fn hash(&self) -> String {
        let repairs = if self.change().is_some() { &[][..] } else { &self.repairs };
        let from = self.change().map(|change| (&change.from_release, &change.desired_hash));
        sha256(&serde_json::to_vec(&(&self.desired_hash, from, repairs)).unwrap_or_default())[..16].to_owned()
    }
}

/// Hash of the plan of a whole stack, from the plans of its projects by host and component; those of hosts that could
/// not be read are not in it.
pub fn hash_of<'a>(plans: impl IntoIterator<Item = (&'a str, &'a str, &'a Plan)>) -> String {
    let mut parts: Vec<(&str, &str, String)> =
        plans.into_iter().map(|(host, component, plan)| (host, component, plan.hash())).collect();
    parts.sort();
    sha256(&serde_json::to_vec(&parts).unwrap_or_default())[..16].to_owned()
}

/// What to do about drift and change.
pub fn plan(
    drift: &[DriftItem],
    change: Option<Change>,
    desired: &Project,
    observed: &Observed,
    policy: &PolicySpec,
    approval: Approval,
) -> Plan {
    let waiting = change
        .as_ref()
        .filter(|_| !observed.busy)
        .map(|change| reason_to_wait(change, desired, observed, policy, approval));
    let plan = Plan { desired_hash: desired.hash(), ..Plan::default() };
    if let (Some(None), Some(change)) = (&waiting, &change) {
        // A rollout writes every file and makes every container anew that is not as it should be: repairing towards
        // the release that it replaces would be in vain, and might not even be possible.
        return Plan { rollout: Some(change.clone()), ..plan };
    }
    let repairs =
        observed.applied.as_ref().map(|applied| repair::repairs(drift, applied, desired)).unwrap_or_default();
    let waiting =
        waiting.flatten().zip(change).map(|((reason, message), change)| Waiting { reason, message, change });
    Plan { repairs, waiting, ..plan }
}

fn reason_to_wait(
    change: &Change,
    desired: &Project,
    observed: &Observed,
    policy: &PolicySpec,
    approval: Approval,
) -> Option<(&'static str, String)> {
    let before = observed.applied.as_ref().map(|applied| &applied.project.environment);
    if let Some(before) = before.filter(|before| **before != desired.environment) {
        let message = format!(
            "environment cannot be changed: expected {before}, found {}; make another stack",
            desired.environment
        );
        return Some((reasons::INVALID_SPEC, message));
    }
    if approval == Approval::Person {
        return None;
    }
    let failed = observed.ledger.as_ref().and_then(|ledger| ledger.failed.as_ref());
    if let Some(failed) = failed.filter(|failed| failed.desired_hash == change.desired_hash) {
        let message = format!(
            "this desired state was tried and failed ({}); change it, or run `apply`",
            failed.message
        );
        return Some((reasons::UNHEALTHY, message));
    }
    if policy.upgrade == Upgrade::Approve {
        return Some((
            reasons::APPROVAL_NEEDED,
            "policy.upgrade is Approve: a person runs `apply`".to_owned(),
        ));
    }
    None
}

#[cfg(test)]
mod tests;
