//! The thread that writes the state folder: nobody else waits for its disk. Reads and writes files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{DEPLOYED, FIRST_SEEN, NOTIFICATIONS, State, StateError, audit, deployed::Deployment, files};
use crate::{report::notifications::NotificationState, state::first_seen};

/// How often it is checked whether another program replaced a file, and how long after a failure it is written again.
const POLL: Duration = Duration::from_secs(1);

/// The state, and what wakes the thread that writes it.
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// How many files were replaced.
    replaced: AtomicU64,
}

/// A change of what is deployed of a stack. It is carried out in memory at once and on the file later, onto what another
/// program may have written meanwhile.
pub(super) struct Change {
    pub(super) stack: String,
    pub(super) edit: Box<dyn Fn(Option<Deployment>) -> Option<Deployment> + Send>,
}

impl Change {
    /// Carries it out; whether it made a difference.
    pub(super) fn apply(&self, all: &mut BTreeMap<String, Deployment>) -> bool {
        let before = all.get(&self.stack);
        let after = (self.edit)(before.cloned()).filter(|deployment| !deployment.hosts.is_empty());
        if after.as_ref() == before {
            return false;
        }
        match after {
            Some(after) => drop(all.insert(self.stack.clone(), after)),
            None => drop(all.remove(&self.stack)),
        }
        true
    }
}

/// What is not in the folder yet.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) deployed: Vec<Change>,
    pub(super) first_seen: bool,
    pub(super) notifications: bool,
    /// Lines of the audit log, and who waits for each.
    pub(super) audit: Vec<(String, oneshot::Sender<()>)>,
    /// Who waits until everything is written.
    pub(super) flushes: Vec<oneshot::Sender<()>>,
    /// Whether the thread ends once everything is written.
    closing: bool,
}

impl Pending {
    fn has_changes(&self) -> bool {
        !self.deployed.is_empty() || self.first_seen || self.notifications
    }

    /// Whether somebody waits.
    fn is_awaited(&self) -> bool {
        self.closing || !self.audit.is_empty() || !self.flushes.is_empty()
    }
}

/// The content of `deployed.json`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct StoredDeployments {
    pub(super) stacks: BTreeMap<String, Deployment>,
}

/// The content of `notifications.json`.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct StoredStacks {
    pub(super) stacks: BTreeMap<String, NotificationState>,
}

impl Shared {
    pub(super) fn new(state: State) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(state), wake: Condvar::new(), replaced: AtomicU64::new(0) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to write.
    pub(super) fn wake(&self) {
        self.wake.notify_all();
    }

    /// How many files were replaced.
    #[cfg(test)]
    pub(super) fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// What is to be written, once there is something, or it is time to check the folder. After a failure only those
    /// who wait are a reason to try again earlier.
    fn take(&self, has_failed: bool) -> Pending {
        let is_idle =
            |state: &mut State| !state.pending.is_awaited() && (has_failed || !state.pending.has_changes());
        let waited = self.wake.wait_timeout_while(self.lock(), POLL, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let closing = state.pending.closing;
        std::mem::replace(&mut state.pending, Pending { closing, ..Pending::default() })
    }

    fn replace(&self, folder: &Path, name: &str, content: &impl Serialize) -> Result<(), StateError> {
        let _lock = files::lock(folder)?;
        files::replace(folder, name, &files::text(content))?;
        self.replaced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The thread; it ends with this, once everything is written.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread; `stamp` is that of the file of which the state was read.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(super) fn start(
        shared: Arc<Shared>,
        folder: PathBuf,
        stamp: Option<files::Stamp>,
    ) -> std::io::Result<Self> {
        let task = Task { shared: shared.clone(), folder, stamp, logged: String::new() };
        let thread = thread::Builder::new().name("state".to_owned()).spawn(|| task.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().pending.closing = true;
        self.shared.wake();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes the state folder ended in a defect");
        }
    }
}

/// What the thread works with.
struct Task {
    shared: Arc<Shared>,
    folder: PathBuf,
    /// Stamp of the `deployed.json` that was read or written last.
    stamp: Option<files::Stamp>,
    /// The failure that was logged last.
    logged: String,
}

impl Task {
    fn run(mut self) {
        let mut has_failed = false;
        loop {
            let work = self.shared.take(has_failed);
            let closing = work.closing;
            let result = self.write(work);
            has_failed = result.is_err();
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            if !error.is_empty() && error != self.logged {
                tracing::error!("{error}");
            }
            self.logged = error;
            if closing {
                return;
            }
        }
    }

    /// Writes everything; what could not be written is pending again.
    fn write(&mut self, work: Pending) -> Result<(), StateError> {
        let Pending { deployed, first_seen, notifications, audit, flushes, closing: _ } = work;
        let mut logged = Ok(());
        for (line, written) in audit {
            logged = logged.and(audit::append(&self.folder, &line));
            // Whoever waits may have gone.
            let _ = written.send(());
        }
        let results = [
            logged,
            self.write_deployed(deployed),
            self.write_first_seen(first_seen),
            self.write_notifications(notifications),
        ];
        for flushed in flushes {
            let _ = flushed.send(());
        }
        results.into_iter().collect()
    }

    /// Carries changes out on what is in the file by now, and takes over what another program wrote there.
    fn write_deployed(&mut self, mut changes: Vec<Change>) -> Result<(), StateError> {
        let path = self.folder.join(DEPLOYED);
        if changes.is_empty() && files::stamp(&path) == self.stamp {
            return Ok(());
        }
        let written = self.merge(&changes);
        let mut state = self.shared.lock();
        match written {
            Ok(mut all) => {
                self.stamp = files::stamp(&path);
                for change in &state.pending.deployed {
                    change.apply(&mut all);
                }
                state.deployed = all;
                Ok(())
            }
            Err(error) => {
                changes.append(&mut state.pending.deployed);
                state.pending.deployed = changes;
                Err(error)
            }
        }
    }

    /// The content of the file with these changes. Where there is no file, or a damaged one, it is made of what is in
    /// memory.
    fn merge(&self, changes: &[Change]) -> Result<BTreeMap<String, Deployment>, StateError> {
        let _lock = files::lock(&self.folder)?;
        let read = files::read::<StoredDeployments>(&self.folder, DEPLOYED)?;
        let mut is_changed = read.is_none();
        let mut all = match read {
            Some(stored) => stored.stacks,
            None => self.shared.lock().deployed.clone(),
        };
        for change in changes {
            is_changed |= change.apply(&mut all);
        }
        let content = StoredDeployments { stacks: all };
        if is_changed {
            files::replace(&self.folder, DEPLOYED, &files::text(&content))?;
            self.shared.replaced.fetch_add(1, Ordering::Relaxed);
        }
        Ok(content.stacks)
    }

    fn write_first_seen(&self, is_changed: bool) -> Result<(), StateError> {
        if !is_changed {
            return Ok(());
        }
        let all = self.shared.lock().first_seen.clone();
        let result = self.shared.replace(&self.folder, FIRST_SEEN, &first_seen::Stored::from(all));
        self.shared.lock().pending.first_seen |= result.is_err();
        result
    }

    fn write_notifications(&self, is_changed: bool) -> Result<(), StateError> {
        if !is_changed {
            return Ok(());
        }
        let stacks = self.shared.lock().notifications.clone();
        let result = self.shared.replace(&self.folder, NOTIFICATIONS, &StoredStacks { stacks });
        self.shared.lock().pending.notifications |= result.is_err();
        result
    }
}
