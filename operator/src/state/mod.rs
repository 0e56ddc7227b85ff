//! The operator's own state: what is deployed where, since when differences are there, notification state, and the audit
//! log. Reads and writes the state folder.
//!
//! All of it is in memory behind one lock, which nobody holds while a file is read or written: one thread writes the
//! folder. What is in it is no proof of anything: hosts and stack files are. Without a folder the state lasts as long as
//! the operator runs, and the notes of each stack's status keep it for the next one.

pub(crate) mod audit;
pub(crate) mod deployed;
mod files;
mod first_seen;
mod notes;
mod repaired;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tasktracker_crds::{DriftItem, HostSpec, TaskTrackerStackStatus};
use tokio::{sync::oneshot, time::Instant};

use self::{
    first_seen::FirstSeen,
    notes::{Found, Notes},
    repaired::Repaired,
    writer::{Change, Pending, Shared, StoredDeployments, StoredStacks, Writer},
};
use crate::{
    json,
    ledger::{Cause, Ledger},
    model::ComponentName,
    observe::Observed,
    project::Project,
    release::Release,
    report::notifications::NotificationState,
    secret::SealKey,
    source::{ProjectKey, Stack},
};

pub use deployed::{Deployed, DeployedHost, Deployment, Volume, is_wanted};
pub(crate) use first_seen::{ItemKey, Since, item_key, moved};

/// Version of every format in the state folder and in notes.
const VERSION: u64 = 1;
/// What is deployed where.
const DEPLOYED: &str = "deployed.json";
/// Since when differences are there.
const FIRST_SEEN: &str = "first-seen.json";
/// What people were notified of.
const NOTIFICATIONS: &str = "notifications.json";

/// What is wrong with the state folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another operator has it.
    #[error(
        "--state-dir: expected a folder of this operator's own, found {} in use by another one; give each its own", .folder.display()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of it cannot be read.
    #[error("--state-dir: expected {} to be readable, found: {source}; see who owns it", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// A file of it cannot be written.
    #[error("--state-dir: expected {} to be writable, found: {source}; see who owns it, and whether the disk is full", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why it cannot be written.
        source: io::Error,
    },
    /// Another version of the operator wrote a file of it.
    #[error(
        "--state-dir: expected version {VERSION} in {}, found version {found}; run the operator that wrote it, or move the file away to begin anew from what hosts tell", .path.display()
    )]
    UnknownVersion {
        /// The file, which stays as it is.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
}

/// Everything that is known.
#[derive(Default)]
struct State {
    deployed: BTreeMap<String, Deployment>,
    first_seen: FirstSeen,
    notifications: BTreeMap<String, NotificationState>,
    /// Notes of another version, by stack: a status keeps them as they are.
    foreign_notes: BTreeMap<String, Value>,
    pending: Pending,
}

/// What the operator keeps of a project in its folder on the host, as it was seen there last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) ledger: Option<Ledger>,
    pub(crate) release: Option<Release>,
    pub(crate) seal_key: Option<SealKey>,
}

/// The operator's own state, and the folder that keeps it.
pub struct Memory {
    shared: Arc<Shared>,
    folder: Option<PathBuf>,
    /// What was seen of projects on their hosts; for as long as this operator runs.
    seen: Mutex<BTreeMap<String, Seen>>,
    /// When what was repaired last, by project.
    repaired: Mutex<BTreeMap<String, Repaired>>,
    /// Lines of the audit log, for whoever passes them on.
    told: Mutex<Told>,
    // The thread ends before the folder is given to another operator: fields are dropped in this order.
    writer: Option<Writer>,
    _lock: Option<File>,
}

/// How many lines of the audit log are kept of each stack for whoever passes them on.
const TOLD: usize = 1000;

/// The newest lines of the audit log.
#[derive(Default)]
struct Told {
    /// How many there were.
    count: u64,
    /// Number and text of each, by stack.
    lines: BTreeMap<String, VecDeque<(u64, String)>>,
}

