//! A stack file from a Compose project made by hand. Pure: what its containers are like becomes a spec.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use tasktracker_crds::{API_VERSION, KIND, validation};

use crate::{
    component::DATA_INSIDE,
    diff::adoption,
    host::{Container, Settings},
    project::compose::{COMPOSE_ONE_OFF, COMPOSE_SERVICE},
    registry::tagged,
};

/// Name of the database's file.
const DATABASE: &str = "tasks.db";
/// Variables that the operator sets itself.
const OWN: [&str; 6] = ["LISTEN", "DATABASE_PATH", "DATABASE_URL", "REVISION", "LOG_LEVEL", "LOG_FORMAT"];
/// What the names of variables contain whose values are likely to be secret.
const SECRET: [&str; 8] = ["PASS", "PWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH", "DSN"];

/// What the file needs beside what is on the host.
#[derive(Clone, Debug)]
pub struct Named {
    /// Name of the stack.
    pub stack: String,
    /// Its environment.
    pub environment: String,
    /// Name of the Compose project.
    pub project: String,
    /// Host name or IP address.
    pub address: String,
    /// Port of SSH.
    pub port: u16,
    /// User on the host.
    pub user: String,
    /// Pinned public keys.
    pub host_keys: Vec<String>,
    /// Secrets with the private key.
    pub identity_secrets: Vec<String>,
    /// The operator's folder on the host.
    pub directory: String,
}

/// A container of the project, with what its image brings along.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The container, inspected.
    pub container: &'a Container,
    /// What `inspect` says of it.
    pub settings: &'a Settings,
    /// What its image brings along.
    pub image: &'a Settings,
}

/// A stack file, and what a person has to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The file.
    pub text: String,
    /// What is different from before, or is left to do.
    pub notes: Vec<String>,
}

