//! What is wrong with the host itself, though it can be managed; and what others put where we are.

use std::collections::BTreeSet;

use tasktracker_crds::{Answer, DriftItem, DriftKind};

use super::{drift::item, files::foreign_to};
use crate::{
    host::{Container, Disk, FileFact, ProjectResource},
    observe::{Observed, adopted_containers},
    project::{
        Project,
        compose::{COMPOSE_PROJECT, COMPOSE_SERVICE, PublishedPort},
        labels,
    },
};

/// A disk with less free space than this, in percent, is told.
const LEAST_FREE_PERCENT: u8 = 5;
/// Below this, in percent, nothing is begun that needs room.
const LEAST_FREE_TO_BEGIN: u8 = 2;
/// A clock that is further off than this, in seconds, is told.
const LARGEST_SKEW_SECONDS: u64 = 5;

pub(super) fn host_drift(project: &Project, observed: &Observed) -> Vec<DriftItem> {
    let mut items = Vec::new();
    let mut push = |kind, path: Option<&str>, wanted: &str, found: String| {
        items.push(item(kind, None, path, wanted, found));
    };
    if let Some(facts) = &observed.facts {
        let before = observed.ledger.as_ref().and_then(|ledger| ledger.compose.as_ref());
        if let Some(before) = before.filter(|before| **before != facts.compose) {
            push(DriftKind::ComposeVersionChanged, None, before, facts.compose.clone());
        }
        for disk in &facts.disks {
            if let Some(found) = below(disk, LEAST_FREE_PERCENT) {
                let wanted = format!("at least {LEAST_FREE_PERCENT} % free");
                push(DriftKind::DiskLow, Some(&disk.place), &wanted, found);
            }
        }
        if facts.forwarding == Some(false) {
            push(DriftKind::SysctlTooLow, Some("net.ipv4.ip_forward"), "1", "0".to_owned());
        }
    }
    for (path, uid) in observed.own_folders.iter().filter_map(|(path, fact)| match fact {
        FileFact::Folder { mode, uid, .. } if mode & 0o022 == 0 => Some((path, *uid)),
        _ => None,
    }) {
        if let Some(ours) = foreign_to(uid, observed) {
            let found = format!("it belongs to user {uid}; run: chown {ours} {path}");
            push(DriftKind::FolderNotWritable, Some(path), &format!("a folder of user {ours}"), found);
        }
    }
    if let Some(ahead) =
        observed.clock_ahead_seconds.filter(|ahead| ahead.unsigned_abs() > LARGEST_SKEW_SECONDS)
    {
        let side = if ahead > 0 { "ahead" } else { "behind" };
        push(
            DriftKind::ClockSkew,
            None,
            "the operator's time",
            format!("{} {side}", about(ahead.unsigned_abs())),
        );
    }
    for port in &observed.taken_ports {
        let service = publisher(project, *port).unwrap_or("a service");
        let found = "something that is no container listens there".to_owned();
        push(DriftKind::PortTaken, Some(&port.to_string()), &format!("free for {service}"), found);
    }
    items.extend(open_folders(observed));
    items
}

/// Folders of the operator into which whoever is on the host may write; their owner closes them.
fn open_folders(observed: &Observed) -> impl Iterator<Item = DriftItem> {
    observed.own_folders.iter().filter_map(|(path, fact)| {
        let FileFact::Folder { mode, .. } = fact else { return None };
        let found = format!("mode {:04o}; run: chmod o-w {path}", mode & 0o777);
        let open = item(DriftKind::FileMode, None, Some(path), "nobody else may write there", found);
        (mode & 0o002 != 0).then_some(DriftItem { answer: Answer::Report, ..open })
    })
}

fn below(disk: &Disk, least: u8) -> Option<String> {
    if disk.free_percent < least {
        return Some(format!("{} % free", disk.free_percent));
    }
    (disk.free_inodes_percent < least).then(|| format!("{} % of inodes free", disk.free_inodes_percent))
}

/// A length of time as coarse as may be, so that it is told in the same words at each check.
fn about(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{} s", seconds.div_ceil(10) * 10),
        120..7_200 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h", (seconds + 1_800) / 3_600),
    }
}

/// A disk without room for another release: nothing is begun that would end at that.
pub fn no_room(observed: &Observed) -> Option<String> {
    let disks = observed.facts.iter().flat_map(|facts| &facts.disks);
    let mut full = disks.filter_map(|disk| Some((&disk.place, below(disk, LEAST_FREE_TO_BEGIN)?)));
    full.next().map(|(place, found)| {
        format!(
            "disk of {place}: expected at least {LEAST_FREE_TO_BEGIN} % free, found {found}; make room there"
        )
    })
}

/// A port that a project is to publish, and that somebody else has: nothing is begun that would end at that.
pub fn port_in_the_way(desired: &Project, observed: &Observed) -> Option<String> {
    let told = |service: &str, port: &PublishedPort, found: &str| {
        let port = &port.published;
        format!(
            "port {port}: expected it to be free for {service}, found {found}; end that, or change spec.ports"
        )
    };
    let is_taken = |port: &PublishedPort| {
        port.protocol == "tcp" && port.number().is_some_and(|number| observed.taken_ports.contains(&number))
    };
    if let Some((service, port)) = desired.published_ports().find(|(_, port)| is_taken(port)) {
        return Some(told(service, port, "something that is no container listening there"));
    }
    let adopted = adopted_containers(desired, observed);
    let mut others = observed.others.iter().filter(|other| adopted.iter().all(|one| one.id != other.id));
    others.find_map(|other| {
        let (service, port) = desired.published_ports().find(|(_, port)| is_published(port, other))?;
        Some(told(service, port, &format!("the container {}", other.name)))
    })
}

