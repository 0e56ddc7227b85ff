//! Hosts that stacks name no longer: what becomes of what is there, as their policy or a person says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use tasktracker_crds::{Deletion, conditions::reasons};
use tokio::{task::JoinHandle, time::Instant};

use super::{
    Stacks,
    requests::Refused,
    retire::{Job, Retired, Why, retire},
    worker::Shared,
};
use crate::{
    model::ComponentName,
    source::{DELETE_HOST_ANNOTATION, Stack, WriteScope},
    state::{Deployed, DeployedHost},
};

/// A host from which a stack is being taken.
pub(super) struct Retiring {
    task: JoinHandle<()>,
    components: Vec<ComponentName>,
    pub(super) why: Why,
}

impl Retiring {
    /// Whether the stack was deleted: then nothing but that decides how long it goes on.
    pub(super) fn is_deleted(&self) -> bool {
        matches!(self.why, Why::Deleted(_))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    #[cfg(test)]
    pub(super) fn task_id(&self) -> tokio::task::Id {
        self.task.id()
    }

    pub(super) fn abort(&self) {
        self.task.abort();
    }
}

impl Stacks {
    /// Retires the projects that their stacks ask for no longer on a host. They count only when that lasts, and the source
    /// can be relied on; `known` are the stacks of which something is deployed, `asked` those that the source has.
    pub(super) fn reconcile_retained_hosts(
        &mut self,
        known: &BTreeSet<String>,
        asked: &BTreeMap<String, &Stack>,
        reliable: bool,
        now: Instant,
    ) {
        self.shared.is_reliable.store(reliable, Ordering::Relaxed);
        let memory = self.shared.memory.clone();
        // An update that was refused does not count: what is in force does.
        let in_force: BTreeMap<String, Arc<Stack>> =
            self.in_force().map(|stack| (stack.key.to_string(), stack.clone())).collect();
        // The projects on a host that its stack asks for no longer.
        let left_of = |key: &str, host: &DeployedHost| match asked.get(key) {
            Some(stack) => host.left_by(in_force.get(key).map_or(*stack, |stack| stack)),
            None => Some(host.clone()),
        };
        let left_on = |key: &str, host: &str| left_of(key, memory.deployed(key)?.hosts.get(host)?);
        let requested = |key: &str, host: &str| in_force.get(key)?.deletion_of(host);
        self.retiring.retain(|(key, host), one| {
            let left = left_on(key, host);
            let is_over = !left.is_some_and(|left| left.components.keys().eq(&one.components));
            let is_withdrawn =
                matches!(one.why, Why::Requested(deletion) if requested(key, host) != Some(deletion));
            if !one.is_deleted() && (is_over || is_withdrawn) {
                one.abort();
                return false;
            }
            !one.is_finished()
        });
        let named = known.iter().filter(|key| asked.contains_key(*key));
        let left: BTreeSet<(String, String)> = named
            .filter_map(|key| Some((key, memory.deployed(key)?)))
            .flat_map(|(key, known)| known.hosts.into_iter().map(move |(name, host)| (key, name, host)))
            .filter(|(key, _, host)| left_of(key, host).is_some())
            .map(|(key, name, _)| (key.clone(), name))
            .collect();
        self.refused.retain(|place, _| left.contains(place));
        self.announced.retain(|(key, host), _| left_on(key, host).is_some());
        for (key, host) in left.iter().filter(|_| reliable) {
            if let Some((stack, deletion)) = in_force.get(key).zip(requested(key, host))
                && let Some(left) = left_on(key, host)
            {
                self.delete_host(stack, left, deletion);
            }
        }
        let left = left.into_iter().filter(|(key, host)| requested(key, host).is_none()).collect();
        for (key, host) in self.gone_hosts.expired(left, reliable, now) {
            let left = left_on(&key, &host);
            self.retire(&key, left);
        }
    }

