//! From drift to repairs towards the applied release.

use std::collections::BTreeSet;

use serde::Serialize;
use tasktracker_crds::{Answer, DriftItem, DriftKind};

use super::{Action, Approval, action::UpdatedLimits};
use crate::{
    diff::{self, MemoryRemedy, secrets},
    host::{Container, FileFact, Source},
    ledger::{Attempt, Cause, Ledger},
    model::{Unserved, sha256},
    observe::{KEY_FILE, Observed},
    project::{Project, SECRETS_FOLDER, VolumeRole, compose::COMPOSE_SERVICE},
    release::{COMPOSE_FILE, Prepared, Release},
};

/// An action, what it presupposes, and why it is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// What is done.
    #[serde(flatten)]
    pub action: Action,
    /// The differences that it presupposes and ends.
    pub because: Vec<Cause>,
    /// Why nothing bigger is done.
    pub why: &'static str,
    /// Whether it is left to a person: it did not hold, data that it needs is gone, or the project's folder is
    /// none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub later: bool,
}

/// The action for one difference, where one is to be taken.
fn action(
    item: &DriftItem,
    applied: &Release,
    desired: &Project,
    observed: &Observed,
    networkless: bool,
) -> Option<Action> {
    let service = || item.service.clone();
    let path = || item.path.clone();
    let container = || Some(item.path.as_deref()?.split('/').next()?.to_owned());
    Some(match item.kind {
        DriftKind::FileMissing | DriftKind::FileChanged | DriftKind::FileMode => {
            let path = item.path.as_deref()?;
            if let Some(action) = own_folder(path, applied, observed) {
                return Some(action);
            }
            let secret = write_secret(path, applied, observed).or_else(|| set_mode(path, applied, observed));
            secret.or_else(|| write_file(path, applied, desired))?
        }
        DriftKind::NotAFile => Action::SetAside { path: path()? },
        DriftKind::FileExtra
            if item.path.as_deref().is_some_and(|path| applied.project.is_upstream(path)) =>
        {
            Action::RemoveFile { path: path()? }
        }
        DriftKind::Missing => Action::Create { service: service()? },
        DriftKind::Stopped if networkless => Action::Recreate { service: service()? },
        // What does not serve is not waited for: another one comes up beside it where that can be. Where that one does not
        // serve either, nothing is gained by ending the first, which may recover by itself: its database may be away.
        DriftKind::Unhealthy if is_behind_proxy(item, applied) && !hangs(item, observed) => {
            Action::Replace { service: service()?, container: container()? }
        }
        // What the smallest action did not mend is made anew. What was refused once may have been beside it: it is tried
        // again, by itself.
        DriftKind::Stopped
        | DriftKind::Paused
        | DriftKind::Unhealthy
        | DriftKind::ContentStale
        | DriftKind::ConfigChanged
        | DriftKind::ConfigNotLoaded
            if tries(item, observed).is_some_and(|tried| tried.count > 0 || tried.refused > 1) =>
        {
            Action::Recreate { service: service()? }
        }
        DriftKind::OutOfMemory => more_memory(item, applied, desired, observed)?,
        DriftKind::NotServing => next_step(item, applied, observed)?,
        DriftKind::ConfigNotLoaded if item.path.as_deref().is_some_and(|path| path.starts_with('/')) => {
            Action::PutObject { service: service()?, path: path()? }
        }
        DriftKind::ConfigNotLoaded => Action::Reload { service: service()?, anew: true },
        DriftKind::Stopped => Action::Start { service: service()?, container: container()? },
        DriftKind::Paused => Action::Unpause { service: service()?, container: container()? },
        DriftKind::Unhealthy => {
            Action::Restart { service: service()?, container: container()?, at_once: true }
        }
        DriftKind::ContentStale => {
            Action::Restart { service: service()?, container: container()?, at_once: false }
        }
        DriftKind::ConfigChanged => {
            in_place(item, applied).unwrap_or(Action::Recreate { service: service()? })
        }
        DriftKind::Restarting | DriftKind::ImageChanged => Action::Recreate { service: service()? },
        DriftKind::NetworkMissing => Action::CreateNetwork { network: path()? },
        DriftKind::NetworkChanged => Action::ReplaceNetwork { network: container()? },
        DriftKind::Orphan => Action::RemoveOrphan { container: path()? },
        _ => return None,
    })
}

