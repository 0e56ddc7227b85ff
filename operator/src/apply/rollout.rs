//! Carries out a change: images, network and volumes, files, containers, proof, ledger.

use std::{collections::BTreeMap, time::Duration};

use super::{
    ACTION_LIMIT, Context, Error,
    actions::{place_secret, secret_steps},
    compose::Compose,
    verify,
};
use crate::{
    desired::labels,
    diff::{self, secrets},
    failpoint,
    host::{self, Host, State, Step},
    ledger::{Held, Intent, Ledger},
    observe::{self, Depth, KEY_FILE, Observed},
    plan::Plan,
    release::{Prepared, Release},
    secret::{SealKey, Values},
};

/// How long one image may take to be pulled.
const PULL_LIMIT: Duration = Duration::from_mins(10);
/// How long making a network or a volume may take.
const MAKE_LIMIT: Duration = Duration::from_secs(30);

/// Rolls out the desired project; a release that was refused or does not serve is kept in the ledger as failed.
pub(super) async fn rollout(
    host: &Host,
    plan: &Plan,
    observed: &Observed,
    context: &Context<'_>,
) -> Result<Release, Error> {
    let images = images(host, context).await?;
    failpoint::reached("prepared");
    let wanted = context.project.secrets.keys();
    let values = wanted.filter_map(|path| observed.secrets.known.get_key_value(path));
    let secrets = Values {
        known: values.map(|(path, value)| (path.clone(), value.clone())).collect(),
        ..Values::default()
    };
    let key = seal_key(&secrets, observed)?;
    let seals = key.as_ref().map(|key| secrets.sealed(key)).unwrap_or_default();
    let prepared = Prepared::new(context.project.clone(), images, seals);
    let release = &prepared.release;
    let mut ledger = observed.ledger.clone().unwrap_or_else(|| Ledger::empty(&context.owner, &context.stack));
    ledger = ledger.taken_over(&context.owner, &context.stack);
    for (name, actual) in &context.project.volumes {
        ledger.volumes.entry(name.clone()).or_insert_with(|| actual.clone());
    }
    let why = if context.back.is_some() { "back to revision" } else { "revision" };
    let signature = context.signature(&format!("{why} {}", release.project.revision));
    let intent = Intent { plan: plan.hash(), desired_hash: Some(release.desired_hash.clone()) };
    let intended = ledger.clone().with_intent(intent, &signature);
    let mut steps = vec![Step::Place(intended.placement())];
    // The intent is known by its keyed hashes: the key is there before it.
    let new_key = key.filter(|_| observed.seal_key.is_none());
    steps.splice(..0, new_key.map(|key| place_secret(KEY_FILE, secrets::KEY_MODE, &key.text())));
    steps.push(Step::Sync);
    steps.extend(secret_steps(&secrets.known));
    let adopted = plan.rollout.as_ref().map_or(&[][..], |change| &change.adopts);
    let carried_out = carry_out(host, &prepared, (steps, adopted), observed, context).await;
    failpoint::reached("proved");
    let next = match &carried_out {
        Ok(()) => {
            let compose = Some(host.facts().await?.compose);
            let host_defaults = host_defaults(host, release, context).await?;
            let held = context.back.as_ref().map(|back| Held {
                release: release.id.clone(),
                desired_hash: back.desired_hash.clone(),
                who: context.who.clone(),
            });
            let adopt = context.project.adopt.as_ref().map(|adopt| adopt.project.to_string());
            let adopted = adopt.or(ledger.adopted.clone());
            Ledger { adopted, compose, host_defaults, held, ..ledger.clone().succeeded(release, &signature) }
        }
        Err(error) if error.is_of_release() => {
            give_back(host, adopted, observed, context).await?;
            let failed = ledger.clone().failed(release, error.reason(), error.to_string(), &signature);
            // A rollback that failed says nothing of what was tried before.
            if context.back.is_some() { Ledger { failed: ledger.failed.clone(), ..failed } } else { failed }
        }
        // What was cut goes on without us, or is another writer's; what may pass is tried again: the intent stays.
        Err(error) => return Err(error.clone()),
    };
    let stale = observed.applied.iter().flat_map(|applied| applied.seals.keys());
    let stale = stale.filter(|path| carried_out.is_ok() && !release.seals.contains_key(*path));
    let stale = stale.map(|path| Step::Remove { path: path.clone() });
    let replaced = adopted.iter().filter(|_| carried_out.is_ok());
    let replaced = replaced.map(|name| Step::docker(&["rm", "-f", name], ACTION_LIMIT));
    super::write_ledger(host, &next, stale.chain(replaced), context).await?;
    carried_out.map(|()| prepared.release)
}

/// The key that is there; a new one where a secret is to be remembered for the first time.
fn seal_key(secrets: &Values, observed: &Observed) -> Result<Option<SealKey>, Error> {
    if observed.seal_key.is_some() || secrets.known.is_empty() {
        return Ok(observed.seal_key.clone());
    }
    let doing = "making a key for secrets".to_owned();
    let random = SealKey::random().map(Some);
    random.map_err(|error| host::Error::Failed { doing, found: error.to_string() }.into())
}

