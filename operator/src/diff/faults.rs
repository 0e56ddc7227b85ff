//! Faults: why the services of a release do not serve.

use std::fmt;

use super::drift::{containers_of, other_release, state_words};
use crate::{
    host::{Container, Health, State},
    model::{Probe, ProbeFailure},
    observe::{Observed, is_ready},
    project::Service,
    release::Release,
};

/// Why a service does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The service.
    pub service: String,
    /// Expected and found.
    pub found: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.service, self.found)
    }
}

/// Whether every service of the release serves.
pub fn serving(release: &Release, observed: &Observed) -> bool {
    faults(release, observed).is_empty()
}

/// The faults of a release, ordered by service.
pub fn faults(release: &Release, observed: &Observed) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (service, definition) in &release.project.services {
        let mut push = |found: String| faults.push(Fault { service: service.clone(), found });
        let containers = containers_of(observed, service);
        let scale = definition.compose.scale;
        if containers.len() != scale as usize {
            push(format!("expected {scale} running, found {}", containers.len()));
        }
        for container in containers {
            let image = release.images.get(service).filter(|image| **image != container.image_id);
            let other = image
                .map(|image| (image.clone(), container.image_id.clone()))
                .or_else(|| other_release(release, service, container));
            if let Some((wanted, found)) = other {
                push(format!("expected {wanted}, found {found}"));
            } else if !is_ready(definition, container) {
                let wanted =
                    if definition.compose.healthcheck.is_some() { "running and healthy" } else { "running" };
                push(format!("expected {wanted}, found {}", health_words(container)));
            } else if let Some(failure) = readiness_failure(container, observed) {
                push(format!("expected ready, found {failure}"));
            }
        }
    }
    faults
}

/// Whether a container is ready according to Docker and to its readiness probe.
pub fn is_serving(service: &Service, container: &Container, observed: &Observed) -> bool {
    is_ready(service, container) && readiness_failure(container, observed).is_none()
}

/// The failed probes of a container.
pub(super) fn failed_probes<'a>(
    container: &'a Container,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a Probe, &'a ProbeFailure)> {
    let results = observed.probe_results.iter().filter(|((id, _), _)| *id == container.id);
    results.filter_map(|((_, probe), result)| Some((probe, result.as_ref().err()?)))
}

fn readiness_failure<'a>(container: &'a Container, observed: &'a Observed) -> Option<&'a ProbeFailure> {
    failed_probes(container, observed).find(|(probe, _)| **probe == Probe::Ready).map(|(_, failure)| failure)
}

fn health_words(container: &Container) -> String {
    match (&container.state, container.health) {
        (State::Other(_), _) => state_words(container),
        (_, Health::None) => "running without a health check".to_owned(),
        (_, Health::Starting) => "still starting".to_owned(),
        (_, Health::Healthy) => "healthy".to_owned(),
        (_, Health::Unhealthy) => "unhealthy".to_owned(),
    }
}
