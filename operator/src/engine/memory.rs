//! When differences were first seen, and what people were told: kept in the operator's own folder, so that it survives a
//! restart.
//!
//! A file for each, replaced as a whole. They are no proof of anything: where one is missing or cannot be read, it begins
//! anew. Where there is no folder, it is kept as long as the operator runs, and in the notes of the stacks' status.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tasktracker_crds::{DriftItem, DriftKind, HostSpec, HostStatus, TaskTrackerStackStatus};

use super::{
    audit,
    deployed::{DeployedHost, Deployment, Deployments},
};
use crate::{observe::Observed, release::Release, report::news::Told, source::Stack};

/// When differences were first seen.
const FIRST_SEEN: &str = "first-seen.json";
/// What people were told of each stack.
const TOLD: &str = "told.json";

/// What makes a difference the same one at the next check: kind, service, path.
pub(super) type ItemKey = (DriftKind, Option<String>, Option<String>);

/// Since when each difference of a host is there.
pub(super) type Since = BTreeMap<ItemKey, Timestamp>;

/// Since when differences are there, by stack and host.
type All = BTreeMap<String, BTreeMap<String, Vec<Entry>>>;

/// One difference in the file.
#[derive(Serialize, Deserialize)]
struct Entry {
    kind: DriftKind,
    service: Option<String>,
    path: Option<String>,
    since: Timestamp,
}

/// The operator's own folder.
#[derive(Debug)]
pub struct Memory {
    folder: Option<PathBuf>,
    _lock: Option<File>,
    deployed: Deployments,
    /// What stands in for the files where there is no folder.
    kept: Mutex<BTreeMap<&'static str, Value>>,
}

/// What a stack's status keeps for the operator.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Notes {
    /// What is deployed where.
    hosts: BTreeMap<String, DeployedHost>,
    /// What people were told last.
    told: Told,
}

pub(super) fn item_key(item: &DriftItem) -> ItemKey {
    (item.kind, item.service.clone(), item.path.clone())
}

impl Memory {
    /// Nothing is kept.
    pub fn none() -> Self {
        Self::of_folder(None, None)
    }

    fn of_folder(folder: Option<PathBuf>, lock: Option<File>) -> Self {
        Self { folder, _lock: lock, deployed: Deployments::default(), kept: Mutex::default() }
    }

    /// What a stack's status keeps for the next operator.
    pub(super) fn notes(&self, stack: &Stack) -> Value {
        let key = stack.key.to_string();
        let hosts = self.deployed(&key).map(|known| known.hosts).unwrap_or_default();
        let notes = Notes { hosts, told: self.told(&key) };
        serde_json::to_value(notes).unwrap_or_default()
    }

    /// Takes up what a stack's status keeps: it takes the place of what is known. Notes of another form are none.
    pub(super) fn restore(&self, stack: &Stack, status: &TaskTrackerStackStatus) {
        let key = stack.key.to_string();
        let notes: Notes = serde_json::from_value(status.notes.clone()).unwrap_or_default();
        let deployment = Deployment { resource: stack.resource.clone(), hosts: notes.hosts };
        self.deployed.restore(self.folder.as_deref(), &key, deployment);
        self.keep_told(&key, Some(&notes.told));
        let since = |host: &HostStatus| {
            let dated = host
                .drift
                .iter()
                .filter_map(|item| Some((item_key(item), item.first_seen.as_ref()?.parse().ok()?)));
            (host.name.clone(), dated.collect::<Since>())
        };
        let hosts: BTreeMap<String, Since> = status.hosts.iter().map(since).collect();
        self.keep(&key, hosts.iter());
    }

    /// Takes a folder for this operator alone, and makes it where it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or another operator has it.
    pub fn take(folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        fs::create_dir_all(folder).with_context(|| format!("--state-dir: making {shown}"))?;
        let lock = File::create(folder.join("lock"))
            .with_context(|| format!("--state-dir: writing into {shown}"))?;
        if lock.try_lock().is_err() {
            bail!(
                "--state-dir: expected a folder of this operator's own, found {shown} in use by another one; give each its own"
            );
        }
        Ok(Self::of_folder(Some(folder.to_owned()), Some(lock)))
    }

    /// A folder that another operator may have: times are read only, what is deployed where is kept by both.
    pub fn share(folder: &Path) -> Self {
        Self::of_folder(Some(folder.to_owned()), None)
    }

