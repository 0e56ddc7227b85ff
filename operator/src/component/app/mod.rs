//! The component `app`: backend, frontend and the edge in front of them.

mod caddyfile;
mod edge;

use std::collections::BTreeMap;

use tasktracker_crds::{AppSpec, BackendSpec, FrontendSpec, HostSpec, Role, SecretKeySpec};

use super::{Component, empty, service_labels};
use crate::{
    model::ComponentName,
    project::{
        Adoption, BlueGreen, File, Hooks, Project, SECRETS_FOLDER, SecretFile, Service, Strategy, Volume,
        VolumeRole,
        compose::{self, Healthcheck, Limits, Mount, literal},
    },
    secret::Seals,
    source::Stack,
};

/// Port of the backend, inside its container.
const BACKEND_PORT: u16 = 8000;
/// Where a service sees its secrets, inside its container.
const SECRETS_INSIDE: &str = "/run/secrets";
/// The backend's variable that names a database server.
const DATABASE_URL: &str = "DATABASE_URL";
/// Port of the frontend, inside its container.
const FRONTEND_PORT: u16 = 8080;
/// Where the backend keeps its data, inside its container.
pub(crate) const DATA_INSIDE: &str = "/data";
/// Name inside the project of the volume with that.
const DATA: &str = "data";

/// The service that answers the API.
const BACKEND: &str = "backend";
/// The service that answers with the page.
const FRONTEND: &str = "frontend";
/// The service that leads traffic to the others.
const EDGE: &str = "edge";

/// Services whose containers tell of themselves at `/metrics`, each with its port.
pub(super) fn scraped() -> impl Iterator<Item = (&'static str, u16)> {
    [(BACKEND, BACKEND_PORT), (EDGE, edge::METRICS_PORT)].into_iter()
}

/// The component.
pub(super) struct App;

impl Component for App {
    fn name(&self) -> ComponentName {
        ComponentName::App
    }

    fn is_wanted(&self, stack: &Stack, host: &HostSpec) -> bool {
        stack.spec.app.is_some() && host.roles.contains(&Role::App)
    }

    fn render(&self, stack: &Stack, _: &HostSpec) -> Project {
        match &stack.spec.app {
            Some(app) => app_project(stack, app),
            None => empty(stack, ComponentName::App),
        }
    }
}

/// The project `app` of a stack, the same on every host.
pub fn app_project(stack: &Stack, app: &AppSpec) -> Project {
    let empty = empty(stack, ComponentName::App);
    let mut services = BTreeMap::from([
        (BACKEND.to_owned(), blue_green(BACKEND, backend(stack, app))),
        (FRONTEND.to_owned(), blue_green(FRONTEND, frontend(stack, app))),
        (EDGE.to_owned(), edge::edge(stack, app)),
    ]);
    for Service { compose, .. } in services.values_mut() {
        compose.labels = service_labels(stack, ComponentName::App, &compose.image);
    }
    let of_edge = secrets(EDGE, &edge::secrets(app));
    let caddyfile = caddyfile::render(app, stack.spec.monitoring.is_some(), stack.spec.logging.is_some());
    let mut project = Project {
        revision: Some(stack.spec.revision.to_string()),
        volumes: volumes(app, &empty.name),
        files: BTreeMap::from([("files/edge/Caddyfile".to_owned(), File::new(caddyfile))]),
        secrets: secrets(BACKEND, &backend_secrets(app)).into_iter().chain(of_edge).collect(),
        certificate: edge::certificate(stack, app),
        drain_file: Some(edge::DRAIN_FILE.to_owned()),
        data_store: Some(data_store(app)),
        hooks: hooks(app),
        services,
        adopt: adoption(app),
        ..empty
    };
    project.generation = project.hash(&Seals::new());
    project
}

/// A service whose new containers come up beside the old ones, behind the edge.
fn blue_green(name: &str, compose: compose::Service) -> Service {
    let (port, paths) = match name {
        BACKEND => (BACKEND_PORT, &["/health/ready", "/tasks?limit=1"][..]),
        _ => (FRONTEND_PORT, &["/"][..]),
    };
    let strategy = Strategy::BlueGreen(BlueGreen {
        proxy: EDGE.to_owned(),
        upstreams: format!("files/{EDGE}/upstreams/{name}"),
        addresses: format!("files/{EDGE}/addresses/{name}"),
        port,
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
    });
    Service { strategy, ..Service::new(compose) }
}

fn volumes(app: &AppSpec, project: &str) -> BTreeMap<String, Volume> {
    let adopted = app.adopt.as_ref().and_then(|adopt| adopt.volumes.get(DATA)).map(ToString::to_string);
    let data = app.database.sqlite.iter().map(|_| {
        let name = adopted.clone().unwrap_or_else(|| format!("{project}-{DATA}"));
        (DATA.to_owned(), Volume { name, role: VolumeRole::Data, owner: None })
    });
    data.chain(edge::volume(app, project)).collect()
}

