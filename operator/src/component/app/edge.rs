//! The edge: the proxy in front of page and API, and the certificate that it shows.

use std::{collections::BTreeMap, time::Duration};

use tasktracker_crds::{AppSpec, SecretKeySpec, TlsMode, scalars::SecretName};

use super::{BACKEND, EDGE, FRONTEND, secrets_mount, stop_grace};
use crate::{
    project::{
        CertificatePair, CertificateProbe, Expect, Owner, PublishedProbe, Reload, SECRETS_FOLDER, Service,
        Validation, Volume, VolumeRole,
        compose::{self, Healthcheck, Limits, Mount, PublishedPort},
    },
    source::Stack,
};

/// Port of the page without TLS, inside the container.
pub(super) const PAGE_PORT: u16 = 3500;
/// Port of the API alone, inside the container.
pub(super) const API_PORT: u16 = 8000;
/// Port of plain HTTP beside TLS, inside the container.
pub(super) const HTTP_PORT: u16 = 8080;
/// Port of the page with TLS, inside the container.
pub(super) const HTTPS_PORT: u16 = 8443;
/// Port inside the container where it tells of itself; it is not published.
pub(super) const METRICS_PORT: u16 = 2020;

/// File that is there while a host is drained: the edge then tells balancers that the host is not ready.
pub(super) const DRAIN_FILE: &str = "files/edge/drained";
/// User and group inside the container.
const USER: Owner = Owner { uid: 65532, gid: 65532 };
/// Where it keeps what it makes itself: keys, certificates, accounts.
const DATA: &str = "/data";
/// Name inside the project of the volume with that.
const VOLUME: &str = "edge";
/// Its configuration, inside the container.
const CONFIG: &str = "/etc/caddy/Caddyfile";
/// How long Caddy may take to say whether it understands a configuration.
const VALIDATION_LIMIT: Duration = Duration::from_secs(30);

/// Names of its secret files: certificate, key, and who vouches for an ACME directory.
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
pub(super) const AUTHORITY: &str = "ca.crt";

