//! The smallest list of actions, and what has to wait. Pure: a plan can only be made from differences.

mod action;
mod addresses;
mod consent;
mod hold;
mod repair;
mod waiting;
mod window;

use std::{collections::BTreeSet, fmt};

use serde::Serialize;
use tasktracker_crds::{DriftItem, DriftKind, Heal, OnFailure, PolicySpec, conditions::reasons};

pub use action::{Action, UpdatedLimits};
pub use addresses::{Addresses, addresses};
pub use hold::{drain, hold, hold_for_interrupted_apply};
pub use repair::Repair;
pub use window::closed;

use waiting::reason_to_wait;

use crate::{
    diff::{Change, secrets},
    json,
    ledger::{Attempt, Cause, Ledger, Tried},
    model::{Hold, sha256},
    observe::{self, Observed},
    project::{Project, compose::COMPOSE_SERVICE},
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
    /// Whether the host is to be drained, or to serve again; none where it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<bool>,
    /// By what the change is approved, where the host does not keep that yet.
    #[serde(skip)]
    pub approve: Option<String>,
    /// The failure on another host for which the release before comes back.
    pub rollback_to_previous: Option<PeerFailure>,
    /// Why it does not: the way back failed.
    pub rollback_failed: Option<String>,
    /// Why nothing at all is written at present.
    pub hold: Option<Hold>,
    /// Repairs that did not hold again and again, in words; they are left to a person.
    pub given_up: Vec<String>,
    /// Whether the ledger holds what is over: an apply that was interrupted, or a repair that holds by now.
    #[serde(skip)]
    pub clear_intent: bool,
    /// Paths of what the operator keeps in the project's folder and is lost there, to be put back as it was seen last.
    #[serde(skip)]
    pub put_back: Vec<String>,
    /// What was tried in vain about differences that are still there.
    #[serde(skip)]
    pub attempts: Vec<Attempt>,
    /// Whether containers are at other addresses than files say.
    #[serde(skip)]
    pub moved_containers: bool,
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

impl Waiting {
    /// Whether something is wrong that a person must mend: neither do people want it so, nor does it pass by itself.
    pub fn needs_person(&self) -> bool {
        let wished = [
            reasons::APPROVAL_NEEDED,
            reasons::HELD,
            reasons::ROLLING_OUT,
            reasons::WINDOW_CLOSED,
            reasons::LEADERSHIP_UNKNOWN,
            reasons::SUSPENDED,
            reasons::FROZEN,
        ];
        !wished.contains(&self.reason) && !self.is_tried()
    }

    /// Whether it is worked on, and tried again where that fails.
    pub fn is_tried(&self) -> bool {
        [reasons::PULLING_IMAGES, reasons::REGISTRY_UNAVAILABLE].contains(&self.reason)
    }
}

/// Who may release a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Nobody asked: the policy decides.
    Policy,
    /// A person asks for it now.
    Person,
    /// A person goes back to this very release now, whatever an earlier `rollback` holds.
    GoingBack,
    /// A person asks for it now, and that services begin without the data that they had.
    LeavingData,
    /// A person asks for it now, and that what another owner had is taken over.
    Adopting,
}

