//! The component `agents`: what every host with a role runs so that others know how it is.

mod fluent_bit;

pub(crate) use fluent_bit::{ALERTS, AUDIT, FLUENT_BIT, SENT_PORT};

use std::{collections::BTreeMap, time::Duration};

use tasktracker_crds::{HostSpec, MonitoringSpec, Role};

use super::{Component, app, empty, prometheus, service_labels};
use crate::{
    model::ComponentName,
    project::{
        File, Project, Readiness, Reload, SECRETS_FOLDER, Service, Validation, Volume, VolumeRole,
        compose::{self, BindOptions, Limits, Mount, Namespace, Propagation},
    },
    source::Stack,
};

/// Scrapes the host's targets and sends the samples to the store.
const AGENT: &str = "prometheus-agent";
/// Tells of the host itself.
const NODE_EXPORTER: &str = "node-exporter";
/// The agent's configuration, from the project's folder.
const CONFIG: &str = "files/prometheus-agent/prometheus.yml";
/// Its file with the password of a store that somebody else runs, among its secrets.
const EXTERNAL: &str = "external";
/// Name inside the project of the volume with what is not sent yet.
const DATA: &str = "agent";
/// Where that is, inside the agent's container.
const DATA_INSIDE: &str = "/prometheus";
/// Where the node exporter sees the host's files, inside its container.
const HOST_INSIDE: &str = "/host";
/// Series of one target, at most.
const SAMPLES: u32 = 10_000;
/// How often the agent looks for replicas that came and went: a new one is scraped for the first time soon after.
const REFRESH: &str = "5s";
/// How long the check of a configuration may take.
const VALIDATION_LIMIT: Duration = Duration::from_secs(30);
/// File systems that are no disks, as a pattern.
const NO_DISKS: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tmpfs|tracefs)$";
/// Places of a host that are Docker's or the system's own, as a pattern.
const NO_PLACES: &str = "^/(dev|proc|sys|run|var/lib/docker/.+|var/lib/containerd/.+)($|/)";

/// The component.
pub(super) struct Agents;

impl Component for Agents {
    fn name(&self) -> ComponentName {
        ComponentName::Agents
    }

    fn is_wanted(&self, stack: &Stack, host: &HostSpec) -> bool {
        let runs_any = |monitoring: &MonitoringSpec| monitoring.node_exporter.enabled || sends(monitoring);
        let is_wanted = stack.spec.monitoring.as_ref().is_some_and(runs_any) || stack.spec.logging.is_some();
        is_wanted && !host.roles.is_empty()
    }

    fn render(&self, stack: &Stack, host: &HostSpec) -> Project {
        let mut project = empty(stack, ComponentName::Agents);
        if let Some(logging) = &stack.spec.logging {
            fluent_bit::add(&mut project, stack, host, logging);
        }
        let Some(monitoring) = &stack.spec.monitoring else { return project };
        if monitoring.node_exporter.enabled {
            let service = node_exporter(stack, host, monitoring);
            project.services.insert(NODE_EXPORTER.to_owned(), service);
        }
        if sends(monitoring) {
            let (config, token) = prometheus::render(config(stack, host, monitoring), "");
            project.files.insert(CONFIG.to_owned(), File::new(config));
            let name = format!("{}-{DATA}", project.name);
            let volume = Volume { name, role: VolumeRole::Cache, owner: Some(prometheus::USER) };
            project.volumes.insert(DATA.to_owned(), volume);
            project.services.insert(AGENT.to_owned(), agent(stack, monitoring, &token));
            let external = monitoring.prometheus.external.iter().map(|server| (EXTERNAL.to_owned(), server));
            project.secrets.extend(prometheus::external_secrets(AGENT, external));
        }
        let own =
            [NODE_EXPORTER, AGENT].into_iter().filter(|service| project.services.contains_key(*service));
        let own: Vec<_> = own.flat_map(|service| prometheus::secrets(stack, monitoring, service)).collect();
        project.secrets.extend(own);
        project
    }
}

/// Whether there is a store that takes samples.
fn sends(monitoring: &MonitoringSpec) -> bool {
    monitoring.prometheus.is_deployed() || monitoring.prometheus.external.is_some()
}

