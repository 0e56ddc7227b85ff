use std::collections::BTreeMap;

use super::*;
use crate::{
    desired::{Project, compose},
    release::{FileRecord, Prepared},
    source::Stack,
};

fn project() -> Project {
    let text = include_str!("../../../../examples/staging.yaml");
    let stack = Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "staging.yaml".into());
    crate::desired::app_project(&stack, stack.spec.app.as_ref().unwrap())
}

fn release() -> Release {
    let images = ["backend", "edge", "frontend"].map(|name| (name.to_owned(), format!("sha256:{name}")));
    Prepared::new(project(), images.into()).release
}

fn container(release: &Release, service: &str) -> Container {
    let labels = BTreeMap::from([
        (COMPOSE_SERVICE.to_owned(), service.to_owned()),
        (COMPOSE_ONE_OFF.to_owned(), "False".to_owned()),
        (labels::SERVICE_HASH.to_owned(), release.service_hashes[service].clone()),
    ]);
    Container {
        id: format!("{service}-id"),
        name: format!("tt-staging-app-{service}-1"),
        image_id: format!("sha256:{service}"),
        state: State::Running,
        health: Health::Healthy,
        status: "Up 2 minutes (healthy)".to_owned(),
        labels,
    }
}

fn in_sync() -> Observed {
    let release = release();
    let file = |record: &FileRecord| FileFact::File {
        mode: record.mode,
        size: record.size,
        sha256: record.sha256.clone(),
    };
    Observed {
        busy: false,
        damaged: None,
        ledger: None,
        files: release.files.iter().map(|(path, record)| (path.clone(), file(record))).collect(),
        containers: release.project.services.keys().map(|service| container(&release, service)).collect(),
        applied: Some(release),
    }
}

/// Kind, service, path, wanted and found.
type Seen = (DriftKind, Option<String>, Option<String>, String, String);

/// Makes one difference and tells what is seen.
fn seen(change: impl FnOnce(&mut Observed)) -> Vec<Seen> {
    let mut observed = in_sync();
    change(&mut observed);
    let items = drift("app-1", &observed).into_iter();
    items.map(|item| (item.kind, item.service, item.path, item.wanted, item.found)).collect()
}

fn of<'a>(observed: &'a mut Observed, service: &str) -> &'a mut Container {
    observed.containers.iter_mut().find(|container| container.labels[COMPOSE_SERVICE] == service).unwrap()
}

#[test]
fn a_host_that_is_as_applied_shows_nothing() {
    assert_eq!(seen(|_| {}), Vec::new());
    assert!(serving(&release(), &in_sync()));
}

#[test]
fn nothing_applied_means_no_drift_whatever_is_there() {
    let observed = Observed { applied: None, ..in_sync() };
    assert_eq!(drift("app-1", &observed), Vec::new());
}

#[test]
fn what_another_writer_is_about_is_no_drift() {
    let observed = Observed { busy: true, files: std::collections::BTreeMap::new(), ..in_sync() };
    assert_eq!(drift("app-1", &observed), Vec::new());
}

#[test]
fn each_kind_is_seen_with_wanted_and_found() {
    let text = |value: &str| value.to_owned();
    let some = |value: &str| Some(value.to_owned());
    assert_eq!(
        seen(|observed| observed
            .containers
            .retain(|container| container.labels[COMPOSE_SERVICE] != "backend")),
        [(DriftKind::Missing, some("backend"), None, text("1 running"), text("nothing"))]
    );
    assert_eq!(
        seen(|observed| {
            let container = of(observed, "edge");
            container.state = State::Other(text("exited"));
            container.status = text("Exited (137) 3 seconds ago");
        }),
        [(
            DriftKind::Stopped,
            some("edge"),
            some("tt-staging-app-edge-1"),
            text("running"),
            text("exited (137)")
        )]
    );
    assert_eq!(
        seen(|observed| of(observed, "frontend").image_id = text("sha256:other")),
        [(
            DriftKind::ImageChanged,
            some("frontend"),
            some("tt-staging-app-frontend-1"),
            text("sha256:frontend"),
            text("sha256:other")
        )]
    );
    let caddyfile = &release().files["files/edge/Caddyfile"];
    let wanted = content(&caddyfile.sha256, caddyfile.size);
    assert_eq!(
        seen(|observed| drop(observed.files.remove("files/edge/Caddyfile"))),
        [(
            DriftKind::FileMissing,
            some("edge"),
            some("files/edge/Caddyfile"),
            wanted.clone(),
            text("nothing")
        )]
    );
    let changed = FileFact::File { mode: 0o644, size: 5, sha256: "0123456789abcdef".to_owned() };
    assert_eq!(
        seen(|observed| drop(observed.files.insert(text("files/edge/Caddyfile"), changed))),
        [(
            DriftKind::FileChanged,
            some("edge"),
            some("files/edge/Caddyfile"),
            wanted,
            text("sha256:0123456789ab (5 bytes)")
        )]
    );
}

#[test]
fn a_container_of_another_release_is_seen_even_with_the_same_image() {
    let items = seen(|observed| {
        drop(of(observed, "backend").labels.insert(labels::SERVICE_HASH.to_owned(), "x".to_owned()));
    });
    assert_eq!(items[0].0, DriftKind::ConfigChanged);
}

#[test]
fn one_off_containers_do_not_stand_in_for_a_service() {
    let items = seen(|observed| {
        drop(of(observed, "backend").labels.insert(COMPOSE_ONE_OFF.to_owned(), "True".to_owned()));
    });
    assert_eq!(items[0].0, DriftKind::Missing);
}

#[test]
fn what_does_not_serve_is_told_by_service() {
    let mut observed = in_sync();
    of(&mut observed, "backend").health = Health::Starting;
    of(&mut observed, "edge").state = State::Other("paused".to_owned());
    assert_eq!(
        faults(&release(), &observed),
        [
            "backend: expected running and healthy, found still starting",
            "edge: expected running and healthy, found paused"
        ]
    );
}

#[test]
fn the_rendered_file_runs_images_by_id() {
    let images = BTreeMap::from([("backend".to_owned(), "sha256:abc".to_owned())]);
    let prepared = Prepared::new(project(), images);
    assert!(prepared.contents["compose.yaml"].contains("sha256:abc"));
    assert_eq!(prepared.release.project, project());
    let again: Release = Release::read(&serde_json::to_vec(&prepared.release).unwrap()).unwrap();
    assert_eq!(again, prepared.release);
    assert_eq!(again.project.hash(), project().hash());
    assert!(
        compose::render(&project(), &project().services)
            .contains("registry.example.com/tasktracker/backend:3f2c1ab")
    );
}