/// The stack that asks for what a project is.
///
/// # Errors
/// Everything that keeps it from being taken over, each with its remedy.
pub fn stack(named: &Named, found: &[Found<'_>]) -> Result<Imported, Vec<String>> {
    let (mut notes, mut faults) = (Vec::new(), Vec::new());
    let of = |part: &str| found.iter().filter(|found| is_part(found, part)).copied().collect::<Vec<_>>();
    let (backends, frontends) = (of("backend"), of("frontend"));
    let Some(backend) = backends.first() else {
        return Err(vec![format!(
            "project {}: expected a service `backend`, or an image whose name ends so, found none; see `docker compose ls`",
            named.project
        )]);
    };
    let mut app = Map::new();
    let revision = images(backend, frontends.first(), &mut app, &mut faults, &mut notes);
    let volume = data(backend, &mut faults);
    app.insert("backend".to_owned(), backend_spec(named, &backends, &mut notes));
    if !frontends.is_empty() {
        app.insert("frontend".to_owned(), frontend_spec(&frontends));
    }
    let adopt = json!({ "project": named.project, "volumes": { "data": volume } });
    app.insert("adopt".to_owned(), adopt);
    let others = found.iter().filter(|found| !is_part(found, "backend") && !is_part(found, "frontend"));
    for other in others {
        let service = other.container.labels.get(COMPOSE_SERVICE).map_or("?", String::as_str);
        notes.push(format!(
            "service {service}: it is replaced by the operator's own edge; look at what else it does"
        ));
    }
    let spec = json!({
        "environment": named.environment,
        "revision": revision,
        "hosts": [host(named)],
        "ssh": { "user": named.user, "identitySecrets": named.identity_secrets },
        "app": app,
        "ports": ports(found, &mut notes),
        "policy": { "upgrade": "Approve" },
    });
    notes.push(
        "policy.upgrade is Approve: look at `plan`, then run `apply`; take it out when that went well"
            .to_owned(),
    );
    if !faults.is_empty() {
        return Err(faults);
    }
    let document =
        json!({ "apiVersion": API_VERSION, "kind": KIND, "metadata": { "name": named.stack }, "spec": spec });
    let text = serde_saphyr::to_string(&document).map_err(|error| vec![error.to_string()])?;
    let told = |mistakes: Vec<validation::Mistake>| {
        mistakes.iter().map(|mistake| format!("the stack that comes out: {mistake}")).collect::<Vec<_>>()
    };
    validation::read_stack(&text).map_err(told)?;
    Ok(Imported { text, notes })
}

/// Whether a container is of a part of the app.
fn is_part(found: &Found<'_>, part: &str) -> bool {
    !found.container.has_label(COMPOSE_ONE_OFF, "True") && adoption::is_part(found.container, part)
}

/// Registry and revision: the operator knows images by `REGISTRY/backend:REVISION` and `REGISTRY/frontend:REVISION`.
fn images(
    backend: &Found<'_>,
    frontend: Option<&Found<'_>>,
    app: &mut Map<String, Value>,
    faults: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> String {
    let (name, tag) = tagged(&backend.container.image);
    let registry = name.strip_suffix("/backend");
    let Some(registry) = registry else {
        faults.push(format!(
            "image {}: expected REGISTRY/backend:REVISION, found another name; `docker tag` it so on the host, and have the container made anew with that name",
            backend.container.image
        ));
        return tag.to_owned();
    };
    app.insert("registry".to_owned(), registry.into());
    let other = frontend.map(|frontend| tagged(&frontend.container.image));
    let wanted = format!("{registry}/frontend");
    if let Some((name, other)) = other.filter(|other| *other != (wanted.as_str(), tag)) {
        faults.push(format!(
            "image {name}:{other}: expected {wanted}:{tag}, as the backend is {registry}/backend:{tag}; `docker tag` it so on the host, and have the container made anew with that name"
        ));
    }
    if frontend.is_none() {
        notes.push(format!("service frontend: there was none; {wanted}:{tag} is asked for now"));
    }
    tag.to_owned()
}

/// The volume that holds the database.
fn data(backend: &Found<'_>, faults: &mut Vec<String>) -> String {
    let setting = |field: &str| backend.settings.get(field).map(String::as_str);
    let path = setting("environment/DATABASE_PATH").unwrap_or("/data/tasks.db");
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let name = &backend.container.name;
    if file != DATABASE {
        faults.push(format!(
            "container {name}: expected the database in a file {DATABASE}, found {path}; rename it while the app is stopped"
        ));
    }
    match setting(&format!("volumes/{folder}")).map(|mount| mount.split(' ').collect::<Vec<_>>()) {
        Some(words) if words.first() == Some(&"volume") && words.len() > 1 => words[1].to_owned(),
        Some(words) => {
            let found = words.get(1).copied().unwrap_or_default();
            faults.push(format!(
                "container {name}: expected its data in a named volume at {folder}, found {found} of the host; stop the app, copy it into a volume, and mount that at {DATA_INSIDE}"
            ));
            String::new()
        }
        None => {
            faults.push(format!(
                "container {name}: expected a volume at {folder}, found none: its data is inside the container and goes with it; copy it into a volume, and mount that at {DATA_INSIDE}"
            ));
            String::new()
        }
    }
}

fn backend_spec(named: &Named, backends: &[Found<'_>], notes: &mut Vec<String>) -> Value {
    let first = &backends[0];
    let (mut env, mut secret_env) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in own_environment(first) {
        if OWN.contains(&name) {
            continue;
        }
        let sounds = SECRET.iter().any(|word| name.to_uppercase().contains(word)) && !name.ends_with("_FILE");
        let has_login = value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
        if sounds || has_login {
            notes.push(format!(
                "variable {name}: it looks like a secret, so its value is not in the file; put it into the secret {} under the key {name}: the container gets it as a file, and {name}_FILE",
                named.stack
            ));
            secret_env.insert(name, json!({ "secret": named.stack, "key": name }));
        } else {
            env.insert(name, value);
        }
    }
    let mut spec = json!({ "replicas": backends.len() });
    put(&mut spec, "env", json!(env));
    put(&mut spec, "secretEnv", json!(secret_env));
    put(&mut spec, "resources", resources(first));
    if let Some(level) = first.settings.get("environment/LOG_LEVEL") {
        put(&mut spec, "logLevel", json!(level.to_lowercase()));
    }
    spec
}

fn frontend_spec(frontends: &[Found<'_>]) -> Value {
    let mut spec = json!({ "replicas": frontends.len() });
    let url = frontends[0].settings.get("environment/BACKEND_URL").map_or("", String::as_str);
    put(&mut spec, "backendUrl", json!(url.trim_end_matches('/')));
    put(&mut spec, "resources", resources(&frontends[0]));
    spec
}

/// Variables that the image does not bring along.
fn own_environment<'a>(found: &Found<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let (settings, image) = (found.settings, found.image);
    let own = settings.iter().filter(|(field, value)| image.get(*field) != Some(*value));
    own.filter_map(|(field, value)| Some((field.strip_prefix("environment/")?, value.as_str())))
}

fn resources(found: &Found<'_>) -> Value {
    let number = |field: &str| found.settings.get(field).and_then(|text| text.parse::<u64>().ok());
    match (number("mem_limit"), number("cpus")) {
        (Some(bytes), Some(nanoseconds)) => {
            json!({ "memory": format!("{}Mi", bytes.div_ceil(1 << 20)), "cpu": format!("{}m", nanoseconds.div_ceil(1_000_000)) })
        }
        _ => Value::Null,
    }
}

fn host(named: &Named) -> Value {
    json!({
        "name": "app-1", "address": named.address, "port": named.port, "roles": ["app"],
        "hostKeys": named.host_keys, "directory": named.directory,
    })
}

/// The ports of page and API, from those that lead to backend and to anything else.
fn ports(found: &[Found<'_>], notes: &mut Vec<String>) -> Value {
    let published = |found: &Found<'_>| -> Vec<u16> {
        let ports =
            found.settings.iter().filter(|(field, _)| field.starts_with("ports/") && field.ends_with("/tcp"));
        ports
            .flat_map(|(_, text)| text.split(' '))
            .filter_map(|text| text.rsplit(':').next()?.parse().ok())
            .collect()
    };
    let of =
        |is: &dyn Fn(&Found<'_>) -> bool| found.iter().filter(|found| is(found)).flat_map(published).next();
    let api = of(&|found| is_part(found, "backend"));
    let page = of(&|found| is_part(found, "frontend")).or_else(|| of(&|found| !is_part(found, "backend")));
    for address in found.iter().flat_map(narrow) {
        notes.push(format!(
            "ports: something was published on {address} alone; page and API are published on every address: let a firewall keep out who is not to come in"
        ));
    }
    let mut ports = json!({});
    for (name, port, usual) in [("page", page, 3500), ("api", api, 8000)] {
        match port {
            Some(port) => put(&mut ports, name, json!(port)),
            None => notes.push(format!("ports.{name}: nothing published it; it is {usual} from now on")),
        }
    }
    ports
}

/// Addresses other than every one on which a container's ports are published.
fn narrow(found: &Found<'_>) -> BTreeSet<String> {
    let ports = found.settings.iter().filter(|(field, _)| field.starts_with("ports/"));
    let places = ports.flat_map(|(_, text)| text.split(' ')).filter_map(|text| text.rsplit_once(':'));
    let addresses = places.map(|(address, _)| address.trim_matches(['[', ']']));
    addresses.filter(|address| !["", "*", "0.0.0.0", "::"].contains(address)).map(str::to_owned).collect()
}

/// Puts what is not empty.
fn put(object: &mut Value, key: &str, value: Value) {
    let is_empty = value.is_null() || value == json!({}) || value == json!("");
    if let Some(map) = object.as_object_mut().filter(|_| !is_empty) {
        map.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Named {
        Named {
            stack: "tasks".to_owned(),
            environment: "production".to_owned(),
            project: "by_hand".to_owned(),
            address: "10.0.0.1".to_owned(),
            port: 22,
            user: "deploy".to_owned(),
            host_keys: vec![format!("ssh-ed25519 {}", "A".repeat(68))],
            identity_secrets: vec!["ssh".to_owned()],
            directory: "/opt/tasktracker".to_owned(),
        }
    }

    fn container(service: &str, image: &str) -> Container {
        let labels = [(COMPOSE_SERVICE.to_owned(), service.to_owned())].into();
        Container {
            name: format!("by_hand-{service}-1"),
            image: image.to_owned(),
            labels,
            ..Container::default()
        }
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn import(backend: &Settings, image: &str) -> Result<Imported, Vec<String>> {
        let (one, two) =
            (container("backend", image), container("frontend", "registry.example.com/t/frontend:r1"));
        let of_image = settings(&[("environment/PATH", "/bin"), ("environment/REVISION", "r1")]);
        let page =
            settings(&[("ports/8080/tcp", "*:3500"), ("environment/BACKEND_URL", "http://10.0.0.1:8000/")]);
        let found = [
            Found { container: &one, settings: backend, image: &of_image },
            Found { container: &two, settings: &page, image: &of_image },
        ];
        stack(&named(), &found)
    }

    const GOOD: &str = "registry.example.com:5000/t/backend:r1";

    fn good() -> Settings {
        settings(&[
            ("environment/PATH", "/bin"),
            ("environment/DATABASE_PATH", "/var/lib/tasks/tasks.db"),
            ("environment/ALLOWED_ORIGINS", "http://10.0.0.1:3500"),
            ("environment/API_TOKEN", "canary"),
            ("environment/LOG_LEVEL", "debug"),
            ("volumes//var/lib/tasks", "volume by_hand_tasks rw"),
            ("ports/8000/tcp", "127.0.0.1:8000"),
            ("mem_limit", "268435456"),
            ("cpus", "500000000"),
        ])
    }

    #[test]
    fn a_project_becomes_a_valid_stack_without_its_secrets() {
        let images = GOOD.replace(":5000", "");
        let Imported { text, notes } = import(&good(), &images).unwrap();
        let stack = validation::read_stack(&text).unwrap();
        let app = stack.spec.app.unwrap();
        let adopt = app.adopt.unwrap();
        assert_eq!((adopt.project.as_str(), adopt.volumes["data"].as_str()), ("by_hand", "by_hand_tasks"));
        assert_eq!((app.registry.as_str(), stack.spec.revision.as_str()), ("registry.example.com/t", "r1"));
        let env: Vec<&str> = app.backend.env.keys().map(String::as_str).collect();
        assert_eq!(
            (env, app.backend.secret_env["API_TOKEN"].secret.as_str()),
            (vec!["ALLOWED_ORIGINS"], "tasks")
        );
        assert_eq!((stack.spec.ports.page.0, stack.spec.ports.api.0), (3500, 8000));
        assert_eq!(app.frontend.backend_url.as_str(), "http://10.0.0.1:8000");
        assert!(
            !text.contains("canary") && notes.iter().any(|note| note.contains("API_TOKEN")),
            "{text} {notes:?}"
        );
        assert!(!notes.iter().any(|note| note.contains("canary")), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("published on 127.0.0.1 alone")), "{notes:?}");
    }

    #[test]
    fn what_cannot_be_taken_over_is_told_all_at_once() {
        let mut bad = good();
        bad.insert("volumes//var/lib/tasks".to_owned(), "bind /home/x/data rw".to_owned());
        bad.insert("environment/DATABASE_PATH".to_owned(), "/var/lib/tasks/mine.db".to_owned());
        let told = import(&bad, "tasktracker-backend:latest").unwrap_err();
        let all = told.join("\n");
        assert_eq!(told.len(), 3, "{all}");
        assert!(
            all.contains("REGISTRY/backend:REVISION")
                && all.contains("mine.db")
                && all.contains("/home/x/data"),
            "{all}"
        );
        bad.remove("volumes//var/lib/tasks");
        assert!(import(&bad, GOOD).unwrap_err().join("\n").contains("inside the container and goes with it"));
        let other = import(&good(), "elsewhere.example.com/t/backend:r2").unwrap_err().join("\n");
        assert!(other.contains("expected elsewhere.example.com/t/frontend:r2"), "{other}");
    }
}
