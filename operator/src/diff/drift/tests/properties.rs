//! What holds for whatever a host looks like.

use proptest::prelude::*;

use super::*;

/// A field of a container's settings, and whether it is set, changed or taken away.
fn one_change() -> impl Strategy<Value = (usize, usize, u8, String)> {
    (0..3usize, 0..64usize, 0..3u8, "[a-z]{1,8}")
}

/// Something more in the section `app`.
fn more() -> impl Strategy<Value = String> {
    let variables = proptest::collection::btree_map("[A-Z]{1,6}", "[ -!#-~]{0,12}", 0..5);
    (1..4u32, 6..900u32, 1..4_000u32, variables).prop_map(|(replicas, memory, cpu, variables)| {
        let variables: Vec<String> =
            variables.iter().map(|(name, value)| format!("{name}: '{}'", value.replace('\'', "''"))).collect();
        format!(
            ", backend: {{replicas: {replicas}, resources: {{memory: {memory}Mi, cpu: {cpu}m}}, env: {{{}}}}}",
            variables.join(", ")
        )
    })
}

proptest! {
    #[test]
    fn a_host_with_its_own_release_shows_nothing(more in more()) {
        let release = release_of(project_with(&more));
        let project = release.project.clone();
        let observed = in_sync_with(release);
        prop_assert_eq!(drift("app-1", &project, &observed), Vec::new());
        prop_assert_eq!(crate::diff::change(&project, &observed), None);
        prop_assert!(serving(observed.applied.as_ref().unwrap(), &observed));
    }

    #[test]
    fn every_single_field_gives_exactly_that_item((which, field, how, text) in one_change()) {
        let mut observed = in_sync();
        let services: Vec<String> = observed.applied.as_ref().unwrap().project.services.keys().cloned().collect();
        let container = of(&mut observed, &services[which]);
        let name = container.name.clone();
        let settings = &mut container.details.as_mut().unwrap().settings;
        // What Compose notes for itself and the engine's own runtime are no settings.
        let is_compared = |field: &&String| !field.starts_with("labels/com.docker.compose.") && *field != "runtime";
        let fields: Vec<String> = settings.keys().filter(is_compared).cloned().collect();
        let changed = match how {
            0 => format!("sysctls/net.{text}"),
            _ => fields[field % fields.len()].clone(),
        };
        if how == 2 {
            settings.remove(&changed);
        } else {
            settings.insert(changed.clone(), format!("{text} changed"));
        }
        let items = found(&observed);
        prop_assert_eq!(items.len(), 1, "{:?}", items);
        prop_assert_eq!(items[0].kind, DriftKind::ConfigChanged);
        prop_assert_eq!(items[0].path.clone().unwrap(), format!("{name}/{changed}"));
        prop_assert_eq!(items[0].service.as_ref(), Some(&services[which]));
        prop_assert_ne!(&items[0].wanted, &items[0].found);
    }

    #[test]
    fn the_order_of_what_was_observed_does_not_matter(order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle()) {
        let mut observed = in_sync();
        let copies: Vec<Container> = observed.containers.iter().map(|container| Container {
            id: format!("{}-copy", container.id),
            name: format!("{}-copy", container.name),
            ..container.clone()
        }).collect();
        observed.containers.extend(copies);
        of(&mut observed, "edge").state = State::Other("paused".to_owned());
        let expected = found(&observed);
        let shuffled = order.iter().map(|index| observed.containers[*index].clone()).collect();
        let mut again = found(&Observed { containers: shuffled, ..observed });
        let key = |item: &DriftItem| (item.kind, item.service.clone(), item.path.clone());
        again.sort_by_key(key);
        let mut expected = expected;
        expected.sort_by_key(key);
        prop_assert_eq!(again, expected);
    }
}
