//! What is deployed where, by stack: kept in the operator's own folder, beside what hosts and files tell.
//!
//! One file, `deployed.json`, replaced as a whole under a lock: `run` and a person's commands may both write it. With it
//! the operator knows of hosts that a spec names no longer, of stacks whose files are gone, and that a ledger was there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tasktracker_crds::{HostSpec, TaskTrackerStack};

use crate::{
    desired::{self, Project},
    host::FileFact,
    observe::Observed,
    release::Release,
    source::Stack,
};

/// Name of the file.
const FILE: &str = "deployed.json";

/// What is known of one stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// The resource as it was last followed.
    pub resource: TaskTrackerStack,
    /// Hosts on which something of it is, by name.
    pub hosts: BTreeMap<String, DeployedHost>,
}

/// One host on which something of a stack is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeployedHost {
    /// How it is reached, as the spec last said.
    pub spec: HostSpec,
    /// Whether the stack was in force on another host since the spec named this one: newer data may be there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overtaken: bool,
    /// What is there, by component.
    pub components: BTreeMap<String, Deployed>,
}

impl DeployedHost {
    /// What would be on a host that nothing is known of yet, as the stack asks for it.
    pub(super) fn as_asked(stack: &Stack, spec: &HostSpec) -> Self {
        let projects = desired::for_host(stack, spec).into_iter();
        let deployed = |project: Project| Deployed {
            release: String::new(),
            desired_hash: String::new(),
            manifest: None,
            project: without_content(project),
        };
        let components = projects.map(|project| (project.component.clone(), deployed(project))).collect();
        Self { spec: spec.clone(), overtaken: false, components }
    }
}

/// A project without its files and services.
fn without_content(project: Project) -> Project {
    Project { files: BTreeMap::new(), secrets: BTreeMap::new(), services: BTreeMap::new(), ..project }
}

impl Deployment {
    /// Hosts that the stack names no longer are overtaken once it is in force on another one.
    fn overtake(&mut self, stack: &Stack) {
        self.hosts
            .values_mut()
            .filter(|host| !is_named(stack, &host.spec))
            .for_each(|host| host.overtaken = true);
    }

    /// Whether every host that the stack names no longer is known to be so.
    fn is_settled(&self, stack: &Stack) -> bool {
        let mut in_force = self.hosts.values().filter(|host| is_named(stack, &host.spec) && !host.overtaken);
        let mut left = self.hosts.values().filter(|host| !is_named(stack, &host.spec));
        in_force.next().is_none() || left.all(|host| host.overtaken)
    }
}

/// Whether two entries are the same machine and folder, whatever their names.
pub(super) fn is_same_place(one: &HostSpec, other: &HostSpec) -> bool {
    one.address == other.address && one.port == other.port && one.directory == other.directory
}

/// Whether a stack asks for something on a host, under this name or another one.
pub fn is_named(stack: &Stack, host: &HostSpec) -> bool {
    stack.app_hosts().any(|named| named.name == host.name || is_same_place(named, host))
}

/// A project that is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// ID of its release.
    pub release: String,
    /// Hash of the desired state of that release.
    pub desired_hash: String,
    /// SHA-256 of that release's manifest on the host, once it was seen there.
    pub manifest: Option<String>,
    /// The project, without its files and services.
    pub project: Project,
}

impl Deployed {
    fn new(release: &Release, observed: Option<&Observed>) -> Self {
        let manifest = observed.and_then(|observed| observed.files.get(&release.stored("manifest.json")));
        let project = without_content(release.project.clone());
        let manifest = manifest.and_then(FileFact::sha256).map(str::to_owned);
        Self { release: release.id.clone(), desired_hash: release.desired_hash.clone(), manifest, project }
    }
}

/// Every stack that is known.
type All = BTreeMap<String, Deployment>;

/// The file, and what was last read from it.
#[derive(Debug, Default)]
pub(super) struct Deployments {
    cached: Mutex<Cached>,
}

