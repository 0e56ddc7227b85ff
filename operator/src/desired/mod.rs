//! What the spec asks for, host by host. Pure: no clock, no network, no randomness.

pub(crate) mod app;
mod caddyfile;
pub mod compose;
pub(crate) mod edge;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tasktracker_crds::{AdoptSpec, HostSpec, SecretKeySpec};

pub use app::app_project;
use compose::{PublishedPort, Service};

use crate::{secret::Seals, source::Stack};

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

/// One Compose project as the spec asks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// Component: app, agents, monitoring or logging.
    pub component: String,
    /// Name of the Compose project.
    pub name: String,
    /// The project's folder, from the operator's folder on the host.
    pub folder: String,
    /// Who owns it.
    pub owner: String,
    /// The environment.
    pub environment: String,
    /// Revision of the app.
    pub revision: String,
    /// The network that joins the host's projects.
    pub network: String,
    /// Volumes: name inside the project, name on the host.
    pub volumes: BTreeMap<String, String>,
    /// Configuration files, by path from the project's folder.
    pub files: BTreeMap<String, String>,
    /// Secrets whose values services find in files, by path of the file from the project's folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretKeySpec>,
    /// Services, by name.
    pub services: BTreeMap<String, Service>,
    /// Services whose new containers come up beside the old ones, and take over when they serve: the edge leads traffic
    /// to those that the one file in [`UPSTREAMS`] names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rolling: BTreeSet<String>,
    /// Whom users find over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// What it takes over when it is rolled out first; no part of what it is from then on.
    #[serde(skip)]
    pub adopt: Option<AdoptSpec>,
}

/// Whom users find over TLS, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tls {
    /// The name that the certificate is for: of a host, or its address.
    pub name: String,
    /// Port of the host.
    pub port: u16,
}

impl Project {
    /// Hash of everything that a rollout would carry out; of secrets, where they come from, and the keyed hashes of
    /// their values where there are any.
    pub fn hash(&self, seals: &Seals) -> String {
        let hash = sha256(&serde_json::to_vec(self).unwrap_or_default());
        if seals.is_empty() { hash } else { sha256(format!("{hash}{seals:?}").as_bytes()) }
    }

    /// The same project with volumes under the names that they have on a host, but for those that are adopted.
    #[must_use]
    pub fn with_volumes(mut self, known: &BTreeMap<String, String>) -> Self {
        for (name, actual) in &mut self.volumes {
            let is_adopted = self.adopt.as_ref().is_some_and(|adopt| adopt.volumes.contains_key(name));
            if let Some(known) = known.get(name).filter(|_| !is_adopted) {
                actual.clone_from(known);
            }
        }
        self
    }

    /// Whether the operator made a volume of this name: one that was adopted has another.
    pub fn makes_volume(&self, actual: &str) -> bool {
        self.volumes.keys().any(|name| actual == format!("{}-{name}", self.name))
    }

    /// Volumes with data of users: name inside the project, name on the host. What the edge keeps is made again.
    pub fn data(&self) -> impl Iterator<Item = (&String, &String)> {
        self.volumes.iter().filter(|(name, _)| is_data(name))
    }

    /// Ports of the host that its services are published on, with the service's name.
    pub fn published_ports(&self) -> impl Iterator<Item = (&str, &PublishedPort)> {
        let services = self.services.iter();
        services.flat_map(|(name, service)| service.ports.iter().map(move |port| (name.as_str(), port)))
    }

    /// Names the image of a service by its digest, beside the tag.
    pub fn pin(&mut self, service: &str, digest: &str) {
        if let Some(service) = self.services.get_mut(service) {
            service.image = format!("{}@{digest}", service.image);
            service.labels.insert(labels::IMAGE.to_owned(), service.image.clone());
        }
    }

    /// The images that the project needs, by service.
    pub fn images(&self) -> BTreeMap<&str, &str> {
        self.services.iter().map(|(name, service)| (name.as_str(), service.image.as_str())).collect()
    }
}

#[cfg(test)]
impl Project {
    /// A project of a few services and nothing else.
    pub(crate) fn for_tests<const N: usize>(name: &str, services: [(&str, Service); N]) -> Self {
        Self {
            component: "test".to_owned(),
            name: name.to_owned(),
            folder: "test/test".to_owned(),
            owner: "o".to_owned(),
            environment: "test".to_owned(),
            revision: "a".to_owned(),
            network: "tt-test".to_owned(),
            volumes: BTreeMap::new(),
            files: BTreeMap::new(),
            secrets: BTreeMap::new(),
            services: services.map(|(name, service)| (name.to_owned(), service)).into(),
            rolling: BTreeSet::new(),
            tls: None,
            adopt: None,
        }
    }
}

/// Every project of a stack on one host.
pub fn for_host(stack: &Stack, host: &HostSpec) -> Vec<Project> {
    let app = stack.spec.app.as_ref().filter(|_| stack.app_hosts().any(|other| other.name == host.name));
    app.map(|app| app_project(stack, app)).into_iter().collect()
}

/// The service that leads traffic to the others.
pub const EDGE: &str = "edge";

/// Folder below a project's own that holds the secrets of its services, a folder each.
pub const SECRETS_FOLDER: &str = "secrets";

/// Folder with a folder for each service that the edge leads traffic to. The name of the one file in it is the name by
/// which the containers that serve are known in the network.
pub const UPSTREAMS: &str = "files/edge/upstreams";

/// File that is there while a host is drained: the edge then tells balancers that the host is not ready. It is no part of
/// a release.
pub const DRAINED: &str = "files/edge/drained";

/// Whether a file tells by its name who serves.
pub fn is_upstream(path: &str) -> bool {
    let below = path.strip_prefix(UPSTREAMS).and_then(|rest| rest.strip_prefix('/'));
    below.is_some_and(|rest| rest.contains('/'))
}

/// Whether a volume, by its name inside a project, holds data of users.
pub fn is_data(volume: &str) -> bool {
    volume != edge::VOLUME
}

/// Whether a service takes up changed files while it goes on serving.
pub fn is_reloaded(service: &str) -> bool {
    service == EDGE
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
