//! The stacks that are followed, whichever door they came through: a worker for each of their hosts, and an eye on hosts
//! that they name no longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tasktracker_crds::{Deletion, HostSpec, TaskTrackerStackStatus, conditions::reasons, validation};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    Hosts, Listener, Memory, Turns,
    deployed::{DeployedHost, is_named},
    notifier::Notifier,
    now,
    retire::{Retired, retire},
    vanished::Vanished,
    watcher::Watcher,
    worker::{Shared, work},
};
use crate::{
    metrics::Metrics,
    source::{DELETE_HOST_ANNOTATION, Secrets, Source, Stack, StackKey},
};

/// How long workers may finish what they do when the operator stops.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What the engine needs of a door.
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
    workers: BTreeMap<String, JoinHandle<()>>,
}

/// A host from which a stack is being taken.
pub(super) struct Retiring {
    task: JoinHandle<()>,
    spec: HostSpec,
    /// Whether the stack was deleted: then nothing but that decides how long it goes on.
    is_deleted: bool,
    with_volumes: bool,
}

/// Stacks that are followed.
pub struct Stacks {
    pub(super) shared: Arc<Shared>,
    managed: BTreeMap<StackKey, Managed>,
    gone_hosts: Vanished<(String, String)>,
    pub(super) retiring: BTreeMap<(String, String), Retiring>,
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
            turns: Turns::default(),
            memory,
        });
        Self { shared, managed: BTreeMap::new(), gone_hosts: Vanished::default(), retiring: BTreeMap::new() }
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

    /// The same as [`Self::see_left_hosts`], where the source has what is followed.
    pub fn see_left(&mut self, reliable: bool, now: Instant) {
        let stacks: Vec<Arc<Stack>> = self.in_force().cloned().collect();
        let asked = stacks.iter().map(|stack| (stack.key.to_string(), stack.as_ref())).collect();
        self.see_left_hosts(&self.known(), &asked, reliable, now);
    }

    /// The stacks that are in force.
    pub fn in_force(&self) -> impl Iterator<Item = &Arc<Stack>> {
        self.managed.values().map(|managed| &managed.stack)
    }

    /// The stack that is in force.
    pub fn get(&self, key: &StackKey) -> Option<&Arc<Stack>> {
        self.managed.get(key).map(|managed| &managed.stack)
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
    pub fn take_up(&mut self, stack: Stack, before: Option<TaskTrackerStackStatus>) -> Result<(), String> {
        let Self { shared, managed, .. } = self;
        let stack = Arc::new(stack);
        let entry = managed.entry(stack.key.clone()).or_insert_with(|| {
            tracing::info!(stack = %stack.key, file = %stack.origin.display(), revision = %stack.spec.revision, "following");
            shared.watcher.begin(&stack, before, now());
            Managed { stack: stack.clone(), sender: watch::Sender::new(Some(stack.clone())), workers: BTreeMap::new() }
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
        for host in stack.app_hosts() {
            entry.workers.entry(host.name.to_string()).or_insert_with(|| {
                tokio::spawn(work(shared.clone(), host.name.to_string(), entry.sender.subscribe()))
            });
        }
        Ok(())
    }

    /// Looks after a stack no longer; what is on its hosts stays as it is. Whether it was followed.
    pub fn let_go(&mut self, key: &str) -> bool {
        let managed = self.managed.keys().find(|managed| managed.to_string() == key).cloned();
        let Some((managed, old)) = managed.and_then(|managed| self.managed.remove_entry(&managed)) else {
            return false;
        };
        old.sender.send_replace(None);
        self.shared.watcher.end(&managed);
        self.shared.turns.end(&managed);
        true
    }

    /// Hosts that their stacks name no longer. They count only when that lasts, and the source can be relied on; `known`
    /// are the stacks of which something is deployed, `asked` those that the source has.
    pub(super) fn see_left_hosts(
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
            self.managed.iter().map(|(key, managed)| (key.to_string(), managed.stack.clone())).collect();
        let is_asked = |key: &str, host: &HostSpec| {
            let stack = asked.get(key).map(|stack| in_force.get(key).map_or(*stack, |stack| stack));
            stack.is_some_and(|stack| is_named(stack, host))
        };
        let is_known =
            |key: &str, host: &str| memory.deployed(key).is_some_and(|known| known.hosts.contains_key(host));
        self.retiring.retain(|(key, host), Retiring { task, spec, is_deleted, .. }| {
            if !*is_deleted && (is_asked(key, spec) || !is_known(key, host)) {
                task.abort();
            }
            !task.is_finished()
        });
        let named = known.iter().filter(|key| asked.contains_key(*key));
        let left: BTreeSet<(String, String)> = named
            .filter_map(|key| Some((key, memory.deployed(key)?)))
            .flat_map(|(key, known)| known.hosts.into_iter().map(move |(name, host)| (key, name, host.spec)))
            .filter(|(key, _, spec)| !is_asked(key, spec))
            .map(|(key, name, _)| (key.clone(), name))
            .collect();
        for (key, host) in left.iter().filter(|_| reliable) {
            let wish = in_force.get(key).and_then(|stack| Some((stack, stack.deleted_hosts()?)));
            if let Some((stack, (_, deletion))) =
                wish.filter(|(_, (hosts, _))| hosts.contains(&host.as_str()))
            {
                self.delete_host(stack, host, deletion);
            }
        }
        for (key, host) in self.gone_hosts.lasting(left, reliable, now) {
            tracing::warn!(stack = %key, %host, "the stack names this host no longer");
            self.retire(&key, Some(&host));
        }
    }

    /// Stacks of which something is deployed, and those that are followed.
    pub(super) fn known(&self) -> BTreeSet<String> {
        let followed = self.managed.keys().map(ToString::to_string);
        self.shared.memory.stacks().into_iter().chain(followed).collect()
    }

    /// What the policy of a stack says of hosts that are left: nothing, or that what is there goes. Volumes stay.
    pub(super) fn retire(&mut self, key: &str, only: Option<&str>) {
        let Some(known) = self.shared.memory.deployed(key) else { return };
        // What is in force decides, though nothing was rolled out by it yet.
        let followed = self.managed.iter().find(|(followed, _)| followed.to_string() == key);
        let deletion =
            followed.map_or(&known.resource.spec, |(_, managed)| &managed.stack.spec).policy.deletion;
        let stack = Stack::of_object(known.resource, PathBuf::new());
        for (name, host) in known.hosts.into_iter().filter(|(name, _)| only.is_none_or(|only| only == name)) {
            if deletion == Deletion::Retain {
                tracing::warn!(stack = %key, host = %name, "what is there is left running (policy.deletion is Retain); `delete` takes it away");
                continue;
            }
            if deletion == Deletion::DownAndVolumes {
                tracing::warn!(stack = %key, host = %name, "volumes stay though policy.deletion is DownAndVolumes: a host or a file that is gone is no such wish; `delete --volumes` is");
            }
            self.retire_host(&stack, host, super::OPERATOR, false, false);
        }
    }

    /// What a person wants to become of a host that a stack names no longer.
    fn delete_host(&mut self, stack: &Stack, host: &str, deletion: Deletion) {
        let key = stack.key.to_string();
        let Some(known) = self.shared.memory.deployed(&key).and_then(|mut known| known.hosts.remove(host))
        else {
            return;
        };
        if deletion == Deletion::Retain {
            let Shared { secrets, memory, .. } = &*self.shared;
            Retired { stack, host: &known, secrets, memory }.forget(DELETE_HOST_ANNOTATION);
            tracing::warn!(stack = %key, %host, "forgotten, as a person wished; what is there stays");
            return;
        }
        let with_volumes = deletion == Deletion::DownAndVolumes;
        let is_begun = |one: &Retiring| one.with_volumes || !with_volumes;
        if !self.retiring.get(&(key, host.to_owned())).is_some_and(is_begun) {
            self.retire_host(stack, known, DELETE_HOST_ANNOTATION, with_volumes, false);
        }
    }

    fn retire_host(
        &mut self,
        stack: &Stack,
        host: DeployedHost,
        who: &'static str,
        with_volumes: bool,
        is_deleted: bool,
    ) {
        let (key, spec) = ((stack.key.to_string(), host.spec.name.to_string()), host.spec.clone());
        let task = tokio::spawn(retire(self.shared.clone(), stack.clone(), host, who, with_volumes));
        if let Some(earlier) = self.retiring.insert(key, Retiring { task, spec, is_deleted, with_volumes }) {
            earlier.task.abort();
        }
    }

    /// Takes a stack from every host on which something of it is or may be, as a person who deleted it says; `status` is
    /// what is known of it where it was not followed. It goes on until nothing is [`Self::left`], or [`Self::give_up`]
    /// ends it.
    pub fn remove(&mut self, stack: &Stack, status: &TaskTrackerStackStatus) {
        let key = stack.key.to_string();
        if !self.let_go(&key) && self.shared.memory.deployed(&key).is_none() {
            self.shared.memory.restore(stack, status);
        }
        let deletion = stack.spec.policy.deletion;
        let is_begun = self.retiring.keys().any(|(of, _)| *of == key);
        if deletion == Deletion::Retain || is_begun {
            return;
        }
        self.shared.is_reliable.store(true, Ordering::Relaxed);
        let mut hosts = self.shared.memory.deployed(&key).map(|known| known.hosts).unwrap_or_default();
        for spec in stack.app_hosts() {
            hosts.entry(spec.name.to_string()).or_insert_with(|| DeployedHost::as_asked(stack, spec));
        }
        for host in hosts.into_values() {
            self.retire_host(stack, host, super::OPERATOR, deletion == Deletion::DownAndVolumes, true);
        }
    }

    /// The hosts of a stack that is being removed on which that is not done yet.
    pub fn left(&self, key: &StackKey) -> Vec<String> {
        let key = key.to_string();
        let tasks = self.retiring.iter().filter(|((of, _), one)| *of == key && !one.task.is_finished());
        tasks.map(|((_, host), _)| host.clone()).collect()
    }

    /// Ends what is done about a stack, and forgets it.
    pub fn give_up(&mut self, key: &StackKey) {
        let key = key.to_string();
        self.let_go(&key);
        self.retiring.retain(|(of, _), one| {
            if *of == key {
                one.task.abort();
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
