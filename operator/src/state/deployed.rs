//! What is deployed where, by stack: kept beside what hosts and stack files say. Pure.
//!
//! With it the operator knows of hosts that a spec names no longer, of stacks whose files are gone, and that a ledger
//! was there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tasktracker_crds::{HostSpec, TaskTrackerStack};

use crate::{
    component,
    host::FileFact,
    model::ComponentName,
    observe::Observed,
    project::{self, Project, VolumeRole},
    release::Release,
    source::Stack,
};

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
#[serde(rename_all = "camelCase")]
pub struct DeployedHost {
    /// How it is reached, as the spec last said.
    pub spec: HostSpec,
    /// Projects on it, by component.
    pub components: BTreeMap<ComponentName, Deployed>,
}

/// A project on a host: what is needed to find it, to remove it, and to recognize its release.
///
/// A stored format, in `deployed.json` and in the notes of a status: another shape needs another
/// [`VERSION`](super::VERSION).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// Whether the component was in force on another host since the spec asked for it here: newer data may be there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overtaken: bool,
    /// ID of its release; empty where none was rolled out yet.
    pub release: String,
    /// Hash of the desired state of that release.
    pub desired_hash: String,
    /// SHA-256 of that release's manifest on the host, once it was seen there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_hash: Option<String>,
    /// Name of the Compose project.
    pub name: String,
    /// Folder of the project, from the operator's folder on the host.
    pub folder: String,
    /// Owner, as its labels and its ledger name it.
    pub owner: String,
    /// Environment.
    pub environment: String,
    /// Network that joins the projects of the host.
    pub network: String,
    /// Revision, for the component that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Volumes, by name inside the project.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
}

/// A volume of a project on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name on the host.
    pub name: String,
    /// Whether it holds data of users.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub data: bool,
}

impl Deployed {
    /// The release of a project, with the hash of its manifest where that was observed.
    pub(super) fn of_release(release: &Release, observed: Option<&Observed>) -> Self {
        let manifest = observed.and_then(|observed| observed.files.get(&release.manifest_path()));
        Self {
            release: release.id.clone(),
            desired_hash: release.desired_hash.clone(),
            manifest_hash: manifest.and_then(FileFact::sha256).map(str::to_owned),
            ..Self::of_project(&release.project)
        }
    }

    /// A project of which no release is known.
    fn of_project(project: &Project) -> Self {
        let volume = |(inside, volume): (&String, &project::Volume)| {
            (inside.clone(), Volume { name: volume.name.clone(), data: volume.role == VolumeRole::Data })
        };
        Self {
            overtaken: false,
            release: String::new(),
            desired_hash: String::new(),
            manifest_hash: None,
            name: project.name.clone(),
            folder: project.folder.clone(),
            owner: project.owner.clone(),
            environment: project.environment.clone(),
            network: project.network.clone(),
            revision: project.revision.clone(),
            volumes: project.volumes.iter().map(volume).collect(),
        }
    }

    /// The project without files and services: enough to observe and to remove it.
    pub fn project(&self, component: ComponentName) -> Project {
        let volume = |Volume { name, data }: &Volume| project::Volume {
            name: name.clone(),
            role: if *data { VolumeRole::Data } else { VolumeRole::Cache },
            owner: None,
        };
        Project {
            component,
            name: self.name.clone(),
            folder: self.folder.clone(),
            owner: self.owner.clone(),
            environment: self.environment.clone(),
            revision: self.revision.clone(),
            network: self.network.clone(),
            volumes: self.volumes.iter().map(|(inside, one)| (inside.clone(), volume(one))).collect(),
            ..Project::default()
        }
    }

    /// Volumes: name inside the project, name on the host.
    pub fn volume_names(&self) -> BTreeMap<String, String> {
        self.volumes.iter().map(|(inside, volume)| (inside.clone(), volume.name.clone())).collect()
    }

    /// Name on the host of the first volume with data of users.
    pub fn data_volume(&self) -> Option<&str> {
        self.volumes.values().find(|volume| volume.data).map(|volume| volume.name.as_str())
    }
}

impl DeployedHost {
    /// What would be on a host that nothing is known of yet, as the stack asks for it.
    pub(crate) fn as_asked(stack: &Stack, spec: &HostSpec) -> Self {
        let projects = component::for_host(stack, spec).into_iter();
        let components =
            projects.map(|project| (project.component, Deployed::of_project(&project))).collect();
        Self { spec: spec.clone(), components }
    }

