//! Applied against observed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tasktracker_crds::{Answer, DriftItem, DriftKind, Layer};

use super::{
    faults::{failed_probes, is_serving},
    files::file_drift,
    host,
    memory::out_of_memory,
    secrets, settings,
};
use crate::{
    host::{Container, Error, Facts, Health, NetworkOrVolume, State},
    model::{Probe, ProbeFailure, Unserved},
    observe::{Lost, MovedTag, Observed},
    project::{
        Project,
        compose::{COMPOSE_NUMBER, COMPOSE_ONE_OFF, COMPOSE_SERVICE},
        labels,
    },
    release::Release,
    text::printable,
};

/// A container that Docker started again at least this often, and that does not last, restarts again and again.
const RESTARTS: u64 = 2;
/// How long a container must run until Docker's own backoff begins anew.
const STABLE_UPTIME: Duration = Duration::from_secs(10);

/// Every difference between the applied release and what is there; nothing while another writer is at work. Where
/// nothing was applied, only the host itself is judged.
pub fn drift(host: &str, project: &Project, observed: &Observed) -> Vec<DriftItem> {
    if observed.busy {
        return Vec::new();
    }
    // With what is lost there, the next check sees everything.
    let mut items = lost(observed);
    if items.is_empty() {
        items = differences(project, observed);
    }
    for item in &mut items {
        host.clone_into(&mut item.host);
        project.component.as_str().clone_into(&mut item.component);
    }
    items
}

/// What the operator keeps there and knows still.
fn lost(observed: &Observed) -> Vec<DriftItem> {
    let lost = observed.lost.iter().map(|Lost { path, found }| {
        let kind = if found.is_some() { DriftKind::FileChanged } else { DriftKind::FileMissing };
        item(kind, None, Some(path), "as it was seen last", found.unwrap_or("nothing"))
    });
    lost.collect()
}

/// What the operator keeps there and does not know any more.
fn damaged(project: &Project, observed: &Observed) -> Option<DriftItem> {
    let Some(Error::ReleaseDamaged { path, found }) = &observed.damaged else { return None };
    let folder = format!("{}/{}/", observed.directory, project.folder);
    let path = path.strip_prefix(&folder).unwrap_or(path);
    let is_there = observed.files.contains_key(path);
    let kind = if is_there { DriftKind::FileChanged } else { DriftKind::FileMissing };
    Some(item(kind, None, Some(path), "as it was written", found))
}

fn differences(desired: &Project, observed: &Observed) -> Vec<DriftItem> {
    let project = observed.applied.as_ref().map_or(desired, |applied| &applied.project);
    let mut items = host::host_drift(project, observed);
    items.extend(damaged(project, observed));
    items.extend(secrets::missing(desired, observed));
    if let Some(applied) = &observed.applied {
        items.extend(file_drift(applied, observed));
        items.extend(secrets::secret_drift(applied, observed));
        for (service, definition) in &applied.project.services {
            let scale = definition.compose.scale as usize;
            items.extend(service_drift(applied, desired, service, scale, observed));
        }
        items.extend(orphans(applied, observed));
        items.extend(made_drift(applied, observed));
    }
    items.extend(not_serving(observed, &items));
    items.extend(moved_tags(observed));
    items.extend(host::rogues(project, desired, observed));
    items
}

/// Whether a difference is healed and may be why users do not get what they should: beside it, that is not told.
pub(crate) fn is_cause(item: &DriftItem) -> bool {
    item.answer == Answer::Heal && item.kind.layer() != Layer::Host && item.kind != DriftKind::NotServing
}

/// What users do not get, where nothing else that is healed may be the cause.
fn not_serving(observed: &Observed, others: &[DriftItem]) -> Vec<DriftItem> {
    if others.iter().any(is_cause) {
        return Vec::new();
    }
    let unserved = observed.unserved.iter().map(|Unserved { path, service, found, is_own_word, .. }| {
        let item = item(DriftKind::NotServing, Some(service), Some(path), "an answer for users", found);
        let answer = if *is_own_word { Answer::Report } else { item.answer };
        DriftItem { answer, ..item }
    });
    unserved.collect()
}

/// Tags that mean another image than was rolled out.
fn moved_tags(observed: &Observed) -> impl Iterator<Item = DriftItem> {
    observed.availability.moved.iter().map(|MovedTag { service, reference, applied, found }| {
        item(DriftKind::ImageTagMoved, Some(service), Some(reference), applied, found)
    })
}

