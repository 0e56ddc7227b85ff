//! The stacks that are followed, whichever front end they came from: a worker for each of their projects, and the hosts
//! that they name no longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tasktracker_crds::{Deletion, TaskTrackerStackStatus, conditions::reasons, validation};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    Hosts, Listener, Memory, RolloutCoordinator,
    absence::AbsenceTracker,
    audit_push,
    left::Retiring,
    notifier::Notifier,
    now,
    push::push,
    retire::{Job, Why},
    watcher::Watcher,
    worker::{Shared, work},
};
use crate::{
    component,
    metrics::Metrics,
    source::{ProjectKey, Secrets, Source, Stack, StackKey},
    state::DeployedHost,
};

/// How long workers may finish what they do when the operator stops.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What the engine needs of a front end.
pub struct Parts {
    /// Where the stacks come from, asked anew.
    pub source: Arc<dyn Source>,
    /// Where the secrets are.
    pub secrets: Secrets,
    /// What must survive a restart.
    pub memory: Arc<Memory>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Who hears what comes of it, beside log and metrics.
    pub listener: Option<Arc<dyn Listener>>,
}

/// A stack that is worked on.
struct Managed {
    stack: Arc<Stack>,
    sender: watch::Sender<Option<Arc<Stack>>>,
    workers: BTreeMap<ProjectKey, JoinHandle<()>>,
    /// What sends the operator's own metrics, by the project with the store.
    pushers: BTreeMap<ProjectKey, JoinHandle<()>>,
}

/// Stacks that are followed.
pub struct Stacks {
    pub(super) shared: Arc<Shared>,
    managed: BTreeMap<StackKey, Managed>,
    pub(super) gone_hosts: AbsenceTracker<(String, String)>,
    pub(super) retiring: BTreeMap<(String, String), Retiring>,
    /// What policy says of hosts that are retained, as it was logged last.
    pub(super) announced: BTreeMap<(String, String), Deletion>,
    /// Wishes about hosts that were refused, and were told as that.
    pub(super) refused: BTreeMap<(String, String), String>,
}

