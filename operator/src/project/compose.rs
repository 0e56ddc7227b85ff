//! The part of the Compose file format that is rendered, as types.
//!
//! Keys and meanings are those of the Compose Specification. Every value that a user can choose is escaped against
//! Compose's interpolation by [`literal`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Project;

/// Compose's label with the name of a project.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// Compose's label with the name of a service.
pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";
/// Compose's label with the number of a container within its service.
pub const COMPOSE_NUMBER: &str = "com.docker.compose.container-number";
/// Compose's label on containers made by `docker compose run`.
pub const COMPOSE_ONE_OFF: &str = "com.docker.compose.oneoff";

/// Name of the one network inside a project.
pub const NETWORK: &str = "default";

/// A whole `compose.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct File {
    name: String,
    services: BTreeMap<String, Service>,
    networks: BTreeMap<String, External>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, External>,
}

/// A network or volume that only the operator makes and removes.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct External {
    external: bool,
    name: String,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Image reference, or ID.
    pub image: String,
    /// Number of containers.
    pub scale: u32,
    /// User and group inside, unless the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPort>,
    /// Volumes and folders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Mount>,
    /// Folders in memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    /// Networks, where it is known in one by more than its own name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Joined>,
    /// When the service counts as healthy.
    pub healthcheck: Healthcheck,
    /// Labels of its containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Limits and safeguards.
    #[serde(flatten)]
    pub limits: Limits,
    /// Where its log goes.
    pub logging: Logging,
    /// When Docker starts it again.
    pub restart: String,
    /// How long it may take to end.
    pub stop_grace_period: String,
}

/// How a service is known in a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// Names beside its own.
    pub aliases: Vec<String>,
}

/// A port of the host that leads to one of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Port of the container.
    pub target: u16,
    /// Port of the host.
    pub published: String,
    /// Always tcp.
    pub protocol: String,
    /// Always ingress: what the short form means on a single host.
    pub mode: String,
}

impl PublishedPort {
    /// A TCP port on every address of the host.
    pub fn tcp(published: u16, target: u16) -> Self {
        Self {
            target,
            published: published.to_string(),
            protocol: "tcp".to_owned(),
            mode: "ingress".to_owned(),
        }
    }
}

/// A volume or folder seen inside a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// `volume` or `bind`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the volume, or the folder from the project's own.
    pub source: String,
    /// Where it is seen.
    pub target: String,
    /// Whether it cannot be written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// When a service counts as healthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// `CMD`, program, arguments.
    pub test: Vec<String>,
    /// How often.
    pub interval: String,
    /// How long one try may take.
    pub timeout: String,
    /// How many failures in a row make it unhealthy.
    pub retries: u32,
    /// How long failures do not count after the start.
    pub start_period: String,
}

impl Healthcheck {
    /// A program inside the container, tried every two seconds.
    pub fn program(words: &[&str]) -> Self {
        let test = std::iter::once("CMD").chain(words.iter().copied()).map(str::to_owned).collect();
        Self {
            test,
            interval: "2s".to_owned(),
            timeout: "3s".to_owned(),
            retries: 5,
            start_period: "20s".to_owned(),
        }
    }
}

/// Limits and safeguards of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub mem_limit: u64,
    /// Memory and swap in bytes: the same, so there is no swap.
    pub memswap_limit: u64,
    /// Cores.
    pub cpus: f64,
    /// Processes and threads.
    pub pids_limit: u32,
    /// Whether the root filesystem cannot be written.
    pub read_only: bool,
    /// Capabilities taken away.
    pub cap_drop: Vec<String>,
    /// Capabilities given back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Security options.
    pub security_opt: Vec<String>,
}

impl Limits {
    /// What every container of ours has, with its own memory and processor.
    pub fn new(resources: &tasktracker_crds::ResourcesSpec) -> Self {
        let memory = resources.memory.bytes();
        Self {
            mem_limit: memory,
            memswap_limit: memory,
            cpus: f64::from(resources.cpu.millicores()) / 1_000.0,
            pids_limit: 256,
            read_only: true,
            cap_drop: vec!["ALL".to_owned()],
            cap_add: Vec::new(),
            security_opt: vec!["no-new-privileges:true".to_owned()],
        }
    }
}

/// Where a container's log goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logging {
    /// Log driver.
    pub driver: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

impl Default for Logging {
    /// Docker's JSON files, rotated.
    fn default() -> Self {
        let options = [("max-size", "10m"), ("max-file", "3")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { driver: "json-file".to_owned(), options }
    }
}

/// Escapes a text so that Compose takes it literally.
pub fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Renders a project, with `services` in the place of its own.
pub fn render(project: &Project, services: &BTreeMap<String, Service>) -> String {
    let external = |name: &str| External { external: true, name: name.to_owned() };
    let file = File {
        name: project.name.clone(),
        services: services.clone(),
        networks: BTreeMap::from([(NETWORK.to_owned(), external(&project.network))]),
        volumes: project
            .volumes
            .iter()
            .map(|(inside, volume)| (inside.clone(), external(&volume.name)))
            .collect(),
    };
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = crate::json::serialized(serde_saphyr::to_string_with_options(&file, options));
    format!(
        "# Written by tasktracker-operator from the stack's spec; changes made here are taken back.\n{text}"
    )
}