/// Each replica is a target of its own, found by the name of its service in the stack's network; of the host, the node
/// exporter.
fn config(stack: &Stack, host: &HostSpec, monitoring: &MonitoringSpec) -> prometheus::Config {
    let itself = || BTreeMap::from([("instance", host.name.to_string())]);
    let local = |job, address: String| prometheus::ScrapeConfig {
        static_configs: vec![prometheus::StaticConfig { targets: vec![address], labels: itself() }],
        ..prometheus::ScrapeConfig::of_monitoring(job, SAMPLES, monitoring)
    };
    let node = format!("{}:{}", node_address(host), monitoring.node_exporter.port);
    let agent = format!("localhost:{}", prometheus::PORT);
    let node = monitoring.node_exporter.enabled.then(|| local("node", node));
    let replicas = stack.spec.app.iter().filter(|_| host.roles.contains(&Role::App));
    let replicas = replicas.flat_map(|_| app::scraped()).map(|(job, port)| prometheus::ScrapeConfig {
        dns_sd_configs: vec![prometheus::DnsConfig {
            names: vec![job.to_owned()],
            kind: "A",
            port,
            refresh_interval: REFRESH,
        }],
        ..prometheus::ScrapeConfig::new(job, SAMPLES)
    });
    let shipper = stack.spec.logging.iter().map(|_| prometheus::ScrapeConfig {
        metrics_path: Some(fluent_bit::METRICS),
        static_configs: vec![prometheus::StaticConfig {
            targets: vec![format!("{FLUENT_BIT}:{}", fluent_bit::PORT)],
            labels: itself(),
        }],
        ..prometheus::ScrapeConfig::new(FLUENT_BIT, SAMPLES)
    });
    let mut global = prometheus::Global::of(stack);
    global.external_labels.insert("host", host.name.to_string());
    let stores = stack.spec.hosts_with(Role::Monitoring).filter(|_| monitoring.prometheus.is_deployed());
    let stores = stores.map(|store| prometheus::RemoteWrite::to(store, monitoring));
    let external = monitoring.prometheus.external.iter();
    let external = external.map(|server| prometheus::RemoteWrite::external(server, EXTERNAL, None));
    prometheus::Config {
        global,
        scrape_configs: node
            .into_iter()
            .chain([local("agent", agent)])
            .chain(replicas)
            .chain(shipper)
            .collect(),
        remote_write: stores.chain(external).collect(),
        ..prometheus::Config::default()
    }
}

fn agent(stack: &Stack, monitoring: &MonitoringSpec, token: &str) -> Service {
    let image = monitoring.prometheus.image.to_string();
    let mode = if prometheus::is_version_2(&image) { "--enable-feature=agent" } else { "--agent" };
    let command = vec![
        mode.to_owned(),
        format!("--config.file={}/prometheus.yml", prometheus::FOLDER),
        format!("--storage.agent.path={DATA_INSIDE}"),
        format!("--web.config.file={}/{}", prometheus::SECRETS_INSIDE, prometheus::WEB_CONFIG),
    ];
    let compose = compose::Service {
        command: Some(command),
        user: Some(format!("{}:{}", prometheus::USER.uid, prometheus::USER.gid)),
        volumes: vec![
            Mount::folder(format!("./files/{AGENT}"), prometheus::FOLDER),
            secrets(AGENT),
            Mount::owned_volume(DATA, DATA_INSIDE),
        ],
        labels: service_labels(stack, ComponentName::Agents, &image),
        ..compose::Service::new(image, Limits::new(&monitoring.agent.resources.limits))
    };
    let check = ["/bin/promtool", "check", "config", "--agent", "/etc/prometheus/prometheus.yml"];
    Service {
        reload: Reload::Signal("SIGHUP".to_owned()),
        readiness: Readiness::Http(prometheus::ready(monitoring, AGENT, prometheus::PORT, "/-/ready")),
        validations: vec![Validation { argv: check.map(str::to_owned).to_vec(), limit: VALIDATION_LIMIT }],
        loaded: vec![prometheus::loaded(monitoring, AGENT, CONFIG, token)],
        ..Service::new(compose)
    }
}

/// Where the node exporter listens: at the host's `bindAddress`, where it has one, and for the operator's own questions.
fn node_exporter(stack: &Stack, host: &HostSpec, monitoring: &MonitoringSpec) -> Service {
    let spec = &monitoring.node_exporter;
    let image = spec.image.to_string();
    let addresses = match &host.bind_address {
        Some(address) => {
            vec![format!("127.0.0.1:{}", spec.port), format!("{}:{}", bracketed(address.as_str()), spec.port)]
        }
        None => vec![format!(":{}", spec.port)],
    };
    let flags = [
        format!("--path.rootfs={HOST_INSIDE}"),
        format!("--collector.filesystem.fs-types-exclude={NO_DISKS}"),
        format!("--collector.filesystem.mount-points-exclude={NO_PLACES}"),
        format!("--web.config.file={}/{}", prometheus::SECRETS_INSIDE, prometheus::WEB_CONFIG),
    ];
    let listen = addresses.into_iter().map(|address| format!("--web.listen-address={address}"));
    let root = Mount {
        bind: Some(BindOptions { propagation: Propagation::Rslave }),
        ..Mount::folder("/", HOST_INSIDE)
    };
    let compose = compose::Service {
        command: Some(flags.into_iter().chain(listen).map(|flag| compose::literal(&flag)).collect()),
        user: Some(format!("{}:{}", prometheus::USER.uid, prometheus::USER.gid)),
        pid: Some(Namespace::Host),
        network_mode: Some(Namespace::Host),
        volumes: vec![root, secrets(NODE_EXPORTER)],
        labels: service_labels(stack, ComponentName::Agents, &image),
        ..compose::Service::new(image, Limits::new(&spec.resources.limits))
    };
    Service {
        readiness: Readiness::Http(prometheus::ready(monitoring, NODE_EXPORTER, spec.port.0, "/")),
        ..Service::new(compose)
    }
}

fn secrets(service: &str) -> Mount {
    Mount::folder(format!("./{SECRETS_FOLDER}/{service}"), prometheus::SECRETS_INSIDE)
}

/// Where containers of a host reach what listens on the host itself.
fn node_address(host: &HostSpec) -> String {
    match &host.bind_address {
        Some(address) => bracketed(address.as_str()),
        None => prometheus::private_address(host),
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}
