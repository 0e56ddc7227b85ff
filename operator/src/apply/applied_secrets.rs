//! The secret values that the release in force was applied with, also where their source has others by now.

use std::borrow::Cow;

use crate::{
    diff::secrets,
    host::{self, Host},
    model::sha256,
    observe::{ANY_TIME, Observed, Prober},
    project::{compose::COMPOSE_SERVICE, service_of},
    release::Release,
    secret::{Secret, Values},
};

/// The values of the source, with the passwords that probes of the applied release need as they are on the host. A
/// password that is found nowhere is unknown.
///
/// # Errors
/// When the host cannot be read.
pub(super) async fn values<'a>(host: &Host, observed: &'a Observed) -> Result<Cow<'a, Values>, host::Error> {
    let mut values = Cow::Borrowed(&observed.secrets);
    let Some((applied, key)) = observed.applied.as_ref().zip(observed.seal_key.as_ref()) else {
        return Ok(values);
    };
    let prober = Prober { release: applied, secrets: &observed.secrets, key: Some(key), now: ANY_TIME };
    for credentials in applied.project.credentials() {
        let path = &credentials.1;
        let Some(file) = applied.project.secrets.get(path) else { continue };
        if prober.credentials(Some(credentials)).is_ok() {
            continue;
        }
        let is_applied =
            |value: &Secret| applied.seals.get(path) == Some(&key.seal(path, &sha256(value.reveal())));
        let values = values.to_mut();
        match value(host, applied, path, observed).await?.filter(is_applied) {
            Some(value) => drop(values.known.insert(file.reference.clone(), value)),
            None => drop(values.known.remove(&file.reference)),
        }
    }
    Ok(values)
}

/// The value of one secret file as it is on the host. Of a file that belongs to another user, as a container sees it.
///
/// # Errors
/// When the host cannot be read.
pub(super) async fn value(
    host: &Host,
    applied: &Release,
    path: &str,
    observed: &Observed,
) -> Result<Option<Secret>, host::Error> {
    let Some(file) = applied.project.secrets.get(path) else { return Ok(None) };
    if secrets::has_applied_value(applied, path, observed) {
        return Ok(observed.secrets.known.get(&file.reference).cloned());
    }
    if file.owner.is_none() {
        let place = format!("{}/{path}", applied.project.folder);
        let mut content = host.content(std::slice::from_ref(&place)).await?;
        return Ok(content.remove(&place).map(Secret::new));
    }
    let Some(service) = service_of(path) else { return Ok(None) };
    let definition = applied.project.services.get(service);
    let Some(inside) = definition.and_then(|service| service.compose.inside(path)) else { return Ok(None) };
    let mut containers = observed.containers.iter();
    let Some(container) = containers.find(|one| one.has_label(COMPOSE_SERVICE, service)) else {
        return Ok(None);
    };
    Ok(host.archived_file(&container.id, &inside).await?.map(|file| file.content))
}