/// One difference; whatever is in its texts can be printed.
pub(super) fn item(
    kind: DriftKind,
    service: Option<&str>,
    path: Option<&str>,
    wanted: impl AsRef<str>,
    found: impl AsRef<str>,
) -> DriftItem {
    DriftItem {
        host: String::new(),
        component: String::new(),
        service: service.map(printable),
        kind,
        path: path.map(printable),
        wanted: printable(wanted.as_ref()),
        found: printable(found.as_ref()),
        first_seen: None,
        answer: kind.answer(),
    }
}

fn service_drift(
    applied: &Release,
    desired: &Project,
    service: &str,
    scale: usize,
    observed: &Observed,
) -> Vec<DriftItem> {
    let containers = kept_of(applied, observed, service);
    let mut items = Vec::new();
    for container in &containers {
        items.extend(container_drift(applied, desired, service, container, observed));
        items.extend(stale_content(applied, service, container, observed));
        items.extend(not_loaded(applied, service, container, observed));
    }
    if containers.len() < scale {
        let wanted = format!("{scale} running");
        let found =
            if containers.is_empty() { "nothing".to_owned() } else { format!("{} there", containers.len()) };
        items.push(item(DriftKind::Missing, Some(service), None, wanted, found));
    }
    items
}

/// What a serving container of the release has not loaded.
fn not_loaded(
    applied: &Release,
    service: &str,
    container: &Container,
    observed: &Observed,
) -> Vec<DriftItem> {
    let definition = applied.project.services.get(service);
    if !definition.is_some_and(|definition| is_serving(definition, container, observed)) {
        return Vec::new();
    }
    let drift = |(probe, failure): (&Probe, &ProbeFailure)| {
        let path = match probe {
            Probe::Loaded(what) => format!("{}/{what}", container.name),
            Probe::Object(path) => path.clone(),
            Probe::Ready | Probe::Gate => return None,
        };
        Some(item(DriftKind::ConfigNotLoaded, Some(service), Some(&path), "loaded", failure.to_string()))
    };
    failed_probes(container, observed).filter_map(drift).collect()
}

/// The containers of a service but those of `docker compose run`, and those that are being removed.
pub(super) fn containers_of<'a>(observed: &'a Observed, service: &str) -> Vec<&'a Container> {
    let ours = |container: &&'a Container| {
        container.has_label(COMPOSE_SERVICE, service)
            && !container.has_label(COMPOSE_ONE_OFF, "True")
            && !container.is("removing")
    };
    observed.containers.iter().filter(ours).collect()
}

/// The containers of a service that its scale asks for: where there are too many, those with the right name first.
fn kept_of<'a>(applied: &Release, observed: &'a Observed, service: &str) -> Vec<&'a Container> {
    let scale =
        applied.project.services.get(service).map_or(0, |definition| definition.compose.scale as usize);
    let mut containers = containers_of(observed, service);
    let misnamed = |container: &Container| {
        let number = container.labels.get(COMPOSE_NUMBER).map_or("", String::as_str);
        container.name != format!("{}-{service}-{number}", applied.project.name)
    };
    // While a rollout is under way or was cut, those of two releases may be there.
    let hash = applied.service_hashes.get(service).map_or("", String::as_str);
    containers.sort_by_key(|container| {
        let is_other = !container.has_label(labels::SERVICE_HASH, hash);
        (is_other, misnamed(container), container.state != State::Running, &container.name)
    });
    containers.truncate(scale);
    containers
}

/// Containers of ours that nothing asks for.
fn orphans(applied: &Release, observed: &Observed) -> Vec<DriftItem> {
    let kept: Vec<&str> = applied
        .project
        .services
        .keys()
        .flat_map(|service| kept_of(applied, observed, service))
        .map(|container| container.id.as_str())
        .collect();
    let orphans = observed.containers.iter().filter(|container| !kept.contains(&container.id.as_str()));
    orphans
        .filter(|container| !container.is("removing"))
        .map(|container| {
            let service = container.labels.get(COMPOSE_SERVICE).map_or("", String::as_str);
            let what = if container.has_label(COMPOSE_ONE_OFF, "True") {
                "a container of `docker compose run`".to_owned()
            } else {
                format!("one more container of {service}")
            };
            let found = format!("{what}, {}", state_words(container));
            item(DriftKind::Orphan, Some(service), Some(&container.name), "nothing", found)
        })
        .collect()
}