/// Its secrets, by the name of the file.
pub(super) fn secrets(app: &AppSpec) -> BTreeMap<String, SecretKeySpec> {
    let of = |secret: &SecretName, key: &str| {
        (key.to_owned(), SecretKeySpec { secret: secret.clone(), key: key.to_owned() })
    };
    let authority = app.tls.acme.as_ref().and_then(|acme| acme.ca_secret.as_ref());
    match (app.tls.mode, &app.tls.secret) {
        (TlsMode::Secret, Some(secret)) => [CERTIFICATE, KEY].map(|key| of(secret, key)).into(),
        (TlsMode::Acme, _) => authority.map(|secret| of(secret, AUTHORITY)).into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

/// The certificate that users are shown.
pub(super) fn certificate(stack: &Stack, app: &AppSpec) -> Option<CertificateProbe> {
    let path = |name: &str| format!("{SECRETS_FOLDER}/{EDGE}/{name}");
    let pair = || CertificatePair { chain: path(CERTIFICATE), key: path(KEY) };
    Some(CertificateProbe {
        service: EDGE.to_owned(),
        name: name(app)?,
        port: stack.spec.ports.https.0,
        pair: (app.tls.mode == TlsMode::Secret).then(pair),
    })
}

/// The name that its certificate is for.
pub(super) fn name(app: &AppSpec) -> Option<String> {
    let origin = app.public_url.as_ref().filter(|_| app.tls.mode != TlsMode::Off)?;
    let origin = origin.canonical();
    let host = origin.strip_prefix("https://")?;
    Some(host.split_once(':').map_or(host, |(name, _)| name).to_owned())
}

/// Whether it makes what outlives its container.
fn keeps_data(app: &AppSpec) -> bool {
    matches!(app.tls.mode, TlsMode::Internal | TlsMode::Acme)
}

/// The volume with what it makes, where it makes any.
pub(super) fn volume(app: &AppSpec, project: &str) -> Option<(String, Volume)> {
    let volume =
        || Volume { name: format!("{project}-{VOLUME}"), role: VolumeRole::Cache, owner: Some(USER) };
    keeps_data(app).then(|| (VOLUME.to_owned(), volume()))
}

/// The edge of a stack.
pub(super) fn edge(stack: &Stack, app: &AppSpec) -> Service {
    let limits = Limits { cap_add: vec!["NET_BIND_SERVICE".to_owned()], ..Limits::new(&app.edge.resources) };
    let healthcheck =
        Healthcheck::program(&["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:2019/config/"]);
    let files = Mount::folder("./files/edge", "/etc/caddy");
    let data = keeps_data(app).then(|| Mount::owned_volume(VOLUME, DATA));
    let secrets = (!secrets(app).is_empty()).then(|| secrets_mount(EDGE));
    let in_memory = ["/config"].into_iter().chain(data.is_none().then_some(DATA));
    let ports = &stack.spec.ports;
    let page = match app.tls.mode {
        TlsMode::Off => vec![PublishedPort::tcp(ports.page.0, PAGE_PORT)],
        _ => vec![PublishedPort::tcp(ports.http.0, HTTP_PORT), PublishedPort::tcp(ports.https.0, HTTPS_PORT)],
    };
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let compose = compose::Service {
        user: Some(format!("{}:{}", USER.uid, USER.gid)),
        ports: page.into_iter().chain([PublishedPort::tcp(ports.api.0, API_PORT)]).collect(),
        tmpfs: in_memory.map(|path| format!("{path}:uid=65532,gid=65532,mode=0700")).collect(),
        volumes: [files].into_iter().chain(data).chain(secrets).collect(),
        healthcheck: Some(healthcheck),
        stop_grace_period: stop_grace(stack),
        ..compose::Service::new(app.edge.image.to_string(), limits)
    };
    // Caddy validates before it switches, and does nothing where it has the same configuration.
    let reload = Reload::Exec {
        argv: words(&["caddy", "reload", "--config", CONFIG, "--adapter", "caddyfile"]),
        force: words(&["--force"]),
    };
    let validation = Validation {
        argv: words(&["caddy", "adapt", "--config", CONFIG, "--adapter", "caddyfile"]),
        limit: VALIDATION_LIMIT,
    };
    let published = published(stack, app);
    Service { reload, validations: vec![validation], published, ..Service::new(compose) }
}

/// What users ask: the page, the API below it, and the API alone.
fn published(stack: &Stack, app: &AppSpec) -> Vec<PublishedProbe> {
    let ports = &stack.spec.ports;
    let tls_name = name(app);
    let page = if tls_name.is_some() { ports.https.0 } else { ports.page.0 };
    let is_json = || Expect::JsonSubset(serde_json::json!({}));
    let probes = [
        (page, "/", FRONTEND, Expect::Status(200)),
        (page, "/api/tasks?limit=1", BACKEND, is_json()),
        (ports.api.0, "/tasks?limit=1", BACKEND, is_json()),
    ];
    let probe = |(port, path, behind, expect): (u16, &str, &str, Expect)| PublishedProbe {
        port,
        path: path.to_owned(),
        tls_name: tls_name.clone(),
        expect,
        behind: Some(behind.to_owned()),
    };
    probes.map(probe).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{component::app_project, project::Project};

    fn project(tls: &str) -> Project {
        let text = include_str!("../../../../examples/staging.yaml").replace(
            "tasktracker}",
            &format!("tasktracker, publicUrl: \"https://Tasks.example.com:8443\", tls: {{{tls}}}}}"),
        );
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "staging.yaml".into());
        app_project(&stack, stack.spec.app.as_ref().unwrap())
    }

    fn ports(project: &Project) -> Vec<String> {
        let ports = &project.services["edge"].compose.ports;
        ports.iter().map(|port| format!("{}>{}", port.published, port.target)).collect()
    }

    #[test]
    fn a_certificate_from_a_secret_is_a_file_that_the_edge_sees() {
        let project = project("mode: Secret, secret: web");
        assert_eq!(ports(&project), ["80>8080", "443>8443", "8000>8000"]);
        let shown = project.certificate.clone().unwrap();
        assert_eq!((shown.name.as_str(), shown.port), ("tasks.example.com", 443));
        let key_of = |path: &String| project.secrets[path].reference.key.clone();
        let pair = shown.pair.unwrap();
        assert_eq!((key_of(&pair.chain).as_str(), key_of(&pair.key).as_str()), ("tls.crt", "tls.key"));
        assert_eq!(project.volumes.keys().collect::<Vec<_>>(), ["data"], "nothing that outlives it");
        insta::assert_snapshot!("caddyfile_secret", project.files["files/edge/Caddyfile"].content);
    }

    #[test]
    fn what_the_edge_makes_itself_outlives_its_container_and_is_no_data() {
        for mode in ["mode: Internal", "mode: Acme, acme: {email: \"a@example.com\"}"] {
            let project = project(mode);
            assert_eq!(project.volumes["edge"].name, "tt-staging-app-edge", "{mode}");
            assert_eq!(
                project.volumes_of(VolumeRole::Data).map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
                ["data"]
            );
            let edge = &project.services["edge"].compose;
            assert!(edge.volumes.iter().any(|mount| mount.source == "edge" && mount.target == "/data"));
            assert!(!edge.tmpfs.iter().any(|path| path.starts_with("/data")), "{:?}", edge.tmpfs);
        }
    }

    #[test]
    fn acme_of_ones_own() {
        let acme =
            "acme: {email: \"a@example.com\", directory: \"https://ca.example.com/acme\", caSecret: ca}";
        let project = project(&format!("mode: Acme, {acme}"));
        assert_eq!(project.secrets["secrets/edge/ca.crt"].reference.secret.as_str(), "ca");
        insta::assert_snapshot!("caddyfile_acme", project.files["files/edge/Caddyfile"].content);
    }
}