/// What was last read, and from which file: another one may have been put in its place since.
#[derive(Debug, Default)]
struct Cached {
    all: All,
    stamp: Option<Stamp>,
}

impl Deployments {
    /// What is known of a stack.
    pub(super) fn of(&self, folder: Option<&Path>, stack: &str) -> Option<Deployment> {
        self.cached(folder).all.get(stack).cloned()
    }

    /// Every stack that is known.
    pub(super) fn stacks(&self, folder: Option<&Path>) -> Vec<String> {
        self.cached(folder).all.keys().cloned().collect()
    }

    fn cached(&self, folder: Option<&Path>) -> MutexGuard<'_, Cached> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folder {
            let stamp = stamp(folder);
            if cached.stamp != stamp {
                match read(folder) {
                    Ok(all) => *cached = Cached { all, stamp },
                    Err(error) => tracing::error!(%error, "{FILE} in the state folder cannot be read"),
                }
            }
        }
        cached
    }

    /// Keeps what a look or an apply showed, where that is news.
    pub(super) fn record(
        &self,
        folder: Option<&Path>,
        stack: &Stack,
        spec: &HostSpec,
        release: &Release,
        observed: Option<&Observed>,
    ) {
        let key = stack.key.to_string();
        let component = &release.project.component;
        let mut new = Deployed::new(release, observed);
        {
            let cached = self.cached(folder);
            let known = cached.all.get(&key);
            let host = known.and_then(|known| known.hosts.get(spec.name.as_str()));
            let old = host.and_then(|host| host.components.get(component));
            if let Some(old) = old.filter(|old| old.release == new.release && old.manifest.is_some()) {
                // The first one that was seen is what is compared with.
                new.manifest.clone_from(&old.manifest);
            }
            let same_spec = host.is_some_and(|host| host.spec == *spec);
            let is_settled =
                known.is_some_and(|known| known.resource == stack.resource && known.is_settled(stack));
            if same_spec && old == Some(&new) && is_settled {
                return;
            }
        }
        self.change(folder, |all| {
            let empty = || Deployment { resource: stack.resource.clone(), hosts: BTreeMap::new() };
            let deployment = all.entry(key).or_insert_with(empty);
            deployment.resource = stack.resource.clone();
            // A host that has another name by now is the same one. One that is not known, or not any more, is behind
            // those that the stack was taken from.
            let is_left = |host: &DeployedHost| !is_named(stack, &host.spec);
            let known = deployment.hosts.values().find(|host| is_same_place(&host.spec, spec));
            let overtaken =
                known.map_or_else(|| deployment.hosts.values().any(is_left), |host| host.overtaken);
            deployment
                .hosts
                .retain(|name, host| name == spec.name.as_str() || !is_same_place(&host.spec, spec));
            let empty = || DeployedHost { spec: spec.clone(), overtaken, components: BTreeMap::new() };
            let host = deployment.hosts.entry(spec.name.to_string()).or_insert_with(empty);
            host.spec = spec.clone();
            host.components.insert(component.clone(), new);
            if !host.overtaken {
                deployment.overtake(stack);
            }
        });
    }

    /// A release was rolled out on a host: what is there is what counts from now on.
    pub(super) fn in_force(&self, folder: Option<&Path>, stack: &Stack, host: &str) {
        let key = stack.key.to_string();
        let known = self.of(folder, &key).and_then(|mut known| known.hosts.remove(host));
        if !known.is_some_and(|known| known.overtaken) {
            return;
        }
        self.change(folder, |all| {
            let Some(deployment) = all.get_mut(&key) else { return };
            if let Some(host) = deployment.hosts.get_mut(host) {
                host.overtaken = false;
                deployment.overtake(stack);
            }
        });
    }

    /// Nothing of a stack is on a host any more.
    pub(super) fn forget(&self, folder: Option<&Path>, stack: &str, host: &str) {
        self.change(folder, |all| {
            if let Some(deployment) = all.get_mut(stack) {
                deployment.hosts.remove(host);
            }
            all.retain(|_, deployment| !deployment.hosts.is_empty());
        });
    }

    /// Puts what is known of a stack in its place.
    pub(super) fn restore(&self, folder: Option<&Path>, stack: &str, deployment: Deployment) {
        self.change(folder, |all| drop(all.insert(stack.to_owned(), deployment)));
    }

    fn change(&self, folder: Option<&Path>, change: impl FnOnce(&mut All)) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match folder {
            None => {
                change(&mut cached.all);
                return;
            }
            Some(folder) => replace(folder, change),
        };
        match result {
            Ok(read) => *cached = read,
            Err(error) => tracing::error!(%error, "what is deployed where cannot be kept"),
        }
    }
}

