//! The project `app`: backend, frontend and the edge in front of them.

use std::collections::BTreeMap;

use tasktracker_crds::{AppSpec, BackendSpec, FrontendSpec, SecretKeySpec};

use super::{
    EDGE, Project, SECRETS_FOLDER, caddyfile,
    compose::{Healthcheck, Limits, Mount, Service, literal},
    edge, labels,
};
use crate::source::Stack;

/// Port of the backend, inside its container.
pub(super) const BACKEND_PORT: u16 = 8000;
/// Where a service sees its secrets, inside its container.
pub(super) const SECRETS_INSIDE: &str = "/run/secrets";
/// The backend's variable that names a database server.
const DATABASE_URL: &str = "DATABASE_URL";
/// Port of the frontend, inside its container.
pub(super) const FRONTEND_PORT: u16 = 8080;

/// What a container of a service must answer before users are led to it: its port, and paths.
pub(crate) fn proofs(service: &str) -> (u16, &'static [&'static str]) {
    match service {
        BACKEND => (BACKEND_PORT, &["/health/ready", "/tasks?limit=1"]),
        _ => (FRONTEND_PORT, &["/"]),
    }
}

/// The service that answers the API.
pub(crate) const BACKEND: &str = "backend";

/// The project `app` of a stack.
pub fn app_project(stack: &Stack, app: &AppSpec) -> Project {
    let name = format!("tt-{}-app", stack.key.name);
    let mut services = BTreeMap::from([
        (BACKEND.to_owned(), backend(stack, app)),
        ("frontend".to_owned(), frontend(stack, app)),
        (EDGE.to_owned(), edge::edge(stack, app)),
    ]);
    for service in services.values_mut() {
        service.labels = service_labels(stack, &service.image);
    }
    let adopted = app.adopt.as_ref().and_then(|adopt| adopt.volumes.get("data")).map(ToString::to_string);
    let data = app.database.sqlite.iter().map(|_| ("data", adopted.clone()));
    let volumes = data.chain(edge::keeps_data(app).then_some((edge::VOLUME, None)));
    let volume = |(inside, actual): (&str, Option<String>)| {
        (inside.to_owned(), actual.unwrap_or_else(|| format!("{name}-{inside}")))
    };
    let of_edge = secrets(EDGE, &edge::secrets(app));
    Project {
        component: "app".to_owned(),
        folder: format!("{}/app", stack.key.name),
        owner: stack.owner(),
        environment: stack.spec.environment.to_string(),
        revision: stack.spec.revision.to_string(),
        network: format!("tt-{}", stack.key.name),
        volumes: volumes.map(volume).collect(),
        files: BTreeMap::from([("files/edge/Caddyfile".to_owned(), caddyfile::render(app))]),
        secrets: secrets(BACKEND, &backend_secrets(app)).into_iter().chain(of_edge).collect(),
        rolling: [BACKEND, "frontend"].map(str::to_owned).into(),
        tls: edge::tls(stack, app),
        name,
        services,
        adopt: app.adopt.clone(),
    }
}

