//! The edge: the proxy in front of page and API, and the certificate that it shows.

use std::collections::BTreeMap;

use tasktracker_crds::{AppSpec, SecretKeySpec, TlsMode, scalars::SecretName};

use super::{
    EDGE, SECRETS_FOLDER, Tls,
    app::{secrets_mount, stop_grace},
    compose::{Healthcheck, Limits, Mount, PublishedPort, Service},
};
use crate::source::Stack;

/// Port of the page without TLS, inside the container.
pub(super) const PAGE_PORT: u16 = 3500;
/// Port of the API alone, inside the container.
pub(super) const API_PORT: u16 = 8000;
/// Port of plain HTTP beside TLS, inside the container.
pub(super) const HTTP_PORT: u16 = 8080;
/// Port of the page with TLS, inside the container.
pub(super) const HTTPS_PORT: u16 = 8443;

/// User and group inside the container.
pub(crate) const USER: &str = "65532:65532";
/// Where it keeps what it makes itself: keys, certificates, accounts.
pub(crate) const DATA: &str = "/data";
/// Name inside the project of the volume with that.
pub(crate) const VOLUME: &str = "edge";

/// Names of its secret files: certificate, key, and who vouches for an ACME directory.
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
pub(super) const AUTHORITY: &str = "ca.crt";

/// Paths of certificate and key, from the project's folder.
pub(crate) fn certificate_files() -> [String; 2] {
    [CERTIFICATE, KEY].map(|name| format!("{SECRETS_FOLDER}/{EDGE}/{name}"))
}

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

/// Whom users find over TLS.
pub(super) fn tls(stack: &Stack, app: &AppSpec) -> Option<Tls> {
    Some(Tls { name: name(app)?, port: stack.spec.ports.https.0 })
}

/// The name that its certificate is for.
pub(super) fn name(app: &AppSpec) -> Option<String> {
    let origin = app.public_url.as_ref().filter(|_| app.tls.mode != TlsMode::Off)?;
    let host = origin.as_str().strip_prefix("https://")?;
    Some(host.split_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase())
}

/// Whether it makes what outlives its container.
pub(super) fn keeps_data(app: &AppSpec) -> bool {
    matches!(app.tls.mode, TlsMode::Internal | TlsMode::Acme)
}

/// The edge of a stack.
pub(super) fn edge(stack: &Stack, app: &AppSpec) -> Service {
    let limits = Limits { cap_add: vec!["NET_BIND_SERVICE".to_owned()], ..Limits::new(&app.edge.resources) };
    let healthcheck =
        Healthcheck::program(&["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:2019/config/"]);
    let files = Mount::folder("./files/edge", "/etc/caddy");
    let data = keeps_data(app).then(|| Mount::volume(VOLUME, DATA));
    let secrets = (!secrets(app).is_empty()).then(|| secrets_mount(EDGE));
    let in_memory = ["/config"].into_iter().chain(data.is_none().then_some(DATA));
    let ports = &stack.spec.ports;
    let page = match app.tls.mode {
        TlsMode::Off => vec![PublishedPort::tcp(ports.page.0, PAGE_PORT)],
        _ => vec![PublishedPort::tcp(ports.http.0, HTTP_PORT), PublishedPort::tcp(ports.https.0, HTTPS_PORT)],
    };
    Service {
        user: Some(USER.to_owned()),
        ports: page.into_iter().chain([PublishedPort::tcp(ports.api.0, API_PORT)]).collect(),
        tmpfs: in_memory.map(|path| format!("{path}:uid=65532,gid=65532,mode=0700")).collect(),
        volumes: [files].into_iter().chain(data).chain(secrets).collect(),
        healthcheck: Some(healthcheck),
        stop_grace_period: stop_grace(stack),
        ..Service::new(app.edge.image.to_string(), limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{Project, app_project};

    fn project(tls: &str) -> Project {
        let text = include_str!("../../../examples/staging.yaml").replace(
            "tasktracker}",
            &format!("tasktracker, publicUrl: \"https://Tasks.example.com:8443\", tls: {{{tls}}}}}"),
        );
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "staging.yaml".into());
        app_project(&stack, stack.spec.app.as_ref().unwrap())
    }

    fn ports(project: &Project) -> Vec<String> {
        let ports = &project.services["edge"].ports;
        ports.iter().map(|port| format!("{}>{}", port.published, port.target)).collect()
    }

    #[test]
    fn a_certificate_from_a_secret_is_a_file_that_the_edge_sees() {
        let project = project("mode: Secret, secret: web");
        assert_eq!(ports(&project), ["80>8080", "443>8443", "8000>8000"]);
        let [certificate, key] = certificate_files().map(|path| project.secrets[&path].key.clone());
        assert_eq!((certificate.as_str(), key.as_str()), ("tls.crt", "tls.key"));
        assert_eq!(project.tls, Some(Tls { name: "tasks.example.com".to_owned(), port: 443 }));
        assert_eq!(project.volumes.keys().collect::<Vec<_>>(), ["data"], "nothing that outlives it");
        insta::assert_snapshot!("caddyfile_secret", project.files["files/edge/Caddyfile"]);
    }

    #[test]
    fn what_the_edge_makes_itself_outlives_its_container_and_is_no_data() {
        for mode in ["mode: Internal", "mode: Acme, acme: {email: \"a@example.com\"}"] {
            let project = project(mode);
            assert_eq!(project.volumes["edge"], "tt-staging-app-edge", "{mode}");
            assert_eq!(project.data().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["data"]);
            let edge = &project.services["edge"];
            assert!(edge.volumes.iter().any(|mount| mount.source == "edge" && mount.target == "/data"));
            assert!(!edge.tmpfs.iter().any(|path| path.starts_with("/data")), "{:?}", edge.tmpfs);
        }
    }

    #[test]
    fn acme_of_ones_own() {
        let acme =
            "acme: {email: \"a@example.com\", directory: \"https://ca.example.com/acme\", caSecret: ca}";
        let project = project(&format!("mode: Acme, {acme}"));
        assert_eq!(project.secrets["secrets/edge/ca.crt"].secret.as_str(), "ca");
        insta::assert_snapshot!("caddyfile_acme", project.files["files/edge/Caddyfile"]);
    }
}
