//! `run`: follows a folder of stacks and keeps a worker for each of their hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tasktracker_crds::{Deletion, HostSpec, conditions::reasons, validation};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    Hosts, Memory, Turns, is_named,
    notifier::Notifier,
    now,
    retire::retire,
    vanished::Vanished,
    watcher::Watcher,
    worker::{Shared, work},
};
use crate::{
    metrics::Metrics,
    server::{self, Told},
    source::{Folder, Secrets, Stack, StackFile, StackKey},
};

/// How often the folder is looked at.
const FOLDER_PAUSE: Duration = Duration::from_secs(1);
/// How long workers may finish what they do when the operator stops.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What `run` needs.
pub struct Settings {
    /// Where the stacks are.
    pub folder: Folder,
    /// Where the secrets are.
    pub secrets: Secrets,
    /// The operator's own folder.
    pub memory: Memory,
    /// Where metrics and health are served.
    pub listen: SocketAddr,
}

/// A stack that is worked on.
struct Managed {
    stack: Arc<Stack>,
    sender: watch::Sender<Option<Arc<Stack>>>,
    workers: BTreeMap<String, JoinHandle<()>>,
}

/// Runs until `stop` resolves; then lets every worker finish what it does.
///
/// # Errors
/// When metrics cannot be served or made.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    let ready = Arc::new(AtomicBool::new(false));
    let server =
        tokio::spawn(server::serve(settings.listen, Told { metrics: metrics.clone(), ready: ready.clone() }));
    let notifier = Notifier::start(settings.secrets.clone(), metrics.clone());
    let memory = Arc::new(settings.memory);
    let folder = settings.folder.clone();
    let shared = Arc::new(Shared {
        images: Arc::default(),
        watcher: Watcher::new(metrics, memory.clone(), Some(notifier)),
        hosts: Hosts::default(),
        secrets: settings.secrets,
        is_current: Box::new(move |stack| folder.has(stack)),
        is_reliable: AtomicBool::new(false),
        writer: memory.writer(),
        turns: Turns::default(),
        memory,
    });
    let mut follower = Follower::new(shared);
    tokio::select! {
        result = server => { result??; }
        () = follower.follow(&settings.folder, &ready) => {}
        () = stop => tracing::info!("stopping: what is being done is finished"),
    }
    for stack in follower.managed.values() {
        stack.sender.send_replace(None);
    }
    let workers = follower.managed.into_values().flat_map(|stack| stack.workers.into_values());
    if tokio::time::timeout(STOP_LIMIT, futures::future::join_all(workers)).await.is_err() {
        tracing::warn!("a worker did not finish within {} s", STOP_LIMIT.as_secs());
    }
    Ok(())
}

/// Follows a folder: a worker for each host of each stack in it, and an eye on what is gone from it.
struct Follower {
    shared: Arc<Shared>,
    managed: BTreeMap<StackKey, Managed>,
    gone_stacks: Vanished<String>,
    gone_hosts: Vanished<(String, String)>,
    retiring: BTreeMap<(String, String), (JoinHandle<()>, HostSpec)>,
}

