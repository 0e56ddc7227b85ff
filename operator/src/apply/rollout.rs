//! Carries out a change: images, network and volumes, files, containers, proof, ledger.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    ACTION_LIMIT, Context, Error, QUICK_LIMIT,
    actions::{place_secret, start},
    addresses,
    adopted::{restore, stop, to_be_stopped},
    compose::Compose,
    gate, hooks,
    record::{failed, in_force, ledger_before},
    reload, rolling,
    secret_backup::SecretBackup,
    validate, verify,
};
use crate::{
    diff::{certificate, secrets},
    failpoint,
    host::{self, Container, Host, State, Step},
    ledger::{Course, Failed, Intent, Ledger},
    observe::{self, KEY_FILE, Observed},
    plan::Plan,
    project::{Hooks, Owner, Project, Volume, VolumeRole, compose::COMPOSE_SERVICE, labels},
    registry::exact,
    release::{Prepared, Release},
    secret::{SealKey, Seals},
};

/// How long after a release was refused it is tried once more.
const SECOND_TRY: Duration = Duration::from_secs(2);
/// Name of the hook that runs before anything is touched.
const PRE_HOOK: &str = "preRollout";
/// Name of the hook that runs when a release serves.
pub(super) const POST_HOOK: &str = "postRollout";
/// Permission bits of a volume that is given an owner.
const VOLUME_MODE: u32 = 0o755;
/// How long making a network or a volume may take.
const MAKE_LIMIT: Duration = Duration::from_secs(30);

