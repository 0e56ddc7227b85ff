//! The component `echo`, which exists for tests alone: one small service with a reloaded file, a secret, a data volume and
//! an object behind its API. An annotation asks for it on every host that has a role.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use tasktracker_crds::{HostSpec, ResourcesSpec, SecretKeySpec};

use super::{Component, empty, service_labels};
use crate::{
    model::ComponentName,
    project::{
        ApiObject, Endpoint, Expect, File, HttpProbe, LoadedProbe, Owner, Project, Readiness, Reload,
        SecretFile, Service, Strategy, Validation, Volume, VolumeRole,
        compose::{self, Limits, Mount},
    },
    source::Stack,
};

/// Annotation with its settings, as JSON.
const ANNOTATION: &str = "tasktracker.dev/echo";
/// Port inside the container.
const PORT: u16 = 7000;
/// The one service.
const ECHO: &str = "echo";
/// Its configuration, from the project's folder.
const CONFIG: &str = "files/echo/config.txt";
/// The password of its API, from the project's folder.
const PASSWORD: &str = "secrets/echo/password";
/// User and group inside the container.
const USER: Owner = Owner { uid: 1000, gid: 1000 };

/// What the annotation says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Settings {
    image: String,
    #[serde(default)]
    config: String,
    /// Whether no two instances may be down at once.
    #[serde(default)]
    serial: bool,
    /// Whether each host is asked for something else.
    #[serde(default)]
    per_host: bool,
    #[serde(default = "object")]
    object: Value,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

fn object() -> Value {
    json!({ "greeting": "hello" })
}

/// The component.
pub(super) struct Echo;

impl Component for Echo {
    fn name(&self) -> ComponentName {
        ComponentName::Echo
    }

    fn is_wanted(&self, stack: &Stack, host: &HostSpec) -> bool {
        settings(stack).is_some() && !host.roles.is_empty()
    }

    fn render(&self, stack: &Stack, host: &HostSpec) -> Project {
        let empty = empty(stack, ComponentName::Echo);
        let Some(settings) = settings(stack) else { return empty };
        let object = ApiObject {
            service: ECHO.to_owned(),
            endpoint: endpoint("/objects/greeting"),
            credentials: Some(credentials()),
            body: settings.object.clone(),
            secrets: BTreeMap::new(),
            probe: None,
        };
        let password = SecretKeySpec { secret: super::fixed("echo"), key: "password".to_owned() };
        let password = SecretFile { reference: password.into(), mode: 0o400, owner: Some(USER) };
        let volume =
            Volume { name: format!("{}-data", empty.name), role: VolumeRole::Data, owner: Some(USER) };
        Project {
            volumes: BTreeMap::from([("data".to_owned(), volume)]),
            files: BTreeMap::from([(CONFIG.to_owned(), File::new(settings.config.clone()))]),
            secrets: BTreeMap::from([(PASSWORD.to_owned(), password)]),
            services: BTreeMap::from([(ECHO.to_owned(), service(stack, host, &settings))]),
            api_objects: vec![object],
            ..empty
        }
    }
}

fn settings(stack: &Stack) -> Option<Settings> {
    serde_json::from_str(stack.annotation(ANNOTATION)?).ok()
}

fn credentials() -> (String, String) {
    ("admin".to_owned(), PASSWORD.to_owned())
}

fn endpoint(path: &str) -> Endpoint {
    Endpoint::new(PORT, path)
}

fn probe(path: &str, expect: Expect) -> HttpProbe {
    HttpProbe { endpoint: endpoint(path), credentials: None, expect }
}

fn service(stack: &Stack, host: &HostSpec, settings: &Settings) -> Service {
    let green = Expect::JsonSubset(json!({ "status": "green" }));
    let gate = HttpProbe { credentials: Some(credentials()), ..probe("/health", green) };
    let loaded = LoadedProbe {
        what: CONFIG.to_owned(),
        probe: probe("/config", Expect::JsonSubset(json!({ "text": settings.config }))),
    };
    let validation = Validation {
        argv: ["/echo", "validate", "/etc/echo/config.txt"].map(str::to_owned).to_vec(),
        limit: Duration::from_secs(20),
    };
    Service {
        strategy: if settings.serial { Strategy::Serial { gate } } else { Strategy::Recreate },
        reload: Reload::Http(endpoint("/-/reload")),
        readiness: Readiness::Http(probe("/ready", Expect::Status(200))),
        validations: vec![validation],
        loaded: vec![loaded],
        ..Service::new(definition(stack, host, settings))
    }
}

fn definition(stack: &Stack, host: &HostSpec, settings: &Settings) -> compose::Service {
    let node = settings.per_host.then(|| ("NODE".to_owned(), host.name.to_string()));
    let resources = ResourcesSpec { memory: super::fixed("32Mi"), cpu: super::fixed("0.25") };
    compose::Service {
        user: Some(format!("{}:{}", USER.uid, USER.gid)),
        environment: settings.environment.clone().into_iter().chain(node).collect(),
        volumes: vec![
            Mount::folder("./files/echo", "/etc/echo"),
            Mount::folder("./secrets/echo", "/run/secrets"),
            Mount::owned_volume("data", "/data"),
        ],
        labels: service_labels(stack, ComponentName::Echo, &settings.image),
        ..compose::Service::new(settings.image.clone(), Limits::new(&resources))
    }
}