impl Follower {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            managed: BTreeMap::new(),
            gone_stacks: Vanished::default(),
            gone_hosts: Vanished::default(),
            retiring: BTreeMap::new(),
        }
    }

    async fn follow(&mut self, folder: &Folder, ready: &AtomicBool) {
        let mut stamp = None;
        let mut told = String::new();
        let mut files: Option<Vec<StackFile>> = None;
        loop {
            let read = match folder.stamp() {
                Ok(new) if stamp.as_ref() == Some(&new) => Ok(()),
                Ok(new) => folder.read().map(|read| {
                    self.take_up(&read);
                    files = Some(read);
                    stamp = Some(new);
                    ready.store(true, Ordering::Relaxed);
                }),
                Err(error) => Err(error),
            };
            let error = read.as_ref().err().map(ToString::to_string).unwrap_or_default();
            if !error.is_empty() && error != told {
                tracing::error!("{error}; the last stacks stay in force");
            }
            told = error;
            if let Some(files) = &files {
                self.see_what_is_gone(files, read.is_ok(), Instant::now());
            }
            tokio::time::sleep(FOLDER_PAUSE).await;
        }
    }

    /// Starts and updates workers so that they match the files. A file with mistakes leaves its stack as it was.
    fn take_up(&mut self, files: &[StackFile]) {
        let Self { shared, managed, .. } = self;
        for file in files {
            match &file.content {
                Ok(stack) => {
                    shared.watcher.set_refused(stack, false, now());
                    adopt(stack.key.clone(), &Arc::new(stack.clone()), shared, managed);
                }
                Err(mistakes) => {
                    for mistake in mistakes {
                        tracing::error!(reason = reasons::INVALID_SPEC, "{}:{mistake}", file.path.display());
                    }
                    let kept = managed.values().filter(|managed| managed.stack.origin == file.path);
                    kept.for_each(|managed| shared.watcher.set_refused(&managed.stack, true, now()));
                }
            }
        }
    }

    /// Stacks without a file, and hosts that their stacks name no longer. They count only when that lasts, and the
    /// folder can be relied on: it reads well, is not empty, and no file in it has mistakes, for that may be theirs.
    fn see_what_is_gone(&mut self, files: &[StackFile], read: bool, now: Instant) {
        let reliable = read && !files.is_empty() && files.iter().all(|file| file.content.is_ok());
        self.shared.is_reliable.store(reliable, Ordering::Relaxed);
        let asked: BTreeMap<String, &Stack> =
            files.iter().flat_map(|file| &file.content).map(|stack| (stack.key.to_string(), stack)).collect();
        let followed = self.managed.keys().map(ToString::to_string);
        let memory = self.shared.memory.clone();
        let known: BTreeSet<String> = memory.stacks().into_iter().chain(followed).collect();
        let gone = known.iter().filter(|key| !asked.contains_key(*key)).cloned().collect();
        // An update that was refused does not count: what is in force does.
        let in_force: BTreeMap<String, Arc<Stack>> =
            self.managed.iter().map(|(key, managed)| (key.to_string(), managed.stack.clone())).collect();
        let is_asked = |key: &str, host: &HostSpec| {
            let stack = asked.get(key).map(|stack| in_force.get(key).map_or(*stack, |stack| stack));
            stack.is_some_and(|stack| is_named(stack, host))
        };
        let is_known =
            |key: &str, host: &str| memory.deployed(key).is_some_and(|known| known.hosts.contains_key(host));
        self.retiring.retain(|(key, host), (task, spec)| {
            if is_asked(key, spec) || !is_known(key, host) {
                task.abort();
            }
            !task.is_finished()
        });
        for key in self.gone_stacks.lasting(gone, reliable, now) {
            self.let_go(&key);
        }
        let named = known.iter().filter(|key| asked.contains_key(*key));
        let left: BTreeSet<(String, String)> = named
            .filter_map(|key| Some((key, memory.deployed(key)?)))
            .flat_map(|(key, known)| known.hosts.into_iter().map(move |(name, host)| (key, name, host.spec)))
            .filter(|(key, _, spec)| !is_asked(key, spec))
            .map(|(key, name, _)| (key.clone(), name))
            .collect();
        for (key, host) in self.gone_hosts.lasting(left, reliable, now) {
            tracing::warn!(stack = %key, %host, "the stack names this host no longer");
            self.retire(&key, Some(&host));
        }
    }

    /// The file of a stack is gone for good.
    fn let_go(&mut self, key: &str) {
        let managed = self.managed.keys().find(|managed| managed.to_string() == key).cloned();
        if let Some((managed, old)) = managed.and_then(|managed| self.managed.remove_entry(&managed)) {
            old.sender.send_replace(None);
            self.shared.watcher.end(&managed);
        }
        tracing::warn!(stack = %key, "its file is gone: it is no longer looked after");
        self.retire(key, None);
    }

    /// What the policy of a stack says of hosts that are left: nothing, or that what is there goes. Volumes stay.
    fn retire(&mut self, key: &str, only: Option<&str>) {
        let Some(known) = self.shared.memory.deployed(key) else { return };
        let deletion = known.resource.spec.policy.deletion;
        let stack = Stack::new(known.resource, PathBuf::new());
        for (name, host) in known.hosts.into_iter().filter(|(name, _)| only.is_none_or(|only| only == name)) {
            if deletion == Deletion::Retain {
                tracing::warn!(stack = %key, host = %name, "what is there is left running (policy.deletion is Retain); `delete` takes it away");
                continue;
            }
            if deletion == Deletion::DownAndVolumes {
                tracing::warn!(stack = %key, host = %name, "volumes stay though policy.deletion is DownAndVolumes: a file that is gone is no such wish; `delete --volumes` is");
            }
            let spec = host.spec.clone();
            let task = tokio::spawn(retire(self.shared.clone(), stack.clone(), host));
            if let Some((earlier, _)) = self.retiring.insert((key.to_owned(), name), (task, spec)) {
                earlier.abort();
            }
        }
    }
}