impl Plan {
    /// Whether there is nothing to do and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.repairs.is_empty()
            && self.rollout.is_none()
            && self.waiting.is_none()
            && self.rollback_to_previous.is_none()
            && self.drain.is_none()
    }

    /// Whether there is something to be done now.
    pub fn has_work(&self) -> bool {
        let work = self.rollout.is_some()
            || self.rollback_to_previous.is_some()
            || self.drain.is_some()
            || self.approve.is_some()
            || self.clear_intent
            || self.moved_containers
            || self.repairs_now().next().is_some();
        self.hold.is_none() && work
    }

    /// What the host lacks for its change, in words: room, a port, images.
    pub fn lacking(&self) -> Option<&str> {
        let lacking = [
            reasons::PREFLIGHT_FAILED,
            reasons::PULLING_IMAGES,
            reasons::IMAGE_MISSING,
            reasons::REGISTRY_UNAVAILABLE,
            reasons::REGISTRY_DENIED,
            reasons::DIGEST_MISMATCH,
        ];
        let waiting = self.waiting.as_ref().filter(|waiting| lacking.contains(&waiting.reason));
        waiting.filter(|_| self.hold.is_none()).map(|waiting| waiting.message.as_str())
    }

    /// Whether its change waits for a person to approve it.
    pub fn needs_approval(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.reason == reasons::APPROVAL_NEEDED)
    }

    /// The repairs that are carried out now.
    pub fn repairs_now(&self) -> impl Iterator<Item = &Repair> {
        self.repairs.iter().filter(|repair| !repair.later)
    }

    /// The differences that are repaired now.
    pub fn causes(&self) -> BTreeSet<Cause> {
        self.repairs_now().flat_map(|repair| repair.because.iter().cloned()).collect()
    }

    /// Whether a repair of it ends a container that may be running.
    pub fn takes_a_service_down(&self) -> bool {
        let is_disruptive = |action: &Action| action.takes_down() || action.reloaded().is_some();
        self.repairs_now().any(|repair| is_disruptive(&repair.action))
    }

    /// Whether what is repaired counts only when it serves for a while: it ran before, and did not last.
    pub fn needs_soak(&self) -> bool {
        self.repairs_now().flat_map(|repair| &repair.because).any(|(kind, _)| *kind == DriftKind::Restarting)
    }

    /// What is done now, in words.
    pub fn words(&self) -> Vec<String> {
        let rollout = self.rollout.as_ref().map(|change| {
            let from = change.from_revision.as_deref().unwrap_or("nothing");
            format!("roll out revision {} after {from}", change.to_revision)
        });
        let drain = self.drain.map(|drain| if drain { "drain" } else { "take up serving" }.to_owned());
        let approve = self.approve.as_ref().map(|_| format!("keep that plan {} is approved", self.hash()));
        let clear_intent = self.clear_intent && rollout.is_none() && self.repairs_now().next().is_none();
        let clear_intent = clear_intent.then(|| match self.put_back.join(", ") {
            nothing if nothing.is_empty() => "write the ledger".to_owned(),
            paths => format!("put back {paths} as it was seen last"),
        });
        let repairs = self.repairs_now().map(|repair| repair.action.words());
        let is_alone = rollout.is_none() && clear_intent.is_none() && self.repairs_now().next().is_none();
        let moved = (self.moved_containers && is_alone)
            .then(|| "update the files with addresses of containers".to_owned());
        let clear_intent = clear_intent.or(moved);
        drain.into_iter().chain(approve).chain(repairs).chain(rollout).chain(clear_intent).collect()
    }

    /// Why that is done, in words.
    pub fn why(&self) -> String {
        if let Some(change) = &self.rollout {
            let paths: BTreeSet<&str> = change.items.iter().map(|item| item.path.as_str()).collect();
            return format!("changed: {}", paths.into_iter().collect::<Vec<_>>().join(", "));
        }
        let causes: BTreeSet<String> = self
            .repairs_now()
            .flat_map(|repair| &repair.because)
            .map(|(kind, path)| {
                [kind.as_str(), path.as_deref().unwrap_or_default()].join(" ").trim_end().to_owned()
            })
            .collect();
        let state = self.drain.map(|_| "the host's state".to_owned());
        let causes: Vec<String> = state.into_iter().chain(self.approve.clone()).chain(causes).collect();
        if !causes.is_empty() {
            causes.join(", ")
        } else if !self.put_back.is_empty() {
            "it is gone or damaged".to_owned()
        } else if self.clear_intent {
            "the ledger names work that is over".to_owned()
        } else {
            "containers have other addresses than these files say".to_owned()
        }
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
        let from = self.change().map(|change| (&change.from_release, &change.desired_hash, &change.adopts));
        sha256(&json::to_vec(&(&self.desired_hash, from, repairs, self.drain)))[..16].to_owned()
    }
}

/// Hash of the plan of a whole stack, from the hashes of the plans of its projects by host and component; those of hosts that could
/// not be read are not in it.
pub fn hash_of<'a>(plans: impl IntoIterator<Item = (&'a str, &'a str, String)>) -> String {
    let mut parts: Vec<(&str, &str, String)> = plans.into_iter().collect();
    parts.sort();
    sha256(&json::to_vec(&parts))[..16].to_owned()
}