/// The intent and secrets come first; then what only the operator makes, the files, and the containers: one list of
/// steps. Then the proof.
async fn carry_out(
    host: &Host,
    prepared: &Prepared,
    (mut steps, adopted): (Vec<Step>, &[String]),
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    let project = context.project;
    if observed.networks.get(&project.network).is_none_or(Option::is_none) {
        steps.push(make("network", &project.network, context));
    }
    let missing =
        project.volumes.values().filter(|name| observed.volumes.get(*name).is_none_or(Option::is_none));
    steps.extend(missing.map(|name| make("volume", name, context)));
    steps.extend(prepared.placements().into_iter().map(Step::Place));
    steps.push(Step::Sync);
    // What a killed Compose left takes the name that the next one needs.
    let left =
        observed.containers.iter().filter(|one| one.state != State::Running && is_temporary(&one.name));
    steps.extend(left.map(|one| Step::docker(&["rm", "-f", &one.name], ACTION_LIMIT)));
    let compose = Compose::new(host, project);
    // The old ones have the ports: the new ones are there before those are stopped.
    if !adopted.is_empty() {
        steps.push(compose.create());
        steps.extend(stop(adopted));
    }
    steps.push(compose.up(&[]));
    let done = failpoint::during("applying", host.carry_out(context.lock, &project.folder, &steps)).await;
    done.map_err(|error| match error {
        host::Error::Failed { doing, found } if doing == "docker" && !may_pass(&found) => {
            Error::Refused { found }
        }
        other => other.into(),
    })?;
    failpoint::reached("applied");
    let services = project.services.keys().map(String::as_str).collect();
    let limits = context.rollout;
    verify::serving(
        host,
        context.lock,
        &prepared.release,
        &services,
        limits.health_timeout.duration(),
        limits.soak.duration(),
    )
    .await
}

/// Stops containers made by hand. Docker would start some of them again by itself, at its own next start.
fn stop(containers: &[String]) -> Vec<Step> {
    let on_all = |words: &[&str]| {
        let names = containers.iter().map(String::as_str);
        Step::docker(&words.iter().copied().chain(names).collect::<Vec<_>>(), ACTION_LIMIT)
    };
    vec![on_all(&["update", "--restart=no"]), on_all(&["stop"])]
}

/// Takes away the containers that do not serve, and starts again what they should have replaced.
async fn give_back(
    host: &Host,
    adopted: &[String],
    observed: &Observed,
    context: &Context<'_>,
) -> Result<(), Error> {
    if adopted.is_empty() {
        return Ok(());
    }
    let mut steps = vec![Compose::new(host, context.project).remove()];
    let replaced = || observed.others.iter().filter(|container| adopted.contains(&container.name));
    // After a cut, nothing runs any more, and nobody knows what did.
    let is_resumed = !replaced().any(|container| container.state == State::Running);
    for container in replaced().filter(|container| is_resumed || container.state == State::Running) {
        let restart = container.details.as_ref().and_then(|details| details.settings.get("restart"));
        if let Some(restart) = restart {
            steps.push(Step::docker(
                &["update", &format!("--restart={restart}"), &container.name],
                ACTION_LIMIT,
            ));
        }
        steps.push(Step::docker(&["start", &container.name], ACTION_LIMIT));
    }
    Ok(host.carry_out(context.lock, &context.project.folder, &steps).await?)
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

/// Whether Compose named a container so only until it has taken the place of another one.
fn is_temporary(name: &str) -> bool {
    name.split_once('_')
        .is_some_and(|(id, _)| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Docker's own words for what is not the release's fault: the daemon went away, the disk is full, or a Compose that was
/// killed left a container.
fn may_pass(found: &str) -> bool {
    let conflict = found.split_once("The container name \"/");
    if conflict.is_some_and(|(_, name)| is_temporary(name)) {
        return true;
    }
    ["Cannot connect to the Docker daemon", "error during connect", "no space left on device"]
        .iter()
        .any(|words| found.to_lowercase().contains(&words.to_lowercase()))
}

/// The ID of every image.
async fn images(host: &Host, context: &Context<'_>) -> Result<BTreeMap<String, String>, Error> {
    let mut images = BTreeMap::new();
    for (service, named) in context.project.images() {
        let pinned = context.back.as_ref().and_then(|back| back.images.get(service));
        let reference = pinned.map_or(named, String::as_str);
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
    let pull = Step::docker(&["pull", "--quiet", reference], PULL_LIMIT);
    let pulled = host.carry_out(context.lock, "", &[pull]).await;
    pulled.map_err(|error| missing(error.to_string()))?;
    let image = host.image(reference).await?;
    image.map(|image| image.id).ok_or_else(|| missing("nothing after a pull".to_owned()))
}

/// Makes a network or a volume with the labels that show whose it is.
pub(super) fn make(what: &str, name: &str, context: &Context<'_>) -> Step {
    let owner = format!("{}={}", labels::OWNER, context.owner);
    let stack = format!("{}={}", labels::STACK, context.stack);
    Step::docker(&[what, "create", "--label", &owner, "--label", &stack, name], MAKE_LIMIT)
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
        assert!(may_pass("Conflict. The container name \"/bf4c8584e5d6_tt-a-app-edge-1\" is already in use"));
        assert!(!may_pass("Conflict. The container name \"/tt-a-app-edge-1\" is already in use"));
        assert!(!may_pass("exit status 1: Bind for 0.0.0.0:3500 failed: port is already allocated"));
    }
}