/// What was tried in vain about a difference.
fn tries<'a>(item: &DriftItem, observed: &'a Observed) -> Option<&'a Attempt> {
    observed.ledger.as_ref()?.tries(item.kind, item.subject())
}

/// How far it has come where every container serves and users get no answer: 0 a reload, 1 a restart, 2 a container made
/// anew, beyond that a person. Each is tried once, and what cannot help is left out.
fn step(item: &DriftItem, applied: &Release, observed: &Observed) -> Option<u32> {
    let service = item.service.as_ref()?;
    let tried = tries(item, observed).map_or(0, |attempt| attempt.count + attempt.refused);
    let is_port = unserved(item, observed).is_some_and(|one| one.is_port);
    let is_blue_green = applied.project.blue_green().any(|(name, _)| name == service);
    Some(match () {
        // Only the container made anew has its port made anew.
        () if is_port => tried + 2,
        // The first of its two is another container beside the one that does not answer.
        () if is_blue_green => tried + 1,
        () if applied.project.is_reloaded(service) => tried,
        () => tried + 1,
    })
}

/// Whether a service is behind a proxy, so that another container of it can come up beside the one that serves.
fn is_behind_proxy(item: &DriftItem, applied: &Release) -> bool {
    applied.project.blue_green().any(|(name, _)| Some(name) == item.service.as_ref())
}

/// Whether a container answers nothing, not even that it cannot serve, and nothing was tried about it: it serves nobody, and
/// may hold what another one beside it would need.
fn hangs(item: &DriftItem, observed: &Observed) -> bool {
    let is_it = |one: &Unserved| !one.is_own_word && one.container.is_some() && one.container == item.path;
    tries(item, observed).is_none() && observed.unserved.iter().any(is_it)
}

fn unserved<'a>(item: &DriftItem, observed: &'a Observed) -> Option<&'a Unserved> {
    observed.unserved.iter().find(|one| Some(&one.path) == item.path.as_ref())
}

/// What is tried next where users get no answer: the smallest first, each once.
fn next_step(item: &DriftItem, applied: &Release, observed: &Observed) -> Option<Action> {
    let service = item.service.clone()?;
    let is_blue_green = applied.project.blue_green().any(|(name, _)| *name == service);
    let silent = unserved(item, observed).and_then(|one| one.container.clone());
    let is_it = |container: &&Container| container.has_label(COMPOSE_SERVICE, &service);
    let container = observed.containers.iter().find(is_it).map(|container| container.name.clone());
    Some(match (step(item, applied, observed)?, silent.filter(|_| is_blue_green), container) {
        (0, ..) => Action::Reload { service, anew: true },
        (1, Some(container), _) => Action::Replace { service, container },
        (1, None, Some(container)) if !is_blue_green => {
            // Where nothing at all is served, nobody's request is cut by it.
            let published = applied.project.services.values().map(|service| service.published.len());
            let at_once = observed.unserved.len() == published.sum::<usize>();
            Action::Restart { service, container, at_once }
        }
        _ => Action::Recreate { service },
    })
}

/// Differences that do not stay repaired, and those about which everything that can help was done.
pub(super) fn in_vain(drift: &[DriftItem], observed: &Observed) -> BTreeSet<Cause> {
    let mut causes = observed.remembered.undone.clone();
    let Some(applied) = &observed.applied else { return causes };
    let is_done = |item: &&DriftItem| {
        item.kind == DriftKind::NotServing
            && tries(item, observed).is_some_and(|tried| tried.count > 0)
            && step(item, applied, observed).is_some_and(|step| step > 2)
    };
    causes.extend(drift.iter().filter(is_done).map(|item| (item.kind, item.subject().cloned())));
    causes
}