    /// Who writes: the same for every run with this folder, another for each that has none.
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
        if let Err(error) = fs::write(&path, &new) {
            tracing::error!(%error, "who writes cannot be kept in {}", path.display());
        }
        new
    }

    /// Keeps what was written to a host.
    pub(super) fn audit(&self, entry: &audit::Entry<'_>) {
        audit::keep(self.folder.as_deref(), entry);
    }

    /// What is deployed of a stack.
    pub fn deployed(&self, stack: &str) -> Option<Deployment> {
        self.deployed.of(self.folder.as_deref(), stack)
    }

    /// Every stack of which something is deployed.
    pub fn stacks(&self) -> Vec<String> {
        self.deployed.stacks(self.folder.as_deref())
    }

    /// A release of a stack is on a host.
    pub(super) fn record(
        &self,
        stack: &Stack,
        spec: &HostSpec,
        release: &Release,
        observed: Option<&Observed>,
    ) {
        self.deployed.record(self.folder.as_deref(), stack, spec, release, observed);
    }

    /// A release was rolled out on a host.
    pub(super) fn rolled_out(&self, stack: &Stack, spec: &HostSpec, release: &Release) {
        self.record(stack, spec, release, None);
        self.deployed.in_force(self.folder.as_deref(), stack, spec.name.as_str());
    }

    /// Nothing of a stack is on a host any more.
    pub(super) fn forget(&self, stack: &str, host: &str) {
        self.deployed.forget(self.folder.as_deref(), stack, host);
    }

    /// What is known of a stack, by host.
    pub(super) fn of(&self, stack: &str) -> BTreeMap<String, Since> {
        let hosts = self.read().remove(stack).unwrap_or_default();
        let since = |entries: Vec<Entry>| {
            entries.into_iter().map(|entry| ((entry.kind, entry.service, entry.path), entry.since)).collect()
        };
        hosts.into_iter().map(|(host, entries)| (host, since(entries))).collect()
    }

    /// Gives differences the times at which they were first seen.
    pub fn date(&self, stack: &str, host: &str, items: &mut [DriftItem]) {
        let known = self.of(stack).remove(host).unwrap_or_default();
        for item in items {
            item.first_seen = known.get(&item_key(item)).map(ToString::to_string);
        }
    }

    /// Keeps what is known of a stack; of a stack that is gone, nothing.
    pub(super) fn keep<'a>(&self, stack: &str, hosts: impl Iterator<Item = (&'a String, &'a Since)>) {
        let mut all = self.read();
        all.remove(stack);
        for (host, since) in hosts.filter(|(_, since)| !since.is_empty()) {
            let entries = since.iter().map(|((kind, service, path), since)| Entry {
                kind: *kind,
                service: service.clone(),
                path: path.clone(),
                since: *since,
            });
            all.entry(stack.to_owned()).or_default().insert(host.clone(), entries.collect());
        }
        self.replace(FIRST_SEEN, &all);
    }

    /// What people were told of a stack last.
    pub(super) fn told(&self, stack: &str) -> Told {
        self.read_file::<BTreeMap<String, Told>>(TOLD).remove(stack).unwrap_or_default()
    }

    /// Keeps what people were told of a stack; of a stack that is gone, nothing.
    pub(super) fn keep_told(&self, stack: &str, told: Option<&Told>) {
        let mut all: BTreeMap<String, Told> = self.read_file(TOLD);
        match told {
            Some(told) => drop(all.insert(stack.to_owned(), told.clone())),
            None => drop(all.remove(stack)),
        }
        self.replace(TOLD, &all);
    }

    fn replace(&self, name: &'static str, all: &impl Serialize) {
        let Some(folder) = &self.folder else {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(name, serde_json::to_value(all).unwrap_or_default());
            return;
        };
        if let Err(error) = replace(folder, name, all) {
            tracing::error!(%error, "{name} cannot be kept in {}", folder.display());
        }
    }

    fn read(&self) -> All {
        self.read_file(FIRST_SEEN)
    }

    fn read_file<T: Default + DeserializeOwned>(&self, name: &str) -> T {
        let Some(folder) = &self.folder else {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let value = kept.get(name).cloned();
            return value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
        };
        let text = fs::read(folder.join(name)).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

fn replace(folder: &Path, name: &str, all: &impl Serialize) -> io::Result<()> {
    let draft = folder.join(format!("{name}.new"));
    fs::write(&draft, serde_json::to_vec_pretty(all)?)?;
    fs::rename(draft, folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_and_a_folder_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::take(folder.path()).unwrap();
        let told = Memory::take(folder.path()).unwrap_err().to_string();
        assert!(told.contains("in use by another one"), "{told}");
        let key = (DriftKind::FileExtra, None, Some("notes".to_owned()));
        let since = BTreeMap::from([(key, Timestamp::UNIX_EPOCH)]);
        memory.keep("default/a", [("h".to_owned(), since.clone())].iter().map(|(host, since)| (host, since)));
        drop(memory);
        let again = Memory::take(folder.path()).unwrap();
        assert_eq!(again.of("default/a"), BTreeMap::from([("h".to_owned(), since)]));
        again.keep("default/a", std::iter::empty());
        assert_eq!(again.of("default/a"), BTreeMap::new());
        fs::write(folder.path().join("first-seen.json"), "rubbish").unwrap();
        assert_eq!(again.of("default/a"), BTreeMap::new());
    }
}