/// Whether a host may be rolled out, where a stack has several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// Nothing speaks against it.
    #[default]
    Proceed,
    /// Other hosts come first; which ones, in words.
    Wait(String),
    /// What is asked for failed on another host.
    Failed(PeerFailure),
}

/// A rollout that failed on another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerFailure {
    /// Name of the host.
    pub host: String,
    /// What was found there.
    pub message: String,
}

impl fmt::Display for PeerFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.host, self.message)
    }
}

/// What the spec says of approved plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecApproval {
    /// Hash of the plan of a project on a host that it approves: the plan of the whole stack was the one that it names.
    pub plan: Option<String>,
    /// Which plan of the whole stack it names, and where.
    pub named: Option<String>,
}

/// What lets a change through to a rollout, beside what the host itself says.
#[derive(Clone, Debug)]
pub struct RolloutGate {
    /// Who may release it.
    pub approval: Approval,
    /// What the rollout coordinator decides.
    pub decision: Decision,
    /// Why no window is open, and until when.
    pub closed: Option<String>,
    /// What the spec approves.
    pub approved: SpecApproval,
    /// Whether the host is to be drained, or to serve again.
    pub drain: Option<bool>,
    /// Why nothing but repairs is begun.
    pub heal_only: Option<Hold>,
}

impl RolloutGate {
    /// The failure on another host of what is in force, where that may be taken back here.
    fn failed_on_peer(&self) -> Option<&PeerFailure> {
        match &self.decision {
            Decision::Failed(found) if self.approval == Approval::Policy && self.heal_only.is_none() => {
                Some(found)
            }
            _ => None,
        }
    }
}

impl From<Approval> for RolloutGate {
    fn from(approval: Approval) -> Self {
        Self {
            approval,
            decision: Decision::Proceed,
            closed: None,
            approved: SpecApproval::default(),
            drain: None,
            heal_only: None,
        }
    }
}

/// What the operator keeps there comes first: nothing else is done before the host has it again.
fn put_back(observed: &Observed, plan: Plan) -> Plan {
    let attempts = observed.ledger.as_ref().map(|ledger| ledger.attempts.clone()).unwrap_or_default();
    let put_back = observed.lost.iter().map(|lost| lost.path.clone()).collect();
    Plan { clear_intent: true, put_back, attempts, ..plan }
}