/// Rolls out the desired project; a release that was refused or does not serve is kept in the ledger as failed.
pub(super) async fn rollout(
    host: &Host,
    plan: &Plan,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<Release, Error> {
    let started = Instant::now();
    let images = images(host, observed, context).await?;
    failpoint::reached("prepared");
    let references = context.project.references();
    let secrets = observed.secrets.of(&references);
    let (key, seals) = sealed(observed, context)?;
    let raised = observed.ledger.as_ref().map(|ledger| ledger.raised_memory(context.project));
    let project = Project { raised_memory: raised.unwrap_or_default(), ..context.project.clone() };
    let prepared = Prepared::new(project, images, seals);
    let release = &prepared.release;
    let ledger = ledger_before(release, observed, context);
    let why = if context.back.is_some() { "back to revision" } else { "revision" };
    let signature = context.signature(&format!("{why} {}", release.project.version()));
    let adopted = plan.rollout.as_ref().map_or(&[][..], |change| &change.adopts);
    let intent = Intent {
        plan: plan.hash(),
        desired_hash: Some(release.desired_hash.clone()),
        stopped: to_be_stopped(adopted, observed),
    };
    let stopped = intent.stopped.clone();
    let approved = ledger.approved.as_ref().filter(|approved| approved.plan == intent.plan);
    let approved = approved.map(|approved| approved.who.clone());
    let course = Course { plan: intent.plan.clone(), approved, took: Duration::ZERO };
    let intended = ledger.clone().with_intent(intent, &signature);
    let mut steps = vec![Step::Place(intended.placement())];
    // The intent is known by its keyed hashes: the key is there before it.
    let new_key = key.filter(|_| observed.seal_key.is_none());
    steps.splice(..0, new_key.map(|key| place_secret(KEY_FILE, secrets::KEY_MODE, &key.text())));
    steps.push(Step::Sync);
    let backup = SecretBackup::new(host, &secrets, observed).await?;
    let (first, of_proxy) = backup.stage(release, secrets);
    steps.extend(first);
    let parts = (steps, of_proxy, adopted);
    let carried_out = Box::pin(carry_out(host, &prepared, parts, &backup, observed, context)).await;
    failpoint::reached("proved");
    let course = Course { took: started.elapsed(), ..course };
    let next = match &carried_out {
        Ok(()) => {
            let parts = (ledger.clone(), &course);
            Box::pin(in_force(host, release, parts, observed, &signature, context)).await?
        }
        Err(error) if error.is_of_release() => {
            let restored = restore(host, &stopped, context).await;
            let failed = failed(error, release, (ledger.clone(), &course), observed, &signature, context);
            let left = context.leaves_failures() && stopped.is_empty() && error.touched_something();
            // What is not given back yet is so by the next check.
            let intent = intended.intent.clone().filter(|_| restored.is_err() || left);
            let tried = failed.failed.clone().map(|failed| Failed { left, ..failed });
            Ledger { intent, failed: tried, ..failed }
        }
        // What was cut goes on without us, or is another writer's; what may pass is tried again: the intent stays.
        Err(error) => return Err(error.clone()),
    };
    let Err(error) = carried_out else {
        clear_away(host, release, (next, adopted), &backup, observed, context).await?;
        return Ok(prepared.release);
    };
    let stays = !error.touched_something() || next.failed.as_ref().is_some_and(|failed| failed.left);
    let back = backup.restore().chain(backup.forget()).filter(|_| !stays);
    super::write_ledger(host, &next, back, context).await?;
    Err(error)
}

/// Checks before anything changes: gates of the instances that stop, and validation of the release.
async fn preflight(
    host: &Host,
    prepared: &Prepared,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    let release = &prepared.release;
    let is_restarted = |service: &str| {
        let releases = (observed.applied.as_ref(), release);
        !release.project.is_reloaded(service) && reload::needed(service, releases, observed).is_some()
    };
    gate::check(host, observed, |service| !stays(release, service, observed) || is_restarted(service))
        .await?;
    validate::validate(host, prepared, observed, context).await
}

/// Writes the ledger once a release serves, and removes what it took the place of: secrets that it does not have, what it
/// was to replace, images that no release that is kept has.
async fn clear_away(
    host: &Host,
    release: &Release,
    (ledger, adopted): (Ledger, &[String]),
    backup: &SecretBackup<'_>,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    let stale = observed.applied.iter().flat_map(|applied| applied.seals.keys());
    let stale = stale.filter(|path| !release.seals.contains_key(*path));
    let stale = stale.map(|path| Step::Remove { path: path.clone() });
    let replaced = adopted.iter().map(|name| Step::docker(&["rm", "-f", name], ACTION_LIMIT));
    let (ledger, old) = ledger.without_old_images();
    let forget = (!old.is_empty()).then_some(Step::ForgetImages { references: old });
    let moved = addresses::steps(host, release, observed).await?;
    let then = stale.chain(backup.forget()).chain(replaced).chain(forget).chain(moved);
    super::write_ledger(host, &ledger, then, context).await
}

/// The key of secrets, where there is one or there are any, and the keyed hashes of the project's.
fn sealed(observed: &Observed, context: &Context<'_>) -> Result<(Option<SealKey>, Seals), Error> {
    let references = &context.project.references();
    let has_any = !observed.secrets.of(references).is_empty();
    let key = if has_any { Some(seal_key(observed)?) } else { observed.seal_key.clone() };
    let seals = key.as_ref().map(|key| observed.secrets.sealed(references, key)).unwrap_or_default();
    Ok((key, seals))
}

/// The key that is there; a new one where a secret is to be remembered for the first time.
fn seal_key(observed: &Observed) -> Result<SealKey, Error> {
    if let Some(key) = &observed.seal_key {
        return Ok(key.clone());
    }
    let doing = "making a key for secrets".to_owned();
    SealKey::random().map_err(|error| host::Error::Failed { doing, found: error.to_string() }.into())
}

/// The intent and secrets come first; then what only the operator makes, the files, and the containers: one list of
/// steps. Then the proof.
async fn carry_out(
    host: &Host,
    prepared: &Prepared,
    (mut steps, secrets_of_proxy, adopted): (Vec<Step>, Vec<Step>, &[String]),
    backup: &SecretBackup<'_>,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    preflight(host, prepared, observed, context).await?;
    let project = context.project;
    if observed.networks.get(&project.network).is_none_or(Option::is_none) {
        steps.push(make("network", &project.network, context));
    }
    steps.extend(volumes(&prepared.release, |_, _| true, observed, context));
    let hooks = project.hooks.as_ref().filter(|_| context.back.is_none());
    let parts = (prepared, &observed.secrets);
    if let Some(Hooks { service, pre_rollout: Some(hook), .. }) = hooks {
        let before = std::mem::take(&mut steps);
        host.carry_out(context.lock, &project.folder, &before).await.map_err(refusal)?;
        hooks::run(host, (hooks::name(project, PRE_HOOK), service), hook, parts, context).await?;
        failpoint::reached("hooked");
    }
    let post_hook = hooks.and_then(|hooks| Some((hooks.service.as_str(), hooks.post_rollout.as_ref()?)));
    let observed = &*Box::pin(start_what_stands_still(host, &prepared.release, observed, context)).await?;
    let takeover =
        rolling::Takeover::new(host, context, (prepared, backup), observed).filter(|_| adopted.is_empty());
    if observed.has_open_intent() {
        steps.extend(remove_idle(&observed.containers));
    } else if let Some(takeover) = &takeover {
        steps.extend(remove_idle(takeover.idle()));
    }
    if let Some(takeover) = takeover {
        return takeover.carry_out(steps, secrets_of_proxy, post_hook).await;
    }
    steps.extend(secrets_of_proxy);
    in_place(host, prepared, (steps, adopted), observed, context).await?;
    match post_hook {
        Some((service, hook)) => {
            hooks::run(host, (hooks::name(project, POST_HOOK), service), hook, parts, context).await
        }
        None => Ok(()),
    }
}

/// Whether a running container of a service is as a release wants it, and goes on with it.
fn stays(release: &Release, service: &str, observed: &Observed) -> bool {
    let mut running = observed.containers.iter().filter(|one| one.state == State::Running);
    running.any(|one| one.has_label(COMPOSE_SERVICE, service) && rolling::is_of(one, release, service))
}

/// Makes the volumes of a release that are missing and chosen by name and content, each with its owner. Docker makes
/// volumes for root, and an image may have nothing there that says otherwise.
fn volumes(
    release: &Release,
    is_chosen: impl Fn(&str, &Volume) -> bool,
    observed: &Observed,
    context: &Context<'_>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (inside, volume) in
        release.project.volumes.iter().filter(|(inside, volume)| is_chosen(inside, volume))
    {
        let is_missing = observed.volumes.get(&volume.name).is_none_or(Option::is_none);
        steps.extend(is_missing.then(|| make("volume", &volume.name, context)));
        // An apply that was cut may have made it and given it no owner.
        if is_missing || observed.has_open_intent() {
            steps.extend(volume.owner.and_then(|owner| own(release, inside, &volume.name, owner)));
        }
    }
    steps
}

/// The caches of one service that are missing: what is in them is made again.
pub(super) fn caches(
    release: &Release,
    service: &str,
    observed: &Observed,
    context: &Context<'_>,
) -> Vec<Step> {
    let mounts = release.project.services.get(service).map_or(&[][..], |service| &service.compose.volumes);
    let is_chosen = |inside: &str, volume: &Volume| {
        volume.role == VolumeRole::Cache && mounts.iter().any(|mount| mount.source == inside)
    };
    volumes(release, is_chosen, observed, context)
}

/// Gives a volume its owner, through the image of a service that mounts it.
fn own(release: &Release, inside: &str, name: &str, owner: Owner) -> Option<Step> {
    let mounts =
        |service: &crate::project::Service| service.compose.volumes.iter().any(|one| one.source == inside);
    let (service, _) = release.project.services.iter().find(|(_, service)| mounts(service))?;
    Some(Step::own_volume(release.images.get(service)?, name, owner.uid, owner.gid, VOLUME_MODE))
}

/// Where a rollout was cut by the end of the daemon or of the host, what served before stands still, and what was to:
/// users have it back before anything else. What comes of it is what was observed.
async fn start_what_stands_still<'a>(
    host: &Host,
    release: &Release,
    observed: &'a Observed,
    context: &Context<'_>,
) -> Result<Cow<'a, Observed>, Error> {
    let Some(applied) = observed.applied.as_ref().filter(|_| observed.has_open_intent()) else {
        return Ok(Cow::Borrowed(observed));
    };
    let stands_still = |one: &Container| {
        let service = one.labels.get(COMPOSE_SERVICE);
        one.is("exited")
            && service
                .is_some_and(|service| [applied, release].iter().any(|of| rolling::is_of(one, of, service)))
    };
    let still: Vec<&str> =
        observed.containers.iter().filter(|one| stands_still(one)).map(|one| one.name.as_str()).collect();
    if still.is_empty() {
        return Ok(Cow::Borrowed(observed));
    }
    let steps = [start(still.iter().copied())];
    match host.carry_out(context.lock, &context.project.folder, &steps).await.map_err(refusal) {
        // What does not start is made anew.
        Err(Error::Refused { .. }) => Ok(Cow::Borrowed(observed)),
        done => {
            done?;
            let mut observed = observed.clone();
            for container in observed.containers.iter_mut().filter(|one| stands_still(one)) {
                container.state = State::Running;
            }
            Ok(Cow::Owned(observed))
        }
    }
}