    /// The part of it that a stack asks for no longer; none where it asks for all of it.
    pub(crate) fn left_by(&self, stack: &Stack) -> Option<Self> {
        let is_left =
            |(component, _): &(&ComponentName, &Deployed)| !is_wanted(stack, &self.spec, **component);
        let left = self.components.iter().filter(is_left);
        let components: BTreeMap<_, _> =
            left.map(|(component, deployed)| (*component, deployed.clone())).collect();
        (!components.is_empty()).then(|| Self { spec: self.spec.clone(), components })
    }
}

impl Deployment {
    /// A stack of which nothing is deployed.
    pub(super) fn empty(resource: TaskTrackerStack) -> Self {
        Self { resource, hosts: BTreeMap::new() }
    }

    /// Records what a check or a rollout showed of a project.
    pub(super) fn record(
        &mut self,
        stack: &Stack,
        spec: &HostSpec,
        component: ComponentName,
        mut new: Deployed,
    ) {
        self.resource = stack.resource.clone();
        let old = self.find(spec, component);
        // A component that is not known here is older than what is on the hosts that it left.
        new.overtaken = old.map_or_else(|| self.is_left_anywhere(stack, component), |old| old.overtaken);
        if let Some(old) = old.filter(|old| old.release == new.release && old.manifest_hash.is_some()) {
            // The first one that was observed is what is compared with.
            new.manifest_hash.clone_from(&old.manifest_hash);
        }
        let is_overtaken = new.overtaken;
        self.host(spec).components.insert(component, new);
        if !is_overtaken {
            self.overtake(stack, component);
        }
    }

    /// A project is about to be rolled out for the first time: something of it may be on the host from now on.
    pub(super) fn begin(&mut self, stack: &Stack, spec: &HostSpec, project: &Project) {
        if self.find(spec, project.component).is_none() {
            self.resource = stack.resource.clone();
            let overtaken = self.is_left_anywhere(stack, project.component);
            let deployed = Deployed { overtaken, ..Deployed::of_project(project) };
            self.host(spec).components.insert(project.component, deployed);
        }
    }

    /// A release was rolled out on a host: what is there is the newest from now on.
    pub(super) fn rolled_out(&mut self, stack: &Stack, host: &str, component: ComponentName) {
        let deployed = self.hosts.get_mut(host).and_then(|host| host.components.get_mut(&component));
        let Some(deployed) = deployed.filter(|deployed| deployed.overtaken) else { return };
        deployed.overtaken = false;
        self.overtake(stack, component);
    }

    /// Forgets components of a host, and the host with the last of them.
    pub(super) fn forget(&mut self, host: &str, components: &[ComponentName]) {
        let Some(known) = self.hosts.get_mut(host) else { return };
        known.components.retain(|component, _| !components.contains(component));
        if known.components.is_empty() {
            self.hosts.remove(host);
        }
    }

    /// What is known of a component on a host, under this name of it or another one.
    fn find(&self, spec: &HostSpec, component: ComponentName) -> Option<&Deployed> {
        let mut hosts = self.hosts.values().filter(|host| is_same_place(&host.spec, spec));
        hosts.find_map(|host| host.components.get(&component))
    }

    /// The entry of a host. An entry of the same machine and folder under another name is renamed.
    fn host(&mut self, spec: &HostSpec) -> &mut DeployedHost {
        let mut components = BTreeMap::new();
        self.hosts.retain(|_, host| {
            let is_same = is_same_place(&host.spec, spec);
            if is_same {
                components.append(&mut host.components);
            }
            !is_same
        });
        let host = DeployedHost { spec: spec.clone(), components };
        self.hosts.entry(spec.name.to_string()).insert_entry(host).into_mut()
    }

    fn is_left_anywhere(&self, stack: &Stack, component: ComponentName) -> bool {
        let mut hosts = self.hosts.values().filter(|host| host.components.contains_key(&component));
        hosts.any(|host| !is_wanted(stack, &host.spec, component))
    }

    /// Hosts on which a stack asks for a component no longer are overtaken once it is in force on another one.
    fn overtake(&mut self, stack: &Stack, component: ComponentName) {
        let left = self.hosts.values_mut().filter(|host| !is_wanted(stack, &host.spec, component));
        left.filter_map(|host| host.components.get_mut(&component)).for_each(|one| one.overtaken = true);
    }
}

/// Whether two entries are the same machine and folder, whatever their names.
pub(crate) fn is_same_place(one: &HostSpec, other: &HostSpec) -> bool {
    one.address == other.address && one.port == other.port && one.directory == other.directory
}

/// Whether a stack asks for a component on a host, under this name or another one.
pub fn is_wanted(stack: &Stack, host: &HostSpec, component: ComponentName) -> bool {
    component::hosts(stack, component).any(|named| named.name == host.name || is_same_place(named, host))
}
