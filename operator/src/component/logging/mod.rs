//! The component `logging`: the log store of a stack.

mod objects;

use std::collections::BTreeMap;

use tasktracker_crds::{HostSpec, LoggingSpec, Role, SecretKeySpec};

use super::{Component, empty, service_labels};
use crate::{
    model::ComponentName,
    project::{
        ApiObject, Endpoint, Expect, File, HttpProbe, Owner, Project, Readiness, Reload, SECRETS_FOLDER,
        SecretFile, Service, Strategy, Volume, VolumeRole,
        compose::{self, Limits, Mount, PublishedPort},
    },
    secret::{Form, SecretSource},
    source::Stack,
};

/// The log store.
const ELASTICSEARCH: &str = "elasticsearch";
/// Port inside the container.
const PORT: u16 = 9200;
/// User and group of the image.
const USER: Owner = Owner { uid: 1000, gid: 0 };
/// Who may do everything: known to it by a file, so that a new password needs no old one and no index.
const ADMIN: &str = "admin";
/// Key of the Secret with that one's password.
const PASSWORD: &str = "password";
/// Name inside the project of the volume with its data.
const DATA: &str = "elasticsearch";
/// Where it keeps its data, inside its container.
const DATA_INSIDE: &str = "/usr/share/elasticsearch/data";
/// Its own configuration folder: it follows no link that leads out of there.
const CONFIG_INSIDE: &str = "/usr/share/elasticsearch/config";
/// The file of its configuration with the roles of users in files, among its files.
const ROLES: &str = "users_roles";
/// The same with their passwords, among its secrets.
const USERS: &str = "users";
/// Starts it where it finds the users that we name.
const START: &str = "ln -sf secrets/users config/users && ln -sf files/users_roles config/users_roles && exec /usr/local/bin/docker-entrypoint.sh eswrapper";
/// How long it may take to end.
const STOP_GRACE: &str = "60s";

/// The component.
pub(super) struct Logging;

/// The log store of a stack, for whoever reads.
#[derive(Clone, Debug)]
pub struct LogStore<'a> {
    /// The host with it.
    pub host: &'a HostSpec,
    /// Its service.
    pub service: &'static str,
    /// Port inside its container.
    pub port: u16,
    /// Who may read.
    pub user: &'static str,
    /// The password.
    pub password: SecretKeySpec,
}

/// The log store of a stack, where it has one.
pub fn log_store(stack: &Stack) -> Option<LogStore<'_>> {
    let logging = stack.spec.logging.as_ref()?;
    let host = stack.spec.hosts_with(Role::Logging).next()?;
    let reader = &objects::READER;
    let secret = logging.credentials_secret_ref.name.clone();
    let password = SecretKeySpec { secret, key: reader.password.to_owned() };
    Some(LogStore { host, service: ELASTICSEARCH, port: PORT, user: reader.name, password })
}

impl Component for Logging {
    fn name(&self) -> ComponentName {
        ComponentName::Logging
    }

    fn is_wanted(&self, stack: &Stack, host: &HostSpec) -> bool {
        stack.spec.logging.is_some() && host.roles.contains(&Role::Logging)
    }

    fn render(&self, stack: &Stack, host: &HostSpec) -> Project {
        let mut project = empty(stack, ComponentName::Logging);
        let Some(logging) = &stack.spec.logging else { return project };
        let secret = |key: &str| {
            let secret = logging.credentials_secret_ref.name.clone();
            SecretSource::from(SecretKeySpec { secret, key: key.to_owned() })
        };
        let path = |name: &str| format!("{SECRETS_FOLDER}/{ELASTICSEARCH}/{name}");
        let form = Form::PasswordLine { user: ADMIN.to_owned(), salt: stack.key.to_string() };
        let users = SecretSource { form: Some(form), ..secret(PASSWORD) };
        project.secrets.insert(path(USERS), SecretFile::new(users));
        project.secrets.insert(path(PASSWORD), SecretFile::new(secret(PASSWORD)));
        for user in objects::USERS {
            project.secrets.insert(path(user.password), SecretFile::new(secret(user.password)));
        }
        let roles = File::new(format!("superuser:{ADMIN}\n"));
        project.files.insert(format!("files/{ELASTICSEARCH}/{ROLES}"), roles);
        let volume =
            Volume { name: format!("{}-{DATA}", project.name), role: VolumeRole::Data, owner: Some(USER) };
        project.volumes.insert(DATA.to_owned(), volume);
        project.services.insert(ELASTICSEARCH.to_owned(), store(stack, host, logging));
        project.api_objects = objects::all(logging);
        project
    }
}

