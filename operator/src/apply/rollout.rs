//! Carries out a change: images, network and volumes, files, containers, proof, ledger.

use std::{collections::BTreeMap, time::Duration};

use super::{Context, Error, compose::Compose, verify};
use crate::{
    desired::labels,
    diff,
    host::{self, Host},
    observe::{self, Depth, Observed},
    release::{Failed, Ledger, Prepared, Release},
};

/// How long one image may take to be pulled.
const PULL_LIMIT: Duration = Duration::from_mins(10);
/// How long making a network or a volume may take.
const MAKE_LIMIT: Duration = Duration::from_secs(30);

/// Rolls out the desired project; a release that was refused or does not serve is kept in the ledger as failed.
pub(super) async fn rollout(
    host: &Host,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<Release, Error> {
    let images = images(host, context).await?;
    make_network_and_volumes(host, context).await?;
    let prepared = Prepared::new(context.project.clone(), images);
    let ledger = observed.ledger.clone().unwrap_or_else(|| Ledger::empty(&context.owner, &context.stack));
    let carried_out = carry_out(host, &prepared, context).await;
    let next = match &carried_out {
        Ok(()) => {
            let next = succeeded(ledger, &prepared.release, context);
            let compose = Some(host.facts().await?.compose);
            let host_defaults = host_defaults(host, &prepared.release, context).await?;
            Ledger { compose, host_defaults, ..next }
        }
        Err(error) if error.is_of_release() => failed(ledger, &prepared.release, error, context),
        Err(error) => return Err(error.clone()),
    };
    host.place(context.lock, &context.project.folder, &[next.placement()]).await?;
    carried_out.map(|()| prepared.release)
}

async fn carry_out(host: &Host, prepared: &Prepared, context: &Context<'_>) -> Result<(), Error> {
    let project = context.project;
    host.place(context.lock, &project.folder, &prepared.placements()).await?;
    let up = Compose::new(host, context.lock, project).up(&[]).await;
    up.map_err(|error| match error {
        host::Error::Failed { found, .. } if !may_pass(&found) => Error::Refused { found },
        other => other.into(),
    })?;
    let services = project.services.keys().map(String::as_str).collect();
    let limits = context.rollout;
    verify::serving(
        host,
        &prepared.release,
        &services,
        limits.health_timeout.duration(),
        limits.soak.duration(),
    )
    .await
}

/// What the host gives every container by itself, seen on those that were just made.
async fn host_defaults(
    host: &Host,
    release: &Release,
    context: &Context<'_>,
) -> Result<BTreeMap<String, String>, host::Error> {
    let observed = observe::observe(host, context.project, Depth::Woken).await?;
    let images = observe::images(host, release).await?;
    Ok(diff::host_defaults(&Observed { applied: Some(release.clone()), images, ..observed }))
}

/// Docker's own words for what is not the release's fault: the daemon went away, or the disk is full.
fn may_pass(found: &str) -> bool {
    ["Cannot connect to the Docker daemon", "error during connect", "no space left on device"]
        .iter()
        .any(|words| found.to_lowercase().contains(&words.to_lowercase()))
}

/// The ID of every image.
async fn images(host: &Host, context: &Context<'_>) -> Result<BTreeMap<String, String>, Error> {
    let mut images = BTreeMap::new();
    for (service, reference) in context.project.images() {
        images.insert(service.to_owned(), image_id(host, context, reference).await?);
    }
    Ok(images)
}

/// The ID of an image; one that is not on the host is pulled first, apart from `up`.
async fn image_id(host: &Host, context: &Context<'_>, reference: &str) -> Result<String, Error> {
    if let Some(image) = host.image(reference).await? {
        return Ok(image.id);
    }
    let missing = |found: String| Error::ImageMissing { image: reference.to_owned(), found };
    let pulled = host.docker(context.lock, &["pull", "--quiet", reference], PULL_LIMIT).await;
    pulled.map_err(|error| missing(error.to_string()))?;
    let image = host.image(reference).await?;
    image.map(|image| image.id).ok_or_else(|| missing("nothing after a pull".to_owned()))
}

async fn make_network_and_volumes(host: &Host, context: &Context<'_>) -> Result<(), host::Error> {
    let project = context.project;
    if host.network(&project.network).await?.is_none() {
        make_network(host, &project.network, context).await?;
    }
    for volume in project.volumes.values() {
        if host.volume(volume).await?.is_none() {
            make(host, "volume", volume, context).await?;
        }
    }
    Ok(())
}

/// Makes the network that joins a host's projects.
pub(super) async fn make_network(host: &Host, name: &str, context: &Context<'_>) -> Result<(), host::Error> {
    make(host, "network", name, context).await
}

/// Makes a network or a volume with the labels that show whose it is.
async fn make(host: &Host, what: &str, name: &str, context: &Context<'_>) -> Result<(), host::Error> {
    let owner = format!("{}={}", labels::OWNER, context.owner);
    let stack = format!("{}={}", labels::STACK, context.stack);
    let arguments = [what, "create", "--label", &owner, "--label", &stack, name];
    host.docker(context.lock, &arguments, MAKE_LIMIT).await.map(drop)
}

fn succeeded(ledger: Ledger, release: &Release, context: &Context<'_>) -> Ledger {
    let previous =
        if ledger.current.as_ref() == Some(&release.id) { ledger.previous } else { ledger.current };
    Ledger {
        current: Some(release.id.clone()),
        previous,
        failed: None,
        when: context.now.clone(),
        who: context.who.clone(),
        why: format!("revision {}", release.project.revision),
        ..ledger
    }
}

fn failed(ledger: Ledger, release: &Release, error: &Error, context: &Context<'_>) -> Ledger {
    let failed = Failed {
        desired_hash: release.desired_hash.clone(),
        revision: release.project.revision.clone(),
        reason: error.reason().to_owned(),
        message: error.to_string(),
    };
    Ledger {
        failed: Some(failed),
        when: context.now.clone(),
        who: context.who.clone(),
        why: "the rollout failed".to_owned(),
        ..ledger
    }
}

#[cfg(test)]
mod tests {
    use super::may_pass;

    #[test]
    fn a_daemon_that_went_away_is_not_the_releases_fault() {
        assert!(may_pass(
            "exit status 1: Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
        ));
        assert!(may_pass("write /var/lib/docker/x: no space left on device"));
        assert!(!may_pass("exit status 1: Bind for 0.0.0.0:3500 failed: port is already allocated"));
    }
}
