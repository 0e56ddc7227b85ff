//! Components: from the spec to the projects on each host. The only place that names components and services. Pure.
//!
//! A component renders data; the engine interprets it. Adding one means a folder here, a line in [`COMPONENTS`], a variant
//! of [`ComponentName`], its part of the schema, golden renderings and a scenario.

mod agents;
mod app;
#[cfg(feature = "echo")]
mod echo;
mod logging;
mod monitoring;
mod prometheus;

use std::collections::BTreeMap;

use tasktracker_crds::{HostSpec, RegistryAuthSpec};

pub(crate) use agents::{AUDIT, FLUENT_BIT, SENT_PORT};
pub(crate) use app::DATA_INSIDE;
pub use app::app_project;
pub use logging::{LogStore, log_store};

use crate::{
    model::{ComponentName, sha256},
    project::{Project, labels},
    secret::Seals,
    source::{ProjectKey, Stack},
};

/// One component.
trait Component: Sync {
    /// Its name.
    fn name(&self) -> ComponentName;

    /// Whether the stack asks for it on a host.
    fn is_wanted(&self, stack: &Stack, host: &HostSpec) -> bool;

    /// Its project on a host, from the spec alone; the generation is filled in by the caller.
    fn render(&self, stack: &Stack, host: &HostSpec) -> Project;
}

/// Every component of this build.
static COMPONENTS: &[&dyn Component] = &[
    &app::App,
    &agents::Agents,
    &monitoring::Monitoring,
    &logging::Logging,
    #[cfg(feature = "echo")]
    &echo::Echo,
];

/// The components that a stack asks for on a host.
pub fn wanted<'a>(stack: &'a Stack, host: &'a HostSpec) -> impl Iterator<Item = ComponentName> + 'a {
    let wanted = COMPONENTS.iter().filter(move |component| component.is_wanted(stack, host));
    wanted.map(|component| component.name())
}

/// The hosts on which a stack asks for a component, in the order of the spec.
pub fn hosts(stack: &Stack, component: ComponentName) -> impl Iterator<Item = &HostSpec> {
    let component = COMPONENTS.iter().find(|known| known.name() == component);
    stack
        .spec
        .hosts
        .iter()
        .filter(move |host| component.is_some_and(|component| component.is_wanted(stack, host)))
}

/// The hosts on which a stack asks for anything, in the order of the spec.
pub fn all_hosts(stack: &Stack) -> impl Iterator<Item = &HostSpec> {
    stack.spec.hosts.iter().filter(|host| wanted(stack, host).next().is_some())
}

/// The keys of every project that a stack asks for, hosts in the order of the spec.
pub fn projects(stack: &Stack) -> Vec<ProjectKey> {
    let key = |host: &HostSpec, component| ProjectKey {
        stack: stack.key.clone(),
        host: host.name.to_string(),
        component,
    };
    let hosts = stack.spec.hosts.iter();
    hosts.flat_map(|host| wanted(stack, host).map(move |component| key(host, component))).collect()
}

/// The project of a component on a host, where the stack asks for it.
pub fn project(stack: &Stack, host: &HostSpec, component: ComponentName) -> Option<Project> {
    let known = COMPONENTS.iter().find(|known| known.name() == component)?;
    if !known.is_wanted(stack, host) {
        return None;
    }
    let hashes: BTreeMap<&str, String> = hosts(stack, component)
        .map(|host| (host.name.as_str(), known.render(stack, host).hash(&Seals::new())))
        .collect();
    let generation = generation(&hashes);
    Some(Project { generation, ..known.render(stack, host) })
}

/// The projects of a stack that store metrics.
pub fn metrics_stores(stack: &Stack) -> Vec<ProjectKey> {
    let is_store = |key: &ProjectKey| {
        let host = stack.spec.hosts.iter().find(|host| host.name.as_str() == key.host);
        let project = host.and_then(|host| project(stack, host, key.component));
        project.is_some_and(|project| project.metrics_store.is_some())
    };
    projects(stack).into_iter().filter(is_store).collect()
}

/// The project with the log shipper that takes what others have to tell: the one beside the log store.
pub fn log_shipper(stack: &Stack) -> Option<ProjectKey> {
    let host = log_store(stack)?.host.name.to_string();
    Some(ProjectKey { stack: stack.key.clone(), host, component: ComponentName::Agents })
}

/// Every project of a stack on a host.
pub fn for_host(stack: &Stack, host: &HostSpec) -> Vec<Project> {
    wanted(stack, host).filter_map(|component| project(stack, host, component)).collect()
}

/// How hosts log in to the registry of a stack's own images.
pub struct RegistryLogin<'a> {
    /// The registry, and what its references begin with.
    pub registry: String,
    /// How they log in.
    pub auth: &'a RegistryAuthSpec,
    /// Field of the spec that says so.
    pub field: &'static str,
}

/// The login that a stack's spec names.
pub fn registry_login(stack: &Stack) -> Option<RegistryLogin<'_>> {
    let app = stack.spec.app.as_ref()?;
    let auth = app.registry_auth.as_ref()?;
    Some(RegistryLogin { registry: format!("{}/", app.registry), auth, field: "app.registryAuth" })
}

/// What all hosts of a component together are asked for, as one digest. It differs as soon as one of them is asked for
/// something else, so that what fails there is never blamed on what others were asked for before.
fn generation(hashes: &BTreeMap<&str, String>) -> String {
    let mut distinct: Vec<&String> = hashes.values().collect();
    distinct.sort();
    distinct.dedup();
    match distinct.as_slice() {
        // Hosts that are asked for the same keep their generation when another one joins them.
        [only] => (*only).clone(),
        _ => sha256(
            hashes.iter().map(|(host, hash)| format!("{host} {hash}\n")).collect::<String>().as_bytes(),
        ),
    }
}

/// The labels of everything that a component of a stack has, and of a service's containers.
fn service_labels(stack: &Stack, component: ComponentName, image: &str) -> BTreeMap<String, String> {
    [
        (labels::OWNER, stack.owner()),
        (labels::STACK, stack.key.to_string()),
        (labels::ENVIRONMENT, stack.spec.environment.to_string()),
        (labels::COMPONENT, component.to_string()),
        (labels::IMAGE, image.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// A value of a type with a grammar, from a text known to fit it.
#[cfg(feature = "echo")]
fn fixed<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("the text has the form of its type")
}

/// A project of a stack with nothing in it yet.
fn empty(stack: &Stack, component: ComponentName) -> Project {
    Project {
        component,
        name: format!("tt-{}-{component}", stack.key.name),
        folder: format!("{}/{component}", stack.key.name),
        owner: stack.owner(),
        environment: stack.spec.environment.to_string(),
        network: format!("tt-{}", stack.key.name),
        ..Project::default()
    }
}
