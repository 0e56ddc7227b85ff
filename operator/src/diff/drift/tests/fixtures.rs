//! A release, and a host on which everything is as it wants.

use std::sync::LazyLock;

use serde_json::{Value, json};

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

pub(super) fn text_of(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// What an engine said of the example.
static ANSWERS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../tests/golden/inspect/app-20.10.json")).unwrap()
});

/// An entry of the list of containers with its `inspect`, and what was said of its image.
fn answers(service: &str) -> (&'static Value, &'static Value) {
    let mut containers = ANSWERS["containers"].as_array().unwrap().iter();
    let container =
        containers.find(|one| one["list"]["Labels"][compose::COMPOSE_SERVICE] == service).unwrap();
    let mut images = ANSWERS["images"].as_array().unwrap().iter();
    let image = images.find(|image| image["Id"] == container["list"]["ImageID"]).unwrap();
    (container, image)
}

/// A container as the list and `inspect` tell of it.
pub(super) fn answered_container(container: &Value) -> Container {
    let details = Some(Details::read(&container["inspect"], None));
    Container { details, ..Container::read(&container["list"]) }
}

/// A container as a release wants it: what an engine said of the one of the example, with what a test changes in the
/// example put in as Docker says it.
pub(super) fn container(release: &Release, service: &str, number: u32) -> Container {
    let (container, _) = answers(service);
    let hash = text_of(&container["list"]["Labels"][labels::SERVICE_HASH]);
    let text = container.to_string().replace(&hash, &release.service_hashes[service]);
    let text = text.replace(&format!("app-{service}-1"), &format!("app-{service}-{number}"));
    let mut container: Value = serde_json::from_str(&text).unwrap();
    for part in ["/list/Labels", "/inspect/Config/Labels"] {
        container.pointer_mut(part).unwrap()[compose::COMPOSE_NUMBER] = json!(number.to_string());
    }
    let definition = &release.project.services[service];
    let inspect = &mut container["inspect"];
    // Of two entries of the same name, the last one wins.
    let environment = inspect["Config"]["Env"].as_array_mut().unwrap();
    let wanted = definition.compose.environment.iter();
    environment.extend(wanted.map(|(name, value)| json!(format!("{name}={}", value.replace("$$", "$")))));
    let limits = &definition.compose.limits;
    inspect["HostConfig"]["Memory"] = json!(limits.mem_limit);
    inspect["HostConfig"]["MemorySwap"] = json!(limits.memswap_limit);
    inspect["HostConfig"]["NanoCpus"] = json!(format!("{:.0}", limits.cpus * 1e9).parse::<u64>().unwrap());
    let container = answered_container(&container);
    let id = if number == 1 { format!("{service}-id") } else { format!("{service}-id-{number}") };
    Container { id, image_id: format!("sha256:{service}"), ..container }
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
    static IN_SYNC: LazyLock<Observed> = LazyLock::new(|| in_sync_with(release()));
    IN_SYNC.clone()
}

/// A host on which everything is as a release wants it.
pub(super) fn in_sync_with(release: Release) -> Observed {
    let services = release.project.services.iter();
    let made = || {
        let settings = settings::of_made(&release.project.owner, "default/staging");
        Some(NetworkOrVolume { id: String::new(), settings })
    };
    let image = |(service, id): (&String, &String)| {
        let (_, image) = answers(service);
        (id.clone(), Arc::new(ImageConfig::read(image)))
    };
    Observed {
        containers: services
            .flat_map(|(name, service)| {
                (1..=service.compose.scale).map(|number| container(&release, name, number))
            })
            .collect(),
        images: release.images.iter().map(image).collect(),
        networks: BTreeMap::from([(release.project.network.clone(), made())]),
        volumes: release.project.volumes.values().map(|volume| (volume.name.clone(), made())).collect(),
        ..in_sync_with_files(release)
    }
}

/// A host with the files of a release and nothing else.
pub(super) fn in_sync_with_files(release: Release) -> Observed {
    let file = |record: &FileRecord| file(record.mode, record.size, &record.sha256);
    let files = release.files.iter().map(|(path, record)| (path.clone(), file(record)));
    let folders = ["files", "releases"]
        .into_iter()
        .chain(release.files.keys().filter_map(|path| Some(path.rsplit_once('/')?.0)));
    let folders = folders.map(|path| (path.to_owned(), folder()));
    let stack = format!("default/{}", release.project.folder.split('/').next().unwrap());
    Observed {
        ledger: Some(Ledger::empty("o", &stack)),
        directory: DIRECTORY.to_owned(),
        files: files.chain(folders).collect(),
        applied: Some(release),
        ..Observed::default()
    }
}
