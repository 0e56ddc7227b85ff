//! The component `monitoring`: the metrics store, and whom its alerts call.

mod alertmanager;
mod rules;

use std::{collections::BTreeMap, time::Duration};

use tasktracker_crds::{AlertmanagerSpec, HostSpec, MonitoringSpec, Role};

use super::{Component, empty, prometheus, service_labels};
use crate::{
    model::ComponentName,
    project::{
        File, Project, Readiness, Reload, SECRETS_FOLDER, Service, Strategy, Validation, Volume, VolumeRole,
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
/// Name inside the project of the volume with its data.
const DATA: &str = "prometheus";
/// Where it keeps its data, inside its container.
const DATA_INSIDE: &str = "/prometheus";
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
        stack.spec.monitoring.is_some() && host.roles.contains(&Role::Monitoring)
    }

    fn render(&self, stack: &Stack, host: &HostSpec) -> Project {
        let empty = empty(stack, ComponentName::Monitoring);
        let Some(monitoring) = &stack.spec.monitoring else { return empty };
        let rules = rules::render(stack, &monitoring.rules);
        let (config, token) = prometheus::render(config(stack, host, &monitoring.alertmanager), &rules);
        let (routing, routing_token) = alertmanager::config(&monitoring.alertmanager);
        let volume = |data: &str| {
            let name = format!("{}-{data}", empty.name);
            (data.to_owned(), Volume { name, role: VolumeRole::Data, owner: Some(prometheus::USER) })
        };
        let passwords = [PROMETHEUS, alertmanager::ALERTMANAGER].into_iter();
        let passwords = passwords.flat_map(|service| prometheus::secrets(stack, monitoring, service));
        Project {
            volumes: [volume(DATA), volume(alertmanager::DATA)].into(),
            files: BTreeMap::from([
                (CONFIG.to_owned(), File::new(config)),
                (RULES.to_owned(), File::new(rules)),
                (alertmanager::CONFIG.to_owned(), File::new(routing)),
                (alertmanager::MESSAGES.to_owned(), File::new(alertmanager::MESSAGES_TEXT.to_owned())),
            ]),
            secrets: passwords.chain(alertmanager::secrets(&monitoring.alertmanager)).collect(),
            metrics_store: Some(prometheus::remote_write(PROMETHEUS)),
            services: BTreeMap::from([
                (PROMETHEUS.to_owned(), store(stack, host, monitoring, &token)),
                (
                    alertmanager::ALERTMANAGER.to_owned(),
                    alertmanager::service(stack, host, monitoring, &routing_token),
                ),
            ]),
            ..empty
        }
    }
}

/// What it scrapes itself: everything else comes from the agents.
fn config(stack: &Stack, host: &HostSpec, spec: &AlertmanagerSpec) -> prometheus::Config {
    // What is scraped here is not given the labels of what is sent.
    let global = prometheus::Global { evaluation_interval: Some("15s"), ..prometheus::Global::of(stack) };
    let own = [("host", host.name.to_string()), ("instance", host.name.to_string())];
    let labels = || global.external_labels.clone().into_iter().chain(own.clone()).collect();
    let job = |name, address: String| prometheus::ScrapeConfig {
        basic_auth: Some(prometheus::BasicAuth::admin()),
        static_configs: vec![prometheus::StaticConfig { targets: vec![address], labels: labels() }],
        ..prometheus::ScrapeConfig::new(name, SAMPLES)
    };
    let alerted = alertmanager::targets(stack, host, spec);
    let beside = alerted.iter().find(|target| target.starts_with(alertmanager::ALERTMANAGER)).cloned();
    let jobs = [job("prometheus", format!("localhost:{}", prometheus::PORT))].into_iter();
    let scrape_configs = jobs.chain(beside.map(|address| job("alertmanager", address))).collect();
    prometheus::Config {
        global,
        rule_files: vec![format!("{}/rules.yml", prometheus::FOLDER)],
        alerting: Some(prometheus::Alerting::of(alerted)),
        scrape_configs,
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
        format!("--web.external-url=http://{}:{}", prometheus::private_address(host), spec.port),
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
        readiness: Readiness::Http(prometheus::ready(PROMETHEUS, prometheus::PORT, "/-/ready")),
        validations: vec![Validation { argv: check.map(str::to_owned).to_vec(), limit: VALIDATION_LIMIT }],
        loaded: vec![prometheus::loaded(PROMETHEUS, CONFIG, token)],
        ..Service::new(compose)
    }
}