/// Every difference of one container. What runs another image is not compared any further.
fn container_drift(
    applied: &Release,
    desired: &Project,
    service: &str,
    container: &Container,
    observed: &Observed,
) -> Vec<DriftItem> {
    let found = |kind, path: &str, wanted: String, found: String| {
        item(kind, Some(service), Some(path), wanted, found)
    };
    let name = &container.name;
    if let Some(image) = applied.images.get(service).filter(|image| **image != container.image_id) {
        return vec![found(DriftKind::ImageChanged, name, image.clone(), container.image_id.clone())];
    }
    let mut items = Vec::new();
    let image = applied.images.get(service).and_then(|id| observed.images.get(id));
    if let Some(image) = image.filter(|_| container.details.is_some()) {
        let differences =
            settings::differences(applied, service, container, image, &observed.engine, &observed.directory);
        for (field, wanted, there) in differences {
            if wanted.is_none() && is_host_default(observed, &field, there.as_deref()) {
                continue;
            }
            let shown = |text: &Option<String>, other: &Option<String>| {
                settings::shown(&field, text.as_deref(), other.as_deref())
            };
            let words = (shown(&wanted, &None), shown(&there, &wanted));
            items.push(found(DriftKind::ConfigChanged, &format!("{name}/{field}"), words.0, words.1));
        }
        items.extend(other_network(applied, service, container, observed));
    } else if let Some((wanted, there)) = other_release(applied, service, container) {
        let path = format!("{name}/labels/{}", labels::SERVICE_HASH);
        items.push(found(DriftKind::ConfigChanged, &path, wanted, there));
    }
    let condition =
        || condition(container).map(|(kind, wanted, there)| found(kind, name, wanted.to_owned(), there));
    // That it restarts follows from that.
    items.extend(out_of_memory(service, container, &applied.project, desired, observed).or_else(condition));
    items
}

/// Whether the host gives a container a setting that nothing asks for: by its daemon's configuration, or as it did after
/// the last rollout.
fn is_host_default(observed: &Observed, field: &str, there: Option<&str>) -> bool {
    let learned = observed.ledger.as_ref().and_then(|ledger| ledger.host_defaults.get(field));
    let facts = observed.facts.as_ref();
    let configured = facts.and_then(|facts| facts.daemon_defaults.containers.get(field));
    [learned, configured].iter().any(|known| there.is_some() && known.map(String::as_str) == there)
        || is_former_default(observed, field, there)
}

/// Whether the host gave it by itself when something was made.
fn is_former_default(observed: &Observed, field: &str, there: Option<&str>) -> bool {
    let former = observed.ledger.as_ref().and_then(|ledger| ledger.former_defaults.get(field));
    former.zip(there).is_some_and(|(former, there)| former.contains(there))
}

/// What a host's daemon gives by itself at present, as [`host_defaults`] names it.
pub fn configured_defaults(facts: &Facts) -> impl Iterator<Item = (String, String)> {
    let defaults = &facts.daemon_defaults;
    let of_networks = defaults.networks.iter().map(|(field, value)| (of_network(field), value.clone()));
    defaults.containers.iter().map(|(field, value)| (field.clone(), value.clone())).chain(of_networks)
}

/// As [`is_host_default`], of the project's network.
fn is_network_default(observed: &Observed, field: &str, there: Option<&str>) -> bool {
    let learned = observed.ledger.as_ref().and_then(|ledger| ledger.host_defaults.get(&of_network(field)));
    let facts = observed.facts.as_ref();
    let configured = facts.and_then(|facts| facts.daemon_defaults.networks.get(field));
    [learned, configured].iter().any(|known| there.is_some() && known.map(String::as_str) == there)
        || is_former_default(observed, &of_network(field), there)
}

/// The key of a network's setting among the defaults of a host.
fn of_network(field: &str) -> String {
    format!("network/{field}")
}

/// Settings that nothing asked for and that every container of the release has alike, and those of its network: the
/// host's own defaults, such as `default-ulimits` of its Docker daemon.
pub fn host_defaults(observed: &Observed) -> BTreeMap<String, String> {
    let Some(applied) = &observed.applied else { return BTreeMap::new() };
    let of_containers = container_defaults(applied, observed).into_iter();
    let made = observed.networks.get(&applied.project.network).and_then(Option::as_ref);
    let of_labels = |field: &str| field.starts_with("labels/");
    let settings = made.into_iter().flat_map(|made| &made.settings).filter(|(field, _)| !of_labels(field));
    of_containers.chain(settings.map(|(field, text)| (of_network(field), text.clone()))).collect()
}

