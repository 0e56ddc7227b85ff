//! What users get: requests to published ports, as users send them, and where an answer is lost.
//!
//! Every container may be healthy inside while users get errors: a folder that the proxy cannot enter, a name that it does
//! not find, packets that do not reach it.

use std::{fmt::Write as _, net::Ipv4Addr, time::Duration};

use futures::future::{try_join, try_join_all};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{Depth, Observed, Prober, is_ready, probes::evaluate};
use crate::{
    host::{Container, Error, Health, Host, HttpAnswer, ServiceAddress},
    model::{LastPublished, ProbeFailure, Unserved},
    project::{BlueGreen, Endpoint, Expect, PublishedProbe},
    release::Release,
    secret::Values,
};

/// Where no list is asked for, for which alone it counts what time it is.
pub const ANY_TIME: Timestamp = Timestamp::UNIX_EPOCH;
/// How long what was found before the lock still holds under it: an answer that never comes is waited for once less.
const HOLDS: Duration = Duration::from_secs(5);

/// Where users get no answer, or an error. It is asked for whenever everything is read anew, when containers or files
/// changed since, and as long as something is wrong. Who holds the host's lock goes by what was found just before.
///
/// # Errors
/// When the host cannot be reached.
pub async fn published(
    host: &Host,
    observed: &Observed,
    depth: Depth,
    is_locked: bool,
) -> Result<Vec<Unserved>, Error> {
    let Some(release) = observed.applied.as_ref().filter(|_| !observed.has_open_intent()) else {
        return Ok(Vec::new());
    };
    let project = &release.project.name;
    let state = state(observed);
    let known = host.last_published(project);
    let is_quiet = |known: &LastPublished| known.state == state && known.unserved.is_empty();
    if depth < Depth::Whole && known.as_ref().is_some_and(is_quiet) {
        return Ok(Vec::new());
    }
    let holds = |known: &&LastPublished| is_locked && known.state == state && known.asked.elapsed() < HOLDS;
    if let Some(known) = known.as_ref().filter(holds).filter(|known| !known.unserved.is_empty()) {
        return Ok(known.unserved.clone());
    }
    // After anything changed, it may be lost at another hop.
    let before = known.filter(|known| known.state == state).map(|known| known.unserved).unwrap_or_default();
    let unserved = unserved(host, release, &observed.containers, before).await?;
    let asked = Instant::now();
    host.keep_published(project, LastPublished { asked, state, unserved: unserved.clone() });
    Ok(unserved)
}

/// What an answer to users depends on and a check sees.
fn state(observed: &Observed) -> String {
    let mut state = observed.files_state.to_string();
    for Container { id, state: running, health, addresses, .. } in &observed.containers {
        // Writing to a string does not fail.
        let _: std::fmt::Result = write!(state, " {id} {running:?} {health:?} {addresses:?}");
    }
    state
}

/// Asks what a release publishes, where all of its services serve by their own account; else, who gives no sign of life.
/// Where an answer was lost `before` and still is, the hop is known.
///
/// # Errors
/// When the host cannot be reached.
async fn unserved(
    host: &Host,
    release: &Release,
    containers: &[Container],
    before: Vec<Unserved>,
) -> Result<Vec<Unserved>, Error> {
    let hung = hung(host, release, containers).await?;
    if !hung.is_empty() || !all_serve(release, containers) {
        return Ok(hung);
    }
    let lost = lost(host, release).await?.into_iter().map(async |lost| {
        match before.iter().find(|known| known.path == lost.path() && !known.is_own_word) {
            Some(known) => Ok(Some(known.clone())),
            None => Box::pin(locate(host, release, containers, lost)).await,
        }
    });
    Ok(try_join_all(lost).await?.into_iter().flatten().collect())
}

/// The containers behind a proxy that fail their own health check and answer nothing, not even that they cannot serve: a
/// process that hangs. It may hold what its successor needs, such as a lock on the database.
async fn hung(host: &Host, release: &Release, containers: &[Container]) -> Result<Vec<Unserved>, Error> {
    let behind = release.project.blue_green().flat_map(|(service, how)| {
        let path = how.paths.first().map_or("/", String::as_str);
        let running = release.running(service, containers);
        let unhealthy = running.filter(|container| container.health == Health::Unhealthy);
        unhealthy.map(move |container| (service, container, Endpoint::new(how.port, path.to_owned())))
    });
    let asked = behind.map(async |(service, container, endpoint)| {
        let Some(address) = address(release, container, &endpoint) else { return Ok(None) };
        let answer = host.http_get(address, &endpoint.path, None).await?;
        // One that refuses the connection may be starting still.
        let HttpAnswer::NoAnswer(found) = answer else { return Ok(None) };
        if !found.contains(" within ") {
            return Ok(None);
        }
        Ok::<_, Error>(Some(Unserved {
            path: container.name.clone(),
            service: service.clone(),
            container: Some(container.name.clone()),
            found: format!("{} itself: {found}", container.name),
            ..Unserved::default()
        }))
    });
    Ok(try_join_all(asked).await?.into_iter().flatten().collect())
}

/// Where a container is asked itself.
fn address<'a>(
    release: &'a Release,
    container: &'a Container,
    endpoint: &'a Endpoint,
) -> Option<ServiceAddress<'a>> {
    let prober = Prober { release, secrets: &Values::default(), key: None, now: ANY_TIME };
    prober.address(container, endpoint)
}

/// An answer that users do not get.
struct Lost<'a> {
    service: &'a str,
    probe: &'a PublishedProbe,
    failure: ProbeFailure,
}

impl Lost<'_> {
    /// What is asked, as differences name it: port and path.
    fn path(&self) -> String {
        format!("{}{}", self.probe.port, self.probe.path)
    }
}

