//! One Compose project as data: what a component renders and the engine interprets. Pure.
//!
//! Nothing here knows any component. What a service needs beyond its containers (how it is upgraded, reloaded, proved) is
//! a field of it.

pub mod compose;
mod hash;
mod service;
pub(crate) mod stored;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tasktracker_crds::HookSpec;

pub use service::{
    ApiCollection, ApiObject, BlueGreen, Endpoint, Expect, HttpProbe, Listed, ListedObject, LoadedProbe,
    PublishedProbe, Readiness, Reload, Service, Strategy, Validation,
};

use crate::{
    model::{ComponentName, sha256},
    secret::{References, Seals, SecretSource},
};

/// Labels that everything of ours carries.
pub mod labels {
    /// Who owns it.
    pub const OWNER: &str = "tasktracker.dev/owner";
    /// Namespace and name of the stack.
    pub const STACK: &str = "tasktracker.dev/stack";
    /// The environment.
    pub const ENVIRONMENT: &str = "tasktracker.dev/environment";
    /// The component.
    pub const COMPONENT: &str = "tasktracker.dev/component";
    /// The image as the spec names it; containers run it by its ID.
    pub const IMAGE: &str = "tasktracker.dev/image";
    /// Hash of the service's definition and of the files it mounts.
    pub const SERVICE_HASH: &str = "tasktracker.dev/service-hash";
}

/// Folder below a project's own that holds the secrets of its services, a folder each.
pub const SECRETS_FOLDER: &str = "secrets";
/// Folder below a project's own that holds the configuration of its services, a folder each.
pub const FILES_FOLDER: &str = "files";
/// Permission bits of a file that everybody may read.
pub const FILE_MODE: u32 = 0o644;
/// Permission bits of a secret file that its service reads as any user; the folder above keeps others out.
pub const SECRET_MODE: u32 = 0o444;
/// Digits of a generation that people are shown.
const SHORT: usize = 12;

/// One Compose project of a component on a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Project {
    /// Its component.
    pub component: ComponentName,
    /// Name of the Compose project.
    pub name: String,
    /// The project's folder, from the operator's folder on the host.
    pub folder: String,
    /// Who owns it.
    pub owner: String,
    /// The environment.
    pub environment: String,
    /// Revision that the spec names, for the component that has one.
    pub revision: Option<String>,
    /// Digest that is the same on every host which is asked for the same: hosts compare it, never their own hashes.
    pub generation: String,
    /// The network that joins the host's projects.
    pub network: String,
    /// Volumes, by name inside the project.
    pub volumes: BTreeMap<String, Volume>,
    /// Configuration files, by path from the project's folder.
    pub files: BTreeMap<String, File>,
    /// Secrets whose values services find in files, by path of the file from the project's folder.
    pub secrets: BTreeMap<String, SecretFile>,
    /// Services, by name.
    pub services: BTreeMap<String, Service>,
    /// Objects behind the API of a service, put in place once it serves.
    pub api_objects: Vec<ApiObject>,
    /// The same, where the service gives them names.
    pub api_collections: Vec<ApiCollection>,
    /// Certificate that a service shows to users.
    pub certificate: Option<CertificateProbe>,
    /// File whose presence takes the host out of service, by its path from the project's folder. It is no part of a release.
    pub drain_file: Option<String>,
    /// Field of the spec by which users' data is kept somewhere; another one there leaves the data behind.
    pub data_store: Option<String>,
    /// Where the operator's own metrics of the stack are sent; no part of a release.
    pub metrics_store: Option<MetricsStore>,
    /// What helps services that are OOM-killed whenever they start, by name; no part of a release.
    pub out_of_memory: BTreeMap<String, OutOfMemory>,
    /// Limits of memory, in bytes, that services have on a host instead of their own, by name; no part of a release.
    pub raised_memory: BTreeMap<String, u64>,
    /// Commands run around a rollout.
    pub hooks: Option<Hooks>,
    /// What it takes over when it is rolled out first; no part of what it is from then on.
    pub adopt: Option<Adoption>,
}

/// A configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
}

impl File {
    /// A file that everybody may read.
    pub fn new(content: impl Into<String>) -> Self {
        Self { content: content.into(), mode: FILE_MODE }
    }
}

/// A secret file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// Where its value comes from.
    pub reference: SecretSource,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container and on the host, where the service insists on one.
    pub owner: Option<Owner>,
}

