//! Applied against observed.

use tasktracker_crds::{DriftItem, DriftKind};

use crate::{
    desired::labels,
    host::{Container, FileFact, Health, State},
    observe::Observed,
    release::Release,
};

/// Compose's label with the name of a service.
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
/// Compose's label on containers made by `docker compose run`.
const COMPOSE_ONE_OFF: &str = "com.docker.compose.oneoff";

/// Every difference between the applied release and what is there; none where nothing was applied, or while another
/// writer is at work.
pub fn drift(host: &str, observed: &Observed) -> Vec<DriftItem> {
    let Some(applied) = observed.applied.as_ref().filter(|_| !observed.busy) else { return Vec::new() };
    let mut items = file_drift(applied, observed);
    for (service, definition) in &applied.project.services {
        items.extend(service_drift(applied, service, definition.scale, observed));
    }
    for item in &mut items {
        host.clone_into(&mut item.host);
        item.component.clone_from(&applied.project.component);
    }
    items
}

fn item(
    kind: DriftKind,
    service: Option<&str>,
    path: Option<&str>,
    wanted: String,
    found: String,
) -> DriftItem {
    DriftItem {
        host: String::new(),
        component: String::new(),
        service: service.map(str::to_owned),
        kind,
        path: path.map(str::to_owned),
        wanted,
        found,
        first_seen: None,
        answer: kind.answer(),
    }
}

fn file_drift(applied: &Release, observed: &Observed) -> Vec<DriftItem> {
    let mut items = Vec::new();
    for (path, record) in &applied.files {
        let wanted = content(&record.sha256, record.size);
        let difference = match observed.files.get(path) {
            None => Some((DriftKind::FileMissing, "nothing".to_owned())),
            Some(FileFact::Other) => None,
            Some(FileFact::File { sha256, .. }) if *sha256 == record.sha256 => None,
            Some(FileFact::File { sha256, size, .. }) => {
                Some((DriftKind::FileChanged, content(sha256, *size)))
            }
        };
        if let Some((kind, found)) = difference {
            items.push(item(kind, owner_of(path), Some(path), wanted, found));
        }
    }
    items
}

fn content(sha256: &str, size: u64) -> String {
    format!("sha256:{} ({size} bytes)", sha256.get(..12).unwrap_or(sha256))
}

/// The service whose files lie below `files/SERVICE/`.
fn owner_of(path: &str) -> Option<&str> {
    path.strip_prefix("files/")?.split('/').next()
}

fn service_drift(applied: &Release, service: &str, scale: u32, observed: &Observed) -> Vec<DriftItem> {
    let containers = containers_of(observed, service);
    let mut items: Vec<DriftItem> =
        containers.iter().filter_map(|container| container_drift(applied, service, container)).collect();
    let missing = (scale as usize).saturating_sub(containers.len());
    if missing > 0 {
        let wanted = format!("{scale} running");
        let found =
            if containers.is_empty() { "nothing".to_owned() } else { format!("{} there", containers.len()) };
        items.push(item(DriftKind::Missing, Some(service), None, wanted, found));
    }
    items
}

fn containers_of<'a>(observed: &'a Observed, service: &str) -> Vec<&'a Container> {
    let is = |container: &Container, key: &str, value: &str| {
        container.labels.get(key).is_some_and(|found| found == value)
    };
    let ours = |container: &&'a Container| {
        is(container, COMPOSE_SERVICE, service) && !is(container, COMPOSE_ONE_OFF, "True")
    };
    observed.containers.iter().filter(ours).collect()
}

/// The most telling difference of one container: a wrong image matters more than that it does not run.
fn container_drift(applied: &Release, service: &str, container: &Container) -> Option<DriftItem> {
    let found = |kind, path: &str, wanted: &str, found: &str| {
        Some(item(kind, Some(service), Some(path), wanted.to_owned(), found.to_owned()))
    };
    if let Some(image) = applied.images.get(service).filter(|image| **image != container.image_id) {
        return found(DriftKind::ImageChanged, &container.name, image, &container.image_id);
    }
    let hash = container.labels.get(labels::SERVICE_HASH).map_or("", String::as_str);
    if let Some(wanted) = applied.service_hashes.get(service).filter(|wanted| *wanted != hash) {
        let path = format!("{}/labels/{}", container.name, labels::SERVICE_HASH);
        return found(
            DriftKind::ConfigChanged,
            &path,
            wanted,
            if hash.is_empty() { "nothing" } else { hash },
        );
    }
    let State::Other(state) = &container.state else { return None };
    if !["exited", "created", "dead"].contains(&state.as_str()) {
        return None;
    }
    found(DriftKind::Stopped, &container.name, "running", &state_words(container, state))
}

/// `exited (137)` rather than `Exited (137) 3 seconds ago`: what is told must not change from check to check.
fn state_words(container: &Container, state: &str) -> String {
    match container.status.split_once('(').and_then(|(_, rest)| rest.split_once(')')) {
        Some((code, _)) if state == "exited" => format!("exited ({code})"),
        _ => state.to_owned(),
    }
}

/// Whether every service of the release runs as asked for and is healthy.
pub fn serving(release: &Release, observed: &Observed) -> bool {
    faults(release, observed).is_empty()
}

/// What keeps the services of a release from serving, one text each, in the order of their names.
pub fn faults(release: &Release, observed: &Observed) -> Vec<String> {
    let mut faults = Vec::new();
    for (service, definition) in &release.project.services {
        let containers = containers_of(observed, service);
        if containers.len() != definition.scale as usize {
            faults.push(format!(
                "{service}: expected {} running, found {}",
                definition.scale,
                containers.len()
            ));
        }
        for container in containers {
            if let Some(item) = container_drift(release, service, container) {
                faults.push(format!("{service}: expected {}, found {}", item.wanted, item.found));
            } else if container.state != State::Running || container.health != Health::Healthy {
                faults.push(format!(
                    "{service}: expected running and healthy, found {}",
                    health_words(container)
                ));
            }
        }
    }
    faults
}

fn health_words(container: &Container) -> &str {
    match (&container.state, container.health) {
        (State::Other(state), _) => state,
        (_, Health::None) => "running without a health check",
        (_, Health::Starting) => "still starting",
        (_, Health::Healthy) => "healthy",
        (_, Health::Unhealthy) => "unhealthy",
    }
}

#[cfg(test)]
mod tests;
