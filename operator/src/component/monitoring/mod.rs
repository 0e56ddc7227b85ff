//! The component `monitoring`: the metrics store, and whom its alerts call.

mod alertmanager;
mod blackbox;
mod rules;

use std::time::Duration;

use tasktracker_crds::{HostSpec, MonitoringSpec, OutOfMemorySpec, Role};

use super::{Component, empty, prometheus, service_labels};
use crate::{
    model::ComponentName,
    project::{
        File, OutOfMemory, Project, ReadAtStart, Readiness, Reload, SECRETS_FOLDER, Service, Strategy,
        Validation, Volume, VolumeRole,
        compose::{self, Limits, Mount, PublishedPort},
    },
    source::Stack,
};

/// The metrics store.
const PROMETHEUS: &str = "prometheus";
/// Its configuration, from the project's folder.
const CONFIG: &str = "files/prometheus/prometheus.yml";
/// Its rules, from the project's folder.
const RULES: &str = "files/prometheus/rules.yml";
/// Its file with the password of an Alertmanager that somebody else runs, among its secrets.
const EXTERNAL: &str = "external";
/// Name inside the project of the volume with its data.
const DATA: &str = "prometheus";
/// Where it keeps its data, inside its container.
const DATA_INSIDE: &str = "/prometheus";
/// Folders there that it reads whole when it starts: what is younger than its newest block.
const READ_AT_START: [&str; 3] = ["wal", "wbl", "chunks_head"];
/// Series of one target, at most.
const SAMPLES: u32 = 20_000;
/// How long the check of a configuration may take.
const VALIDATION_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to write what it has in memory when it ends.
const STOP_GRACE: &str = "60s";
/// Starts Prometheus with the share of its disk ($1, in percent) that it may fill; it takes an amount alone. The rest are
/// its arguments.
const START: &str = r#"share=$1; shift
set -- "$@" "--storage.tsdb.retention.size=$(df -Pk /prometheus | awk -v share="$share" 'NR == 2 { printf "%d", $2 * share / 102400 }')MB"
exec /bin/prometheus "$@""#;

/// The component.
pub(super) struct Monitoring;

impl Component for Monitoring {
    fn name(&self) -> ComponentName {
        ComponentName::Monitoring
    }

    fn is_wanted(&self, stack: &Stack, host: &HostSpec) -> bool {
        let runs_any = |monitoring: &MonitoringSpec| {
            monitoring.prometheus.is_deployed() || monitoring.alertmanager.is_deployed()
        };
        stack.spec.monitoring.as_ref().is_some_and(runs_any) && host.roles.contains(&Role::Monitoring)
    }

    fn render(&self, stack: &Stack, host: &HostSpec) -> Project {
        let mut project = empty(stack, ComponentName::Monitoring);
        let Some(monitoring) = &stack.spec.monitoring else { return project };
        if monitoring.prometheus.is_deployed() {
            add_store(&mut project, stack, host, monitoring);
        }
        if monitoring.alertmanager.is_deployed() {
            alertmanager::add(&mut project, stack, host, monitoring);
        }
        let own = project.services.keys().flat_map(|service| prometheus::secrets(stack, monitoring, service));
        let own: Vec<_> = own.collect();
        project.secrets.extend(own);
        project
    }
}

/// A volume of a service, by its name inside the project.
fn data(project: &Project, name: &str) -> (String, Volume) {
    let volume = Volume {
        name: format!("{}-{name}", project.name),
        role: VolumeRole::Data,
        owner: Some(prometheus::USER),
    };
    (name.to_owned(), volume)
}

/// The metrics store, its rules, and what asks for the public URL.
fn add_store(project: &mut Project, stack: &Stack, host: &HostSpec, monitoring: &MonitoringSpec) {
    let rules = rules::render(stack, monitoring);
    let mut config = config(stack, host, monitoring);
    if let Some(url) = blackbox::url(stack, monitoring) {
        let (text, module) = blackbox::config(stack);
        let service = blackbox::service(stack, monitoring, &module);
        project.services.insert(blackbox::BLACKBOX_EXPORTER.to_owned(), service);
        project.files.insert(blackbox::CONFIG.to_owned(), File::new(text));
        let job = blackbox::job(url, module, host, &config.global, monitoring);
        config.scrape_configs.push(job);
    }
    let (config, token) = prometheus::render(config, &rules);
    let files = [(CONFIG.to_owned(), File::new(config)), (RULES.to_owned(), File::new(rules))];
    project.files.extend(files);
    project.volumes.extend([data(project, DATA)]);
    project.metrics_store = Some(prometheus::remote_write(monitoring, PROMETHEUS));
    project.out_of_memory.insert(PROMETHEUS.to_owned(), out_of_memory(&monitoring.prometheus.out_of_memory));
    project.services.insert(PROMETHEUS.to_owned(), store(stack, host, monitoring, &token));
    let stores = monitoring.prometheus.remote_write.iter().enumerate();
    let servers = stores.map(|(number, server)| (remote(number), server));
    let alerted = monitoring.alertmanager.external.iter().map(|server| (EXTERNAL.to_owned(), server));
    project.secrets.extend(prometheus::external_secrets(PROMETHEUS, servers.chain(alerted)));
}