impl SecretFile {
    /// A secret that a service reads as any user.
    pub fn new(reference: impl Into<SecretSource>) -> Self {
        Self { reference: reference.into(), mode: SECRET_MODE, owner: None }
    }
}

/// Numeric owner of a file or volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name on the host.
    pub name: String,
    /// What it holds.
    pub role: VolumeRole,
    /// Owner of its root, where the image does not say.
    pub owner: Option<Owner>,
}

/// What a volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeRole {
    /// Data of users: never replaced by emptiness.
    Data,
    /// What its service makes again.
    Cache,
}

/// A certificate that a service shows to users.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateProbe {
    /// The service that shows it.
    pub service: String,
    /// The name that it is for: of a host, or its address.
    pub name: String,
    /// Port of the host.
    pub port: u16,
    /// Secret files with the certificate chain and its key, where it comes from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<CertificatePair>,
}

/// Secret files with a certificate chain and its key, by path from the project's folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CertificatePair {
    /// The chain.
    pub chain: String,
    /// The key.
    pub key: String,
}

/// A service that takes samples by Prometheus' remote write protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsStore {
    /// The service.
    pub service: String,
    /// Where it takes them.
    pub endpoint: Endpoint,
    /// User, and secret file with the password, by its path from the project's folder.
    pub credentials: (String, String),
}

/// What helps a service that is OOM-killed whenever it starts: first more memory, then less to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Share of the host's memory, in percent, up to which its limit is raised.
    pub max_memory_percent: u32,
    /// What it reads when it starts, where that may be moved aside.
    pub read_at_start: Option<ReadAtStart>,
}

/// What a service reads when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadAtStart {
    /// Name of the volume, inside the project.
    pub volume: String,
    /// Folders in it.
    pub folders: Vec<String>,
}

/// Commands run around a rollout, in a container like those of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Hooks {
    /// The service whose image, environment, secrets and data they have.
    pub service: String,
    /// Field of the spec that has them.
    pub field: &'static str,
    /// Before anything is changed.
    pub pre_rollout: Option<HookSpec>,
    /// Once the new release serves.
    pub post_rollout: Option<HookSpec>,
}

/// A Compose project made by hand that is taken over once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Field of the spec that asks for it.
    pub field: &'static str,
    /// Name of that Compose project.
    pub project: String,
    /// Names of our volumes, and of its volumes that they are to be.
    pub volumes: BTreeMap<String, String>,
    /// The service whose containers hold data.
    pub data_service: String,
    /// Environment variable by which such a container is told the file that holds its data.
    pub data_variable: &'static str,
    /// That file where nothing says otherwise.
    pub data_file: &'static str,
}

impl Project {
    /// What people know this state of the project by: its revision, or its generation where it has none.
    pub fn version(&self) -> &str {
        self.revision.as_deref().unwrap_or_else(|| self.generation.get(..SHORT).unwrap_or(&self.generation))
    }

    /// Hash of everything that a rollout carries out; of secrets, where they come from, and the keyed hashes of their
    /// values where there are any.
    pub fn hash(&self, seals: &Seals) -> String {
        hash::v1(self, seals)
    }

    /// Where the secret files come from, by path from the project's folder.
    pub fn references(&self) -> References {
        self.secrets.iter().map(|(path, file)| (path.clone(), file.reference.clone())).collect()
    }

    /// The same project with volumes under the names that they have on a host, but for those that are adopted.
    #[must_use]
    pub fn with_volumes(mut self, known: &BTreeMap<String, String>) -> Self {
        for (inside, volume) in &mut self.volumes {
            let is_adopted = self.adopt.as_ref().is_some_and(|adopt| adopt.volumes.contains_key(inside));
            if let Some(known) = known.get(inside).filter(|_| !is_adopted) {
                volume.name.clone_from(known);
            }
        }
        self
    }

    /// What a release keeps of it: what happens around a rollout, and beside one, is no part of that.
    #[must_use]
    pub fn as_stored(self) -> Self {
        Self {
            adopt: None,
            hooks: None,
            metrics_store: None,
            out_of_memory: BTreeMap::new(),
            raised_memory: BTreeMap::new(),
            ..self
        }
    }

    /// Whether the operator made a volume of this name: one that was adopted has another.
    pub fn makes_volume(&self, name: &str) -> bool {
        self.volumes.keys().any(|inside| name == format!("{}-{inside}", self.name))
    }

    /// Volumes with one role: name inside the project, name on the host.
    pub fn volumes_of(&self, role: VolumeRole) -> impl Iterator<Item = (&String, &String)> {
        let of_role = self.volumes.iter().filter(move |(_, volume)| volume.role == role);
        of_role.map(|(inside, volume)| (inside, &volume.name))
    }