/// Field of the spec that says where tasks are kept.
fn data_store(app: &AppSpec) -> String {
    let kind = if app.database.postgres.is_some() { "postgres" } else { "sqlite" };
    format!("app.database.{kind}")
}

fn hooks(app: &AppSpec) -> Option<Hooks> {
    let (pre_rollout, post_rollout) = (app.hooks.pre_rollout.clone(), app.hooks.post_rollout.clone());
    let hooks = Hooks { service: BACKEND.to_owned(), field: "app.hooks", pre_rollout, post_rollout };
    (hooks.pre_rollout.is_some() || hooks.post_rollout.is_some()).then_some(hooks)
}

fn adoption(app: &AppSpec) -> Option<Adoption> {
    let adopt = app.adopt.as_ref()?;
    let volumes = adopt.volumes.iter().map(|(ours, theirs)| (ours.clone(), theirs.to_string()));
    Some(Adoption {
        field: "app.adopt",
        project: adopt.project.to_string(),
        volumes: volumes.collect(),
        data_service: BACKEND.to_owned(),
        data_variable: "DATABASE_PATH",
        data_file: "/data/tasks.db",
    })
}

/// Every secret that the backend sees, by the name of its variable.
fn backend_secrets(app: &AppSpec) -> BTreeMap<String, SecretKeySpec> {
    let server = app.database.postgres.iter().map(|postgres| {
        let url = SecretKeySpec { secret: postgres.url_secret.clone(), key: "url".to_owned() };
        (DATABASE_URL.to_owned(), url)
    });
    app.backend.secret_env.clone().into_iter().chain(server).collect()
}

/// The secret files of a service.
fn secrets(service: &str, from: &BTreeMap<String, SecretKeySpec>) -> BTreeMap<String, SecretFile> {
    let path = |name: &String| format!("{SECRETS_FOLDER}/{service}/{name}");
    from.iter().map(|(name, key)| (path(name), SecretFile::new(key.clone()))).collect()
}

/// How a service finds them: each variable tells the file, and the folder is mounted.
fn see_secrets(
    service: &str,
    from: &BTreeMap<String, SecretKeySpec>,
    environment: &mut BTreeMap<String, String>,
) -> Option<Mount> {
    environment.extend(from.keys().map(|name| (format!("{name}_FILE"), format!("{SECRETS_INSIDE}/{name}"))));
    (!from.is_empty()).then(|| secrets_mount(service))
}

/// The folder of a service's secrets, as it sees it.
fn secrets_mount(service: &str) -> Mount {
    Mount::folder(format!("./{SECRETS_FOLDER}/{service}"), SECRETS_INSIDE)
}

/// The image of the backend or the frontend: a digest where there is one, else the revision's tag.
fn image(stack: &Stack, app: &AppSpec, part: &str) -> String {
    let digests = app.digests.clone().unwrap_or_default();
    let digest = if part == BACKEND { digests.backend } else { digests.frontend };
    match digest {
        Some(digest) => format!("{}/{part}@{digest}", app.registry),
        None => format!("{}/{part}:{}", app.registry, stack.spec.revision),
    }
}

/// A little more than the drain itself, so that Docker's SIGKILL is never what ends it.
fn stop_grace(stack: &Stack) -> String {
    format!("{}s", stack.spec.policy.rollout.drain_timeout.duration().as_secs() + 5)
}

fn drain_seconds(stack: &Stack) -> String {
    stack.spec.policy.rollout.drain_timeout.duration().as_secs().max(1).to_string()
}

fn backend(stack: &Stack, app: &AppSpec) -> compose::Service {
    let BackendSpec { replicas, env, resources, log_level, .. } = &app.backend;
    let mut environment: BTreeMap<String, String> =
        env.iter().map(|(key, value)| (key.clone(), literal(value.as_str()))).collect();
    environment.insert("REVISION".to_owned(), stack.spec.revision.to_string());
    environment.insert("LOG_LEVEL".to_owned(), log_level.as_str().to_owned());
    environment.entry("DRAIN_TIMEOUT".to_owned()).or_insert_with(|| drain_seconds(stack));
    if let Some(origin) = &app.public_url {
        environment.entry("ALLOWED_ORIGINS".to_owned()).or_insert_with(|| origin.canonical());
    }
    let data = app.database.sqlite.iter().map(|_| Mount::volume(DATA, DATA_INSIDE));
    let seen = see_secrets(BACKEND, &backend_secrets(app), &mut environment);
    compose::Service {
        scale: *replicas,
        environment,
        volumes: data.chain(seen).collect(),
        healthcheck: Some(Healthcheck::program(&["/backend", "healthcheck"])),
        stop_grace_period: stop_grace(stack),
        ..compose::Service::new(image(stack, app, BACKEND), Limits::new(resources))
    }
}