    /// Applies the policy of a stack to the projects that are left on hosts: they stay, or they are removed without their
    /// volumes. Repeated for as long as they are left, since the policy may change meanwhile.
    pub(super) fn retire(&mut self, key: &str, hosts: impl IntoIterator<Item = DeployedHost>) {
        let Some(known) = self.shared.memory.deployed(key) else { return };
        // What is in force decides, though nothing was rolled out by it yet.
        let in_force = self.follow(key);
        let followed = in_force.as_ref().and_then(|stack| stack.borrow().clone());
        let deletion =
            followed.map_or(known.resource.spec.policy.deletion, |stack| stack.spec.policy.deletion);
        let stack = Stack::of_object(known.resource, PathBuf::new());
        for host in hosts {
            let name = host.spec.name.to_string();
            let what: Vec<&str> = host.components.keys().map(|component| component.as_str()).collect();
            let what = what.join(", ");
            let place = (key.to_owned(), name.clone());
            let is_new = self.announced.insert(place.clone(), deletion) != Some(deletion);
            if deletion == Deletion::Retain {
                if is_new {
                    tracing::warn!(stack = %key, host = %name, "the stack asks for {what} there no longer: what is there is left running (policy.deletion is Retain); `delete` takes it away");
                }
                continue;
            }
            if self.retiring.get(&place).is_some_and(|one| !one.is_finished()) {
                continue;
            }
            if is_new {
                tracing::warn!(stack = %key, host = %name, "the stack asks for {what} there no longer: what is there goes (policy.deletion)");
            }
            if is_new && deletion == Deletion::DownAndVolumes {
                tracing::warn!(stack = %key, host = %name, "volumes stay though policy.deletion is DownAndVolumes: a host or a file that is gone is no such request; `delete --volumes` is");
            }
            self.retire_host(Job { stack: stack.clone(), in_force: in_force.clone(), host, why: Why::Left });
        }
    }

    /// Carries out the request of a person about projects that are left on a host.
    fn delete_host(&mut self, stack: &Stack, known: DeployedHost, deletion: Deletion) {
        let host = known.spec.name.to_string();
        let place = (stack.key.to_string(), host.clone());
        // A spec that is older than another one may name fewer hosts than are in use.
        if self.shared.source.write_scope(&stack.key) != WriteScope::Full {
            return;
        }
        let has_newest_data = |(component, deployed): (&ComponentName, &Deployed)| {
            !deployed.overtaken && deployed.data_volume().is_some() && !stack.is_leaving_data(*component)
        };
        if deletion == Deletion::Down && known.components.iter().any(has_newest_data) {
            let requested = stack.annotation(DELETE_HOST_ANNOTATION).unwrap_or_default();
            if self.refused.insert(place, requested.to_owned()).as_deref() != Some(requested) {
                let found = format!(
                    "{host}: expected the stack to be in force on another host before what is there goes, found that its data is the newest; say `--volumes` or `apply --leave-data` where it is not needed"
                );
                tracing::error!(stack = %stack.key, %host, reason = reasons::DATA_WOULD_BE_LEFT, "{found}");
                let refused = Refused { reason: reasons::DATA_WOULD_BE_LEFT, found };
                self.shared.watcher.refused_request(stack, &host, &refused);
            }
            return;
        }
        if deletion == Deletion::Retain {
            let Shared { secrets, memory, .. } = &*self.shared;
            Retired { stack, host: &known, secrets, memory }.forget(DELETE_HOST_ANNOTATION);
            tracing::warn!(stack = %stack.key, %host, "forgotten, as a person wished; what is there stays");
            self.shared.watcher.host_deleted(stack, &host, "forgotten; what is there stays");
            return;
        }
        if self.retiring.get(&place).is_none_or(|one| one.why != Why::Requested(deletion)) {
            let in_force = self.follow(&place.0);
            self.retire_host(Job {
                stack: stack.clone(),
                in_force,
                host: known,
                why: Why::Requested(deletion),
            });
        }
    }

    /// Begins to take a stack from a host, in the place of what was begun there before.
    pub(super) fn retire_host(&mut self, job: Job) {
        let key = (job.stack.key.to_string(), job.host.spec.name.to_string());
        let (components, why) = (job.host.components.keys().copied().collect(), job.why);
        let task = tokio::spawn(retire(self.shared.clone(), job));
        if let Some(earlier) = self.retiring.insert(key, Retiring { task, components, why }) {
            earlier.abort();
        }
    }
}
