//! Desired against applied.

use serde::Serialize;

use super::{adoption, secrets};
use crate::{
    json,
    observe::{ImageAvailability, Observed, adopted_containers},
    project::{File, Project, service_of},
    text::printable,
};

/// What the spec asks for beyond the applied release.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Hash of the desired state.
    pub desired_hash: String,
    /// ID of the applied release; none before the first rollout.
    pub from_release: Option<String>,
    /// Revision of the applied release; none before the first rollout.
    pub from_revision: Option<String>,
    /// Revision asked for.
    pub to_revision: String,
    /// What differs.
    pub items: Vec<ChangeItem>,
    /// Service that leads traffic to the others and is made anew itself: users may notice that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<String>,
    /// Names of containers made by hand that are replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adopts: Vec<String>,
}

/// One thing that a rollout changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeItem {
    /// Compose service, where it belongs to one.
    pub service: Option<String>,
    /// Field or file.
    pub path: String,
    /// What the applied release has.
    pub from: String,
    /// What the spec asks for.
    pub to: String,
}

/// What the spec asks for beyond the applied release; nothing when they are the same.
pub fn change(desired: &Project, observed: &Observed) -> Option<Change> {
    let applied = observed.applied.as_ref();
    let desired_hash = desired.hash(&secrets::wanted_seals(desired, observed));
    let newer = observed.remembered.newer_elsewhere();
    if applied.is_some_and(|release| release.desired_hash == desired_hash) && newer.is_none() {
        return None;
    }
    let mut items = Vec::new();
    items.extend(newer.map(|(host, volume)| ChangeItem {
        service: None,
        path: "data".to_owned(),
        from: format!("the host {host} (volume {volume})"),
        to: "what this host has from before".to_owned(),
    }));
    compare(desired, applied.map(|release| &release.project), &mut items);
    secrets::compare(desired, observed, &mut items);
    adoption::compare(desired, observed, &mut items);
    // What a service got beyond what the release says it keeps.
    let raised = observed.ledger.as_ref().map(|ledger| ledger.raised_memory(desired)).unwrap_or_default();
    items.retain(|item| {
        let is_raised = item.service.as_ref().is_some_and(|service| raised.contains_key(service));
        !is_raised || !["mem_limit", "memswap_limit"].contains(&item.path.as_str())
    });
    let adopted = adopted_containers(desired, observed);
    Some(Change {
        desired_hash,
        from_release: applied.map(|release| printable(&release.id)),
        from_revision: applied.map(|release| printable(release.project.version())),
        to_revision: desired.version().to_owned(),
        restarts: restarts(desired, applied.map(|release| &release.project)),
        items,
        adopts: adopted.into_iter().map(|container| container.name.clone()).collect(),
    })
}

/// The same change with the images that it brings though their names are the same: a tag may mean another image on the
/// host by now.
#[must_use]
pub fn with_images(
    change: Change,
    desired: &Project,
    availability: &ImageAvailability,
    observed: &Observed,
) -> Change {
    let applied = observed.applied.as_ref();
    let other = availability.present.iter().filter_map(|(service, id)| {
        let before = applied?.images.get(service).filter(|before| *before != id)?;
        let named = |project: &Project| project.services.get(service).map(|one| one.compose.image.clone());
        let is_same_name = named(&applied?.project) == named(desired);
        let short = |id: &str| format!("image {}", id.get(..19).unwrap_or(id));
        is_same_name.then(|| ChangeItem {
            service: Some(service.clone()),
            path: "image".to_owned(),
            from: short(before),
            to: format!("{}, which the same name means on the host by now", short(id)),
        })
    });
    let items = change.items.iter().cloned().chain(other).collect();
    Change { items, ..change }
}

/// The service whose container leads traffic to the others, where its definition is another one. Its files it takes up
/// while it goes on.
fn restarts(desired: &Project, applied: Option<&Project>) -> Option<String> {
    let applied = applied?;
    let proxy = desired.proxy()?;
    let (before, after) = (applied.services.get(proxy)?, desired.services.get(proxy)?);
    (before.compose != after.compose).then(|| proxy.to_owned())
}

