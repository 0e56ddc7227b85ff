//! What Prometheus is given wherever it runs: its configuration file as types, its image's flags, and how it is let in.

use std::collections::BTreeMap;

use serde::Serialize;
use tasktracker_crds::{ExternalServerSpec, HostSpec, MonitoringSpec, SecretKeySpec, scalars::Port};

use crate::{
    model::sha256,
    project::{Endpoint, Expect, HttpProbe, LoadedProbe, MetricsStore, Owner, SECRETS_FOLDER, SecretFile},
    secret::{Form, SecretSource},
    source::Stack,
};

/// User and group of the images of Prometheus and its exporters.
pub(super) const USER: Owner = Owner { uid: 65_534, gid: 65_534 };
/// Who is let in.
const ADMIN: &str = "admin";
/// Key of the Secret with the password.
const PASSWORD: &str = "password";
/// Where a service sees its secrets, inside its container.
pub(super) const SECRETS_INSIDE: &str = "/run/secrets";
/// File of the web configuration, among the secrets of a service.
pub(super) const WEB_CONFIG: &str = "web.yml";
/// Where Prometheus sees its configuration.
pub(super) const FOLDER: &str = "/etc/prometheus";
/// Port inside the container.
pub(super) const PORT: u16 = 9090;
/// Where samples are taken.
const WRITE: &str = "/api/v1/write";
/// How often targets are scraped.
const SCRAPE_INTERVAL: &str = "15s";

/// A configuration file of Prometheus.
#[derive(Debug, Default, Serialize)]
pub(super) struct Config {
    pub(super) global: Global,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rule_files: Vec<String>,
    pub(super) scrape_config_files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alerting: Option<Alerting>,
    pub(super) scrape_configs: Vec<ScrapeConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) remote_write: Vec<RemoteWrite>,
}

/// Who is told of alerts.
#[derive(Debug, Serialize)]
pub(super) struct Alerting {
    alertmanagers: [Alertmanagers; 1],
}

#[derive(Debug, Serialize)]
struct Alertmanagers {
    scheme: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    path_prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    basic_auth: Option<BasicAuth>,
    static_configs: [StaticConfig; 1],
}

impl Alerting {
    /// Each of the stack's own, as the administrator.
    pub(super) fn of(targets: Vec<String>) -> Self {
        Self::with("http", "", Some(BasicAuth::admin()), targets)
    }

    /// One that somebody else runs; its password is a file of that name among the service's secrets.
    pub(super) fn external(server: &ExternalServerSpec, file: &str) -> Self {
        let (scheme, rest) = server.url.as_str().split_once("://").unwrap_or_default();
        let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self::with(
            scheme,
            path.trim_end_matches('/'),
            BasicAuth::external(server, file),
            vec![address.to_owned()],
        )
    }

    fn with(scheme: &str, path: &str, basic_auth: Option<BasicAuth>, targets: Vec<String>) -> Self {
        let all = StaticConfig { targets, labels: BTreeMap::new() };
        let (scheme, path_prefix) = (scheme.to_owned(), path.to_owned());
        Self { alertmanagers: [Alertmanagers { scheme, path_prefix, basic_auth, static_configs: [all] }] }
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Global {
    pub(super) scrape_interval: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) evaluation_interval: Option<&'static str>,
    pub(super) external_labels: BTreeMap<&'static str, String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct ScrapeConfig {
    pub(super) job_name: &'static str,
    /// A target with more series than this is scraped in vain: one cannot fill the store.
    pub(super) sample_limit: u32,
    pub(super) label_limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metrics_path: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) params: BTreeMap<&'static str, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) basic_auth: Option<BasicAuth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) static_configs: Vec<StaticConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) dns_sd_configs: Vec<DnsConfig>,
}

#[derive(Debug, Serialize)]
pub(super) struct BasicAuth {
    username: String,
    password_file: String,
}

#[derive(Debug, Serialize)]
pub(super) struct StaticConfig {
    pub(super) targets: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
pub(super) struct DnsConfig {
    pub(super) names: Vec<String>,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) port: u16,
    pub(super) refresh_interval: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct RemoteWrite {
    pub(super) url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) basic_auth: Option<BasicAuth>,
}

impl RemoteWrite {
    /// To the store that a host of the stack runs.
    pub(super) fn to(store: &HostSpec, port: Port) -> Self {
        let url = format!("http://{}:{port}{WRITE}", private_address(store));
        Self { url, basic_auth: Some(BasicAuth::admin()) }
    }

    /// To one that somebody else runs; its password is a file of that name among the service's secrets.
    pub(super) fn external(server: &ExternalServerSpec, file: &str) -> Self {
        Self { url: server.url.to_string(), basic_auth: BasicAuth::external(server, file) }
    }
}

impl Global {
    /// Every series says which stack it is of.
    pub(super) fn of(stack: &Stack) -> Self {
        let external_labels = BTreeMap::from([
            ("namespace", stack.key.namespace.clone()),
            ("stack", stack.key.name.clone()),
            ("environment", stack.spec.environment.to_string()),
        ]);
        Self { scrape_interval: SCRAPE_INTERVAL, evaluation_interval: None, external_labels }
    }
}

