//! The smallest list of actions, and what has to wait. Pure: a plan can only be made from differences.

mod action;
mod consent;
mod hold;
mod repair;
mod window;

use std::collections::BTreeSet;

use serde::Serialize;
use tasktracker_crds::{DriftItem, DriftKind, PolicySpec, conditions::reasons};

pub use action::Action;
use consent::Consent;
pub use hold::{Hold, drain, hold};
pub use repair::Repair;
pub use window::closed;

use crate::{
    desired::{Project, app::database, compose::COMPOSE_SERVICE, labels, sha256},
    diff::{self, Change, adoption},
    host::{Container, Health, Made, State},
    observe::Observed,
    secret::Seals,
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
    /// Why the release before comes back: what is in force failed on another host.
    pub take_back: Option<String>,
    /// Why it does not: the way back failed.
    pub stranded: Option<String>,
    /// Why nothing at all is written at present.
    pub hold: Option<Hold>,
    /// Repairs that did not hold again and again, in words; they are left to a person.
    pub given_up: Vec<String>,
    /// Whether the ledger holds what is over: an apply that was cut, or a repair that holds by now.
    #[serde(skip)]
    pub conclude: bool,
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
    /// Whether people want it so, rather than that something is wrong.
    pub fn is_wished(&self) -> bool {
        [reasons::APPROVAL_NEEDED, reasons::HELD, reasons::ROLLING_OUT, reasons::WINDOW_CLOSED]
            .contains(&self.reason)
    }
}

/// Who may release a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Nobody asked: the policy decides.
    Policy,
    /// A person asks for it now.
    Person,
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
            && self.take_back.is_none()
            && self.drain.is_none()
    }

    /// Whether there is something to be done now.
    pub fn has_work(&self) -> bool {
        let work = self.rollout.is_some()
            || self.take_back.is_some()
            || self.drain.is_some()
            || self.approve.is_some()
            || self.conclude
            || self.repairs_now().next().is_some();
        self.hold.is_none() && work
    }

    /// The repairs that are carried out now.
    pub fn repairs_now(&self) -> impl Iterator<Item = &Repair> {
        self.repairs.iter().filter(|repair| !repair.later)
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
        let conclude = self.conclude && rollout.is_none() && self.repairs_now().next().is_none();
        let conclude = conclude.then(|| "close what was cut".to_owned());
        let repairs = self.repairs_now().map(|repair| repair.action.words());
        drain.into_iter().chain(approve).chain(repairs).chain(rollout).chain(conclude).collect()
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
        if causes.is_empty() { "nothing is left of what was cut".to_owned() } else { causes.join(", ") }
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
        sha256(&serde_json::to_vec(&(&self.desired_hash, from, repairs, self.drain)).unwrap_or_default())
            [..16]
            .to_owned()
    }
}

/// Hash of the plan of a whole stack, from the hashes of the plans of its projects by host and component; those of hosts that could
/// not be read are not in it.
pub fn hash_of<'a>(plans: impl IntoIterator<Item = (&'a str, &'a str, String)>) -> String {
    let mut parts: Vec<(&str, &str, String)> = plans.into_iter().collect();
    parts.sort();
    sha256(&serde_json::to_vec(&parts).unwrap_or_default())[..16].to_owned()
}

/// Whose turn it is, where a stack has several hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// Nothing speaks against it.
    #[default]
    Now,
    /// Other hosts come first; which ones, in words.
    Later(String),
    /// What is asked for failed on another host; which one and how, in words.
    Failed(String),
}

/// What the spec says of approved plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Hash of the plan of a project on a host that it approves: the plan of the whole stack was the one that it names.
    pub plan: Option<String>,
    /// Which plan of the whole stack it names, and where.
    pub named: Option<String>,
}

/// Who may release a change, and whose turn it is.
#[derive(Clone, Debug)]
pub struct Leave {
    /// Who may release it.
    pub approval: Approval,
    /// Whether it is this host's turn.
    pub turn: Turn,
    /// Why no window is open, and until when.
    pub closed: Option<String>,
    /// What the spec approves.
    pub granted: Granted,
    /// Whether the host is to be drained, or to serve again.
    pub drain: Option<bool>,
}

impl From<Approval> for Leave {
    fn from(approval: Approval) -> Self {
        Self { approval, turn: Turn::Now, closed: None, granted: Granted::default(), drain: None }
    }
}