fn compare(desired: &Project, applied: Option<&Project>, items: &mut Vec<ChangeItem>) {
    let names = desired.services.keys().chain(applied.iter().flat_map(|project| project.services.keys()));
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        let json = |project: Option<&Project>| {
            project
                .and_then(|project| project.services.get(name))
                .map(|service| json::to_value(&service.compose))
        };
        compare_service(name, json(applied).as_ref(), json(Some(desired)).as_ref(), items);
    }
    for (path, file) in &desired.files {
        let before = applied.and_then(|project| project.files.get(path));
        if before != Some(file) {
            let size = |file: &File| format!("{} bytes, mode {:04o}", file.content.len(), file.mode);
            items.push(ChangeItem {
                service: service_of(path).map(str::to_owned),
                path: path.clone(),
                from: before.map_or_else(|| "nothing".to_owned(), size),
                to: size(file),
            });
        }
    }
}

fn compare_service(
    name: &str,
    before: Option<&serde_json::Value>,
    after: Option<&serde_json::Value>,
    items: &mut Vec<ChangeItem>,
) {
    let mut push = |path: &str, from: String, to: String| {
        items.push(ChangeItem { service: Some(printable(name)), path: printable(path), from, to });
    };
    let (Some(before), Some(after)) = (before, after) else {
        let state =
            |value: Option<&serde_json::Value>| if value.is_some() { "there" } else { "nothing" }.to_owned();
        push("service", state(before), state(after));
        return;
    };
    let empty = serde_json::Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys.into_iter().filter(|key| before.get(*key) != after.get(*key)) {
        let words = |map: &serde_json::Map<String, serde_json::Value>| {
            map.get(key).map_or_else(|| "nothing".to_owned(), |value| shown(key, value))
        };
        push(key, words(before), words(after));
    }
}

/// A value as a plan shows it; of the environment only the names.
fn shown(key: &str, value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => printable(text),
        serde_json::Value::Object(map) if key == "environment" => {
            printable(&map.keys().cloned().collect::<Vec<_>>().join(", "))
        }
        other => printable(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{release::Prepared, source::Stack};

    fn project(from: &str, to: &str) -> Project {
        let text = include_str!("../../../examples/staging.yaml").replace(from, to);
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "staging.yaml".into());
        crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap())
    }

    fn applied(project: Project) -> Observed {
        let release = Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release;
        Observed { applied: Some(release), ..Observed::default() }
    }

    #[test]
    fn nothing_applied_is_a_change_and_the_same_is_none() {
        let first = change(&project("", ""), &Observed::default()).unwrap();
        assert_eq!(first.from_revision, None);
        assert_eq!(change(&project("", ""), &applied(project("", ""))), None);
    }

    #[test]
    fn a_plan_says_that_the_edge_itself_is_made_anew() {
        let before = applied(project("", ""));
        let other = "tasktracker, edge: {image: \"caddy:2.8\"}}";
        let restarts = |desired: &Project| change(desired, &before).unwrap().restarts;
        assert_eq!(restarts(&project("tasktracker}", other)).as_deref(), Some("edge"));
        assert_eq!(restarts(&project("3f2c1ab", "4a5b6c7")), None);
        let mut reloaded = project("", "");
        reloaded.files.insert("files/edge/Caddyfile".to_owned(), File::new("another one"));
        assert_eq!(restarts(&reloaded), None, "a file is taken up while it goes on");
    }

    #[test]
    fn a_new_revision_names_what_it_changes_and_no_value_of_the_environment() {
        let before = project("tasktracker}", "tasktracker, backend: {env: {A: canary-one}}}");
        let text = "tasktracker, backend: {env: {A: canary-two}, resources: {memory: 1Gi, cpu: \"1\"}}}";
        let change = change(&project("tasktracker}", text), &applied(before)).unwrap();
        let paths: Vec<&str> = change.items.iter().map(|item| item.path.as_str()).collect();
        assert_eq!(paths, ["cpus", "environment", "mem_limit", "memswap_limit"]);
        assert!(!serde_json::to_string(&change).unwrap().contains("canary"));
    }
}
