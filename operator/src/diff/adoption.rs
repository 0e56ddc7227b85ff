//! A Compose project made by hand, that is taken over once: its containers are replaced, its volumes stay.

use tasktracker_crds::scalars::VolumeName;

use super::change::ChangeItem;
use crate::{
    desired::{
        Project,
        compose::{COMPOSE_PROJECT, COMPOSE_SERVICE},
        labels,
    },
    host::{Container, Made},
    observe::Observed,
};

/// Where the backend keeps its data, inside its container.
pub(crate) const DATA_INSIDE: &str = "/data";
/// Hexadecimal digits of a volume that Docker named by itself.
const ANONYMOUS_DIGITS: usize = 64;

/// The containers to be taken over; none where that is over, or nothing is to be adopted.
pub(crate) fn containers<'a>(desired: &Project, observed: &'a Observed) -> Vec<&'a Container> {
    let Some(adopt) = &desired.adopt else { return Vec::new() };
    let project = adopt.project.as_str();
    let done = observed.ledger.as_ref().and_then(|ledger| ledger.adopted.as_deref()) == Some(project);
    let is_adopted = |container: &&Container| !done && container.has_label(COMPOSE_PROJECT, project);
    let mut adopted: Vec<&Container> = observed.others.iter().filter(is_adopted).collect();
    adopted.sort_by(|one, other| one.name.cmp(&other.name));
    adopted
}

/// What a rollout takes over, as a plan shows it.
pub(super) fn compare(desired: &Project, observed: &Observed, items: &mut Vec<ChangeItem>) {
    let containers = containers(desired, observed);
    for container in &containers {
        items.push(ChangeItem {
            service: container.labels.get(COMPOSE_SERVICE).cloned(),
            path: format!("containers/{}", container.name),
            from: container.image.clone(),
            to: "stopped before the new ones start, removed when those serve, started again otherwise"
                .to_owned(),
        });
    }
    let adopt = desired.adopt.as_ref().filter(|_| !containers.is_empty());
    for (name, actual) in adopt.iter().flat_map(|adopt| &adopt.volumes) {
        items.push(ChangeItem {
            service: None,
            path: format!("volumes/{name}"),
            from: actual.to_string(),
            to: "taken over as it is".to_owned(),
        });
    }
}

/// Whose mark what is to be adopted carries, where that is another stack's.
pub(crate) fn other_owner(desired: &Project, observed: &Observed) -> Option<String> {
    let adopt = desired.adopt.as_ref()?;
    let is_other = |owner: &&String| **owner != desired.owner;
    let of_containers = containers(desired, observed).into_iter().filter_map(|container| {
        let owner = container.labels.get(labels::OWNER).filter(is_other)?;
        let stack = container.labels.get(labels::STACK).unwrap_or(owner);
        Some(format!("the container {} of {stack}", container.name))
    });
    let field = format!("labels/{}", labels::OWNER);
    let owned = |made: &Made| made.settings.get(&field).as_ref().is_some_and(is_other);
    let adopted = observed.ledger.as_ref().map(|ledger| &ledger.volumes);
    let is_new = |name: &&str| adopted.is_none_or(|known| known.values().all(|known| known != name));
    let of_volumes = adopt.volumes.values().map(VolumeName::as_str).filter(is_new).filter_map(|name| {
        let made = observed.volumes.get(name)?.as_ref().filter(|made| owned(made))?;
        let stack = made.settings.get(&format!("labels/{}", labels::STACK)).cloned().unwrap_or_default();
        Some(format!("the volume {name} of {stack}"))
    });
    of_containers.chain(of_volumes).next()
}

/// Data of an adopted backend that the new one would not see.
pub(crate) fn data_left(desired: &Project, observed: &Observed) -> Option<String> {
    let adopt = desired.adopt.as_ref()?;
    let field = format!("volumes/{DATA_INSIDE}");
    let is_adopted = |source: &str| adopt.volumes.values().any(|volume| volume.as_str() == source);
    let is_anonymous = |source: &str| {
        source.len() == ANONYMOUS_DIGITS && source.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    containers(desired, observed).into_iter().find_map(|container| {
        let mount = container.details.as_ref()?.settings.get(&field)?;
        let source = mount.split(' ').nth(1).filter(|source| !is_adopted(source))?;
        let words = if is_anonymous(source) { "a volume without a name" } else { source };
        Some(format!("data of the container {}: expected its volume in app.adopt.volumes, found {words} at {DATA_INSIDE}", container.name))
    })
}