/// What the file says; nothing where it is missing, or is no such file.
fn read(folder: &Path) -> io::Result<All> {
    let text = match fs::read(folder.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    if text.is_empty() {
        return Ok(All::new());
    }
    Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::error!(%error, "{FILE} in the state folder is damaged: it begins anew from what hosts tell");
        All::new()
    }))
}

/// What tells one file from the one that is put in its place: inode, size, and when it was written.
type Stamp = (u64, u64, i64, i64);

fn stamp(folder: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(folder.join(FILE)).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

fn replace(folder: &Path, change: impl FnOnce(&mut All)) -> io::Result<Cached> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("deployed.lock"))?;
    lock.lock()?;
    let mut all = read(folder)?;
    change(&mut all);
    let draft = folder.join("deployed.json.new");
    let mut file = File::create(&draft)?;
    file.write_all(&serde_json::to_vec_pretty(&all)?)?;
    file.sync_all()?;
    fs::rename(draft, folder.join(FILE))?;
    Ok(Cached { all, stamp: stamp(folder) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Prepared;

    fn stack(revision: &str) -> Stack {
        let text = include_str!("../../../examples/staging.yaml").replace("3f2c1ab", revision);
        Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "staging.yaml".into())
    }

    fn release(stack: &Stack) -> Release {
        let project = crate::desired::app_project(stack, stack.spec.app.as_ref().unwrap());
        Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release
    }

    fn seen(release: &Release, sha256: &str) -> Observed {
        let fact =
            FileFact::File { mode: 0o644, uid: 1500, gid: 1500, size: 1, sha256: Some(sha256.to_owned()) };
        Observed { files: [(release.stored("manifest.json"), fact)].into(), ..Observed::default() }
    }

    #[test]
    fn what_is_deployed_is_known_to_the_next_one_and_the_first_manifest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let at = Some(folder.path());
        let stack = stack("one");
        let (spec, release) = (&stack.spec.hosts[0], release(&stack));
        let first = Deployments::default();
        first.record(at, &stack, spec, &release, None);
        first.record(at, &stack, spec, &release, Some(&seen(&release, "aa")));
        first.record(at, &stack, spec, &release, Some(&seen(&release, "bb")));
        let key = stack.key.to_string();
        let known = Deployments::default().of(at, &key).unwrap();
        assert_eq!(known.resource, stack.resource);
        let deployed = &known.hosts[spec.name.as_str()].components["app"];
        assert_eq!((&deployed.release, deployed.manifest.as_deref()), (&release.id, Some("aa")));
        assert!(deployed.project.services.is_empty() && !deployed.project.volumes.is_empty());
        first.forget(at, &key, spec.name.as_str());
        assert_eq!((first.of(at, &key), Deployments::default().stacks(at)), (None, Vec::new()));
    }

    #[test]
    fn a_host_that_is_named_again_is_behind_the_one_that_took_its_place_until_a_rollout() {
        let folder = tempfile::tempdir().unwrap();
        let at = Some(folder.path());
        let named = |name: &str, address: &str| {
            let stack = stack("one");
            let mut resource = stack.resource.clone();
            resource.spec.hosts.truncate(1);
            resource.spec.hosts[0].name = name.parse().unwrap();
            resource.spec.hosts[0].address = address.parse().unwrap();
            Stack::new(resource, "staging.yaml".into())
        };
        let (one, other) = (named("one", "10.0.0.1"), named("other", "10.0.0.2"));
        let deployments = Deployments::default();
        let seen = |stack: &Stack| deployments.record(at, stack, &stack.spec.hosts[0], &release(stack), None);
        let overtaken =
            |host: &str| Deployments::default().of(at, &one.key.to_string()).unwrap().hosts[host].overtaken;
        seen(&one);
        seen(&other);
        deployments.in_force(at, &other, "other");
        assert_eq!((overtaken("one"), overtaken("other")), (true, false));
        seen(&one);
        assert_eq!((overtaken("one"), overtaken("other")), (true, false), "a look is no rollout");
        deployments.in_force(at, &one, "one");
        assert_eq!((overtaken("one"), overtaken("other")), (false, true));
        seen(&one);
        assert_eq!((overtaken("one"), overtaken("other")), (false, true));
        // Under another name it is the same place, and what was forgotten is no newer than what was not.
        deployments.in_force(at, &other, "other");
        seen(&named("uno", "10.0.0.1"));
        assert!(overtaken("uno") && !overtaken("other"));
        deployments.forget(at, &one.key.to_string(), "uno");
        seen(&one);
        assert_eq!((overtaken("one"), overtaken("other")), (true, false));
    }

    #[test]
    fn a_host_with_another_name_is_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let at = Some(folder.path());
        let one = stack("one");
        let mut resource = one.resource.clone();
        resource.spec.hosts[0].name = "renamed".parse().unwrap();
        let renamed = Stack::new(resource, "staging.yaml".into());
        let deployments = Deployments::default();
        deployments.record(at, &one, &one.spec.hosts[0], &release(&one), None);
        assert!(is_named(&renamed, &one.spec.hosts[0]), "it would be taken for one that is left");
        deployments.record(at, &renamed, &renamed.spec.hosts[0], &release(&renamed), None);
        let known = deployments.of(at, &one.key.to_string()).unwrap().hosts;
        let first: Vec<&String> = known.keys().collect();
        assert!(first == ["renamed"] && !known["renamed"].overtaken, "{first:?}");
        let mut elsewhere = one.spec.hosts[0].clone();
        elsewhere.directory = "/opt/another".parse().unwrap();
        elsewhere.name = "another".parse().unwrap();
        assert!(!is_named(&renamed, &elsewhere));
    }

    #[test]
    fn what_another_program_writes_is_known_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = Some(folder.path());
        let stack = stack("one");
        let spec = &stack.spec.hosts[0];
        let (one, other) = (Deployments::default(), Deployments::default());
        one.record(at, &stack, spec, &release(&stack), None);
        assert_eq!(other.stacks(at), [stack.key.to_string()]);
        other.forget(at, &stack.key.to_string(), spec.name.as_str());
        assert_eq!(one.stacks(at), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_news_is_not_written_and_rubbish_is_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = Some(folder.path());
        let stack = stack("one");
        let (spec, release) = (&stack.spec.hosts[0], release(&stack));
        let deployments = Deployments::default();
        deployments.record(at, &stack, spec, &release, None);
        let before = stamp(folder.path());
        deployments.record(at, &stack, spec, &release, None);
        assert_eq!(stamp(folder.path()), before);
        fs::write(folder.path().join(FILE), "rubbish").unwrap();
        assert_eq!(Deployments::default().stacks(at), Vec::<String>::new());
        deployments.record(at, &stack, spec, &release, None);
        assert_eq!(Deployments::default().stacks(at), [stack.key.to_string()]);
    }
}
