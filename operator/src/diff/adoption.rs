//! A Compose project made by hand, that is taken over once: its containers are replaced, its volumes stay.

use super::change::ChangeItem;
use crate::{
    host::{Container, NetworkOrVolume, Settings, State},
    observe::{Observed, adopted_containers as containers},
    project::{
        Adoption, Project,
        compose::{COMPOSE_PROJECT, COMPOSE_SERVICE},
        labels,
    },
    registry::parts,
};

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
            from: actual.clone(),
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
    let owned = |made: &NetworkOrVolume| made.settings.get(&field).as_ref().is_some_and(is_other);
    let adopted = observed.ledger.as_ref().map(|ledger| &ledger.volumes);
    let is_new = |name: &&str| adopted.is_none_or(|known| known.values().all(|known| known != name));
    let of_volumes = adopt.volumes.values().map(String::as_str).filter(is_new).filter_map(|name| {
        let made = observed.volumes.get(name)?.as_ref().filter(|made| owned(made))?;
        let stack = made.settings.get(&format!("labels/{}", labels::STACK)).cloned().unwrap_or_default();
        Some(format!("the volume {name} of {stack}"))
    });
    of_containers.chain(of_volumes).next()
}

/// Folder of the data of a container, and what is mounted there: `volume NAME rw`, `bind FOLDER rw`, or nothing. The
/// variable tells the file with the data, which is `file` otherwise.
pub(crate) fn data_of<'a>(
    settings: &'a Settings,
    variable: &str,
    file: &'a str,
) -> (&'a str, Option<&'a str>) {
    let path = settings.get(&format!("environment/{variable}")).map_or(file, String::as_str);
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    (folder, settings.get(&format!("volumes/{folder}")).map(String::as_str))
}

/// Data of adopted containers that the new one would not see, or that would go with its container.
pub(crate) fn data_left(desired: &Project, observed: &Observed) -> Option<String> {
    let adopt = desired.adopt.as_ref()?;
    let Adoption { field, volumes, data_service, data_variable, data_file, .. } = adopt;
    let is_adopted = |source: &str| volumes.values().any(|volume| volume == source);
    let with_data =
        containers(desired, observed).into_iter().filter(|container| is_part(container, data_service));
    with_data.filter_map(|container| Some((container, container.details.as_ref()?))).find_map(
        |(container, details)| {
            let (folder, mount) = data_of(&details.settings, data_variable, data_file);
            let source = mount.and_then(|mount| mount.split(' ').nth(1));
            if source.is_some_and(is_adopted) {
                return None;
            }
            let found = source.unwrap_or("none: it is inside the container and would go with it");
            Some(format!(
                "data of the container {}: expected its volume at {folder} in {field}.volumes, found {found}",
                container.name
            ))
        },
    )
}

/// Whether a container is one of a service, by its own service or by its image.
pub(crate) fn is_part(container: &Container, part: &str) -> bool {
    let last = parts(&container.image).0.rsplit('/').next().unwrap_or_default();
    container.has_label(COMPOSE_SERVICE, part) || last == part || last.ends_with(&format!("-{part}"))
}

/// A running container that is neither ours nor replaced, and uses a volume that the desired state has: two programs
/// would write into one database.
pub(crate) fn volume_in_use(desired: &Project, observed: &Observed) -> Option<String> {
    let adopted: Vec<&str> =
        containers(desired, observed).iter().map(|container| container.id.as_str()).collect();
    let strangers = observed.others.iter().filter(|other| {
        other.state == State::Running
            && !adopted.contains(&other.id.as_str())
            && !other.has_label(COMPOSE_PROJECT, &desired.name)
    });
    strangers.into_iter().find_map(|other| {
        let volume = desired.volumes.values().map(|volume| &volume.name).find(|name| other.sources.contains(name))?;
        Some(format!(
            "data: expected the volume {volume} to be used by this stack alone, found it in the running container {}; stop that, or name its Compose project in the spec, to adopt it",
            crate::text::printable(&other.name)
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::project::compose::COMPOSE_ONE_OFF;
    use crate::{host::Details, source::Stack};

    /// The example, taking over the project `by_hand` with its volume.
    fn desired() -> Project {
        let text = include_str!("../../../examples/staging.yaml").replace(
            "tasktracker}",
            "tasktracker, adopt: {project: by_hand, volumes: {data: by_hand_tasks}}}",
        );
        let stack = Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "s.yaml".into());
        crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap())
    }

    fn by_hand(mounts: &[(&str, &str)]) -> Container {
        let settings =
            mounts.iter().map(|(at, what)| (format!("volumes/{at}"), (*what).to_owned())).collect();
        Container {
            id: "id".to_owned(),
            name: "by_hand-backend-1".to_owned(),
            image: "registry.example.com/t/backend:r1".to_owned(),
            state: State::Running,
            labels: BTreeMap::from([(COMPOSE_PROJECT.to_owned(), "by_hand".to_owned())]),
            details: Some(Details { settings, ..Details::default() }),
            ..Container::default()
        }
    }

    fn on_host(others: Vec<Container>) -> Observed {
        Observed { others, ..Observed::default() }
    }

    #[test]
    fn data_inside_a_container_or_in_another_place_is_not_left_with_it() {
        let left = |mounts: &[(&str, &str)]| data_left(&desired(), &on_host(vec![by_hand(mounts)]));
        assert_eq!(left(&[("/data", "volume by_hand_tasks rw")]), None);
        for (mounts, found) in [
            (&[][..], "inside the container and would go with it"),
            (&[("/elsewhere", "volume by_hand_tasks rw")], "inside the container and would go with it"),
            (&[("/data", "bind /srv/tasks rw")], "found /srv/tasks"),
        ] {
            let told = left(mounts).unwrap();
            assert!(told.contains(found) && told.contains("by_hand-backend-1"), "{told}");
        }
    }

    #[test]
    fn a_one_off_container_is_not_taken_over() {
        let mut one_off = by_hand(&[]);
        one_off.labels.insert(COMPOSE_ONE_OFF.to_owned(), "True".to_owned());
        assert!(containers(&desired(), &on_host(vec![one_off])).is_empty());
        assert_eq!(containers(&desired(), &on_host(vec![by_hand(&[])])).len(), 1);
    }

    #[test]
    fn a_volume_is_never_used_by_two_programs() {
        let user = |project: &str, state: State| Container {
            id: project.to_owned(),
            state,
            labels: BTreeMap::from([(COMPOSE_PROJECT.to_owned(), project.to_owned())]),
            sources: vec!["by_hand_tasks".to_owned()],
            ..by_hand(&[])
        };
        let desired = desired();
        let desired = desired.with_volumes(&[("data".to_owned(), "by_hand_tasks".to_owned())].into());
        let told = |container: Container| volume_in_use(&desired, &on_host(vec![container]));
        assert!(told(user("another", State::Running)).unwrap().contains("by_hand_tasks"));
        assert_eq!(told(user("another", State::Other("created".to_owned()))), None, "it does not run");
        assert_eq!(told(user("by_hand", State::Running)), None, "it is taken over");
        assert_eq!(told(user(&desired.name, State::Running)), None, "it is our own");
        assert_eq!(told(Container { sources: Vec::new(), ..user("another", State::Running) }), None);
    }
}
