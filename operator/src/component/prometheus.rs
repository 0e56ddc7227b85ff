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
/// Chain of the certificate that a service shows, among its secrets, and key of the Secret with it.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// The certificate's key, likewise.
pub(super) const KEY: &str = "tls.key";
/// Who vouches for it, likewise.
pub(super) const CA: &str = "ca.crt";
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
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_config: Option<TlsConfig>,
    #[serde(skip_serializing_if = "String::is_empty")]
    path_prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    basic_auth: Option<BasicAuth>,
    static_configs: [StaticConfig; 1],
}

impl Alerting {
    /// Each of the stack's own, as the administrator.
    pub(super) fn of(targets: Vec<String>, monitoring: &MonitoringSpec) -> Self {
        let mut own = Self::with(scheme(monitoring), "", Some(BasicAuth::admin()), targets);
        own.alertmanagers[0].tls_config = TlsConfig::of(monitoring);
        own
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
        let one = Alertmanagers { scheme, tls_config: None, path_prefix, basic_auth, static_configs: [all] };
        Self { alertmanagers: [one] }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scheme: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls_config: Option<TlsConfig>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) params: BTreeMap<&'static str, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) basic_auth: Option<BasicAuth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) static_configs: Vec<StaticConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) dns_sd_configs: Vec<DnsConfig>,
}

/// Who is believed to be one of the monitoring.
#[derive(Debug, Serialize)]
pub(super) struct TlsConfig {
    ca_file: String,
    server_name: String,
}

impl TlsConfig {
    fn of(monitoring: &MonitoringSpec) -> Option<Self> {
        let name = &monitoring.tls.as_ref()?.server_name;
        Some(Self { ca_file: format!("{SECRETS_INSIDE}/{CA}"), server_name: name.to_string() })
    }
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
    tls_config: Option<TlsConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) basic_auth: Option<BasicAuth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) write_relabel_configs: Vec<Relabel>,
}

/// A label that every series gets.
#[derive(Debug, Serialize)]
pub(super) struct Relabel {
    target_label: &'static str,
    replacement: String,
}

impl RemoteWrite {
    /// To the store that a host of the stack runs.
    pub(super) fn to(store: &HostSpec, monitoring: &MonitoringSpec) -> Self {
        Self {
            url: format!("{}{WRITE}", url(store, monitoring.prometheus.port, monitoring)),
            tls_config: TlsConfig::of(monitoring),
            basic_auth: Some(BasicAuth::admin()),
            write_relabel_configs: Vec::new(),
        }
    }

    /// To one that somebody else runs; its password is a file of that name among the service's secrets. Where others send
    /// the same series, `replica` is the host whose they are.
    pub(super) fn external(server: &ExternalServerSpec, file: &str, replica: Option<&HostSpec>) -> Self {
        let label = |host: &HostSpec| Relabel { target_label: "replica", replacement: host.name.to_string() };
        Self {
            url: server.url.to_string(),
            tls_config: None,
            basic_auth: BasicAuth::external(server, file),
            write_relabel_configs: replica.map(label).into_iter().collect(),
        }
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
    /// A job whose targets are of the monitoring itself: they let the administrator in.
    pub(super) fn of_monitoring(
        job_name: &'static str,
        sample_limit: u32,
        monitoring: &MonitoringSpec,
    ) -> Self {
        Self {
            scheme: monitoring.tls.is_some().then_some("https"),
            tls_config: TlsConfig::of(monitoring),
            basic_auth: Some(BasicAuth::admin()),
            ..Self::new(job_name, sample_limit)
        }
    }

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
pub(super) fn loaded(monitoring: &MonitoringSpec, service: &str, file: &str, token: &str) -> LoadedProbe {
    let expect = Expect::Text(token.to_owned());
    let probe = HttpProbe { expect, ..ready(monitoring, service, PORT, "/api/v1/status/config") };
    LoadedProbe { what: file.to_owned(), probe }
}

/// Where a service takes samples.
pub(super) fn remote_write(monitoring: &MonitoringSpec, service: &str) -> MetricsStore {
    MetricsStore {
        service: service.to_owned(),
        endpoint: endpoint(monitoring, PORT, WRITE),
        credentials: credentials(service),
    }
}

/// The administrator, and the file with the password among the secrets of a service.
fn credentials(service: &str) -> (String, String) {
    (ADMIN.to_owned(), format!("{SECRETS_FOLDER}/{service}/{PASSWORD}"))
}

/// A path of a service of the monitoring.
pub(super) fn endpoint(monitoring: &MonitoringSpec, port: u16, path: &str) -> Endpoint {
    let tls_name = monitoring.tls.as_ref().map(|tls| tls.server_name.to_string());
    Endpoint { tls_name, ..Endpoint::new(port, path) }
}

/// A request of the administrator that must succeed.
pub(super) fn ready(monitoring: &MonitoringSpec, service: &str, port: u16, path: &str) -> HttpProbe {
    HttpProbe {
        endpoint: endpoint(monitoring, port, path),
        credentials: Some(credentials(service)),
        expect: Expect::Status(200),
    }
}

/// Password and web configuration of a service, and the certificate that it shows.
pub(super) fn secrets(
    stack: &Stack,
    monitoring: &MonitoringSpec,
    service: &str,
) -> impl Iterator<Item = (String, SecretFile)> {
    let secret = monitoring.credentials_secret_ref.name.clone();
    let source = SecretSource::from(SecretKeySpec { secret, key: PASSWORD.to_owned() });
    let tls = monitoring.tls.is_some();
    let form = Form::WebConfig { user: ADMIN.to_owned(), salt: stack.key.to_string(), tls };
    let web = SecretSource { form: Some(form), ..source.clone() };
    let path = |name: &str| format!("{SECRETS_FOLDER}/{service}/{name}");
    let own = [(path(PASSWORD), SecretFile::new(source)), (path(WEB_CONFIG), SecretFile::new(web))];
    let of_tls = monitoring.tls.iter().flat_map(|tls| {
        let secret = &tls.secret_ref.name;
        [CERTIFICATE, KEY, CA].map(|key| (key, SecretKeySpec { secret: secret.clone(), key: key.to_owned() }))
    });
    let of_tls: Vec<_> = of_tls.map(|(key, source)| (path(key), SecretFile::new(source))).collect();
    own.into_iter().chain(of_tls)
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

/// What a URL of the monitoring begins with.
fn scheme(monitoring: &MonitoringSpec) -> &'static str {
    if monitoring.tls.is_some() { "https" } else { "http" }
}

/// Where others reach a part of the monitoring on a host.
pub(super) fn url(host: &HostSpec, port: Port, monitoring: &MonitoringSpec) -> String {
    format!("{}://{}:{port}", scheme(monitoring), private_address(host))
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