impl Told {
    fn add(&mut self, stack: &str, line: String) {
        self.count += 1;
        let lines = self.lines.entry(stack.to_owned()).or_default();
        lines.push_back((self.count, line));
        if lines.len() > TOLD {
            lines.pop_front();
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Memory").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Memory {
    /// State without a folder.
    pub fn none() -> Self {
        Self {
            shared: Shared::new(State::default()),
            folder: None,
            seen: Mutex::default(),
            repaired: Mutex::default(),
            told: Mutex::default(),
            writer: None,
            _lock: None,
        }
    }

    /// Keeps what is seen of a project on its host. What is not there now stays as it was seen.
    pub(crate) fn keep_seen(&self, key: &ProjectKey, observed: &Observed) {
        let mut projects = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = projects.entry(key.to_string()).or_default();
        seen.ledger = observed.ledger.clone().or(seen.ledger.take());
        seen.release = observed.applied.clone().or(seen.release.take());
        seen.seal_key = observed.seal_key.clone().or(seen.seal_key.take());
    }

    /// What was seen of a project last.
    pub(crate) fn seen(&self, key: &ProjectKey) -> Seen {
        let projects = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        projects.get(&key.to_string()).cloned().unwrap_or_default()
    }

    /// Keeps that differences of a project were repaired.
    pub(crate) fn keep_repaired(&self, key: &ProjectKey, causes: &BTreeSet<Cause>, now: Instant) {
        let mut repaired = self.repaired.lock().unwrap_or_else(PoisonError::into_inner);
        repaired.entry(key.to_string()).or_default().add(causes, now);
    }

    /// Differences of a project that come back again and again.
    pub(crate) fn undone(&self, key: &ProjectKey, now: Instant) -> BTreeSet<Cause> {
        let mut repaired = self.repaired.lock().unwrap_or_else(PoisonError::into_inner);
        repaired.get_mut(&key.to_string()).map(|repaired| repaired.undone(now)).unwrap_or_default()
    }

    /// Takes a folder for this operator alone, and makes it where it is not there.
    ///
    /// # Errors
    /// When it cannot be made or read, another operator has it, or another version of the operator wrote it.
    pub fn take(folder: &Path) -> Result<Self, StateError> {
        let unwritable = |source| StateError::Unwritable { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(unwritable)?;
        let lock = File::create(folder.join("lock")).map_err(unwritable)?;
        if lock.try_lock().is_err() {
            return Err(StateError::InUse { folder: folder.to_owned() });
        }
        files::remove_drafts(folder)?;
        Self::open(folder, Some(lock))
    }

    /// Opens a folder that another operator may have: what is deployed where and the audit log are kept by both.
    ///
    /// # Errors
    /// When it cannot be read, or another version of the operator wrote it.
    pub fn share(folder: &Path) -> Result<Self, StateError> {
        Self::open(folder, None)
    }

    fn open(folder: &Path, lock: Option<File>) -> Result<Self, StateError> {
        // The file may be replaced while it is read: then the older stamp has it read again.
        let stamp = files::stamp(&folder.join(DEPLOYED));
        let deployed: Option<StoredDeployments> = files::read(folder, DEPLOYED)?;
        let first_seen: Option<first_seen::Stored> = files::read(folder, FIRST_SEEN)?;
        let notifications: Option<StoredStacks> = files::read(folder, NOTIFICATIONS)?;
        let shared = Shared::new(State {
            deployed: deployed.unwrap_or_default().stacks,
            first_seen: first_seen.unwrap_or_default().into(),
            notifications: notifications.unwrap_or_default().stacks,
            ..State::default()
        });
        let writer = Writer::start(shared.clone(), folder.to_owned(), stamp)
            .map_err(|source| StateError::Unwritable { path: folder.to_owned(), source })?;
        let (seen, repaired) = (Mutex::default(), Mutex::default());
        let folder = Some(folder.to_owned());
        let told = Mutex::default();
        Ok(Self { shared, folder, seen, repaired, told, writer: Some(writer), _lock: lock })
    }

    /// The writer's ID: the same for every run with this folder, another for each that has none.
    pub fn writer(&self) -> String {
        let new = RandomState::new().build_hasher().finish();
        let new = format!("{new:016x}");
        let Some(folder) = &self.folder else { return new };
        let path = folder.join("writer");
        let is_writer =
            |text: &String| text.len() == new.len() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(known) = fs::read_to_string(&path).ok().filter(is_writer) {
            return known;
        }
        let written = files::lock(folder).and_then(|_lock| files::replace(folder, "writer", new.as_bytes()));
        if let Err(error) = written {
            tracing::error!("{error}");
        }
        new
    }

    /// Waits until everything is in the folder, or could not be written.
    pub async fn flush(&self) {
        let (sender, flushed) = oneshot::channel();
        if self.writer.is_some() {
            self.shared.lock().pending.flushes.push(sender);
            self.shared.wake();
            // A thread that is gone writes nothing any more.
            let _ = flushed.await;
        }
    }

    /// Logs what is written to a host, and appends it to the audit log; what is returned waits until it is there.
    pub(crate) fn audit(&self, entry: &audit::Entry<'_>) -> impl Future<Output = ()> + use<> {
        let line = json::to_string(entry);
        tracing::info!(target: "tasktracker_operator::audit", "audit: {line}");
        self.told().add(entry.stack, line.clone());
        let (sender, written) = oneshot::channel();
        if self.writer.is_some() {
            self.shared.lock().pending.audit.push((line, sender));
            self.shared.wake();
        }
        async {
            let _ = written.await;
        }
    }

    /// Lines of the audit log about a stack that came after the one with a number, with their numbers, which begin with 1
    /// and grow: those of this operator alone, and the newest where there are very many.
    pub(crate) fn audit_after(&self, stack: &str, number: u64) -> Vec<(u64, String)> {
        let told = self.told();
        told.lines.get(stack).into_iter().flatten().filter(|(at, _)| *at > number).cloned().collect()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is deployed of a stack.
    pub fn deployed(&self, stack: &str) -> Option<Deployment> {
        self.shared.lock().deployed.get(stack).cloned()
    }

    /// Every stack of which something is deployed.
    pub fn stacks(&self) -> Vec<String> {
        self.shared.lock().deployed.keys().cloned().collect()
    }

    /// A release of a stack is on a host.
    pub(crate) fn record(
        &self,
        stack: &Stack,
        spec: &HostSpec,
        release: &Release,
        observed: Option<&Observed>,
    ) {
        let (component, new) = (release.project.component, Deployed::of_release(release, observed));
        let (stack, spec) = (stack.clone(), spec.clone());
        self.change(stack.key.to_string(), move |known| {
            let mut known = known.unwrap_or_else(|| Deployment::empty(stack.resource.clone()));
            known.record(&stack, &spec, component, new.clone());
            Some(known)
        });
    }

    /// A release was rolled out on a host.
    pub(crate) fn rolled_out(&self, stack: &Stack, spec: &HostSpec, release: &Release) {
        self.record(stack, spec, release, None);
        let (stack, host, component) = (stack.clone(), spec.name.to_string(), release.project.component);
        self.change(stack.key.to_string(), move |known| {
            let mut known = known?;
            known.rolled_out(&stack, &host, component);
            Some(known)
        });
    }

    /// A project may be on a host from now on, though no release of it is in force yet.
    pub(crate) fn begin(&self, stack: &Stack, spec: &HostSpec, project: &Project) {
        let (stack, spec, project) = (stack.clone(), spec.clone(), project.clone());
        self.change(stack.key.to_string(), move |known| {
            let mut known = known.unwrap_or_else(|| Deployment::empty(stack.resource.clone()));
            known.begin(&stack, &spec, &project);
            Some(known)
        });
    }

    /// Nothing of a stack is on a host any more.
    pub(crate) fn forget(&self, stack: &str, host: &str) {
        let host = host.to_owned();
        self.change(stack.to_owned(), move |known| {
            let mut known = known?;
            known.hosts.remove(&host);
            Some(known)
        });
    }

    /// Nothing of these components of a stack is on a host any more.
    pub(crate) fn forget_projects(&self, stack: &str, host: &DeployedHost) {
        let components: Vec<ComponentName> = host.components.keys().copied().collect();
        let host = host.spec.name.to_string();
        self.change(stack.to_owned(), move |known| {
            let mut known = known?;
            known.forget(&host, &components);
            Some(known)
        });
    }

    fn change(
        &self,
        stack: String,
        edit: impl Fn(Option<Deployment>) -> Option<Deployment> + Send + 'static,
    ) {
        let change = Change { stack, edit: Box::new(edit) };
        let mut state = self.shared.lock();
        if change.apply(&mut state.deployed) && self.writer.is_some() {
            state.pending.deployed.push(change);
            self.shared.wake();
        }
    }

    /// Since when the differences of a stack are there, by host and component.
    pub(crate) fn first_seen(&self, stack: &str) -> BTreeMap<(String, String), Since> {
        self.shared.lock().first_seen.of_stack(stack)
    }

    /// Keeps since when the differences of a project are there.
    pub(crate) fn set_first_seen(&self, stack: &str, host: &str, component: &str, since: &Since) {
        self.change_first_seen(|all| all.set(stack, host, component, since));
    }

    /// Forgets the first-seen times of hosts that a stack names no longer.
    pub(crate) fn retain_hosts(&self, stack: &str, hosts: &BTreeSet<String>) {
        self.change_first_seen(|all| all.retain_hosts(stack, hosts));
    }

    fn change_first_seen(&self, change: impl FnOnce(&mut FirstSeen) -> bool) {
        let mut state = self.shared.lock();
        if change(&mut state.first_seen) && self.writer.is_some() {
            state.pending.first_seen = true;
            self.shared.wake();
        }
    }

    /// Gives differences the times at which they were first seen.
    pub fn date(&self, stack: &str, host: &str, items: &mut [DriftItem]) {
        let state = self.shared.lock();
        for item in items {
            let first = state.first_seen.of_item(stack, item, host);
            item.first_seen = first.map(|first| first.to_string());
        }
    }

    /// Notification state of a stack.
    pub(crate) fn notifications(&self, stack: &str) -> NotificationState {
        self.shared.lock().notifications.get(stack).cloned().unwrap_or_default()
    }

    /// Keeps the notification state of a stack.
    pub(crate) fn set_notifications(&self, stack: &str, notified: &NotificationState) {
        let mut state = self.shared.lock();
        let before = state.notifications.insert(stack.to_owned(), notified.clone());
        if before.as_ref() != Some(notified) && self.writer.is_some() {
            state.pending.notifications = true;
            self.shared.wake();
        }
    }

    /// A stack is followed no longer: what is deployed of it stays known, the rest is forgotten.
    pub(crate) fn unfollow(&self, stack: &str) {
        self.retain_hosts(stack, &BTreeSet::new());
        let mut state = self.shared.lock();
        state.foreign_notes.remove(stack);
        if state.notifications.remove(stack).is_some() && self.writer.is_some() {
            state.pending.notifications = true;
            self.shared.wake();
        }
    }

    /// What a stack's status keeps for the next operator.
    pub(crate) fn notes(&self, stack: &Stack) -> Value {
        let key = stack.key.to_string();
        let state = self.shared.lock();
        if let Some(foreign) = state.foreign_notes.get(&key) {
            return foreign.clone();
        }
        let hosts = state.deployed.get(&key).map(|known| known.hosts.clone()).unwrap_or_default();
        let notifications = state.notifications.get(&key).cloned().unwrap_or_default();
        notes::write(&Notes { hosts, notifications })
    }

    /// Takes over what a stack's status keeps, where nothing newer is known: what is known already is at least as new,
    /// since the status was made of it.
    pub(crate) fn restore(&self, stack: &Stack, status: &TaskTrackerStackStatus) {
        let key = stack.key.to_string();
        let found = match notes::read(&status.notes) {
            Found::Notes(notes) => notes,
            Found::Nothing => Notes::default(),
            Found::UnknownVersion => {
                tracing::error!(
                    stack = %stack.key,
                    "status.notes: expected version {VERSION}, found {}; they stay as they are, and what is deployed on hosts that the spec names no longer is not known: run the operator that wrote them, or remove them",
                    status.notes["version"]
                );
                self.shared.lock().foreign_notes.insert(key.clone(), status.notes.clone());
                Notes::default()
            }
        };
        let resource = stack.resource.clone();
        self.change(key.clone(), move |known| {
            known.or_else(|| Some(Deployment { resource: resource.clone(), hosts: found.hosts.clone() }))
        });
        self.change_first_seen(|all| all.restore(&key, &status.hosts));
        if !self.shared.lock().notifications.contains_key(&key) {
            self.set_notifications(&key, &found.notifications);
        }
    }
}

#[cfg(test)]
mod tests;