fn frontend(stack: &Stack, app: &AppSpec) -> compose::Service {
    let FrontendSpec { replicas, backend_url, resources } = &app.frontend;
    let environment = BTreeMap::from([
        ("BACKEND_URL".to_owned(), backend_url.to_string()),
        ("DRAIN_TIMEOUT".to_owned(), drain_seconds(stack)),
    ]);
    compose::Service {
        scale: *replicas,
        environment,
        healthcheck: Some(Healthcheck::program(&["/frontend", "healthcheck"])),
        stop_grace_period: stop_grace(stack),
        ..compose::Service::new(image(stack, app, FRONTEND), Limits::new(resources))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tasktracker_crds::validation::read_stack;

    use super::*;

    fn stack(from: &str, to: &str) -> Stack {
        let text = include_str!("../../../../examples/staging.yaml");
        Stack::new(read_stack(&text.replace(from, to)).unwrap(), PathBuf::new())
    }

    fn composed(project: &Project) -> BTreeMap<String, compose::Service> {
        project.services.iter().map(|(name, service)| (name.clone(), service.compose.clone())).collect()
    }

    #[test]
    fn the_first_example_as_compose_file_and_caddyfile() {
        let stack = stack("", "");
        let project = app_project(&stack, stack.spec.app.as_ref().unwrap());
        insta::assert_snapshot!("compose", compose::render(&project, &composed(&project)));
        insta::assert_snapshot!("caddyfile", project.files["files/edge/Caddyfile"].content);
    }

    #[test]
    fn a_digest_wins_over_the_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let stack = stack("tasktracker}", &format!("tasktracker, digests: {{backend: \"{digest}\"}}}}"));
        let project = app_project(&stack, stack.spec.app.as_ref().unwrap());
        assert_eq!(
            project.services["backend"].compose.image,
            format!("registry.example.com/tasktracker/backend@{digest}")
        );
        assert_eq!(
            project.services["frontend"].compose.image,
            "registry.example.com/tasktracker/frontend:3f2c1ab"
        );
    }

    #[test]
    fn a_secret_is_a_file_and_its_variable_tells_where() {
        let stack =
            stack("tasktracker}", "tasktracker, backend: {secretEnv: {TOKEN: {secret: api, key: token}}}}");
        let project = app_project(&stack, stack.spec.app.as_ref().unwrap());
        let backend = &project.services["backend"].compose;
        assert_eq!(backend.environment["TOKEN_FILE"], "/run/secrets/TOKEN");
        assert_eq!(project.secrets["secrets/backend/TOKEN"].reference.key, "token");
        let mount = backend.volumes.last().unwrap();
        let told = (mount.source.as_str(), mount.target.as_str(), mount.read_only);
        assert_eq!(told, ("./secrets/backend", "/run/secrets", true));
        let seals = |seal: &str| Seals::from([("secrets/backend/TOKEN".to_owned(), seal.to_owned())]);
        assert_ne!(
            project.hash(&seals("aa")),
            project.hash(&seals("bb")),
            "another value is another desired state"
        );
    }

    #[test]
    fn a_database_server_takes_the_place_of_the_volume() {
        let stack = stack("tasktracker}", "tasktracker, database: {postgres: {urlSecret: tasks}}}");
        let project = app_project(&stack, stack.spec.app.as_ref().unwrap());
        let backend = &project.services["backend"].compose;
        assert_eq!(backend.environment["DATABASE_URL_FILE"], "/run/secrets/DATABASE_URL");
        let url = &project.secrets["secrets/backend/DATABASE_URL"].reference;
        assert_eq!((url.secret.as_str(), url.key.as_str()), ("tasks", "url"));
        assert!(project.volumes.is_empty() && backend.volumes.iter().all(|mount| mount.kind == "bind"));
        assert_eq!(project.data_store.as_deref(), Some("app.database.postgres"));
    }

    #[test]
    fn dollars_are_literal() {
        let stack = stack("tasktracker}", "tasktracker, backend: {env: {A: \"$HOME ${B} $$\"}}}");
        let project = app_project(&stack, stack.spec.app.as_ref().unwrap());
        assert_eq!(project.services["backend"].compose.environment["A"], "$$HOME $${B} $$$$");
    }

    #[test]
    fn the_same_spec_gives_the_same_hash_and_another_revision_another() {
        let hash = |from, to| {
            let stack = stack(from, to);
            app_project(&stack, stack.spec.app.as_ref().unwrap()).hash(&Seals::new())
        };
        assert_eq!(hash("", ""), hash("", ""));
        assert_ne!(hash("", ""), hash("3f2c1ab", "4a5b6c7"));
        assert_eq!(hash("", ""), hash("  ssh:", "  interval: 5s\n  ssh:"));
    }
}
