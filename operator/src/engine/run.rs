//! `run`: follows a folder of stacks and keeps a worker for each of their hosts.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tasktracker_crds::{conditions::reasons, validation};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Hosts, Memory, now,
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
    let writer = settings.memory.writer();
    let folder = settings.folder.clone();
    let shared = Arc::new(Shared {
        watcher: Watcher::new(metrics, settings.memory),
        hosts: Hosts::default(),
        secrets: settings.secrets,
        is_current: Box::new(move |stack| folder.has(stack)),
        writer,
    });
    let mut managed = BTreeMap::new();
    tokio::select! {
        result = server => { result??; }
        () = follow(&settings.folder, &shared, &ready, &mut managed) => {}
        () = stop => tracing::info!("stopping: what is being done is finished"),
    }
    for stack in managed.values() {
        stack.sender.send_replace(None);
    }
    let ended =
        futures::future::join_all(managed.into_values().flat_map(|stack| stack.workers.into_values()));
    if tokio::time::timeout(STOP_LIMIT, ended).await.is_err() {
        tracing::warn!("a worker did not finish within {} s", STOP_LIMIT.as_secs());
    }
    Ok(())
}

async fn follow(
    folder: &Folder,
    shared: &Arc<Shared>,
    ready: &AtomicBool,
    managed: &mut BTreeMap<StackKey, Managed>,
) {
    let mut stamp = None;
    let mut told = String::new();
    loop {
        match folder.stamp() {
            Ok(new) if stamp.as_ref() == Some(&new) => {}
            Ok(new) => {
                match folder.read() {
                    Ok(files) => take_up(&files, shared, managed),
                    Err(error) => tracing::error!("{error}; the last stacks stay in force"),
                }
                stamp = Some(new);
                ready.store(true, Ordering::Relaxed);
            }
            Err(error) if told == error.to_string() => {}
            Err(error) => {
                told = error.to_string();
                tracing::error!("{error}; the last stacks stay in force");
            }
        }
        tokio::time::sleep(FOLDER_PAUSE).await;
    }
}

/// Starts, updates and ends workers so that they match the files. A file with mistakes leaves its stack as it was.
fn take_up(files: &[StackFile], shared: &Arc<Shared>, managed: &mut BTreeMap<StackKey, Managed>) {
    let mut wanted: BTreeMap<StackKey, Arc<Stack>> = BTreeMap::new();
    for file in files {
        match &file.content {
            Ok(stack) => {
                shared.watcher.set_refused(stack, false, now());
                wanted.insert(stack.key.clone(), Arc::new(stack.clone()));
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    tracing::error!(reason = reasons::INVALID_SPEC, "{}:{mistake}", file.path.display());
                }
                let kept = managed.values().filter(|managed| managed.stack.origin == file.path);
                kept.clone().for_each(|managed| shared.watcher.set_refused(&managed.stack, true, now()));
                wanted.extend(kept.map(|managed| (managed.stack.key.clone(), managed.stack.clone())));
            }
        }
    }
    let gone: Vec<StackKey> = managed.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
    for key in gone {
        tracing::warn!(stack = %key, "its file is gone: what it deployed is left running and no longer looked after");
        if let Some(old) = managed.remove(&key) {
            old.sender.send_replace(None);
            shared.watcher.end(&key);
        }
    }
    for (key, stack) in wanted {
        adopt(key, &stack, shared, managed);
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