impl Stacks {
    /// Nothing is followed yet.
    pub fn new(parts: Parts) -> Self {
        let Parts { source, secrets, memory, metrics, listener } = parts;
        let notifier = Notifier::start(secrets.clone(), metrics.clone());
        let shared = Arc::new(Shared {
            images: Arc::default(),
            watcher: Watcher::new(metrics, memory.clone(), Some(notifier), listener),
            hosts: Hosts::default(),
            secrets,
            source,
            is_reliable: AtomicBool::new(false),
            writer: memory.writer(),
            coordinator: RolloutCoordinator::default(),
            memory,
        });
        Self {
            shared,
            managed: BTreeMap::new(),
            gone_hosts: AbsenceTracker::default(),
            retiring: BTreeMap::new(),
            announced: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Follows nothing any more; what comes back is over when every worker has finished what it does, or after a while.
    pub fn end(&mut self) -> impl Future<Output = ()> + use<> {
        let managed = std::mem::take(&mut self.managed);
        for stack in managed.values() {
            stack.sender.send_replace(None);
        }
        let workers = managed.into_values().flat_map(|stack| stack.workers.into_values());
        let ended = tokio::time::timeout(STOP_LIMIT, futures::future::join_all(workers));
        async {
            if ended.await.is_err() {
                tracing::warn!("a worker did not finish within {} s", STOP_LIMIT.as_secs());
            }
        }
    }

    /// What waits for a person to approve it, in full, by host and component.
    pub fn waiting_plan(&self, key: &StackKey) -> Option<serde_json::Value> {
        self.shared.watcher.waiting_plan(key)
    }

    /// The same as [`Self::reconcile_retained_hosts`], where the source has what is followed.
    pub fn reconcile_retained(&mut self, reliable: bool, now: Instant) {
        let stacks: Vec<Arc<Stack>> = self.in_force().cloned().collect();
        let asked = stacks.iter().map(|stack| (stack.key.to_string(), stack.as_ref())).collect();
        self.reconcile_retained_hosts(&self.known(), &asked, reliable, now);
    }

    /// The stacks that are in force.
    pub fn in_force(&self) -> impl Iterator<Item = &Arc<Stack>> {
        self.managed.values().map(|managed| &managed.stack)
    }

    /// The stack that is in force.
    pub fn get(&self, key: &StackKey) -> Option<&Arc<Stack>> {
        self.managed.get(key).map(|managed| &managed.stack)
    }

    /// The stack that is in force now, whenever it is asked.
    pub(super) fn follow(&self, key: &str) -> Option<watch::Receiver<Option<Arc<Stack>>>> {
        let managed = self.managed.iter().find(|(managed, _)| managed.to_string() == key);
        managed.map(|(_, managed)| managed.sender.subscribe())
    }

    /// What is known of a stack that is followed.
    pub fn status(&self, key: &StackKey) -> Option<TaskTrackerStackStatus> {
        self.shared.watcher.status(key)
    }

    /// Whether the newest spec of a stack is refused, so that an older one is in force.
    pub fn set_refused(&self, key: &StackKey, refused: bool) {
        if let Some(managed) = self.managed.get(key) {
            self.shared.watcher.set_refused(&managed.stack, refused, now());
        }
    }

    /// Follows a stack, or a newer spec of it; `before` is what was known of it.
    ///
    /// # Errors
    /// Where it breaks a rule that compares it with the one in force, which stays: the rules.
    pub fn upsert(&mut self, stack: Stack, before: Option<TaskTrackerStackStatus>) -> Result<(), String> {
        let Self { shared, managed, .. } = self;
        let stack = Arc::new(stack);
        let entry = managed.entry(stack.key.clone()).or_insert_with(|| {
            tracing::info!(stack = %stack.key, file = %stack.origin.display(), revision = %stack.spec.revision, "following");
            shared.coordinator.begin(&stack.key);
            shared.watcher.begin(&stack, before, now());
            let (workers, pushers) = (BTreeMap::new(), BTreeMap::new());
            Managed { stack: stack.clone(), sender: watch::Sender::new(Some(stack.clone())), workers, pushers }
        });
        if entry.stack != stack {
            if let Err(rules) = validation::check_update(&entry.stack.resource, &stack.resource) {
                shared.watcher.set_refused(&entry.stack, true, now());
                return Err(rules.join("; "));
            }
            tracing::info!(stack = %stack.key, revision = %stack.spec.revision, "the spec changed");
            shared.watcher.change(&entry.stack, &stack);
            entry.stack = stack.clone();
            entry.sender.send_replace(Some(stack.clone()));
        }
        shared.watcher.set_refused(&entry.stack, false, now());
        entry.workers.retain(|_, worker| !worker.is_finished());
        for key in component::projects(&stack) {
            entry
                .workers
                .entry(key.clone())
                .or_insert_with(|| tokio::spawn(work(shared.clone(), key, entry.sender.subscribe())));
        }
        for key in component::metrics_stores(&stack) {
            entry
                .pushers
                .entry(key.clone())
                .or_insert_with(|| tokio::spawn(push(shared.clone(), key, entry.sender.subscribe())));
        }
        if let Some(key) = component::log_shipper(&stack) {
            let audit = || audit_push::push(shared.clone(), key.clone(), entry.sender.subscribe());
            entry.pushers.entry(key.clone()).or_insert_with(|| tokio::spawn(audit()));
        }
        Ok(())
    }

    /// Unfollows a stack; what is on its hosts stays as it is. Whether it was followed.
    pub fn unfollow(&mut self, key: &str) -> bool {
        let managed = self.managed.keys().find(|managed| managed.to_string() == key).cloned();
        let Some((managed, old)) = managed.and_then(|managed| self.managed.remove_entry(&managed)) else {
            return false;
        };
        old.sender.send_replace(None);
        self.shared.watcher.end(&managed);
        self.shared.coordinator.end(&managed);
        true
    }

    /// Stacks of which something is deployed, and those that are followed.
    pub(super) fn known(&self) -> BTreeSet<String> {
        let followed = self.managed.keys().map(ToString::to_string);
        self.shared.memory.stacks().into_iter().chain(followed).collect()
    }

    /// Takes a stack from every host on which something of it is or may be, as a person who deleted it says; `status` is
    /// what is known of it where it was not followed. It goes on until nothing is [`Self::left`], or [`Self::forget`]
    /// ends it.
    pub fn remove(&mut self, stack: &Stack, status: &TaskTrackerStackStatus) {
        let key = stack.key.to_string();
        if !self.unfollow(&key) && self.shared.memory.deployed(&key).is_none() {
            self.shared.memory.restore(stack, status);
        }
        let deletion = stack.spec.policy.deletion;
        let is_begun = self.retiring.iter().any(|((of, _), one)| *of == key && one.is_deleted());
        if deletion == Deletion::Retain || is_begun {
            return;
        }
        self.shared.is_reliable.store(true, Ordering::Relaxed);
        let mut hosts = self.shared.memory.deployed(&key).map(|known| known.hosts).unwrap_or_default();
        for spec in component::all_hosts(stack) {
            let DeployedHost { components, .. } = DeployedHost::as_asked(stack, spec);
            let empty = || DeployedHost { spec: spec.clone(), components: BTreeMap::new() };
            let host = hosts.entry(spec.name.to_string()).or_insert_with(empty);
            // The first rollout of a component may have failed.
            for (component, asked) in components {
                host.components.entry(component).or_insert(asked);
            }
        }
        for host in hosts.into_values() {
            self.retire_host(Job { stack: stack.clone(), in_force: None, host, why: Why::Deleted(deletion) });
        }
    }

    /// The hosts of a stack that is being removed on which that is not done yet.
    pub fn left(&self, key: &StackKey) -> Vec<String> {
        let key = key.to_string();
        let tasks = self
            .retiring
            .iter()
            .filter(|((of, _), one)| *of == key && one.is_deleted() && !one.is_finished());
        tasks.map(|((_, host), _)| host.clone()).collect()
    }

    /// Ends what is done about a stack, and forgets it.
    pub fn forget(&mut self, key: &StackKey) {
        let key = key.to_string();
        self.unfollow(&key);
        self.retiring.retain(|(of, _), one| {
            if *of == key {
                one.abort();
            }
            *of != key
        });
        for host in self.shared.memory.deployed(&key).into_iter().flat_map(|known| known.hosts.into_keys()) {
            self.shared.memory.forget(&key, &host);
        }
    }
}

/// Tells every mistake of a spec that is refused.
pub(super) fn tell_refused(place: &str, mistakes: &[impl std::fmt::Display]) {
    for mistake in mistakes {
        tracing::error!(reason = reasons::INVALID_SPEC, "{place}:{mistake}");
    }
}