fn container_defaults(applied: &Release, observed: &Observed) -> BTreeMap<String, String> {
    let mut alike: Option<BTreeMap<String, String>> = None;
    for (service, container) in applied.project.services.keys().flat_map(|service| {
        kept_of(applied, observed, service).into_iter().map(move |container| (service, container))
    }) {
        let Some(image) = applied.images.get(service).and_then(|id| observed.images.get(id)) else {
            continue;
        };
        let extra: BTreeMap<String, String> =
            settings::differences(applied, service, container, image, &observed.engine, &observed.directory)
                .into_iter()
                .filter_map(|(field, wanted, found)| Some((field, found.filter(|_| wanted.is_none())?)))
                .collect();
        alike = Some(match alike {
            None => extra,
            Some(alike) => alike.into_iter().filter(|(field, text)| extra.get(field) == Some(text)).collect(),
        });
    }
    alike.unwrap_or_default()
}

/// The hash in the label of a container that another release made: wanted and found.
pub(super) fn other_release(
    applied: &Release,
    service: &str,
    container: &Container,
) -> Option<(String, String)> {
    let hash = container.labels.get(labels::SERVICE_HASH).map_or("not set", String::as_str);
    let wanted = applied.service_hashes.get(service).filter(|wanted| *wanted != hash)?;
    Some((wanted.clone(), hash.to_owned()))
}

/// A network that was removed and made anew has another ID, and who was in the old one is not in the new one.
fn other_network(
    applied: &Release,
    service: &str,
    container: &Container,
    observed: &Observed,
) -> Option<DriftItem> {
    let network = &applied.project.network;
    let made = observed.networks.get(network)?.as_ref()?;
    let joined = container.details.as_ref()?.network_ids.get(network)?;
    if container.state != State::Running || made.id.is_empty() || *joined == made.id {
        return None;
    }
    let path = format!("{}/networks/{network}", container.name);
    let found = "connected to an earlier network of that name".to_owned();
    Some(item(DriftKind::ConfigChanged, Some(service), Some(&path), "connected", found))
}

/// What keeps a container from doing its work: kind, wanted and found.
fn condition(container: &Container) -> Option<(DriftKind, &'static str, String)> {
    let restarts = container.details.as_ref().map_or(0, |details| details.restarts);
    let state = match &container.state {
        State::Running => "running",
        State::Other(state) => state.as_str(),
    };
    match state {
        "exited" | "created" | "dead" => Some((DriftKind::Stopped, "running", state_words(container))),
        "paused" => Some((DriftKind::Paused, "running", "paused".to_owned())),
        "restarting" | "running" if restarts >= RESTARTS && !lasts(container) => Some((
            DriftKind::Restarting,
            "running without a restart",
            "restarting again and again".to_owned(),
        )),
        "running" if container.health == Health::Unhealthy => {
            Some((DriftKind::Unhealthy, "healthy", "unhealthy".to_owned()))
        }
        _ => None,
    }
}

/// Whether it runs, and has for so long that Docker counts its restarts anew. Where the daemon does not tell how long,
/// nothing is held against it.
fn lasts(container: &Container) -> bool {
    let Some(details) = &container.details else { return false };
    details.process.is_some() && details.uptime.is_none_or(|uptime| uptime >= STABLE_UPTIME)
}

/// `exited (137)` rather than `Exited (137) 3 seconds ago`: what is told must not change from check to check.
pub(super) fn state_words(container: &Container) -> String {
    let State::Other(state) = &container.state else { return "running".to_owned() };
    let exit_code = container.details.as_ref().and_then(|details| details.exit_code).or(container.exit_code);
    match exit_code {
        Some(code) if state == "exited" => format!("exited ({code})"),
        _ => state.clone(),
    }
}