/// Whether a container has a port, at an address that is in the way.
fn is_published(port: &PublishedPort, container: &Container) -> bool {
    container.published.iter().any(|one| port.conflicts_with(&one.protocol, one.address, one.port))
}

fn publisher(project: &Project, number: u16) -> Option<&str> {
    let mut ports = project.published_ports();
    ports.find(|(_, port)| port.number() == Some(number)).map(|(service, _)| service)
}

/// Containers that are not ours and yet have something that is.
pub(super) fn rogues(project: &Project, desired: &Project, observed: &Observed) -> Vec<DriftItem> {
    let adopted: Vec<&str> =
        adopted_containers(desired, observed).into_iter().map(|container| container.id.as_str()).collect();
    let foreign =
        observed.others.iter().filter(|container| !container.has_label(labels::OWNER, &project.owner));
    let foreign = foreign.filter(|container| !adopted.contains(&container.id.as_str()));
    let containers = foreign.filter_map(|container| rogue(project, observed, container));
    containers.chain(foreign_resources(project, desired, observed)).collect()
}

/// Networks and volumes that are labelled with our Compose project and are not ours: `docker compose` made them, most likely.
fn foreign_resources(project: &Project, desired: &Project, observed: &Observed) -> Vec<DriftItem> {
    let done = observed.ledger.as_ref().and_then(|ledger| ledger.adopted.as_ref());
    // What is to be taken over is labelled so until that is done, and its volumes ever after.
    let adopted = desired.adopt.as_ref().map(|adopt| &adopt.project).filter(|adopted| Some(*adopted) != done);
    let adopts_its_own = adopted.is_some_and(|adopted| adopted.as_str() == project.name);
    let of_ledger = observed.ledger.iter().flat_map(|ledger| ledger.all_volumes().into_values());
    let of_ledger: BTreeSet<String> = of_ledger.collect();
    let is_known =
        |name: &str| of_ledger.contains(name) || project.volumes.values().any(|volume| volume.name == name);
    let foreign =
        observed.project_resources.iter().filter(|_| !adopts_its_own).filter_map(|resource| match resource {
            ProjectResource::Network(name) if *name != project.network => Some(("network", name)),
            ProjectResource::Volume(name) if !is_known(name) => Some(("volume", name)),
            _ => None,
        });
    foreign
        .map(|(what, name)| {
            let found = format!("is a {what} of the Compose project {}", project.name);
            item(DriftKind::Rogue, None, Some(name), "nothing of ours", found)
        })
        .collect()
}

fn rogue(project: &Project, observed: &Observed, container: &Container) -> Option<DriftItem> {
    let folder = format!("{}/{}", observed.directory, project.folder);
    let mut found = Vec::new();
    if container.has_label(COMPOSE_PROJECT, &project.name) {
        let service = container.labels.get(COMPOSE_SERVICE).map_or("?", String::as_str);
        found.push(format!("is in the Compose project {} as {service}", project.name));
    } else if container.name.starts_with(&format!("{}-", project.name)) {
        found.push("has a name of ours".to_owned());
    }
    let taken = project.published_ports().filter(|(_, port)| is_published(port, container));
    let taken: BTreeSet<u16> = taken.filter_map(|(_, port)| port.number()).collect();
    found.extend(taken.iter().map(|port| format!("has port {port}")));
    if container.networks.contains(&project.network) {
        found.push(format!("is in the network {}", project.network));
        found.extend(named_like(container, observed));
    }
    for source in &container.sources {
        let is_volume = project.volumes.values().any(|volume| volume.name == *source);
        if is_volume || *source == folder || source.starts_with(&format!("{folder}/")) {
            found.push(format!("sees {source}"));
        }
    }
    let wanted = "nothing of ours".to_owned();
    (!found.is_empty()).then(|| item(DriftKind::Rogue, None, Some(&container.name), wanted, found.join(", ")))
}

/// That requests reach a container that were meant for a service, whose name it has in the network, too.
fn named_like(container: &Container, observed: &Observed) -> Option<String> {
    let applied = observed.applied.as_ref()?;
    let network = &applied.project.network;
    let aliases = container
        .details
        .as_ref()
        .and_then(|details| details.settings.get(&format!("networks/{network}/aliases")).map(String::as_str));
    let names: Vec<&str> = aliases.into_iter().flat_map(str::split_whitespace).collect();
    let is_its = |alias: &String| names.contains(&alias.as_str()) || container.name == *alias;
    let service = applied.project.services.keys().find(|service| applied.aliases(service).iter().any(is_its));
    service.map(|service| format!("takes requests for {service}, whose name it has there"))
}

#[cfg(test)]
mod tests {
    use super::about;

    #[test]
    fn a_skew_is_told_in_the_same_words_at_each_check() {
        assert_eq!(
            (about(6), about(10), about(86_399), about(86_401)),
            ("10 s".into(), "10 s".into(), "24 h".into(), "24 h".into())
        );
        assert_eq!((about(3_601), about(119)), ("60 min".to_owned(), "120 s".to_owned()));
    }
}
