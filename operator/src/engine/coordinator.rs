//! Order of rollouts across the hosts of a stack, for each component apart: a change goes to one host first, then to as
//! many at a time as may be unavailable; where it failed on one of them, it goes to no other, and those that have it go
//! back.

mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tasktracker_crds::conditions::reasons;
use tokio::sync::watch;

use super::{Error, Evaluation};
use crate::{
    component, diff,
    model::ComponentName,
    plan::{self, Decision},
    project::Project,
    source::{ProjectKey, Stack, StackKey},
};
use rules::Fleet;

/// What is known of a project on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostProgress {
    /// Generation of what the spec asks for there.
    generation: String,
    /// How far it came with that.
    progress: Progress,
    /// Whether something was rolled out there and does not serve.
    unavailable: bool,
    /// Whether nothing is rolled out there for a reason of its own: a hold, say, or an approval that is waited for.
    blocked: bool,
    /// What it lacks for what is asked for, in words.
    preflight_failure: Option<String>,
}

/// How far a host came with what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    /// It has something else.
    Before,
    /// It is being rolled out.
    Rolling,
    /// It has it.
    Done {
        /// When it was rolled out, where that is remembered.
        since: Option<Timestamp>,
        /// Whether what is in force was rolled out for this very generation: another host may be asked for something new
        /// while this one is not.
        by_this_generation: bool,
    },
    /// It was tried there, and failed.
    Failed {
        /// Host on which it failed first, where that was another one.
        origin: Option<String>,
        /// What was found.
        message: String,
        /// When.
        when: Option<Timestamp>,
        /// Whether nothing was in force there before.
        first: bool,
    },
}

/// The hosts of one component of a stack.
type Hosts = BTreeMap<String, HostProgress>;

/// Where every project of every stack stands.
#[derive(Debug, Default)]
pub struct RolloutCoordinator {
    stacks: Mutex<BTreeMap<StackKey, StackGroup>>,
}

/// A project within its stack: host and component.
type Place = (String, ComponentName);

/// How often something changed that other projects wait for.
#[derive(Debug, Default)]
struct Changes {
    /// Projects that stand otherwise than before.
    projects: BTreeMap<Place, u64>,
    /// Approvals, which may concern every project.
    approvals: u64,
}

#[derive(Debug, Default)]
struct StackGroup {
    components: BTreeMap<ComponentName, Hosts>,
    /// The plan of each project that was checked.
    plans: BTreeMap<Place, Planned>,
    /// Which plan of the stack the spec approved, and which plans of projects that was.
    approved: Option<(String, BTreeMap<Place, String>)>,
    changes: watch::Sender<Changes>,
}

/// The plan of one project.
#[derive(Debug)]
struct Planned {
    hash: String,
    needs_approval: bool,
}

/// Permission to write to one project, for as long as this is kept.
#[derive(Debug)]
pub(super) struct RolloutPermit<'a> {
    coordinator: &'a RolloutCoordinator,
    key: ProjectKey,
}

impl Drop for RolloutPermit<'_> {
    fn drop(&mut self) {
        // Until the next check nothing is known of it: it may have failed.
        let mut stacks = self.coordinator.lock();
        let Some(group) = stacks.get_mut(&self.key.stack) else { return };
        let Some(hosts) = group.components.get_mut(&self.key.component) else { return };
        if hosts.get(&self.key.host).is_some_and(|host| host.progress == Progress::Rolling) {
            hosts.remove(&self.key.host);
            group.changed(&self.key);
        }
    }
}

impl StackGroup {
    fn hosts(&mut self, component: ComponentName) -> &mut Hosts {
        self.components.entry(component).or_default()
    }

    /// Records what the spec approves, where that is the plan of the stack by the last checks of all its projects; whether
    /// that is new. Each project keeps its own part: the plan of the stack is another one as soon as the first is done.
    fn approve(&mut self, stack: &Stack) -> bool {
        let named = stack.approved_plans();
        self.approved.take_if(|(approved, _)| !named.iter().any(|plan| plan.hash == *approved));
        if named.is_empty() {
            return false;
        }
        let plans = self.plans.iter();
        let hash = plan::hash_of(
            plans.map(|((host, component), plan)| (host.as_str(), component.as_str(), plan.hash.clone())),
        );
        let is_approved =
            |component: ComponentName| named.iter().any(|plan| plan.hash == hash && plan.covers(component));
        let before = self.approved.take_if(|(approved, _)| *approved == hash).map(|(_, plans)| plans);
        let known = before.unwrap_or_default();
        let new: BTreeMap<Place, String> = self
            .plans
            .iter()
            .filter(|(place, plan)| {
                plan.needs_approval && is_approved(place.1) && !known.contains_key(*place)
            })
            .map(|(place, plan)| (place.clone(), plan.hash.clone()))
            .collect();
        // All of them may go at once, in their order, whichever is checked first.
        for (host, component) in new.keys() {
            let hosts = self.components.entry(*component).or_default();
            hosts.entry(host.clone()).and_modify(|host| host.blocked = false);
        }
        let is_changed = !new.is_empty();
        let all: BTreeMap<Place, String> = known.into_iter().chain(new).collect();
        if !all.is_empty() {
            self.approved = Some((hash, all));
        }
        is_changed
    }