/// Asks everything that a release publishes at once.
async fn lost<'a>(host: &Host, release: &'a Release) -> Result<Vec<Lost<'a>>, Error> {
    let services = release.project.services.iter();
    let probes = services.flat_map(|(service, definition)| {
        definition.published.iter().map(move |probe| (service.as_str(), probe))
    });
    let asked = probes.map(async |(service, probe)| {
        let failure = ask(host, probe).await?;
        Ok::<_, Error>(failure.map(|failure| Lost { service, probe, failure }))
    });
    Ok(try_join_all(asked).await?.into_iter().flatten().collect())
}

/// What users do not get of what a release publishes, in words; nothing where everything is well.
///
/// # Errors
/// When the host cannot be reached.
pub async fn lost_answers(host: &Host, release: &Release) -> Result<Vec<String>, Error> {
    let lost = lost(host, release).await?.into_iter();
    Ok(lost.map(|lost| format!("{}: {}", lost.path(), lost.failure)).collect())
}

/// Whether every service has a container that serves by its own account: else that is what is wrong.
fn all_serve(release: &Release, containers: &[Container]) -> bool {
    release
        .project
        .services
        .iter()
        .all(|(name, definition)| release.running(name, containers).any(|one| is_ready(definition, one)))
}

/// Why users get no answer; nothing where they do, or nobody can ask.
async fn ask(host: &Host, probe: &PublishedProbe) -> Result<Option<ProbeFailure>, Error> {
    let endpoint = (Ipv4Addr::LOCALHOST, probe.port).into();
    let service = ServiceAddress { address: endpoint, tls_name: probe.tls_name.as_deref() };
    let answer = host.http_get(service, &probe.path, None).await?;
    Ok(evaluate(&probe.expect, answer, ANY_TIME).and_then(Result::err))
}

/// Finds the hop at which an answer is lost, from the containers behind to the port in front.
async fn locate(
    host: &Host,
    release: &Release,
    containers: &[Container],
    lost: Lost<'_>,
) -> Result<Option<Unserved>, Error> {
    match locate_behind(host, release, containers, &lost).await? {
        Some(unserved) => Ok(Some(unserved)),
        None => Box::pin(locate_in_front(host, release, containers, lost)).await,
    }
}

/// Asks a container itself; nothing where nobody can.
async fn ask_container(
    host: &Host,
    release: &Release,
    container: &Container,
    endpoint: Endpoint,
    expect: &Expect,
) -> Result<Option<Result<(), String>>, Error> {
    let Some(address) = address(release, container, &endpoint) else {
        return Ok(Some(Err("no address in the stack's network".to_owned())));
    };
    let answer = host.http_get(address, &endpoint.path, None).await?;
    Ok(evaluate(expect, answer, ANY_TIME).map(|result| result.map_err(|failure| failure.to_string())))
}

/// The container behind a proxy that does not answer.
async fn locate_behind(
    host: &Host,
    release: &Release,
    containers: &[Container],
    lost: &Lost<'_>,
) -> Result<Option<Unserved>, Error> {
    let behind = release.project.blue_green().find(|(name, _)| Some(*name) == lost.probe.behind.as_ref());
    let Some((service, BlueGreen { port, paths, .. })) = behind else { return Ok(None) };
    for container in release.running(service, containers) {
        let path = paths.last().map_or("/", String::as_str).to_owned();
        let endpoint = Endpoint::new(*port, path);
        let answer = ask_container(host, release, container, endpoint, &Expect::Status(200)).await?;
        if let Some(Err(found)) = answer {
            return Ok(Some(Unserved {
                path: lost.path(),
                service: service.clone(),
                container: Some(container.name.clone()),
                is_own_word: found.contains("found 503"),
                found: format!("{}; {} itself: {found}", lost.failure, container.name),
                is_port: false,
            }));
        }
    }
    Ok(None)
}

/// The proxy or its port, where what is behind answers. One lost answer is no proof against them, and their repair cuts
/// connections: nothing is wrong where a second request is answered.
async fn locate_in_front(
    host: &Host,
    release: &Release,
    containers: &[Container],
    lost: Lost<'_>,
) -> Result<Option<Unserved>, Error> {
    let Lost { service, probe, failure } = &lost;
    // What speaks TLS is not asked behind its port: its names are checked apart.
    let inside = release.project.services.get(*service).and_then(|definition| {
        let port = definition.compose.ports.iter().find(|port| port.number() == Some(probe.port))?;
        probe.tls_name.is_none().then(|| Endpoint::new(port.target, probe.path.clone()))
    });
    let container = release.running(service, containers).next();
    let itself = async {
        match (container, inside) {
            (Some(container), Some(inside)) => {
                ask_container(host, release, container, inside, &probe.expect).await
            }
            _ => Ok(None),
        }
    };
    let (again, itself) = Box::pin(try_join(ask(host, probe), itself)).await?;
    if again.is_none() {
        return Ok(None);
    }
    let name = container.map(|container| container.name.as_str()).unwrap_or_default();
    let is_port = itself == Some(Ok(()));
    let found = match (itself, &probe.behind) {
        (Some(Ok(())), _) => format!(
            "{failure}; {name} itself answers: packets to the host's port do not reach it (see the host's packet filter)"
        ),
        (Some(Err(_)), Some(behind)) => {
            format!("{failure}; {behind} itself answers: {name} does not lead there")
        }
        (None, Some(behind)) => format!("{failure}; {behind} itself answers"),
        _ => failure.to_string(),
    };
    let service = (*service).to_owned();
    Ok(Some(Unserved { path: lost.path(), service, container: None, found, is_own_word: false, is_port }))
}
