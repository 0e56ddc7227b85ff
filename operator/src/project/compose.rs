//! The part of the Compose file format that is rendered, as types.
//!
//! Keys and meanings are those of the Compose Specification. Every value that a user can choose is escaped against
//! Compose's interpolation by [`literal`].

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use tasktracker_crds::scalars::BindAddress;

use super::{Project, labels};

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
///
/// [`Service::new`] has what all of them have alike; the rest is set by struct update. A new field must be read from
/// `inspect` and compared, too: `diff::settings` does not compile without it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Image reference, or ID.
    pub image: String,
    /// Number of containers.
    pub scale: u32,
    /// Program and arguments, unless the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the entrypoint, unless the image's own; with an entrypoint, none are the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// User and group inside, unless the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// More groups of that user, by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// PID namespace, unless its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<Namespace>,
    /// Network namespace, unless its own in the project's network. With the host's, no port can be published, and the
    /// service cannot be one of [`Project::rolling`], which are found by their aliases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<Namespace>,
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
    /// Addresses of host names, beside what the resolver knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_hosts: BTreeMap<String, String>,
    /// Services that Compose starts before this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<String, Dependency>,
    /// Kernel parameters of its namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of its processes, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// When the service counts as healthy. Without one, it is enough that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
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
    /// How long it may take to end, in whole seconds, such as `35s`.
    pub stop_grace_period: String,
}

impl Service {
    /// Where its containers see a file of the project, by the file's path from the project's folder.
    pub fn inside(&self, path: &str) -> Option<String> {
        let below = |mount: &Mount| {
            let rest = path.strip_prefix(mount.project_folder()?)?;
            rest.starts_with('/').then(|| format!("{}{rest}", mount.target))
        };
        self.volumes.iter().find_map(below)
    }

    /// One container of an image, which Docker starts again unless somebody stops it.
    pub fn new(image: impl Into<String>, limits: Limits) -> Self {
        Self {
            image: image.into(),
            scale: 1,
            entrypoint: None,
            command: None,
            user: None,
            group_add: Vec::new(),
            pid: None,
            network_mode: None,
            environment: BTreeMap::new(),
            ports: Vec::new(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            networks: BTreeMap::new(),
            extra_hosts: BTreeMap::new(),
            depends_on: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            ulimits: BTreeMap::new(),
            healthcheck: None,
            labels: BTreeMap::new(),
            limits,
            logging: Logging::default(),
            restart: "unless-stopped".to_owned(),
            stop_grace_period: "10s".to_owned(),
        }
    }
}

/// A namespace that is not the container's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// The host's.
    Host,
}

impl Namespace {
    /// As Compose and Docker write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
        }
    }
}

/// What has to be so before Compose starts a service that depends on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// State of the other service.
    pub condition: Condition,
}

/// State of a service that another one depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It was started.
    ServiceStarted,
    /// Its health check succeeded.
    ServiceHealthy,
}

/// A limit of processes; -1 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What holds unless a process raises it.
    pub soft: i64,
    /// How far a process may raise it.
    pub hard: i64,
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
    /// Address of the host, unless every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// Port of the host.
    pub published: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Always ingress: what the short form means on a single host.
    pub mode: String,
}

impl PublishedPort {
    /// A TCP port on every address of the host.
    pub fn tcp(published: u16, target: u16) -> Self {
        Self {
            target,
            host_ip: None,
            published: published.to_string(),
            protocol: "tcp".to_owned(),
            mode: "ingress".to_owned(),
        }
    }

    /// A UDP port on every address of the host.
    pub fn udp(published: u16, target: u16) -> Self {
        Self { protocol: "udp".to_owned(), ..Self::tcp(published, target) }
    }

    /// The same port on the host's `bindAddress`, where it has one: for ports that are not public.
    #[must_use]
    pub fn private(self, bind_address: Option<&BindAddress>) -> Self {
        Self { host_ip: bind_address.and_then(BindAddress::ip), ..self }
    }

    /// Port of the host.
    pub fn number(&self) -> Option<u16> {
        self.published.parse().ok()
    }

    /// Whether this port cannot be published while something listens on a port of an address; `None` is every address.
    pub fn conflicts_with(&self, protocol: &str, address: Option<IpAddr>, port: u16) -> bool {
        self.number() == Some(port) && self.protocol == protocol && overlap(self.host_ip, address)
    }
}

/// Whether listeners at two addresses get in each other's way.
fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return true };
    let [one, other] = [one, other].map(|address| address.to_canonical());
    // Whoever listens at `::` listens at addresses of IPv4 as well, unless the socket says otherwise.
    let is_every = |address: IpAddr| address.is_unspecified() && address.is_ipv6();
    let is_every_of =
        |address: IpAddr, kind: IpAddr| address.is_unspecified() && address.is_ipv4() == kind.is_ipv4();
    one == other || is_every(one) || is_every(other) || is_every_of(one, other) || is_every_of(other, one)
}

/// A volume or folder seen inside a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// `volume` or `bind`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the volume, or a folder: below the project's own with `./`, of the host with `/`.
    pub source: String,
    /// Where it is seen.
    pub target: String,
    /// Whether it cannot be written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Options of a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<BindOptions>,
    /// Options of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeOptions>,
}