/// What helps the store where it is OOM-killed as it reads what it had in memory before.
fn out_of_memory(spec: &OutOfMemorySpec) -> OutOfMemory {
    let folders = READ_AT_START.map(str::to_owned).to_vec();
    OutOfMemory {
        max_memory_percent: spec.max_memory_percent,
        read_at_start: spec.move_wal_aside.then(|| ReadAtStart { volume: DATA.to_owned(), folders }),
    }
}

/// File with the password of a store that gets all samples, too, among the secrets.
fn remote(number: usize) -> String {
    format!("remote-{number}")
}

/// What it scrapes itself: everything else comes from the agents.
fn config(stack: &Stack, host: &HostSpec, monitoring: &MonitoringSpec) -> prometheus::Config {
    // What is scraped here is not given the labels of what is sent.
    let global = prometheus::Global { evaluation_interval: Some("15s"), ..prometheus::Global::of(stack) };
    let own = [("host", host.name.to_string()), ("instance", host.name.to_string())];
    let labels = || global.external_labels.clone().into_iter().chain(own.clone()).collect();
    let job = |name, address: String| prometheus::ScrapeConfig {
        static_configs: vec![prometheus::StaticConfig { targets: vec![address], labels: labels() }],
        ..prometheus::ScrapeConfig::of_monitoring(name, SAMPLES, monitoring)
    };
    let spec = &monitoring.alertmanager;
    let beside = spec.is_deployed().then(|| job(alertmanager::ALERTMANAGER, alertmanager::beside()));
    let alerting = match &spec.external {
        Some(server) => Some(prometheus::Alerting::external(server, EXTERNAL)),
        None => spec
            .enabled
            .then(|| prometheus::Alerting::of(alertmanager::targets(stack, host, spec), monitoring)),
    };
    let stores = monitoring.prometheus.remote_write.iter().enumerate();
    let replica = (stack.spec.hosts_with(Role::Monitoring).count() > 1).then_some(host);
    let stores =
        stores.map(|(number, server)| prometheus::RemoteWrite::external(server, &remote(number), replica));
    prometheus::Config {
        rule_files: vec![format!("{}/rules.yml", prometheus::FOLDER)],
        alerting,
        scrape_configs: [job("prometheus", format!("localhost:{}", prometheus::PORT))]
            .into_iter()
            .chain(beside)
            .collect(),
        remote_write: stores.collect(),
        global,
        ..prometheus::Config::default()
    }
}

/// The metrics store.
fn store(stack: &Stack, host: &HostSpec, monitoring: &MonitoringSpec, token: &str) -> Service {
    let spec = &monitoring.prometheus;
    let retention = &spec.retention;
    let image = spec.image.to_string();
    let flags = [
        format!("--config.file={}/prometheus.yml", prometheus::FOLDER),
        format!("--storage.tsdb.path={DATA_INSIDE}"),
        format!("--storage.tsdb.retention.time={}d", retention.days),
        format!("--web.config.file={}/{}", prometheus::SECRETS_INSIDE, prometheus::WEB_CONFIG),
        "--web.enable-remote-write-receiver".to_owned(),
        format!("--web.external-url={}", prometheus::url(host, spec.port, monitoring)),
    ];
    let start = ["-c", START, "prometheus"].map(compose::literal).into_iter();
    let port = PublishedPort::tcp(spec.port.0, prometheus::PORT).private(host.bind_address.as_ref());
    let compose = compose::Service {
        entrypoint: Some(vec!["/bin/sh".to_owned()]),
        command: Some(start.chain([retention.max_disk_percent.to_string()]).chain(flags).collect()),
        user: Some(format!("{}:{}", prometheus::USER.uid, prometheus::USER.gid)),
        ports: vec![port],
        volumes: vec![
            Mount::folder("./files/prometheus", prometheus::FOLDER),
            Mount::folder(format!("./{SECRETS_FOLDER}/{PROMETHEUS}"), prometheus::SECRETS_INSIDE),
            Mount::owned_volume(DATA, DATA_INSIDE),
        ],
        labels: service_labels(stack, ComponentName::Monitoring, &image),
        stop_grace_period: STOP_GRACE.to_owned(),
        ..compose::Service::new(image, Limits::new(&spec.resources.limits))
    };
    let check = ["/bin/promtool", "check", "config", "/etc/prometheus/prometheus.yml"];
    Service {
        strategy: Strategy::Recreate,
        reload: Reload::Signal("SIGHUP".to_owned()),
        readiness: Readiness::Http(prometheus::ready(monitoring, PROMETHEUS, prometheus::PORT, "/-/ready")),
        validations: vec![Validation { argv: check.map(str::to_owned).to_vec(), limit: VALIDATION_LIMIT }],
        loaded: vec![prometheus::loaded(monitoring, PROMETHEUS, CONFIG, token)],
        ..Service::new(compose)
    }
}
