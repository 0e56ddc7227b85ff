//! Requests to services: reloads, and objects behind their APIs.

use super::{Error, verify::Proof};
use crate::{
    host::{Container, Host, HostLock, HttpAnswer, State, WriteMethod},
    json,
    model::Probe,
    observe::is_ours,
    project::{Reload, compose::COMPOSE_SERVICE},
};

/// Sends the reload request to services that have one.
pub(super) async fn reload(host: &Host, lock: &HostLock, proof: &Proof<'_>) -> Result<(), Error> {
    let prober = proof.prober();
    for service in &proof.reloads {
        let definition = proof.release.project.services.get(*service);
        let Some(Reload::Http(endpoint)) = definition.map(|definition| &definition.reload) else { continue };
        for container in host.containers().await? {
            let is_it = is_ours(&container, &proof.release.project)
                && container.has_label(COMPOSE_SERVICE, service)
                && container.state == State::Running;
            let Some(address) = prober.address(&container, endpoint).filter(|_| is_it) else { continue };
            let answer = host.http_send(lock, WriteMethod::Post, address, &endpoint.path, None, &[]).await?;
            accepted(answer, || format!("{service}: POST {}", endpoint.path))?;
        }
    }
    Ok(())
}

/// Puts the API objects that differ from the release.
pub(super) async fn put(host: &Host, lock: &HostLock, proof: &Proof<'_>) -> Result<(), Error> {
    let project = &proof.release.project;
    let objects =
        project.api_objects.iter().filter(|object| proof.services.contains(object.service.as_str()));
    let objects: Vec<_> = objects.collect();
    if objects.is_empty() {
        return Ok(());
    }
    let prober = proof.prober();
    let mut containers = host.containers().await?;
    containers.retain(|container| is_ours(container, project));
    let is_object = |_: &str, _: &Container, probe: &Probe| matches!(probe, Probe::Object(_));
    let results = prober.run(host, &containers, is_object).await?;
    for object in objects {
        let path = &object.endpoint.path;
        for container in &containers {
            let probe = (container.id.clone(), Probe::Object(path.clone()));
            let is_it = container.has_label(COMPOSE_SERVICE, &object.service);
            if !is_it || results.get(&probe).is_none_or(Result::is_ok) {
                continue;
            }
            let Some(address) = prober.address(container, &object.endpoint) else { continue };
            let Ok(credentials) = prober.credentials(object.credentials.as_ref()) else { continue };
            let body = json::to_vec(&object.body);
            let sent = host.http_send(lock, WriteMethod::Put, address, path, credentials.as_ref(), &body);
            accepted(sent.await?, || format!("{}: PUT {path}", object.service))?;
        }
    }
    Ok(())
}

/// Fails unless the service accepted the request. Where sshd forbids requests, nothing is known.
fn accepted(answer: HttpAnswer, request: impl Fn() -> String) -> Result<(), Error> {
    let found = match answer {
        HttpAnswer::Answered { status: 200..=299, .. } | HttpAnswer::Forbidden => return Ok(()),
        HttpAnswer::Answered { status, .. } => format!("expected success, found status {status}"),
        HttpAnswer::NoAnswer(found) => found,
    };
    Err(Error::Unaccepted { request: request(), found })
}