    fn changed(&self, key: &ProjectKey) {
        let place = (key.host.clone(), key.component);
        self.changes.send_modify(|changes| *changes.projects.entry(place).or_default() += 1);
    }
}

/// Changes of the projects that one project waits for: those of its component on other hosts, and approvals.
#[derive(Debug)]
pub(super) struct PeerChanges {
    changes: watch::Receiver<Changes>,
    key: ProjectKey,
    known: u64,
}

impl PeerChanges {
    fn of_peers(&mut self) -> u64 {
        let changes = self.changes.borrow_and_update();
        let is_peer = |((host, component), _): &(&Place, &u64)| {
            *component == self.key.component && *host != self.key.host
        };
        changes.projects.iter().filter(is_peer).map(|(_, times)| times).sum::<u64>() + changes.approvals
    }

    /// What happened until now is known.
    pub(super) fn catch_up(&mut self) {
        self.known = self.of_peers();
    }

    /// Waits until a peer stands otherwise.
    pub(super) async fn changed(&mut self) {
        while self.of_peers() == self.known {
            if self.changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl RolloutCoordinator {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<StackKey, StackGroup>> {
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a stack: only of stacks that were taken up is anything kept.
    pub(super) fn begin(&self, stack: &StackKey) {
        self.lock().entry(stack.clone()).or_default();
    }

    /// A stack goes.
    pub(super) fn end(&self, stack: &StackKey) {
        self.lock().remove(stack);
    }

    /// Subscribes to changes of peers.
    pub(super) fn peer_changes(&self, key: &ProjectKey) -> PeerChanges {
        let stacks = self.lock();
        let changes = stacks.get(&key.stack).map_or_else(
            || watch::Sender::new(Changes::default()).subscribe(),
            |group| group.changes.subscribe(),
        );
        PeerChanges { changes, key: key.clone(), known: 0 }
    }

    /// Records where a check found a project.
    pub(super) fn record(&self, stack: &Stack, key: &ProjectKey, evaluation: &Evaluation) {
        // What was approved during the check does not hold it back.
        let found = progress(evaluation);
        let blocked = found.blocked && !self.is_newly_approved(stack, key, evaluation);
        self.set(key, Some(&HostProgress { blocked, ..found }));
        let mut stacks = self.lock();
        let Some(group) = stacks.get_mut(&stack.key) else { return };
        let planned =
            Planned { hash: evaluation.plan.hash(), needs_approval: evaluation.plan.needs_approval() };
        group.plans.insert((key.host.clone(), key.component), planned);
        let wanted: BTreeSet<Place> = component::projects(stack)
            .into_iter()
            .map(|ProjectKey { host, component, .. }| (host, component))
            .collect();
        group.plans.retain(|place, _| wanted.contains(place));
        if group.approve(stack) {
            group.changes.send_modify(|changes| changes.approvals += 1);
        }
    }

    /// Records that a project could not be checked.
    pub(super) fn unavailable(&self, key: &ProjectKey) {
        self.set(key, None);
    }

    fn set(&self, key: &ProjectKey, found: Option<&HostProgress>) {
        let mut stacks = self.lock();
        // A check that ends after its stack went leaves nothing behind.
        let Some(group) = stacks.get_mut(&key.stack) else { return };
        let place = (key.host.clone(), key.component);
        if found.is_none() {
            group.plans.remove(&place);
        }
        let hosts = group.hosts(key.component);
        let before = match found {
            Some(progress) => hosts.insert(key.host.clone(), progress.clone()),
            None => hosts.remove(&key.host),
        };
        if before.as_ref() != found {
            group.changed(key);
        }
    }

    /// Hash of the plan that the spec approves for a project.
    pub(super) fn approved(&self, stack: &Stack, key: &ProjectKey) -> Option<String> {
        let named = stack.approved_plans();
        let stacks = self.lock();
        let (hash, plans) = stacks.get(&stack.key)?.approved.as_ref()?;
        let is_named = named.iter().any(|plan| plan.hash == *hash && plan.covers(key.component));
        plans.get(&(key.host.clone(), key.component)).filter(|_| is_named).cloned()
    }

    /// Whether a change that waits for approval has it by now.
    pub(super) fn is_newly_approved(&self, stack: &Stack, key: &ProjectKey, evaluation: &Evaluation) -> bool {
        evaluation.plan.needs_approval()
            && self.approved(stack, key).as_ref() == Some(&evaluation.plan.hash())
    }

    /// Decides whether a project may be rolled out.
    pub(super) fn decide(&self, stack: &Stack, key: &ProjectKey, project: &Project) -> Decision {
        let stacks = self.lock();
        let empty = Hosts::new();
        let hosts =
            stacks.get(&stack.key).and_then(|group| group.components.get(&key.component)).unwrap_or(&empty);
        decide(stack, hosts, key, project)
    }

    /// A permit for what is not to be put off: the way back, the end of what was interrupted, or a repair that takes a
    /// serial service down. As many at a time as may be unavailable. A serial service also waits for every peer that is
    /// unavailable or not known, unless its own instance is down already.
    ///
    /// # Errors
    /// [`Error::PeerUnavailable`] with the peer that it waits for.
    pub(super) fn urgent_permit(
        &self,
        stack: &Stack,
        key: &ProjectKey,
        evaluation: &Evaluation,
    ) -> Result<RolloutPermit<'_>, Error> {
        let mut stacks = self.lock();
        let group = stacks.get_mut(&stack.key).ok_or(Error::Unfollowed)?;
        let hosts = group.hosts(key.component);
        let takes_one_more_down = evaluation.project.is_serial()
            && evaluation.observed.applied.is_some()
            && !progress(evaluation).unavailable;
        let is_down = |host: &String| match hosts.get(host) {
            Some(peer) => peer.progress == Progress::Rolling || (takes_one_more_down && peer.unavailable),
            None => takes_one_more_down,
        };
        let peers = component::hosts(stack, key.component).map(|host| host.name.to_string());
        let down: Vec<String> = peers.filter(|host| *host != key.host).filter(is_down).collect();
        let most = most(stack, &evaluation.project);
        match down.into_iter().nth(most - 1) {
            Some(peer) => Err(Error::PeerUnavailable { peer, most }),
            None => Ok(self.permit(group, key, evaluation)),
        }
    }

    /// A permit to roll a project out, where it may be still.
    ///
    /// # Errors
    /// As [`Self::urgent_permit`], where the rollout was begun before.
    pub(super) fn permit_rollout(
        &self,
        stack: &Stack,
        key: &ProjectKey,
        evaluation: &Evaluation,
    ) -> Result<Option<RolloutPermit<'_>>, Error> {
        if evaluation.observed.has_open_intent() {
            return self.urgent_permit(stack, key, evaluation).map(Some);
        }
        let mut stacks = self.lock();
        let group = stacks.get_mut(&stack.key).ok_or(Error::Unfollowed)?;
        let decision = decide(stack, group.hosts(key.component), key, &evaluation.project);
        Ok((decision == Decision::Proceed).then(|| self.permit(group, key, evaluation)))
    }

    fn permit(&self, group: &mut StackGroup, key: &ProjectKey, evaluation: &Evaluation) -> RolloutPermit<'_> {
        let rolling = HostProgress { progress: Progress::Rolling, ..progress(evaluation) };
        group.hosts(key.component).insert(key.host.clone(), rolling);
        group.changed(key);
        RolloutPermit { coordinator: self, key: key.clone() }
    }
}

fn decide(stack: &Stack, hosts: &Hosts, key: &ProjectKey, project: &Project) -> Decision {
    let order: Vec<String> =
        component::hosts(stack, key.component).map(|host| host.name.to_string()).collect();
    let (me, generation) = (key.host.as_str(), project.generation.as_str());
    Fleet { order: &order, hosts, me, generation, most: most(stack, project) }.decide()
}

/// How many hosts of a component may be unavailable at once.
fn most(stack: &Stack, project: &Project) -> usize {
    let most = if project.is_serial() { 1 } else { stack.spec.policy.rollout.max_unavailable as usize };
    most.max(1)
}

fn progress(evaluation: &Evaluation) -> HostProgress {
    let Evaluation { project, observed, plan, .. } = evaluation;
    let (ledger, applied) = (observed.ledger.as_ref(), observed.applied.as_ref());
    let time = |when: &str| when.parse().ok();
    // The host's own hashes know the values of secrets: another value is another thing to be tried.
    let change = plan.change();
    let failed = ledger.and_then(|ledger| ledger.failed.as_ref()).filter(|failed| {
        change.is_some_and(|change| change.desired_hash == failed.desired_hash)
            && failed.generation == project.generation
    });
    let progress = match (failed, applied) {
        (Some(failed), _) => Progress::Failed {
            origin: failed.origin.clone(),
            message: failed.message.clone(),
            when: time(&failed.when),
            first: failed.first,
        },
        (None, Some(applied)) if change.is_none() && !observed.has_open_intent() => {
            let last = ledger.and_then(|ledger| ledger.history.first());
            Progress::Done {
                since: last.and_then(|last| time(&last.when)),
                by_this_generation: applied.project.generation == project.generation,
            }
        }
        _ => Progress::Before,
    };
    let goes_on = [reasons::ROLLING_OUT, reasons::PULLING_IMAGES];
    let waits = plan.waiting.as_ref().is_some_and(|waiting| !goes_on.contains(&waiting.reason));
    HostProgress {
        generation: project.generation.clone(),
        progress,
        unavailable: applied.is_some_and(|applied| !diff::serving(applied, observed)),
        blocked: waits || plan.hold.is_some(),
        preflight_failure: plan.lacking().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests;