/// What Docker can put right about a setting of a container that goes on running.
fn in_place(item: &DriftItem, applied: &Release) -> Option<Action> {
    let service = item.service.clone()?;
    let (container, field) = item.path.as_deref()?.split_once('/')?;
    let container = container.to_owned();
    let definition = applied.project.services.get(&service)?;
    if field == "container_name" {
        return Some(Action::Rename { service, container, to: item.wanted.clone() });
    }
    if UPDATED.contains(&field) && item.wanted != "not set" {
        let limits = UpdatedLimits::of(&definition.compose);
        return Some(Action::Update { service, container, limits });
    }
    let network = field.strip_prefix("networks/")?;
    let network = network.strip_suffix("/aliases").unwrap_or(network).to_owned();
    let is_joined = definition.compose.network_mode.is_none() && network == applied.project.network;
    // An address of its own, say, is for `connect` alone: nothing of that is rendered.
    let is_known = [format!("networks/{network}"), format!("networks/{network}/aliases")];
    if !is_known.iter().any(|known| known == field) {
        return None;
    }
    if !is_joined {
        return Some(Action::Disconnect { service, container, network });
    }
    let is_missing = item.found == "not set";
    is_missing.then(|| connect(&service, &container, applied))
}

/// What helps next where a container is OOM-killed whenever it starts.
fn more_memory(
    item: &DriftItem,
    applied: &Release,
    desired: &Project,
    observed: &Observed,
) -> Option<Action> {
    let (service, container) = (item.service.clone()?, item.path.clone()?);
    let limits = UpdatedLimits::of(&applied.project.services.get(&service)?.compose);
    let from = limits.mem_limit;
    Some(match diff::memory_remedy(&service, &applied.project, desired, observed)? {
        MemoryRemedy::Raise(to) => {
            let limits = UpdatedLimits { mem_limit: to, memswap_limit: to, ..limits };
            Action::RaiseMemory { service, container, from, limits }
        }
        MemoryRemedy::MoveAside(what) => {
            Action::MoveAside { service, container, limit: from, what: what.clone() }
        }
    })
}

/// Settings that `docker update` changes, as the release has them all.
const UPDATED: [&str; 5] = ["mem_limit", "memswap_limit", "cpus", "pids_limit", "restart"];

/// A folder that belongs to another user than the operator's, with its permission bits.
fn own_folder(path: &str, applied: &Release, observed: &Observed) -> Option<Action> {
    let Some(FileFact::Folder { uid, .. }) = observed.files.get(path) else { return None };
    let uid = diff::foreign_to(*uid, observed)?;
    let gid = observed.facts.as_ref().and_then(|facts| facts.gid)?;
    let mode = folder_mode(path, applied)?;
    Some(Action::OwnFolder { path: path.to_owned(), mode, uid, gid })
}

/// The permission bits of a folder of the release.
fn folder_mode(path: &str, applied: &Release) -> Option<u32> {
    let of_secrets = secrets::folders(applied.seals.keys()).into_iter();
    let of_secrets = of_secrets.filter(|(folder, _)| folder == path).map(|(_, mode)| mode).next();
    of_secrets.or_else(|| diff::file_folders(applied).contains(path).then_some(diff::FOLDER_MODE))
}

/// Leaves to a person what cannot or must not be done: a service whose volume is gone, or is another one by now, is not
/// started, and where the project's own folder is none, nothing is written.
pub(super) fn wait_for_person(
    repairs: &mut [Repair],
    drift: &[DriftItem],
    observed: &Observed,
    approval: Approval,
) {
    let is_no_folder =
        |item: &DriftItem| item.kind == DriftKind::NotAFile && item.path.as_deref() == Some(".");
    if drift.iter().any(is_no_folder) {
        for repair in repairs.iter_mut() {
            repair.later = true;
        }
    }
    let Some(project) = observed.applied.as_ref().map(|applied| &applied.project) else { return };
    let is_another = |kind: DriftKind| match kind {
        DriftKind::VolumeMissing => true,
        DriftKind::VolumeChanged => approval != Approval::LeavingData,
        _ => false,
    };
    let missing: Vec<&str> = drift
        .iter()
        .filter(|item| is_another(item.kind))
        .filter_map(|item| item.path.as_ref()?.split('/').next())
        .filter(|name| project.volumes_of(VolumeRole::Data).any(|(_, actual)| actual == name))
        .collect();
    let waits = |service: &str| {
        let mounts = project.services.get(service).into_iter().flat_map(|service| &service.compose.volumes);
        let volumes = mounts.filter_map(|mount| project.volumes.get(&mount.source));
        volumes.into_iter().any(|volume| missing.contains(&volume.name.as_str()))
    };
    for repair in repairs.iter_mut().filter(|repair| repair.action.service().is_some_and(waits)) {
        repair.later = true;
    }
}