/// A request of the administrator.
fn request(path: &str, expect: Expect) -> HttpProbe {
    HttpProbe { endpoint: Endpoint::new(PORT, path), credentials: Some(credentials(ADMIN, PASSWORD)), expect }
}

/// A user, and the file with that one's password among the secrets.
fn credentials(user: &str, password: &str) -> (String, String) {
    (user.to_owned(), format!("{SECRETS_FOLDER}/{ELASTICSEARCH}/{password}"))
}

fn store(stack: &Stack, host: &HostSpec, logging: &LoggingSpec) -> Service {
    let spec = &logging.elasticsearch;
    let image = spec.image.to_string();
    let heap = spec.resources.limits.memory.bytes() / 2 / (1 << 20);
    let settings = [
        ("cluster.name", stack.key.name.clone()),
        ("node.name", host.name.to_string()),
        ("discovery.type", "single-node".to_owned()),
        ("network.host", "0.0.0.0".to_owned()),
        ("xpack.security.enabled", "true".to_owned()),
        ("xpack.security.autoconfiguration.enabled", "false".to_owned()),
        // Nobody is let in but those of the spec.
        ("xpack.security.authc.reserved_realm.enabled", "false".to_owned()),
        ("ES_JAVA_OPTS", format!("-Xms{heap}m -Xmx{heap}m")),
    ];
    let port = PublishedPort::tcp(spec.port.0, PORT).private(host.bind_address.as_ref());
    let limits = Limits {
        // Its keystore is made where its configuration is.
        read_only: false,
        pids_limit: 4096,
        ..Limits::new(&spec.resources.limits)
    };
    let compose = compose::Service {
        entrypoint: Some(vec!["/bin/bash".to_owned(), "-c".to_owned(), START.to_owned()]),
        user: Some(format!("{}:{}", USER.uid, USER.gid)),
        environment: settings.map(|(name, value)| (name.to_owned(), value)).into(),
        ports: vec![port],
        volumes: vec![
            Mount::folder(format!("./files/{ELASTICSEARCH}"), format!("{CONFIG_INSIDE}/files")),
            Mount::folder(format!("./{SECRETS_FOLDER}/{ELASTICSEARCH}"), format!("{CONFIG_INSIDE}/secrets")),
            Mount::owned_volume(DATA, DATA_INSIDE),
        ],
        labels: service_labels(stack, ComponentName::Logging, &image),
        stop_grace_period: STOP_GRACE.to_owned(),
        ..compose::Service::new(image, limits)
    };
    let health = "/_cluster/health?wait_for_status=yellow&timeout=1s";
    Service {
        strategy: Strategy::Recreate,
        // It looks for other users every few seconds by itself.
        reload: Reload::Watched,
        readiness: Readiness::Http(request(health, Expect::Status(200))),
        ..Service::new(compose)
    }
}

/// An object that is read and written at one place, by the administrator.
fn object(path: &str, body: serde_json::Value, read: serde_json::Value) -> ApiObject {
    ApiObject {
        service: ELASTICSEARCH.to_owned(),
        endpoint: Endpoint::new(PORT, path),
        credentials: Some(credentials(ADMIN, PASSWORD)),
        body,
        secrets: BTreeMap::new(),
        probe: Some(request(path, Expect::JsonSubset(read))),
    }
}