fn adopt(key: StackKey, stack: &Arc<Stack>, shared: &Arc<Shared>, managed: &mut BTreeMap<StackKey, Managed>) {
    let entry = managed.entry(key).or_insert_with(|| {
        tracing::info!(stack = %stack.key, file = %stack.origin.display(), revision = %stack.spec.revision, "following");
        shared.watcher.begin(stack);
        Managed { stack: stack.clone(), sender: watch::Sender::new(Some(stack.clone())), workers: BTreeMap::new() }
    });
    if entry.stack != *stack {
        if let Err(rules) = validation::check_update(&entry.stack.resource, &stack.resource) {
            tracing::error!(stack = %stack.key, reason = reasons::INVALID_SPEC, "{}: {}", stack.origin.display(), rules.join("; "));
            shared.watcher.set_refused(&entry.stack, true, now());
            return;
        }
        tracing::info!(stack = %stack.key, revision = %stack.spec.revision, "the spec changed");
        shared.watcher.change(&entry.stack, stack);
        entry.stack = stack.clone();
        entry.sender.send_replace(Some(stack.clone()));
    }
    entry.workers.retain(|_, worker| !worker.is_finished());
    for host in stack.app_hosts() {
        entry.workers.entry(host.name.to_string()).or_insert_with(|| {
            tokio::spawn(work(shared.clone(), host.name.to_string(), entry.sender.subscribe()))
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;
    use crate::release::Prepared;

    const TEXT: &str = include_str!("../../../examples/staging.yaml");

    fn file(text: &str) -> StackFile {
        let text = format!("{text}\n  policy: {{deletion: Down}}\n");
        let resource = validation::read_stack(&text).unwrap();
        StackFile { path: "staging.yaml".into(), content: Ok(Stack::new(resource, "staging.yaml".into())) }
    }

    fn release() -> crate::release::Release {
        let stack = Stack::new(validation::read_stack(TEXT).unwrap(), PathBuf::new());
        let project = crate::desired::app_project(&stack, stack.spec.app.as_ref().unwrap());
        Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release
    }

    /// The stack on another host than it is deployed on.
    fn moved(text: &str) -> StackFile {
        file(&text.replace("name: app-1", "name: app-9").replace("address: ", "address: other."))
    }

    /// A follower to which the example is known to be deployed, and that follows it already.
    fn follower(folder: &Path) -> Follower {
        let memory = Arc::new(Memory::take(folder).unwrap());
        let stack = file(TEXT);
        if let Ok(stack) = &stack.content {
            memory.record(stack, &stack.spec.hosts[0], &release(), None);
        }
        let shared = Arc::new(Shared {
            images: Arc::default(),
            watcher: Watcher::new(Arc::new(Metrics::new().unwrap()), memory.clone(), None),
            hosts: Hosts::default(),
            secrets: Secrets::default(),
            is_current: Box::new(|_| true),
            is_reliable: AtomicBool::new(false),
            writer: memory.writer(),
            turns: Turns::default(),
            memory,
        });
        let mut follower = Follower::new(shared);
        follower.take_up(&[stack]);
        follower
    }

    /// What is taken away when the source says this for longer than a minute.
    fn retired(follower: &mut Follower, file: StackFile, read: bool) -> Vec<String> {
        let (files, now) = ([file], Instant::now());
        follower.take_up(&files);
        follower.see_what_is_gone(&files, read, now);
        follower.see_what_is_gone(&files, read, now + Duration::from_secs(61));
        follower.retiring.keys().map(|(stack, host)| format!("{stack} {host}")).collect()
    }

    #[tokio::test]
    async fn a_host_is_taken_from_a_stack_only_by_a_spec_that_is_in_force() {
        let (folder, none) = (tempfile::tempdir().unwrap(), Vec::<String>::new());
        let mut follower = follower(folder.path());
        assert_eq!(retired(&mut follower, file(TEXT), true), none);
        let refused = moved(&TEXT.replace("environment: staging", "environment: another"));
        assert_eq!(retired(&mut follower, refused, true), none, "an update that was refused");
        assert_eq!(retired(&mut follower, moved(TEXT), false), none, "a folder that cannot be read");
        assert_eq!(retired(&mut follower, moved(TEXT), true), ["default/staging app-1"]);
        // What a person has forgotten, nobody takes away.
        let known = follower.shared.memory.deployed("default/staging").unwrap();
        follower.shared.memory.forget("default/staging", "app-1");
        let (gone, now) = ([moved(TEXT)], Instant::now());
        follower.see_what_is_gone(&gone, true, now);
        tokio::task::yield_now().await;
        follower.see_what_is_gone(&gone, true, now);
        assert!(follower.retiring.is_empty());
        // Named again, it is let alone.
        follower.shared.memory.record(
            &Stack::new(known.resource, PathBuf::new()),
            &known.hosts["app-1"].spec,
            &release(),
            None,
        );
        assert_eq!(retired(&mut follower, moved(TEXT), true), ["default/staging app-1"]);
        let (back, now) = ([file(TEXT)], Instant::now());
        follower.take_up(&back);
        follower.see_what_is_gone(&back, true, now);
        tokio::task::yield_now().await;
        follower.see_what_is_gone(&back, true, now);
        assert!(follower.retiring.is_empty());
    }
}