fn service_labels(stack: &Stack, image: &str) -> BTreeMap<String, String> {
    [
        (labels::OWNER, stack.owner()),
        (labels::STACK, stack.key.to_string()),
        (labels::ENVIRONMENT, stack.spec.environment.to_string()),
        (labels::COMPONENT, "app".to_owned()),
        (labels::IMAGE, image.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Every secret that the backend sees, by the name of its variable.
fn backend_secrets(app: &AppSpec) -> BTreeMap<String, SecretKeySpec> {
    let server = app.database.postgres.iter().map(|postgres| {
        let url = SecretKeySpec { secret: postgres.url_secret.clone(), key: "url".to_owned() };
        (DATABASE_URL.to_owned(), url)
    });
    app.backend.secret_env.clone().into_iter().chain(server).collect()
}

/// What kind of database a project of the app uses, as its spec names it.
pub(crate) fn database(project: &Project) -> Option<&'static str> {
    let backend = project.services.get(BACKEND)?;
    let is_server = backend.environment.contains_key(&format!("{DATABASE_URL}_FILE"));
    Some(if is_server { "postgres" } else { "sqlite" })
}

/// The secret files of a service.
fn secrets(service: &str, from: &BTreeMap<String, SecretKeySpec>) -> BTreeMap<String, SecretKeySpec> {
    from.iter().map(|(name, key)| (format!("{SECRETS_FOLDER}/{service}/{name}"), key.clone())).collect()
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
pub(super) fn secrets_mount(service: &str) -> Mount {
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
pub(super) fn stop_grace(stack: &Stack) -> String {
    format!("{}s", stack.spec.policy.rollout.drain_timeout.duration().as_secs() + 5)
}

fn drain_seconds(stack: &Stack) -> String {
    stack.spec.policy.rollout.drain_timeout.duration().as_secs().max(1).to_string()
}

fn backend(stack: &Stack, app: &AppSpec) -> Service {
    let BackendSpec { replicas, env, resources, log_level, .. } = &app.backend;
    let mut environment: BTreeMap<String, String> =
        env.iter().map(|(key, value)| (key.clone(), literal(value.as_str()))).collect();
    environment.insert("REVISION".to_owned(), stack.spec.revision.to_string());
    environment.insert("LOG_LEVEL".to_owned(), log_level.as_str().to_owned());
    environment.entry("DRAIN_TIMEOUT".to_owned()).or_insert_with(|| drain_seconds(stack));
    if let Some(origin) = &app.public_url {
        environment.entry("ALLOWED_ORIGINS".to_owned()).or_insert_with(|| origin.to_string());
    }
    let data = app.database.sqlite.iter().map(|_| Mount::volume("data", "/data"));
    let seen = see_secrets(BACKEND, &backend_secrets(app), &mut environment);
    Service {
        scale: *replicas,
        environment,
        volumes: data.chain(seen).collect(),
        healthcheck: Some(Healthcheck::program(&["/backend", "healthcheck"])),
        stop_grace_period: stop_grace(stack),
        ..Service::new(image(stack, app, BACKEND), Limits::new(resources))
    }
}

fn frontend(stack: &Stack, app: &AppSpec) -> Service {
    let FrontendSpec { replicas, backend_url, resources } = &app.frontend;
    let environment = BTreeMap::from([
        ("BACKEND_URL".to_owned(), backend_url.to_string()),
        ("DRAIN_TIMEOUT".to_owned(), drain_seconds(stack)),
    ]);
    Service {
        scale: *replicas,
        environment,
        healthcheck: Some(Healthcheck::program(&["/frontend", "healthcheck"])),
        stop_grace_period: stop_grace(stack),
        ..Service::new(image(stack, app, "frontend"), Limits::new(resources))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tasktracker_crds::validation::read_stack;

    use super::*;
    use crate::{desired::compose, secret::Seals};

    fn stack(from: &str, to: &str) -> Stack {
        let text = include_str!("../../../examples/staging.yaml");
        Stack::new(read_stack(&text.replace(from, to)).unwrap(), PathBuf::new())
    }

    #[test]
    fn the_first_example_as_compose_file_and_caddyfile() {
        let stack = stack("", "");
        let project = app_project(&stack, stack.spec.app.as_ref().unwrap());
        insta::assert_snapshot!("compose", compose::render(&project, &project.services));
        insta::assert_snapshot!("caddyfile", project.files["files/edge/Caddyfile"]);
    }

    #[test]
    fn a_digest_wins_over_the_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let stack = stack("tasktracker}", &format!("tasktracker, digests: {{backend: \"{digest}\"}}}}"));
        let project = app_project(&stack, stack.spec.app.as_ref().unwrap());
        assert_eq!(
            project.services["backend"].image,
            format!("registry.example.com/tasktracker/backend@{digest}")
        );
        assert_eq!(project.services["frontend"].image, "registry.example.com/tasktracker/frontend:3f2c1ab");
    }

    #[test]
    fn a_secret_is_a_file_and_its_variable_tells_where() {
        let stack =
            stack("tasktracker}", "tasktracker, backend: {secretEnv: {TOKEN: {secret: api, key: token}}}}");
        let project = app_project(&stack, stack.spec.app.as_ref().unwrap());
        let backend = &project.services["backend"];
        assert_eq!(backend.environment["TOKEN_FILE"], "/run/secrets/TOKEN");
        assert_eq!(project.secrets["secrets/backend/TOKEN"].key, "token");
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
        let backend = &project.services["backend"];
        assert_eq!(backend.environment["DATABASE_URL_FILE"], "/run/secrets/DATABASE_URL");
        let url = &project.secrets["secrets/backend/DATABASE_URL"];
        assert_eq!((url.secret.as_str(), url.key.as_str()), ("tasks", "url"));
        assert!(project.volumes.is_empty() && backend.volumes.iter().all(|mount| mount.kind == "bind"));
        assert_eq!(database(&project), Some("postgres"));
    }

    #[test]
    fn dollars_are_literal() {
        let stack = stack("tasktracker}", "tasktracker, backend: {env: {A: \"$HOME ${B} $$\"}}}");
        let project = app_project(&stack, stack.spec.app.as_ref().unwrap());
        assert_eq!(project.services["backend"].environment["A"], "$$HOME $${B} $$$$");
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
