//! Why a change has to wait.

use tasktracker_crds::conditions::reasons;

use super::{Approval, Decision, RolloutGate, consent::Consent};
use crate::{
    diff::{self, Change, adoption},
    host::NetworkOrVolume,
    ledger::{Held, Ledger},
    observe::Observed,
    project::{Project, VolumeRole, labels},
    secret::Seals,
};

/// The first thing that a change has to wait for: what is wrong with it, what the host lacks, who has to say so, and when.
pub(super) fn reason_to_wait(
    change: &Change,
    desired: &Project,
    observed: &Observed,
    consent: &Consent,
    gate: &RolloutGate,
) -> Option<(&'static str, String)> {
    let left = observed.ledger.as_ref().and_then(Ledger::held_failure);
    let left = left.filter(|failed| failed.desired_hash == change.desired_hash);
    if let Some(failed) = left.filter(|_| gate.approval == Approval::Policy) {
        let message = format!(
            "this desired state was tried and failed ({}), and everything was left as it was then; look at it, then change the spec, or run `retry` or `rollback`",
            failed.words()
        );
        return Some((reasons::ROLLOUT_HELD, message));
    }
    let fault = fault(desired, observed, gate.approval);
    if fault.is_some() {
        return fault;
    }
    let ledger = observed.ledger.as_ref();
    let held = ledger.and_then(|ledger| ledger.held.as_ref());
    let held = held.filter(|held| held.desired_hash == desired.hash(&Seals::new()));
    if let Some(held) = held.filter(|_| gate.approval == Approval::Person) {
        return Some(held_back(held));
    }
    if gate.approval != Approval::Policy {
        return observed.availability.pending.clone();
    }
    let failed = ledger.and_then(|ledger| ledger.failed.as_ref());
    let failed = failed.filter(|failed| failed.desired_hash == change.desired_hash);
    if let Some(failed) = failed {
        let message = format!(
            "this desired state was tried and failed ({}); change it, or run `retry`",
            failed.words()
        );
        return Some((reasons::ROLLED_BACK, message));
    }
    if let Decision::Failed(found) = &gate.decision {
        let message = format!("this desired state failed on {found}; change it, or run `retry`");
        return Some((reasons::ROLLED_BACK, message));
    }
    if let Some(held) = held {
        return Some(held_back(held));
    }
    if let Some(hold) = &gate.heal_only {
        return Some((hold.reason, hold.message.clone()));
    }
    // What was released once and cut is still released.
    let intent = ledger.and_then(|ledger| ledger.intent.as_ref());
    let is_resumed = intent.and_then(|intent| intent.desired_hash.as_ref()) == Some(&change.desired_hash);
    if let Consent::Needed(message) = consent
        && !is_resumed
    {
        return Some((reasons::APPROVAL_NEEDED, message.clone()));
    }
    if let Some(closed) = gate.closed.as_ref().filter(|_| !is_resumed) {
        return Some((reasons::WINDOW_CLOSED, closed.clone()));
    }
    if let Some(awaited) = &observed.availability.pending {
        return Some(awaited.clone());
    }
    match &gate.decision {
        Decision::Wait(message) if !is_resumed => Some((reasons::ROLLING_OUT, message.clone())),
        _ => None,
    }
}

/// A person went back to a release, and nobody said since that this desired state is wanted after all.
fn held_back(held: &Held) -> (&'static str, String) {
    let message = format!(
        "{} went back to release {} and holds it; change the spec, or run `retry`",
        held.who, held.release
    );
    (reasons::HELD, message)
}

/// What is wrong with a change, or what the host lacks for it.
fn fault(desired: &Project, observed: &Observed, approval: Approval) -> Option<(&'static str, String)> {
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
    if let Some((_, message)) = observed.secrets.missing_of(&desired.references()).next() {
        return Some((reasons::SECRET_MISSING, message.clone()));
    }
    if let Some(unresolved) = &observed.availability.unresolved {
        return Some(unresolved.clone());
    }
    let room = || diff::no_room(observed).filter(|_| !observed.has_open_intent());
    let in_the_way = diff::port_in_the_way(desired, observed).or_else(room);
    in_the_way.map(|message| (reasons::PREFLIGHT_FAILED, message))
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
    if let Some(adopt) = desired.adopt.as_ref().filter(|adopt| adopt.project == desired.name) {
        let message = format!(
            "{}.project: expected another name than the stack's own project has, found {}; rename the stack",
            adopt.field, adopt.project
        );
        return Some((reasons::INVALID_SPEC, message));
    }
    let field = desired.adopt.as_ref().map_or("", |adopt| adopt.field);
    if let Some(found) = adoption::other_owner(desired, observed).filter(|_| approval != Approval::Adopting) {
        let message = format!(
            "{field}: expected what nobody owns, found {found}; where that is the same stack under another name, a person runs `adopt`"
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
    let is_ours = |made: &&Option<NetworkOrVolume>| {
        made.as_ref().is_some_and(|made| made.settings.contains_key(&label))
    };
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
        if observed.volumes.get(actual).is_some_and(Option::is_none) {
            let field = desired.adopt.as_ref().map_or("", |adopt| adopt.field);
            return Some(format!(
                "data {name}: expected the volume {actual} of {field} on the host, found none; see `docker volume ls` there, or {remedy}"
            ));
        }
    }
    let remembered = &observed.remembered;
    // A ledger that only says what was approved knows of no data.
    let is_new = observed.ledger.as_ref().is_none_or(Ledger::is_empty);
    let elsewhere = remembered.newer_elsewhere().or(remembered.elsewhere.as_ref().filter(|_| is_new));
    if let Some((host, volume)) = elsewhere {
        return Some(format!(
            "data: expected it to stay on the host {host} (volume {volume}), found another host in the spec; name {host} again, or bring the volume here, or {remedy}"
        ));
    }
    let before = observed.applied.as_ref().and_then(|applied| applied.project.data_store.as_ref());
    if let (Some(before), Some(wanted)) = (before, &desired.data_store)
        && before != wanted
    {
        return Some(format!("data: expected it to stay in {before}, found {wanted} in the spec; {remedy}"));
    }
    // A first rollout that failed may have ended before its volumes were made, and nothing was kept in them.
    let was_in_force = observed.ledger.as_ref().is_none_or(Ledger::was_in_force);
    let before = ledger.unwrap_or(&observed.remembered.volumes).iter();
    for (name, actual) in before.filter(|_| was_in_force) {
        match desired.volumes.get(name).filter(|wanted| wanted.role == VolumeRole::Data) {
            Some(wanted) if wanted.name == *actual => {}
            other => {
                let found = other.map_or("none", |wanted| wanted.name.as_str());
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