/// What to do about drift and change.
pub fn plan(
    drift: &[DriftItem],
    change: Option<Change>,
    desired: &Project,
    observed: &Observed,
    policy: &PolicySpec,
    gate: impl Into<RolloutGate>,
) -> Plan {
    let gate = &gate.into();
    let approval = gate.approval;
    let applied_hash = observed.applied.as_ref().map(|applied| applied.desired_hash.clone());
    let desired_hash = change.as_ref().map(|change| change.desired_hash.clone()).or(applied_hash);
    let desired_hash = desired_hash.unwrap_or_default();
    let drain = gate.drain.filter(|_| gate.heal_only.is_none());
    let plan = Plan { desired_hash, drain, ..Plan::default() };
    if observed.busy {
        return plan;
    }
    let ledger = observed.ledger.as_ref();
    if !observed.lost.is_empty() {
        return put_back(observed, plan);
    }
    let (attempts, clear_intent) = what_is_over(ledger, drift);
    // What was kept for a way back is not needed any more.
    let is_over =
        ledger.is_none_or(|ledger| ledger.intent.is_none()) && !drift.iter().any(secrets::is_of_value);
    let clear_intent = clear_intent || (is_over && secrets::kept(observed).next().is_some());
    let plan = Plan { clear_intent, attempts, ..plan };
    let consent = change.as_ref().map(|change| consent::consent(change, &plan, observed, policy, gate));
    let waiting = change
        .as_ref()
        .zip(consent.as_ref())
        .map(|(change, consent)| reason_to_wait(change, desired, observed, consent, gate));
    let is_ready = |reason: &str| {
        [reasons::WINDOW_CLOSED, reasons::ROLLING_OUT].contains(&reason)
            || observed.availability.is_pending(reason)
    };
    let approve = consent.and_then(|consent| consent.kept_by(gate.approved.named.as_deref()));
    let approve = approve.filter(|_| waiting.iter().flatten().all(|(reason, _)| is_ready(reason)));
    let plan = Plan { approve, ..plan };
    if let (Some(None), Some(change)) = (&waiting, &change) {
        // A rollout writes every file and makes every container anew that is not as it should be: repairing towards
        // the release that it replaces would be in vain, and might not even be possible.
        return Plan { rollout: Some(change.clone()), ..plan };
    }
    let mut repairs = observed
        .applied
        .as_ref()
        .map(|applied| repair::repairs(drift, applied, desired, observed))
        .unwrap_or_default();
    repair::wait_for_person(&mut repairs, drift, observed, approval);
    let given_up = match ledger.filter(|_| approval == Approval::Policy) {
        Some(ledger) => repair::hold_back(&mut repairs, ledger, &repair::in_vain(drift, observed)),
        None => Vec::new(),
    };
    let waiting =
        waiting.flatten().zip(change).map(|((reason, message), change)| Waiting { reason, message, change });
    if ledger.and_then(|ledger| ledger.intent.as_ref()).is_some_and(|intent| !intent.stopped.is_empty()) {
        // What was to be taken over is given back, and nothing else. Where the new containers serve, a secret that
        // cannot be had for a while is no reason to.
        let is_secret = waiting.as_ref().is_some_and(|waiting| waiting.reason == reasons::SECRET_MISSING);
        return Plan { waiting, clear_intent: !(is_secret && all_serve(desired, observed)), ..plan };
    }
    if waiting.as_ref().is_some_and(|waiting| waiting.reason == reasons::ROLLOUT_HELD) {
        return Plan { waiting, clear_intent: false, ..plan };
    }
    let may_go_back = waiting.is_none() && policy.rollout.on_failure == OnFailure::Rollback;
    let failed_on_peer = gate.failed_on_peer().filter(|_| may_go_back);
    let (rollback_to_previous, rollback_failed) =
        failed_on_peer.map_or((None, None), |found| way_back(found, ledger, &plan.desired_hash));
    let moved_containers = policy.heal == Heal::Auto && has_moved_containers(observed);
    Plan { repairs, waiting, rollback_to_previous, rollback_failed, given_up, moved_containers, ..plan }
}

/// Whether containers are at other addresses than files say.
fn has_moved_containers(observed: &Observed) -> bool {
    let applied = observed.applied.as_ref().filter(|_| !observed.has_open_intent());
    applied.is_some_and(|applied| !addresses(applied, &observed.containers, &observed.files).is_empty())
}

/// What was tried in vain about differences that are still there, and whether the ledger holds more than that.
fn what_is_over(ledger: Option<&Ledger>, drift: &[DriftItem]) -> (Vec<Attempt>, bool) {
    let Some(ledger) = ledger else { return (Vec::new(), false) };
    let attempts = ledger.attempts_after(&BTreeSet::new(), Tried::Done, drift);
    let is_over = ledger.intent.is_some() || attempts != ledger.attempts;
    (attempts, is_over)
}

/// What is in force failed on another host: that it is taken back here, or, where that was tried in vain, what came of
/// it.
fn way_back(
    found: &PeerFailure,
    ledger: Option<&Ledger>,
    desired_hash: &str,
) -> (Option<PeerFailure>, Option<String>) {
    let tried = ledger.and_then(|ledger| ledger.failed.as_ref());
    let tried = tried.filter(|failed| failed.desired_hash == desired_hash);
    let before = ledger.and_then(|ledger| ledger.previous.as_ref());
    let rollback_to_previous = before.filter(|_| tried.is_none()).map(|_| found.clone());
    (rollback_to_previous, tried.map(crate::ledger::Failed::words))
}

/// Whether every service has its containers, and all of those are healthy.
fn all_serve(desired: &Project, observed: &Observed) -> bool {
    desired.services.iter().all(|(name, service)| {
        let of_service = observed.containers.iter().filter(|one| one.has_label(COMPOSE_SERVICE, name));
        let ready = of_service.filter(|one| observe::is_ready(service, one)).count();
        ready == service.compose.scale as usize
    })
}

#[cfg(test)]
mod tests;