/// Options of a volume that is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeOptions {
    /// Whether an empty volume stays as it is, and takes over neither content nor owner of the image's folder.
    pub nocopy: bool,
}

impl Mount {
    /// A volume that can be written.
    pub fn volume(name: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            kind: "volume".to_owned(),
            source: name.into(),
            target: target.into(),
            read_only: false,
            bind: None,
            volume: None,
        }
    }

    /// A folder that cannot be written: `./NAME` below the project's own, `/PATH` of the host.
    pub fn folder(source: impl Into<String>, target: impl Into<String>) -> Self {
        Self { kind: "bind".to_owned(), read_only: true, ..Self::volume(source, target) }
    }

    /// A volume that can be written and whose owner the operator sets.
    pub fn owned_volume(name: impl Into<String>, target: impl Into<String>) -> Self {
        Self { volume: Some(VolumeOptions { nocopy: true }), ..Self::volume(name, target) }
    }

    /// The folder below the project's own; none for a volume, and for a folder of the host.
    pub fn project_folder(&self) -> Option<&str> {
        let is_below = self.kind == "bind" && !self.source.starts_with('/');
        is_below.then(|| self.source.trim_start_matches("./"))
    }
}

/// Options of a folder that is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindOptions {
    /// Whether mounts below the folder are passed on.
    pub propagation: Propagation,
}

/// Whether mounts below a folder are passed on, unless `rprivate`: not at all. Docker itself chooses `rslave` for a
/// folder that contains its own data or lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// From the host to the container.
    Rslave,
    /// Both ways.
    Rshared,
}

impl Propagation {
    /// As Compose and Docker write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rslave => "rslave",
            Self::Rshared => "rshared",
        }
    }
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
    /// Processes and threads: 256 unless a service needs more.
    pub pids_limit: u32,
    /// Whether the root filesystem cannot be written, as it is unless a service has to.
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
    /// What a container has unless it needs otherwise, with its own memory and processor.
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

    /// Gives another amount of memory, in bytes.
    pub fn set_memory(&mut self, bytes: u64) {
        (self.mem_limit, self.memswap_limit) = (bytes, bytes);
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
    /// Docker's JSON files, rotated. Each line carries the container's name and the labels that tell whose it is, so that
    /// a log shipper needs no access to Docker.
    fn default() -> Self {
        let labels =
            [COMPOSE_PROJECT, COMPOSE_SERVICE, labels::STACK, labels::COMPONENT, labels::ENVIRONMENT]
                .join(",");
        let options =
            [("labels", labels.as_str()), ("max-file", "3"), ("max-size", "10m"), ("tag", "{{.Name}}")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { driver: "json-file".to_owned(), options }
    }
}

/// Escapes a text so that Compose takes it literally.
pub fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// What Compose makes of a text that [`literal`] escaped.
pub fn interpolated(text: &str) -> String {
    text.replace("$$", "$")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_port_listens_at_the_bind_address_and_a_public_one_at_every_address() {
        let address: BindAddress = "10.0.0.5".parse().unwrap();
        let private = PublishedPort::tcp(9100, 9100).private(Some(&address));
        assert_eq!(private.host_ip, Some([10, 0, 0, 5].into()));
        assert_eq!(PublishedPort::tcp(9100, 9100).private(None), PublishedPort::tcp(9100, 9100));
        let rendered = serde_json::to_string(&private).unwrap();
        let expected =
            r#"{"target":9100,"host_ip":"10.0.0.5","published":"9100","protocol":"tcp","mode":"ingress"}"#;
        assert_eq!(rendered, expected);
        assert!(!serde_json::to_string(&PublishedPort::tcp(1, 1)).unwrap().contains("host_ip"));
    }

    #[test]
    fn ports_conflict_on_the_same_address_and_on_every_address() {
        let port = |address: Option<&str>| PublishedPort {
            host_ip: address.map(|address| address.parse().unwrap()),
            ..PublishedPort::tcp(9100, 9100)
        };
        let cases = [
            (None, None, true),
            (None, Some("127.0.0.1"), true),
            (Some("10.0.0.5"), None, true),
            (Some("10.0.0.5"), Some("10.0.0.5"), true),
            (Some("10.0.0.5"), Some("::ffff:10.0.0.5"), true),
            (Some("10.0.0.5"), Some("10.0.0.6"), false),
            (Some("10.0.0.5"), Some("127.0.0.1"), false),
            (Some("10.0.0.5"), Some("0.0.0.0"), true),
            (Some("0.0.0.0"), Some("127.0.0.1"), true),
            (Some("fd00::5"), Some("0.0.0.0"), false),
            (Some("fd00::5"), Some("::"), true),
            (Some("10.0.0.5"), Some("::"), true),
        ];
        for (ours, theirs, expected) in cases {
            let theirs = theirs.map(|address| address.parse().unwrap());
            assert_eq!(port(ours).conflicts_with("tcp", theirs, 9100), expected, "{ours:?} {theirs:?}");
            assert!(!port(ours).conflicts_with("udp", theirs, 9100), "another protocol");
            assert!(!port(ours).conflicts_with("tcp", theirs, 9101), "another port");
        }
    }
}
