//! Requests to services: reloads, and objects behind their APIs.

use http::Method;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Error, verify::Proof};
use crate::{
    host::{Container, Host, HostLock, HttpAnswer, State, WriteMethod},
    json,
    model::Probe,
    observe::{ListDifferences, Prober, is_ours},
    project::{ApiCollection, ApiObject, ListedObject, Reload, compose::COMPOSE_SERVICE},
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

/// Puts the API objects that differ from the release, and those that a service gives names itself.
pub(super) async fn put(host: &Host, lock: &HostLock, proof: &Proof<'_>) -> Result<(), Error> {
    put_objects(host, lock, proof).await?;
    complete(host, lock, proof).await
}

async fn put_objects(host: &Host, lock: &HostLock, proof: &Proof<'_>) -> Result<(), Error> {
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
            let Some(body) = body(object, &prober) else { continue };
            let sent = host.http_send(lock, WriteMethod::Put, address, path, credentials.as_ref(), &body);
            accepted(sent.await?, || format!("{}: PUT {path}", object.service))?;
        }
    }
    Ok(())
}

/// What is written of an object; nothing where a value in it is not known.
fn body(object: &ApiObject, prober: &Prober<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let mut body = object.body.clone();
    for (pointer, path) in &object.secrets {
        let known = prober.credentials(Some(&(String::new(), path.clone()))).ok()??;
        *body.pointer_mut(pointer)? = String::from_utf8(known.password.reveal().to_vec()).ok()?.into();
    }
    Some(Zeroizing::new(json::to_vec(&body)))
}

/// Makes what a service should list and does not, and removes what it lists of ours and should not.
async fn complete(host: &Host, lock: &HostLock, proof: &Proof<'_>) -> Result<(), Error> {
    let project = &proof.release.project;
    let collections =
        project.api_collections.iter().filter(|all| proof.services.contains(all.service.as_str()));
    let collections: Vec<_> = collections.collect();
    if collections.is_empty() {
        return Ok(());
    }
    let prober = proof.prober();
    for container in host.containers().await? {
        for ApiCollection { service, endpoint, item, credentials, wanted } in &collections {
            let is_it = is_ours(&container, project)
                && container.has_label(COMPOSE_SERVICE, service)
                && container.state == State::Running;
            let Some(address) = prober.address(&container, endpoint).filter(|_| is_it) else { continue };
            let Ok(credentials) = prober.credentials(credentials.as_ref()) else { continue };
            let answer = host.http_get(address, &endpoint.path, credentials.as_ref()).await?;
            let HttpAnswer::Answered { status: 200, body } = answer else { continue };
            let Ok(found) = serde_json::from_slice(&body) else { continue };
            let Some(differences) = ListDifferences::of(wanted, &found, proof.now) else { continue };
            let made = differences.missing.iter();
            let made =
                made.map(|object| (WriteMethod::Post, endpoint.path.clone(), json::to_vec(&sent(object))));
            let removed = differences.superfluous.iter();
            let removed = removed.map(|id| (WriteMethod::Delete, format!("{item}{id}"), Vec::new()));
            for (method, path, body) in made.chain(removed) {
                let sent = host.http_send(lock, method, address, &path, credentials.as_ref(), &body).await?;
                accepted(sent, || format!("{service}: {} {path}", Method::from(method)))?;
            }
        }
    }
    Ok(())
}

/// What makes an object.
fn sent(ListedObject { body, only_sent, .. }: &ListedObject) -> Value {
    let mut sent = body.clone();
    if let (Value::Object(sent), Value::Object(more)) = (&mut sent, only_sent) {
        sent.extend(more.clone());
    }
    sent
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