/// Where nothing serves that could go on until the new release does: Compose makes everything anew that is another one.
async fn in_place(
    host: &Host,
    prepared: &Prepared,
    (mut steps, adopted): (Vec<Step>, &[String]),
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    let project = context.project;
    steps.extend(prepared.live().into_iter().map(Step::Place));
    steps.extend(rolling::stale(observed.files.keys(), &prepared.release));
    steps.push(Step::Sync);
    let compose = Compose::new(host, project);
    let mut start = Vec::new();
    // The old ones have the ports: the new ones are there before those are stopped.
    if !adopted.is_empty() {
        start.push(compose.create());
        start.extend(stop(adopted));
    }
    start.push(compose.up(&[]));
    let releases = (observed.applied.as_ref(), &prepared.release);
    let reloaded = |name: &&String| project.is_reloaded(name) && stays(releases.1, name, observed);
    let reloads = project.services.keys().filter(reloaded);
    let requests = reloads.clone().filter(|name| reload::needed(name, releases, observed).is_some());
    let requests = requests.map(String::as_str).collect();
    start.extend(reloads.filter_map(|name| reload::step(name, releases, observed, &compose)));
    host.carry_out(context.lock, &project.folder, &steps).await.map_err(refusal)?;
    bring_up(host, &start, context).await?;
    failpoint::reached("applied");
    let services = project.services.keys().map(String::as_str).collect();
    let limits = context.rollout;
    let proof = verify::Proof {
        now: context.now,
        release: &prepared.release,
        services: &services,
        without: &BTreeSet::new(),
        beside: None,
        secrets: &observed.secrets,
        reloads: requests,
        certificate: certificate::given(project, &observed.secrets).and_then(Result::ok),
        is_published: false,
    };
    let (health, soak) = (limits.health_timeout.duration(), limits.soak.duration());
    verify::serving(host, context.lock, &proof, health, soak).await
}