/// What to do about drift and change.
pub fn plan(
    drift: &[DriftItem],
    change: Option<Change>,
    desired: &Project,
    observed: &Observed,
    policy: &PolicySpec,
    leave: impl Into<Leave>,
) -> Plan {
    let leave = &leave.into();
    let approval = leave.approval;
    let applied_hash = observed.applied.as_ref().map(|applied| applied.desired_hash.clone());
    let desired_hash = change.as_ref().map(|change| change.desired_hash.clone()).or(applied_hash);
    let desired_hash = desired_hash.unwrap_or_default();
    let plan = Plan { desired_hash, drain: leave.drain, ..Plan::default() };
    if observed.busy {
        return plan;
    }
    let ledger = observed.ledger.as_ref();
    let conclude = ledger.is_some_and(|ledger| {
        ledger.intent.is_some() || ledger.attempts_after(&[], drift) != ledger.attempts
    });
    let plan = Plan { conclude, ..plan };
    let consent = change.as_ref().map(|change| consent::consent(change, &plan, observed, policy, leave));
    let waiting = change
        .as_ref()
        .zip(consent.as_ref())
        .map(|(change, consent)| reason_to_wait(change, desired, observed, consent, leave));
    let is_ready = |reason: &str| [reasons::WINDOW_CLOSED, reasons::ROLLING_OUT].contains(&reason);
    let approve = consent.and_then(|consent| consent.kept_by(leave.granted.named.as_deref()));
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
    repair::wait_for_person(&mut repairs, drift, observed);
    let given_up = match ledger.filter(|_| approval == Approval::Policy) {
        Some(ledger) => repair::hold_back(&mut repairs, ledger),
        None => Vec::new(),
    };
    let waiting =
        waiting.flatten().zip(change).map(|((reason, message), change)| Waiting { reason, message, change });
    if ledger.and_then(|ledger| ledger.intent.as_ref()).is_some_and(|intent| !intent.stopped.is_empty()) {
        // What was to be taken over is given back, and nothing else. Where the new containers serve, a secret that
        // cannot be had for a while is no reason to.
        let is_secret = waiting.as_ref().is_some_and(|waiting| waiting.reason == reasons::SECRET_MISSING);
        return Plan { waiting, conclude: !(is_secret && all_serve(desired, observed)), ..plan };
    }
    let (mut take_back, mut stranded) = (None, None);
    if let Turn::Failed(found) = &leave.turn
        && waiting.is_none()
        && approval == Approval::Policy
    {
        let tried = ledger.and_then(|ledger| ledger.failed.as_ref());
        let tried = tried.filter(|failed| failed.desired_hash == plan.desired_hash);
        stranded = tried.map(|failed| failed.message.clone());
        let before = ledger.and_then(|ledger| ledger.previous.as_ref());
        take_back = before.filter(|_| tried.is_none()).map(|_| found.clone());
    }
    Plan { repairs, waiting, take_back, stranded, given_up, ..plan }
}

/// Whether every service has its containers, and all of those are healthy.
fn all_serve(desired: &Project, observed: &Observed) -> bool {
    let is_good = |one: &&Container| one.state == State::Running && one.health == Health::Healthy;
    desired.services.iter().all(|(name, service)| {
        let good =
            observed.containers.iter().filter(|one| one.has_label(COMPOSE_SERVICE, name)).filter(is_good);
        good.count() == service.scale as usize
    })
}

fn reason_to_wait(
    change: &Change,
    desired: &Project,
    observed: &Observed,
    consent: &Consent,
    leave: &Leave,
) -> Option<(&'static str, String)> {
    let approval = leave.approval;
    if let Some(message) = other_environment(desired, observed) {
        return Some((reasons::INVALID_SPEC, message));
    }
    if let Some(reason) = not_to_be_taken(desired, observed, approval) {
        return Some(reason);
    }
    if let Some(message) = ledger_missing(observed).filter(|_| approval == Approval::Policy) {
        return Some((reasons::LEDGER_MISSING, message));
    }
    if let Some(message) = data_at_stake(desired, observed).filter(|_| approval != Approval::LeavingData) {
        return Some((reasons::DATA_WOULD_BE_LEFT, message));
    }
    if let Some((_, message)) = observed.secrets.missing_of(&desired.secrets).next() {
        return Some((reasons::SECRET_MISSING, message.clone()));
    }
    if let Some(message) = diff::port_in_the_way(desired, observed) {
        return Some((reasons::PREFLIGHT_FAILED, message));
    }
    if approval != Approval::Policy {
        return None;
    }
    let ledger = observed.ledger.as_ref();
    let failed = ledger.and_then(|ledger| ledger.failed.as_ref());
    if let Some(failed) = failed.filter(|failed| failed.desired_hash == change.desired_hash) {
        let message = format!(
            "this desired state was tried and failed ({}); change it, or run `retry`",
            failed.message
        );
        return Some((reasons::ROLLED_BACK, message));
    }
    if let Turn::Failed(found) = &leave.turn {
        let message = format!("this desired state failed on {found}; change it, or run `retry`");
        return Some((reasons::ROLLED_BACK, message));
    }
    let held = ledger.and_then(|ledger| ledger.held.as_ref());
    if let Some(held) = held.filter(|held| held.desired_hash == desired.hash(&Seals::new())) {
        let message = format!(
            "{} went back to release {} and holds it; change the spec, or run `apply`",
            held.who, held.release
        );
        return Some((reasons::HELD, message));
    }
    // What was released once and cut is still released.
    let intent = ledger.and_then(|ledger| ledger.intent.as_ref());
    let is_under_way = intent.and_then(|intent| intent.desired_hash.as_ref()) == Some(&change.desired_hash);
    if let Consent::Needed(message) = consent
        && !is_under_way
    {
        return Some((reasons::APPROVAL_NEEDED, message.clone()));
    }
    if let Some(closed) = leave.closed.as_ref().filter(|_| !is_under_way) {
        return Some((reasons::WINDOW_CLOSED, closed.clone()));
    }
    match &leave.turn {
        Turn::Later(message) if !is_under_way => Some((reasons::ROLLING_OUT, message.clone())),
        _ => None,
    }
}