    /// Ports of the host that its services are published on, with the service's name.
    pub fn published_ports(&self) -> impl Iterator<Item = (&str, &compose::PublishedPort)> {
        let services = self.services.iter();
        services
            .flat_map(|(name, service)| service.compose.ports.iter().map(move |port| (name.as_str(), port)))
    }

    /// Names the image of a service by its digest, beside the tag.
    pub fn pin(&mut self, service: &str, digest: &str) {
        if let Some(Service { compose, .. }) = self.services.get_mut(service) {
            compose.image = format!("{}@{digest}", compose.image);
            compose.labels.insert(labels::IMAGE.to_owned(), compose.image.clone());
            // A tag that moved is something else to ask for, on every host alike.
            self.generation = sha256(format!("{} {service} {digest}", self.generation).as_bytes());
        }
    }

    /// The images that the project needs, by service.
    pub fn images(&self) -> BTreeMap<&str, &str> {
        self.services.iter().map(|(name, service)| (name.as_str(), service.compose.image.as_str())).collect()
    }

    /// Services that a proxy leads traffic to, by name.
    pub fn blue_green(&self) -> impl Iterator<Item = (&String, &BlueGreen)> {
        self.services.iter().filter_map(|(name, service)| match &service.strategy {
            Strategy::BlueGreen(blue_green) => Some((name, blue_green)),
            Strategy::Recreate | Strategy::Serial { .. } => None,
        })
    }

    /// The service that leads traffic to the others.
    pub fn proxy(&self) -> Option<&str> {
        self.blue_green().next().map(|(_, blue_green)| blue_green.proxy.as_str())
    }

    /// Whether a file tells by its name which containers of a service have the traffic.
    pub fn is_upstream(&self, path: &str) -> bool {
        self.blue_green().any(|(_, blue_green)| is_below(path, &blue_green.upstreams))
    }

    /// Whether a service takes up changed files while it goes on serving.
    pub fn is_reloaded(&self, service: &str) -> bool {
        self.services.get(service).is_some_and(|service| service.reload != Reload::Restart)
    }

    /// User and secret file of everything that services are asked with.
    pub fn credentials(&self) -> impl Iterator<Item = &(String, String)> {
        let of_services = self.services.values().flat_map(|service| {
            let gate = if let Strategy::Serial { gate } = &service.strategy { Some(gate) } else { None };
            let ready = if let Readiness::Http(ready) = &service.readiness { Some(ready) } else { None };
            let loaded = service.loaded.iter().map(|loaded| &loaded.probe);
            gate.into_iter().chain(ready).chain(loaded).filter_map(|probe| probe.credentials.as_ref())
        });
        let objects = self.api_objects.iter().flat_map(|object| {
            let read = object.probe.as_ref().and_then(|probe| probe.credentials.as_ref());
            object.credentials.as_ref().into_iter().chain(read)
        });
        let collections = self.api_collections.iter().filter_map(|all| all.credentials.as_ref());
        of_services.chain(objects).chain(collections)
    }

    /// Whether a service must never be down on two hosts at once.
    pub fn is_gated(&self, service: &str) -> bool {
        let service = self.services.get(service);
        service.is_some_and(|service| matches!(service.strategy, Strategy::Serial { .. }))
    }

    /// Whether any service of it must never be down on two hosts at once.
    pub fn is_serial(&self) -> bool {
        self.services.keys().any(|service| self.is_gated(service))
    }
}

#[cfg(test)]
impl Project {
    /// A project of a few services and nothing else.
    pub(crate) fn for_tests<const N: usize>(name: &str, services: [(&str, compose::Service); N]) -> Self {
        Self {
            name: name.to_owned(),
            folder: "test/test".to_owned(),
            owner: "o".to_owned(),
            environment: "test".to_owned(),
            revision: Some("a".to_owned()),
            network: "tt-test".to_owned(),
            services: services.map(|(name, service)| (name.to_owned(), Service::new(service))).into(),
            ..Self::default()
        }
    }
}

/// Whether a path is below a folder.
pub fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The service that a file is of: those below `files/SERVICE/` and `secrets/SERVICE/`.
pub fn service_of(path: &str) -> Option<&str> {
    let below = |folder| path.strip_prefix(folder)?.strip_prefix('/')?.split('/').next();
    below(FILES_FOLDER).or_else(|| below(SECRETS_FOLDER))
}