/// Makes containers. What a killed daemon or a killed Compose left may be in the way: the release is judged without that.
pub(super) async fn bring_up(host: &Host, steps: &[Step], context: &Context<'_>) -> Result<(), Error> {
    let folder = &context.project.folder;
    let done = failpoint::during("applying", host.carry_out(context.lock, folder, steps)).await;
    match done.map_err(refusal) {
        Err(first @ Error::Refused { .. }) => {
            sleep(SECOND_TRY).await;
            let (ours, _) = ours_and_others(host, context).await?;
            let again: Vec<Step> = remove_idle(&ours).chain(steps.iter().cloned()).collect();
            let done = host.carry_out(context.lock, folder, &again).await.map_err(refusal);
            done.map_err(|second| if second.is_of_release() { first } else { second })
        }
        other => other,
    }
}

/// Takes away what does not run: nobody knows what is in the way of starting it.
pub(super) fn remove_idle<'a>(
    containers: impl IntoIterator<Item = &'a Container>,
) -> impl Iterator<Item = Step> {
    let is_idle = |container: &&Container| container.state != State::Running && !container.is("removing");
    let idle = containers.into_iter().filter(is_idle);
    idle.map(|container| Step::docker(&["rm", "-f", &container.name], QUICK_LIMIT))
}

/// The containers of the project as they are now, and every other one.
pub(super) async fn ours_and_others(
    host: &Host,
    context: &Context<'_>,
) -> Result<(Vec<Container>, Vec<Container>), host::Error> {
    let is_ours = |container: &Container| observe::is_ours(container, context.project);
    Ok(host.containers().await?.into_iter().partition(is_ours))
}

/// What Docker or Compose says against a release, apart from what went wrong beside it.
pub(super) fn refusal(error: host::Error) -> Error {
    match error {
        host::Error::Docker { fault, found } if !fault.is_of_host() => Error::Refused { found },
        other => other.into(),
    }
}

/// The ID of every image.
async fn images(
    host: &Host,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut images = BTreeMap::new();
    for (service, named) in context.project.images() {
        let pinned = context.back.as_ref().and_then(|back| back.images.get(service));
        let reference = pinned.map_or_else(|| exact(named), String::clone);
        let id = match observed.availability.present.get(service).filter(|_| pinned.is_none()) {
            Some(id) => id.clone(),
            None => image_id(host, &reference).await?,
        };
        images.insert(service.to_owned(), id);
    }
    Ok(images)
}

/// The ID of an image that is on the host.
async fn image_id(host: &Host, reference: &str) -> Result<String, Error> {
    let image = host.image(reference).await?;
    image.map(|image| image.id).ok_or_else(|| Error::ImageMissing { image: reference.to_owned() })
}

/// Makes a network or a volume with the labels that show whose it is.
pub(super) fn make(what: &str, name: &str, context: &Context<'_>) -> Step {
    let owner = format!("{}={}", labels::OWNER, context.owner);
    let stack = format!("{}={}", labels::STACK, context.stack);
    Step::docker(&[what, "create", "--label", &owner, "--label", &stack, name], MAKE_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::DockerFault;

    #[test]
    fn a_daemon_that_went_away_is_not_the_releases_fault() {
        let refused = |fault| {
            let found = "docker compose: exit status 1".to_owned();
            matches!(refusal(host::Error::Docker { fault, found }), Error::Refused { .. })
        };
        assert!(refused(DockerFault::Other));
        for fault in [
            DockerFault::DaemonUnavailable,
            DockerFault::NoSpace,
            DockerFault::NoSubnet,
            DockerFault::Firewall,
            DockerFault::Exhausted,
            DockerFault::Runtime,
        ] {
            assert!(!refused(fault), "{fault:?}");
        }
    }
}