/// Folders of the release that a running container does not see any more: its mount still leads to the folder that
/// was there when it started. Docker's archive of a container shows the new one and is no proof.
fn stale_content(
    applied: &Release,
    service: &str,
    container: &Container,
    observed: &Observed,
) -> Vec<DriftItem> {
    let Some(inside) = observed.mounts.containers.get(&container.id) else { return Vec::new() };
    let Some(definition) = applied.project.services.get(service) else { return Vec::new() };
    let mut items = Vec::new();
    for mount in &definition.compose.volumes {
        let Some(folder) = mount.project_folder() else { continue };
        let real = observed.facts.as_ref().and_then(|facts| facts.real_directory.as_ref());
        let directory = real.unwrap_or(&observed.directory);
        let source = format!("{directory}/{}/{folder}", applied.project.folder);
        let Some(seen) = inside.iter().rev().find(|mounted| mounted.place == mount.target) else { continue };
        let Some((device, root)) = on_device(&source, observed) else { continue };
        if seen.device == device && seen.root == root {
            continue;
        }
        let found = match seen.root.strip_suffix("//deleted") {
            Some(_) => "a folder that is gone".to_owned(),
            None => format!("the folder {}", seen.root),
        };
        let path = format!("{}{}", container.name, mount.target);
        items.push(item(
            DriftKind::ContentStale,
            Some(service),
            Some(&path),
            format!("the folder {folder}"),
            found,
        ));
    }
    items
}

/// Device of a path of the host, and where it is on that device.
fn on_device(path: &str, observed: &Observed) -> Option<(String, String)> {
    let below = |place: &str| match place {
        "/" => Some(path.to_owned()),
        _ => path
            .strip_prefix(place)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            .map(str::to_owned),
    };
    let mounts = observed.mounts.host.iter().filter_map(|mounted| Some((mounted, below(&mounted.place)?)));
    let (mounted, rest) =
        mounts.reduce(|best, next| if next.0.place.len() >= best.0.place.len() { next } else { best })?;
    let root = format!("{}{rest}", mounted.root.trim_end_matches('/'));
    Some((mounted.device.clone(), root))
}

/// Network and volumes, which only the operator makes.
fn made_drift(applied: &Release, observed: &Observed) -> Vec<DriftItem> {
    let project = &applied.project;
    let Some(ledger) = &observed.ledger else { return Vec::new() };
    let wanted = settings::of_made(&project.owner, &ledger.stack);
    let former_owners: BTreeSet<&String> =
        ledger.former_owners.iter().chain(&observed.former_owners).collect();
    let is_default = |kind: DriftKind, field: &str, there: Option<&str>| {
        kind == DriftKind::NetworkChanged && is_network_default(observed, field, there)
    };
    let differing = |name: &str, made: Option<&Option<NetworkOrVolume>>, missing, changed| match made {
        None => Vec::new(),
        Some(None) => vec![item(missing, None, Some(name), "there", "nothing")],
        Some(Some(made)) => settings::compare(&wanted, &made.settings)
            .into_iter()
            .filter(|(field, _, found)| !is_of_former_owner(&former_owners, field, found.as_deref()))
            .filter(|(field, wanted, found)| {
                wanted.is_some() || !is_default(changed, field, found.as_deref())
            })
            .map(|(field, wanted, there)| {
                let shown = |text: Option<String>| text.unwrap_or_else(|| "not set".to_owned());
                item(changed, None, Some(&format!("{name}/{field}")), shown(wanted), shown(there))
            })
            .collect(),
    };
    let network = differing(
        &project.network,
        observed.networks.get(&project.network),
        DriftKind::NetworkMissing,
        DriftKind::NetworkChanged,
    );
    let volumes = project.volumes.values().map(|volume| &volume.name).flat_map(|name| {
        let items =
            differing(name, observed.volumes.get(name), DriftKind::VolumeMissing, DriftKind::VolumeChanged);
        // What was adopted is as whoever made it wanted it.
        let is_ours = project.makes_volume(name);
        items.into_iter().filter(move |item| is_ours || item.kind == DriftKind::VolumeMissing)
    });
    network.into_iter().chain(volumes).collect()
}

/// Labels of networks and volumes are as Docker made them: those that were taken over still name who had them.
fn is_of_former_owner(former_owners: &BTreeSet<&String>, field: &str, found: Option<&str>) -> bool {
    let owners = [labels::OWNER, labels::STACK].map(|label| format!("labels/{label}"));
    let is_former = found.is_some_and(|found| former_owners.iter().any(|former| *former == found));
    !former_owners.is_empty()
        && (is_former || field == owners[1])
        && owners.iter().any(|owner| owner == field)
}

#[cfg(test)]
mod tests;