impl ScrapeConfig {
    /// A job without targets.
    pub(super) fn new(job_name: &'static str, sample_limit: u32) -> Self {
        Self { job_name, sample_limit, label_limit: 40, ..Self::default() }
    }
}

impl BasicAuth {
    /// The administrator, with the password as a service sees it.
    pub(super) fn admin() -> Self {
        Self { username: ADMIN.to_owned(), password_file: format!("{SECRETS_INSIDE}/{PASSWORD}") }
    }

    fn external(server: &ExternalServerSpec, file: &str) -> Option<Self> {
        let username = server.username.as_ref()?.to_string();
        Some(Self { username, password_file: format!("{SECRETS_INSIDE}/{file}") })
    }
}

/// The text of a configuration file, and the proof that it is loaded, with the text of its rules: among the files with more
/// targets it names some after the digest of both, which are never there and which Prometheus shows as part of what it has
/// loaded.
pub(super) fn render(mut config: Config, rules: &str) -> (String, String) {
    let token = format!("loaded-{}", &sha256(&crate::json::to_vec(&(&config, rules)))[..16]);
    config.scrape_config_files.push(format!("{FOLDER}/{token}-*.yml"));
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = crate::json::serialized(serde_saphyr::to_string_with_options(&config, options));
    (format!("# Written by tasktracker-operator; changes made here are taken back.\n{text}"), token)
}

/// That what is loaded is what was rendered.
pub(super) fn loaded(service: &str, file: &str, token: &str) -> LoadedProbe {
    let probe =
        HttpProbe { expect: Expect::Text(token.to_owned()), ..ready(service, PORT, "/api/v1/status/config") };
    LoadedProbe { what: file.to_owned(), probe }
}

/// Where a service takes samples.
pub(super) fn remote_write(service: &str) -> MetricsStore {
    MetricsStore {
        service: service.to_owned(),
        endpoint: Endpoint { port: PORT, path: WRITE.to_owned() },
        credentials: credentials(service),
    }
}

/// The administrator, and the file with the password among the secrets of a service.
fn credentials(service: &str) -> (String, String) {
    (ADMIN.to_owned(), format!("{SECRETS_FOLDER}/{service}/{PASSWORD}"))
}

/// A request of the administrator that must succeed.
pub(super) fn ready(service: &str, port: u16, path: &str) -> HttpProbe {
    HttpProbe {
        endpoint: Endpoint { port, path: path.to_owned() },
        credentials: Some(credentials(service)),
        expect: Expect::Status(200),
    }
}

/// Password and web configuration of a service.
pub(super) fn secrets(
    stack: &Stack,
    monitoring: &MonitoringSpec,
    service: &str,
) -> impl Iterator<Item = (String, SecretFile)> {
    let secret = monitoring.credentials_secret_ref.name.clone();
    let source = SecretSource::from(SecretKeySpec { secret, key: PASSWORD.to_owned() });
    let form = Form::WebConfig { user: ADMIN.to_owned(), salt: stack.key.to_string() };
    let web = SecretSource { form: Some(form), ..source.clone() };
    let path = |name: &str| format!("{SECRETS_FOLDER}/{service}/{name}");
    [(path(PASSWORD), SecretFile::new(source)), (path(WEB_CONFIG), SecretFile::new(web))].into_iter()
}

/// Passwords of servers that somebody else runs, each as a file of its name among the secrets of a service.
pub(super) fn external_secrets<'a>(
    service: &str,
    servers: impl IntoIterator<Item = (String, &'a ExternalServerSpec)>,
) -> BTreeMap<String, SecretFile> {
    let file = |(name, server): (String, &ExternalServerSpec)| {
        let secret = server.password_secret_ref.as_ref()?.name.clone();
        let source = SecretKeySpec { secret, key: PASSWORD.to_owned() };
        Some((format!("{SECRETS_FOLDER}/{service}/{name}"), SecretFile::new(source)))
    };
    servers.into_iter().filter_map(file).collect()
}

/// Whether an image is of Prometheus 2, which knows the agent by another flag.
pub(super) fn is_version_2(image: &str) -> bool {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    tag.trim_start_matches('v').starts_with("2.")
}

/// Where other hosts reach a host.
pub(super) fn private_address(host: &HostSpec) -> String {
    let address = host.private_address.as_ref().unwrap_or(&host.address).to_string();
    if address.contains(':') { format!("[{address}]") } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_follow_the_version_of_the_image() {
        for (image, expected) in [
            ("prom/prometheus:v2.53.3", true),
            ("registry.example.com:5000/prometheus:2.53.3", true),
            ("prom/prometheus:v3.16.0", false),
            ("registry.example.com:5000/prometheus", false),
            ("prom/prometheus@sha256:22", false),
        ] {
            assert_eq!(is_version_2(image), expected, "{image}");
        }
    }

    #[test]
    fn what_is_loaded_is_told_by_a_name_that_follows_the_content() {
        let config = |job| Config { scrape_configs: vec![ScrapeConfig::new(job, 1)], ..Config::default() };
        let ((one, first), (_, other)) = (render(config("a"), ""), render(config("b"), ""));
        assert!(one.contains(&first) && first != other, "{one}");
        assert_eq!(render(config("a"), "").1, first);
        assert_ne!(render(config("a"), "groups: []").1, first);
    }
}