/// A host that serves one environment does not become one of another.
fn other_environment(desired: &Project, observed: &Observed) -> Option<String> {
    let before = observed.applied.as_ref().map(|applied| &applied.project.environment);
    let before = before.filter(|before| **before != desired.environment)?;
    let found = &desired.environment;
    Some(format!("environment cannot be changed: expected {before}, found {found}; make another stack"))
}

/// What must not be taken over, or used beside somebody else.
fn not_to_be_taken(
    desired: &Project,
    observed: &Observed,
    approval: Approval,
) -> Option<(&'static str, String)> {
    if let Some(adopt) = desired.adopt.as_ref().filter(|adopt| adopt.project.as_str() == desired.name) {
        let message = format!(
            "app.adopt.project: expected another name than the stack's own project has, found {}; rename the stack",
            adopt.project
        );
        return Some((reasons::INVALID_SPEC, message));
    }
    if let Some(found) = adoption::other_owner(desired, observed).filter(|_| approval != Approval::Adopting) {
        let message = format!(
            "app.adopt: expected what nobody owns, found {found}; where that is the same stack under another name, a person runs `adopt`"
        );
        return Some((reasons::NAME_CONFLICT, message));
    }
    if let Some(message) = adoption::volume_in_use(desired, observed) {
        return Some((reasons::NAME_CONFLICT, message));
    }
    None
}

/// What tells of a ledger that is not there any more.
fn ledger_missing(observed: &Observed) -> Option<String> {
    if observed.ledger.is_some() {
        return None;
    }
    let containers = observed.containers.iter().map(|container| format!("the container {}", container.name));
    let label = format!("labels/{}", labels::OWNER);
    let is_ours = |made: &&Option<Made>| made.as_ref().is_some_and(|made| made.settings.contains_key(&label));
    let volumes = observed.volumes.iter().filter(|(_, made)| is_ours(made));
    let volumes = volumes.map(|(name, _)| format!("the volume {name}"));
    let remembered =
        observed.remembered.release.iter().map(|release| format!("release {release} in the state folder"));
    let signs: Vec<String> = containers.chain(volumes).chain(remembered).collect();
    (!signs.is_empty()).then(|| {
        format!(
            "ledger.json: expected it in the project's folder, found none, though there is {}; look at `plan`, then `apply` or `adopt`: what is as asked for stays as it is",
            signs.join(", ")
        )
    })
}

/// Which data the desired state would not have any more, or would have to begin anew: that takes a person who says so.
fn data_at_stake(desired: &Project, observed: &Observed) -> Option<String> {
    let remedy = "`apply --leave-data` goes on without it; nothing is removed";
    let ledger = observed.ledger.as_ref().map(|ledger| &ledger.volumes);
    if let Some(left) = adoption::data_left(desired, observed) {
        return Some(format!("{left}; name it there, or {remedy}"));
    }
    for (name, actual) in desired.adopt.iter().flat_map(|adopt| &adopt.volumes) {
        if observed.volumes.get(actual.as_str()).is_some_and(Option::is_none) {
            return Some(format!(
                "data {name}: expected the volume {actual} of app.adopt on the host, found none; see `docker volume ls` there, or {remedy}"
            ));
        }
    }
    let remembered = &observed.remembered;
    let elsewhere =
        remembered.newer_elsewhere().or(remembered.elsewhere.as_ref().filter(|_| ledger.is_none()));
    if let Some((host, volume)) = elsewhere {
        return Some(format!(
            "data: expected it to stay on the host {host} (volume {volume}), found another host in the spec; name {host} again, or bring the volume here, or {remedy}"
        ));
    }
    let before = observed.applied.as_ref().and_then(|applied| database(&applied.project));
    if let (Some(before), Some(wanted)) = (before, database(desired))
        && before != wanted
    {
        return Some(format!(
            "data: expected it to stay in app.database.{before}, found {wanted} in the spec; {remedy}"
        ));
    }
    for (name, actual) in ledger.unwrap_or(&observed.remembered.volumes) {
        match desired.volumes.get(name) {
            Some(wanted) if wanted == actual => {}
            other => {
                let found = other.map_or("none", String::as_str);
                return Some(format!(
                    "data {name}: expected it to stay in the volume {actual}, found {found} in the spec; {remedy}"
                ));
            }
        }
        if observed.volumes.get(actual).is_some_and(Option::is_none) {
            return Some(format!(
                "data {name}: expected the volume {actual}, found none on the host; bring it back from a backup, or {remedy}"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests;