/// Leaves to a person what was repaired in vain again and again, or does not stay repaired, and tells of what.
pub(super) fn hold_back(repairs: &mut [Repair], ledger: &Ledger, undone: &BTreeSet<Cause>) -> Vec<String> {
    let mut given_up = Vec::new();
    for repair in repairs.iter_mut().filter(|repair| !repair.later) {
        let is_left = |cause: &Cause| undone.contains(cause) || ledger.gave_up(cause.0, cause.1.as_ref());
        if repair.because.iter().all(is_left) {
            repair.later = true;
            given_up.push(repair.action.words());
        }
    }
    given_up
}

/// Repairs towards the applied release, files first, each service once.
pub(super) fn repairs(
    drift: &[DriftItem],
    applied: &Release,
    desired: &Project,
    observed: &Observed,
) -> Vec<Repair> {
    let networkless = drift.iter().any(|item| item.kind == DriftKind::NetworkMissing);
    let mut repairs: Vec<Repair> = Vec::new();
    for item in drift.iter().filter(|item| item.answer != Answer::Report) {
        let actions = action(item, applied, desired, observed, networkless)
            .into_iter()
            .chain(files_behind(item, applied, desired, observed))
            .chain(joined_anew(item, applied, observed));
        for action in actions.chain(reload(item, &applied.project)) {
            let cause = (item.kind, item.subject().cloned());
            if let Some(repair) = repairs.iter_mut().find(|repair| repair.action == action) {
                if !repair.because.contains(&cause) {
                    repair.because.push(cause);
                }
            } else {
                let why = action.why();
                repairs.push(Repair { action, because: vec![cause], why, later: false });
            }
        }
    }
    drop_covered(&mut repairs);
    repairs.sort_by_key(|repair| order(&repair.action));
    repairs
}

/// Whoever was in a network that is made anew is in the old one no longer, and not in the new one.
fn joined_anew(item: &DriftItem, applied: &Release, observed: &Observed) -> Vec<Action> {
    if item.kind != DriftKind::NetworkChanged {
        return Vec::new();
    }
    let joined = observed.containers.iter().filter_map(|container| {
        let service = container.labels.get(COMPOSE_SERVICE)?;
        let definition = applied.project.services.get(service)?;
        let is_inside = definition.compose.network_mode.is_none() && !container.is("removing");
        is_inside.then(|| connect(service, &container.name, applied))
    });
    joined.collect()
}

/// Brings a container into the project's network, under the names that its service has there.
fn connect(service: &str, container: &str, applied: &Release) -> Action {
    let network = applied.project.network.clone();
    let aliases = applied.aliases(service);
    Action::Connect { service: service.to_owned(), container: container.to_owned(), network, aliases }
}

/// The files that cannot be there while something else stands in their place.
fn files_behind(item: &DriftItem, applied: &Release, desired: &Project, observed: &Observed) -> Vec<Action> {
    let Some(path) = item.path.as_deref().filter(|_| item.kind == DriftKind::NotAFile) else {
        return Vec::new();
    };
    let below = format!("{path}/");
    let is_behind = |file: &&String| path == "." || *file == path || file.starts_with(&below);
    let files = applied.files.keys().filter(is_behind).filter_map(|file| write_file(file, applied, desired));
    let secrets = applied.seals.keys().filter(is_behind);
    files.chain(secrets.filter_map(|file| write_secret(file, applied, observed))).collect()
}

/// A service whose file was repaired takes it up again. Who reads secrets when it starts has them still; who takes them up
/// while it goes on may have taken up what was there.
fn reload(item: &DriftItem, project: &Project) -> Option<Action> {
    let changed = matches!(item.kind, DriftKind::FileMissing | DriftKind::FileChanged);
    let service = item.service.clone()?;
    let path = item.path.as_ref().filter(|_| changed)?;
    let anew = project.is_reloaded(&service) && path.starts_with(SECRETS_FOLDER);
    let is_file = path.starts_with("files/") && !project.is_upstream(path);
    (is_file || anew).then_some(Action::Reload { service, anew })
}

