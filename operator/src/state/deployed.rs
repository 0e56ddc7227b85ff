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
    /// Whether the stack was in force on another host since the spec named this one: newer data may be there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overtaken: bool,
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
    /// ID of its release.
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
        let manifest = observed.and_then(|observed| observed.files.get(&release.stored("manifest.json")));
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
        Self { spec: spec.clone(), overtaken: false, components }
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
        // A host that has another name by now is the same one. One that is not known, or not any more, is behind those
        // that the stack was taken from.
        let known = self.hosts.values().find(|host| is_same_place(&host.spec, spec));
        let is_left = |host: &DeployedHost| !is_named(stack, &host.spec);
        let overtaken = known.map_or_else(|| self.hosts.values().any(is_left), |host| host.overtaken);
        let old = self.hosts.get(spec.name.as_str()).and_then(|host| host.components.get(&component));
        if let Some(old) = old.filter(|old| old.release == new.release && old.manifest_hash.is_some()) {
            // The first one that was observed is what is compared with.
            new.manifest_hash.clone_from(&old.manifest_hash);
        }
        self.hosts.retain(|name, host| name == spec.name.as_str() || !is_same_place(&host.spec, spec));
        let empty = || DeployedHost { spec: spec.clone(), overtaken, components: BTreeMap::new() };
        let host = self.hosts.entry(spec.name.to_string()).or_insert_with(empty);
        host.spec = spec.clone();
        host.components.insert(component, new);
        if !host.overtaken {
            self.overtake(stack);
        }
    }

    /// A release was rolled out on a host: what is there is the newest from now on.
    pub(super) fn rolled_out(&mut self, stack: &Stack, host: &str) {
        let Some(host) = self.hosts.get_mut(host).filter(|host| host.overtaken) else { return };
        host.overtaken = false;
        self.overtake(stack);
    }

    /// Hosts that the stack names no longer are overtaken once it is in force on another one.
    fn overtake(&mut self, stack: &Stack) {
        self.hosts
            .values_mut()
            .filter(|host| !is_named(stack, &host.spec))
            .for_each(|host| host.overtaken = true);
    }
}

/// Whether two entries are the same machine and folder, whatever their names.
pub(crate) fn is_same_place(one: &HostSpec, other: &HostSpec) -> bool {
    one.address == other.address && one.port == other.port && one.directory == other.directory
}

/// Whether a stack asks for something on a host, under this name or another one.
pub fn is_named(stack: &Stack, host: &HostSpec) -> bool {
    component::all_hosts(stack).any(|named| named.name == host.name || is_same_place(named, host))
}
