//! What the ledger says before a rollout, and after it.

use std::collections::BTreeMap;

use tasktracker_crds::conditions::reasons;

use super::{Context, Error, RollbackCause};
use crate::{
    diff,
    host::{self, Host},
    ledger::{Course, Failed, Held, Ledger, Signature},
    observe::{self, Observed},
    plan::PeerFailure,
    project::{Project, VolumeRole},
    registry::exact,
    release::Release,
};

/// The ledger as it goes into a rollout, with what is known of the release's data and images.
pub(super) fn ledger_before(release: &Release, observed: &Observed, context: &Context<'_>) -> Ledger {
    let project = context.project;
    let ledger = observed.ledger.clone().unwrap_or_else(|| Ledger::empty(&context.owner, &context.stack));
    let mut ledger = ledger.taken_over(&context.owner, &context.stack);
    for (role, known) in [(VolumeRole::Data, &mut ledger.volumes), (VolumeRole::Cache, &mut ledger.caches)] {
        for (inside, name) in project.volumes_of(role) {
            known.entry(inside.clone()).or_insert_with(|| name.clone());
        }
    }
    // What the spec asks for still means the same when an earlier release is gone back to.
    if context.back.is_none() {
        ledger.tags = pinned_tags(project);
    }
    let pulled: Vec<String> = pulled(project).collect();
    if !pulled.is_empty() {
        ledger.pulled.insert(release.id.clone(), pulled);
    }
    ledger
}

/// What the tags of a project mean, where that is known.
fn pinned_tags(project: &Project) -> BTreeMap<String, String> {
    let pinned = project.images().into_values().filter_map(|image| {
        let (tagged, digest) = image.split_once('@')?;
        Some((tagged.to_owned(), digest.to_owned()))
    });
    pinned.collect()
}

/// Images of a project that come from a registry, without their tags.
fn pulled(project: &Project) -> impl Iterator<Item = String> {
    project.images().into_values().filter(|image| image.contains('@')).map(exact)
}

/// The ledger once a release was refused or does not serve.
pub(super) fn failed(
    error: &Error,
    release: &Release,
    (ledger, course): (Ledger, &Course),
    observed: &Observed,
    signature: &Signature,
    context: &Context<'_>,
) -> Ledger {
    let before = ledger.failed.clone();
    let failed = ledger.failed(release, (error.reason(), error.to_string()), course, signature);
    match context.back.as_ref().map(|back| &back.cause) {
        None => failed,
        // A rollback that failed says nothing of what was tried before.
        Some(RollbackCause::Requested(_)) => Ledger { failed: before, ..failed },
        Some(cause) => {
            let stays = cause.failed_here(observed, &format!("; the way back: {error}"), signature);
            Ledger { failed: stays, ..failed }
        }
    }
}

/// The ledger once a release is in force.
pub(super) async fn in_force(
    host: &Host,
    release: &Release,
    (ledger, course): (Ledger, &Course),
    observed: &Observed,
    signature: &Signature,
    context: &Context<'_>,
) -> Result<Ledger, Error> {
    let facts = host.facts().await?;
    let ledger = ledger.made_with(diff::configured_defaults(&facts));
    let compose = Some(facts.compose);
    let host_defaults = host_defaults(host, release, &ledger, context).await?;
    let cause = context.back.as_ref().map(|back| &back.cause);
    let held = cause.and_then(|cause| cause.held(release, &context.who));
    let failed = cause.and_then(|cause| cause.failed_here(observed, "", signature));
    let adopt = context.project.adopt.as_ref().map(|adopt| adopt.project.clone());
    let adopted = adopt.or(ledger.adopted.clone());
    Ok(Ledger {
        adopted,
        compose,
        host_defaults,
        failed,
        held,
        ..ledger.succeeded(release, course, signature)
    })
}

impl RollbackCause {
    /// That a release is held, where a person prefers it.
    fn held(&self, release: &Release, who: &str) -> Option<Held> {
        let Self::Requested(desired_hash) = self else { return None };
        let (release, desired_hash) = (release.id.clone(), desired_hash.clone());
        Some(Held { release, desired_hash, who: who.to_owned() })
    }

    /// That what was in force is not tried again, where it failed on another host.
    fn failed_here(&self, observed: &Observed, more: &str, signature: &Signature) -> Option<Failed> {
        let Self::FailedOnPeer(PeerFailure { host, message }) = self else { return None };
        let message = format!("{message}{more}");
        let failed = Failed::new(observed.applied.as_ref()?, reasons::ROLLED_BACK, message, signature);
        Some(Failed { origin: Some(host.clone()), ..failed })
    }
}

/// What the host gives every container by itself, seen on those that were just made.
async fn host_defaults(
    host: &Host,
    release: &Release,
    ledger: &Ledger,
    context: &Context<'_>,
) -> Result<BTreeMap<String, String>, host::Error> {
    let inspected = observe::inspected(host, context.project, ledger);
    let (containers, images, engine) =
        futures::try_join!(inspected, observe::images(host, release), host.engine())?;
    Ok(diff::host_defaults(&Observed {
        applied: Some(release.clone()),
        containers,
        images,
        engine,
        directory: host.target().directory.clone(),
        ..Observed::default()
    }))
}