/// What a bigger action on the same service does anyway is not done apart.
fn drop_covered(repairs: &mut Vec<Repair>) {
    let having = |repairs: &[Repair], is: fn(&Action) -> bool| -> BTreeSet<String> {
        let actions = repairs.iter().filter(|repair| !repair.later && is(&repair.action));
        actions.filter_map(|repair| repair.action.service().map(str::to_owned)).collect()
    };
    let recreated = having(repairs, |action| matches!(action, Action::Recreate { .. }));
    let replaced = having(repairs, |action| matches!(action, Action::Replace { .. }));
    let started = having(repairs, |action| {
        matches!(action, Action::Start { .. } | Action::Restart { .. } | Action::Create { .. })
    });
    repairs.retain(|repair| {
        let within = |services: &BTreeSet<String>| {
            repair.action.service().is_some_and(|service| services.contains(service))
        };
        match repair.action {
            Action::Recreate { .. } => true,
            Action::Reload { .. } => !within(&recreated) && !within(&started) && !within(&replaced),
            _ => !within(&recreated),
        }
    });
}

/// The order in which actions are taken.
fn order(action: &Action) -> (u8, bool) {
    let step = match action {
        Action::SetAside { .. } | Action::OwnFolder { .. } => 0,
        Action::WriteFile { .. }
        | Action::WriteSecret { .. }
        | Action::SetMode { .. }
        | Action::RemoveFile { .. } => 1,
        Action::CreateNetwork { .. } | Action::ReplaceNetwork { .. } => 2,
        Action::RemoveOrphan { .. } => 3,
        Action::Update { .. }
        | Action::Connect { .. }
        | Action::Disconnect { .. }
        | Action::Reload { .. } => 4,
        Action::Unpause { .. } => 5,
        Action::Start { .. } => 6,
        Action::Restart { .. } | Action::RaiseMemory { .. } | Action::MoveAside { .. } => 7,
        // The others know the container by the name that it has.
        Action::Rename { .. } => 8,
        Action::Create { .. } => 9,
        Action::Recreate { .. } | Action::Replace { .. } => 10,
        Action::PutObject { .. } => 11,
    };
    (step, matches!(action, Action::WriteFile { path, .. } if path == COMPOSE_FILE))
}

/// The value that the release was applied with, where the source still has it, or the host keeps it.
fn write_secret(path: &str, applied: &Release, observed: &Observed) -> Option<Action> {
    let reference = &applied.project.secrets.get(path)?.reference;
    let path = path.to_owned();
    if secrets::has_applied_value(applied, &path, observed) {
        let secret = observed.secrets.known.get(reference)?.clone();
        return Some(Action::WriteSecret { path, secret });
    }
    let sha256 = secrets::kept_hash(applied, &path, observed)?;
    let file = applied.project.secrets.get(&path).filter(|file| file.owner.is_none())?;
    let source = Source::Copy(secrets::kept_path(&path));
    Some(Action::WriteFile { path, mode: file.mode, sha256, source })
}

/// A folder of secrets, a secret whose content is right, or the key, with other permission bits.
fn set_mode(path: &str, applied: &Release, observed: &Observed) -> Option<Action> {
    let folder = folder_mode(path, applied);
    // Only its owner may give a file other permission bits: what belongs to another user is written anew.
    let is_ours = |path: &&str| applied.seals.contains_key(*path);
    let secret = Some(path).filter(is_ours).and_then(|path| applied.project.secrets.get(path));
    let secret = secret.filter(|secret| secret.owner.is_none()).map(|secret| secret.mode);
    let file = if path == KEY_FILE { Some(secrets::KEY_MODE) } else { secret };
    let mode = folder.or(file.filter(|_| observed.files.contains_key(path)))?;
    Some(Action::SetMode { path: path.to_owned(), mode })
}

/// The spec's own rendering where it is the same release's; the copy stored on the host otherwise.
fn write_file(path: &str, applied: &Release, desired: &Project) -> Option<Action> {
    let record = applied.files.get(path)?;
    let generation = applied.project.generation.clone();
    let rendered = if (Project { generation, ..desired.clone().as_stored() }) == applied.project {
        Prepared::new(desired.clone(), applied.images.clone(), applied.seals.clone()).contents.remove(path)
    } else {
        desired.files.get(path).map(|file| file.content.clone())
    };
    let rendered = rendered.filter(|content| sha256(content.as_bytes()) == record.sha256);
    let source = match rendered {
        Some(content) => Source::Inline(content.into_bytes()),
        None => Source::Copy(applied.stored(path)),
    };
    Some(Action::WriteFile {
        path: path.to_owned(),
        mode: record.mode,
        sha256: record.sha256.clone(),
        source,
    })
}
