//! A release, and a host on which everything is as it wants.

use super::*;

pub(super) const DIRECTORY: &str = "/opt/tasktracker";

pub(super) fn project() -> Project {
    project_with("")
}

/// The example with something more in its section `app`.
pub(super) fn project_with(more: &str) -> Project {
    let text = include_str!("../../../../../examples/staging.yaml")
        .replace("tasktracker}", &format!("tasktracker{more}}}"));
    let stack = Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "staging.yaml".into());
    crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap())
}

pub(super) fn release() -> Release {
    release_of(project())
}

pub(super) fn release_of(project: Project) -> Release {
    let images = ["backend", "edge", "frontend"].map(|name| (name.to_owned(), format!("sha256:{name}")));
    Prepared::new(project, images.into(), BTreeMap::new()).release
}

/// A container as a release wants it: what `differences` compares with is what a container is made of here, so that
/// only the tests on real engines show that the two mean the same.
pub(super) fn container(release: &Release, service: &str, number: u32) -> Container {
    let labels = BTreeMap::from([
        (compose::COMPOSE_SERVICE.to_owned(), service.to_owned()),
        (compose::COMPOSE_NUMBER.to_owned(), number.to_string()),
        (compose::COMPOSE_ONE_OFF.to_owned(), "False".to_owned()),
        (labels::OWNER.to_owned(), release.project.owner.clone()),
        (labels::SERVICE_HASH.to_owned(), release.service_hashes[service].clone()),
    ]);
    let bare = Container {
        id: if number == 1 { format!("{service}-id") } else { format!("{service}-id-{number}") },
        name: format!("tt-staging-app-{service}-{number}"),
        image_id: format!("sha256:{service}"),
        state: State::Running,
        health: Health::Healthy,
        status: "Up 2 minutes (healthy)".to_owned(),
        labels,
        details: Some(Details::default()),
        ..Container::default()
    };
    let differences = settings::differences(
        release,
        service,
        &bare,
        &ImageConfig::default(),
        &crate::host::Engine::default(),
        DIRECTORY,
    );
    let wanted: Settings =
        differences.into_iter().filter_map(|(field, wanted, _)| Some((field, wanted?))).collect();
    Container { details: Some(Details { settings: wanted, ..Details::default() }), ..bare }
}

/// A file of the SSH user.
pub(super) fn file(mode: u32, size: u64, sha256: &str) -> FileFact {
    FileFact::File { mode, uid: 1500, gid: 1500, size, sha256: Some(sha256.to_owned()) }
}

/// A folder of the SSH user.
pub(super) fn folder() -> FileFact {
    FileFact::Folder { mode: 0o755, uid: 1500, gid: 1500 }
}

pub(super) fn in_sync() -> Observed {
    in_sync_with(release())
}

/// A host on which everything is as a release wants it.
pub(super) fn in_sync_with(release: Release) -> Observed {
    let file = |record: &FileRecord| file(record.mode, record.size, &record.sha256);
    let made = || {
        let settings = settings::of_made(&release.project.owner, "default/staging");
        Some(Made { id: "n".to_owned(), settings })
    };
    let files = release.files.iter().map(|(path, record)| (path.clone(), file(record)));
    let folders = ["files", "files/edge", "releases"].map(|path| (path.to_owned(), folder()));
    Observed {
        ledger: Some(Ledger::empty("o", "default/staging")),
        directory: DIRECTORY.to_owned(),
        files: files.chain(folders).collect(),
        containers: release
            .project
            .services
            .iter()
            .flat_map(|(name, service)| {
                (1..=service.compose.scale).map(|number| container(&release, name, number))
            })
            .collect(),
        images: release.images.values().map(|id| (id.clone(), Arc::new(ImageConfig::default()))).collect(),
        networks: BTreeMap::from([(release.project.network.clone(), made())]),
        volumes: release.project.volumes.values().map(|volume| (volume.name.clone(), made())).collect(),
        applied: Some(release),
        ..Observed::default()
    }
}
