use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    diff::{MemoryRemedy, faults, serving},
    host::{Details, Disk, FileFact, ImageConfig, Mounted, Published},
    ledger::Ledger,
    observe::Mounts,
    project::{OutOfMemory, Project, ReadAtStart, compose},
    release::{FileRecord, Prepared},
    source::Stack,
};

mod fixtures;
mod golden;
mod properties;

use fixtures::*;

fn found(observed: &Observed) -> Vec<DriftItem> {
    drift("app-1", &project(), observed)
}

/// What the backend of a test reads when it starts.
static ASIDE: std::sync::LazyLock<ReadAtStart> =
    std::sync::LazyLock::new(|| ReadAtStart { volume: "data".to_owned(), folders: vec!["wal".to_owned()] });

/// Port 3500 of the host, at every address or one.
fn published(protocol: &str, address: Option<[u8; 4]>) -> Published {
    Published { port: 3500, protocol: protocol.to_owned(), address: address.map(Into::into) }
}

/// Kind, service, path, wanted and found.
type Seen = (DriftKind, Option<String>, Option<String>, String, String);

/// Makes one difference and tells what is seen.
fn seen(change: impl FnOnce(&mut Observed)) -> Vec<Seen> {
    let mut observed = in_sync();
    change(&mut observed);
    let items = found(&observed).into_iter();
    items.map(|item| (item.kind, item.service, item.path, item.wanted, item.found)).collect()
}

/// Kinds and paths only.
fn kinds(change: impl FnOnce(&mut Observed)) -> Vec<(DriftKind, String)> {
    seen(change).into_iter().map(|(kind, _, path, ..)| (kind, path.unwrap_or_default())).collect()
}

fn of<'a>(observed: &'a mut Observed, service: &str) -> &'a mut Container {
    observed.containers.iter_mut().find(|container| container.labels[COMPOSE_SERVICE] == service).unwrap()
}

fn fault_words(release: &Release, observed: &Observed) -> Vec<String> {
    faults(release, observed).iter().map(ToString::to_string).collect()
}

#[test]
fn a_host_that_is_as_applied_shows_nothing() {
    assert_eq!(seen(|_| {}), Vec::new());
    assert!(serving(&release(), &in_sync()));
}

#[test]
fn nothing_applied_means_no_drift_whatever_is_there() {
    let observed = Observed { applied: None, ..in_sync() };
    assert_eq!(found(&observed), Vec::new());
}

#[test]
fn what_another_writer_is_about_is_no_drift() {
    let observed = Observed { busy: true, files: BTreeMap::new(), ..in_sync() };
    assert_eq!(found(&observed), Vec::new());
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
            container.exit_code = Some(137);
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
    let wanted = super::super::files::content(&caddyfile.sha256, caddyfile.size);
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
    let changed = file(0o644, 5, "0123456789abcdef");
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
fn a_container_of_another_release_is_seen_even_where_nothing_more_is_known_of_it() {
    let other = |observed: &mut Observed| {
        let backend = of(observed, "backend");
        backend.details = None;
        backend.labels.insert(labels::SERVICE_HASH.to_owned(), "x".to_owned());
    };
    let path = format!("tt-staging-app-backend-1/labels/{}", labels::SERVICE_HASH);
    assert_eq!(kinds(other), [(DriftKind::ConfigChanged, path)]);
}

#[test]
fn one_off_containers_do_not_stand_in_for_a_service() {
    let one_off = |observed: &mut Observed| {
        drop(of(observed, "backend").labels.insert(COMPOSE_ONE_OFF.to_owned(), "True".to_owned()));
    };
    let orphan = (DriftKind::Orphan, "tt-staging-app-backend-1".to_owned());
    assert_eq!(kinds(one_off), [(DriftKind::Missing, String::new()), orphan]);
}

#[test]
fn a_container_that_is_being_removed_is_missing_and_no_orphan() {
    let removing =
        |observed: &mut Observed| of(observed, "backend").state = State::Other("removing".to_owned());
    assert_eq!(kinds(removing), [(DriftKind::Missing, String::new())]);
}

#[test]
fn one_container_too_many_is_the_one_with_the_wrong_name() {
    let copy = |observed: &mut Observed| {
        let mut copy = of(observed, "edge").clone();
        copy.id = "a-copy".to_owned();
        copy.name = "a-copy".to_owned();
        observed.containers.insert(0, copy);
    };
    assert_eq!(kinds(copy), [(DriftKind::Orphan, "a-copy".to_owned())]);
}

#[test]
fn what_keeps_a_container_from_its_work_is_told_by_its_state() {
    let name = "tt-staging-app-backend-1".to_owned();
    let with = |state: &str, uptime: Option<u64>, restarts: u64, health: Health| {
        kinds(|observed| {
            let backend = of(observed, "backend");
            backend.state = if state == "running" { State::Running } else { State::Other(state.to_owned()) };
            backend.health = health;
            let details = backend.details.as_mut().unwrap();
            details.process = ["running", "paused"].contains(&state).then_some(7);
            (details.uptime, details.restarts) = (uptime.map(Duration::from_secs), restarts);
        })
    };
    assert_eq!(with("paused", Some(180), 0, Health::None), [(DriftKind::Paused, name.clone())]);
    assert_eq!(with("created", None, 0, Health::None), [(DriftKind::Stopped, name.clone())]);
    assert_eq!(with("running", Some(3_600), 0, Health::Unhealthy), [(DriftKind::Unhealthy, name.clone())]);
    let restarting = [(DriftKind::Restarting, name)];
    assert_eq!(with("restarting", None, 2, Health::None), restarting);
    assert_eq!(with("running", Some(0), 5, Health::Starting), restarting);
    assert_eq!(with("running", Some(9), 5, Health::Healthy), restarting);
    for (uptime, restarts) in [(Some(10), 5), (Some(1_209_600), 5), (Some(1), 1), (None, 5)] {
        assert_eq!(with("running", uptime, restarts, Health::Healthy), Vec::new(), "{uptime:?} s");
    }
}

#[test]
fn the_exit_status_that_inspect_tells_comes_before_that_of_the_list() {
    let found = |listed: Option<i32>, inspected: Option<i32>| {
        let items = seen(|observed| {
            let edge = of(observed, "edge");
            (edge.state, edge.exit_code) = (State::Other("exited".to_owned()), listed);
            edge.details.as_mut().unwrap().exit_code = inspected;
        });
        items.into_iter().map(|(.., found)| found).collect::<Vec<_>>()
    };
    assert_eq!(found(Some(1), Some(137)), ["exited (137)"]);
    assert_eq!(found(Some(1), None), ["exited (1)"]);
    assert_eq!(found(None, None), ["exited"]);
}

#[test]
fn folders_that_are_closed_to_the_edge_or_open_to_everybody_are_seen() {
    let folder = |mode: u32| FileFact::Folder { mode, uid: 1500, gid: 1500 };
    for (path, mode, is_seen) in [
        ("files/edge/addresses/backend", 0o700, true),
        ("files/edge/addresses", 0o700, true),
        ("files/edge/addresses/backend", 0o755, false),
    ] {
        let seen = kinds(|observed| drop(observed.files.insert(path.to_owned(), folder(mode))));
        let expected = is_seen.then(|| (DriftKind::FileMode, path.to_owned()));
        assert_eq!(seen, Vec::from_iter(expected), "{path} {mode:o}");
    }
    for (mode, is_seen) in [(0o777, true), (0o775, false), (0o755, false)] {
        let path = "/opt/tasktracker/staging/app";
        let mut observed = in_sync();
        observed.own_folders = vec![(path.to_owned(), folder(mode))];
        let items = found(&observed);
        let told: Vec<_> = items.iter().map(|item| (item.kind, item.path.as_deref(), item.answer)).collect();
        let expected = is_seen.then_some((DriftKind::FileMode, Some(path), Answer::Report));
        assert_eq!(told, Vec::from_iter(expected), "{mode:o}");
    }
}

#[test]
fn files_are_seen_by_mode_kind_and_place() {
    let path = "files/edge/Caddyfile".to_owned();
    let put =
        |path: &str, fact: FileFact| kinds(|observed| drop(observed.files.insert(path.to_owned(), fact)));
    let record = release().files[&path].clone();
    let chmod = file(0o600, record.size, &record.sha256);
    assert_eq!(put(&path, chmod), [(DriftKind::FileMode, path.clone())]);
    assert_eq!(put(&path, FileFact::Link), [(DriftKind::NotAFile, path.clone())]);
    assert_eq!(put(&path, folder()), [(DriftKind::NotAFile, path)]);
    assert_eq!(put("files/edge", FileFact::Link), [(DriftKind::NotAFile, "files/edge".to_owned())]);
    assert_eq!(put(".", FileFact::Link), [(DriftKind::NotAFile, ".".to_owned())]);
    assert_eq!(put(".env", FileFact::Other), [(DriftKind::FileExtra, ".env".to_owned())]);
    for own in ["HOLD", "ledger.json", "releases/x", "releases/x/manifest.json"] {
        assert_eq!(put(own, folder()), Vec::new(), "{own}");
    }
    let folder = |observed: &mut Observed| {
        observed
            .files
            .extend([("files/notes".to_owned(), folder()), ("files/notes/a".to_owned(), FileFact::Link)]);
    };
    assert_eq!(kinds(folder), [(DriftKind::FileExtra, "files/notes".to_owned())], "only the folder is told");
}

#[test]
fn network_and_volume_are_seen_missing_and_made_by_others() {
    let network = "tt-staging".to_owned();
    let volume = "tt-staging-app-data".to_owned();
    let gone = |observed: &mut Observed| {
        observed.networks.values_mut().chain(observed.volumes.values_mut()).for_each(|made| *made = None);
    };
    assert_eq!(kinds(gone), [(DriftKind::NetworkMissing, network), (DriftKind::VolumeMissing, volume)]);
    let other = |observed: &mut Observed| {
        let made = observed.networks.values_mut().chain(observed.volumes.values_mut()).flatten();
        made.for_each(|made| drop(made.settings.insert("driver".to_owned(), "other".to_owned())));
    };
    let expected = [
        (DriftKind::NetworkChanged, "tt-staging/driver".to_owned()),
        (DriftKind::VolumeChanged, "tt-staging-app-data/driver".to_owned()),
    ];
    assert_eq!(kinds(other), expected);
}

#[test]
fn others_are_told_for_what_they_have_of_ours_and_only_for_that() {
    let with = |change: fn(&mut Container)| {
        let mut other = Container { id: "x".to_owned(), name: "other".to_owned(), ..Container::default() };
        change(&mut other);
        seen(|observed| observed.others.push(other))
            .into_iter()
            .map(|(kind, .., found)| (kind, found))
            .collect::<Vec<_>>()
    };
    let rogue = |found: &str| vec![(DriftKind::Rogue, found.to_owned())];
    assert_eq!(with(|_| {}), Vec::new());
    assert_eq!(with(|other| other.published = vec![published("tcp", None)]), rogue("has port 3500"));
    assert_eq!(with(|other| other.published = vec![published("udp", None)]), Vec::new());
    assert_eq!(
        with(|other| other.published = vec![published("tcp", Some([10, 0, 0, 5]))]),
        rogue("has port 3500"),
        "ours is published on every address"
    );
    assert_eq!(
        with(|other| other.networks = vec!["tt-staging".to_owned()]),
        rogue("is in the network tt-staging")
    );
    assert_eq!(
        with(|other| other.sources = vec!["tt-staging-app-data".to_owned()]),
        rogue("sees tt-staging-app-data")
    );
    let folder = "/opt/tasktracker/staging/app/files";
    assert_eq!(
        with(|other| other.sources = vec!["/opt/tasktracker/staging/app/files".to_owned()]),
        rogue(&format!("sees {folder}"))
    );
    assert_eq!(with(|other| other.sources = vec!["/opt/tasktracker/staging/apples".to_owned()]), Vec::new());
    assert_eq!(with(|other| other.name = "tt-staging-app-x".to_owned()), rogue("has a name of ours"));
    let ours = |other: &mut Container| {
        other.networks = vec!["tt-staging".to_owned()];
        other.labels.insert(labels::OWNER.to_owned(), release().project.owner);
    };
    assert_eq!(with(ours), Vec::new(), "another component of the same stack");
}

#[test]
fn a_folder_that_was_exchanged_is_not_what_the_container_sees() {
    let mounted = |root: &str, place: &str| Mounted {
        device: "8:1".to_owned(),
        root: root.to_owned(),
        place: place.to_owned(),
    };
    let with = |root: &'static str| {
        kinds(|observed| {
            let host = vec![mounted("/", "/"), mounted("/srv/own", "/opt")];
            let inside = vec![mounted("/", "/"), mounted(root, "/etc/caddy")];
            observed.mounts = Mounts { host, containers: BTreeMap::from([("edge-id".to_owned(), inside)]) };
        })
    };
    let stale = [(DriftKind::ContentStale, "tt-staging-app-edge-1/etc/caddy".to_owned())];
    assert_eq!(with("/srv/own/tasktracker/staging/app/files/edge"), Vec::new());
    assert_eq!(with("/srv/own/tasktracker/staging/app/files/edge.old"), stale);
    assert_eq!(with("/srv/own/tasktracker/staging/app/files/edge//deleted"), stale);
}

#[test]
fn the_host_itself_is_judged_even_where_nothing_was_applied() {
    let facts = crate::host::Facts {
        compose: "2.40.3".to_owned(),
        disks: vec![
            Disk { place: "/opt".to_owned(), free_percent: 4, free_inodes_percent: 50 },
            Disk { place: "/var/lib/docker".to_owned(), free_percent: 5, free_inodes_percent: 2 },
        ],
        forwarding: Some(false),
        ..crate::host::Facts::for_tests()
    };
    let bad = |observed: &mut Observed| {
        observed.facts = Some(facts);
        observed.applied = None;
        observed.ledger.as_mut().unwrap().compose = Some("2.26.1-4".to_owned());
        observed.clock_ahead_seconds = Some(-86_400);
        observed.taken_ports = [3500].into();
    };
    let told: Vec<(DriftKind, String, String)> = seen(bad)
        .into_iter()
        .map(|(kind, _, path, _, found)| (kind, path.unwrap_or_default(), found))
        .collect();
    let expected = [
        (DriftKind::ComposeVersionChanged, "", "2.40.3"),
        (DriftKind::DiskLow, "/opt", "4 % free"),
        (DriftKind::DiskLow, "/var/lib/docker", "2 % of inodes free"),
        (DriftKind::SysctlTooLow, "net.ipv4.ip_forward", "0"),
        (DriftKind::ClockSkew, "", "24 h behind"),
        (DriftKind::PortTaken, "3500", "something that is no container listens there"),
    ];
    assert_eq!(told, expected.map(|(kind, path, found)| (kind, path.to_owned(), found.to_owned())));
}

#[test]
fn what_the_host_gives_every_container_is_no_drift() {
    let limit = ("ulimits/nofile".to_owned(), "1024:4096".to_owned());
    let mut observed = in_sync();
    for container in &mut observed.containers {
        container.details.as_mut().unwrap().settings.insert(limit.0.clone(), limit.1.clone());
    }
    of(&mut observed, "edge").details.as_mut().unwrap().settings.insert("init".to_owned(), "true".to_owned());
    let defaults = host_defaults(&observed);
    assert_eq!(defaults, BTreeMap::from([limit]));
    assert_eq!(found(&observed).len(), 4);
    let ledger = observed.ledger.as_mut().unwrap();
    ledger.host_defaults = defaults;
    assert_eq!(found(&observed).len(), 1);
    // What was made while the daemon gave something is as it was made when the daemon gives something else.
    let ledger = observed.ledger.as_mut().unwrap();
    *ledger = ledger.clone().made_with([("init".to_owned(), "true".to_owned())]);
    ledger.host_defaults = BTreeMap::from([("ulimits/nofile".to_owned(), "1:2".to_owned())]);
    assert!(found(&observed).is_empty(), "{:?}", found(&observed));
}

#[test]
fn texts_of_items_can_be_printed_and_are_bounded() {
    let name = format!("\u{1b}[31m\0\n{}", "x".repeat(10_000));
    let items = seen(|observed| {
        of(observed, "backend").name.clone_from(&name);
        let settings = &mut of(observed, "edge").details.as_mut().unwrap().settings;
        settings.insert("command".to_owned(), name.clone());
    });
    assert_eq!(items.len(), 2);
    for (_, _, path, wanted, found) in items {
        for text in [path.unwrap(), wanted, found] {
            assert!(!text.contains(char::is_control) && text.chars().count() < 400, "{text:?}");
        }
    }
}

#[test]
fn values_that_may_be_secret_are_not_told() {
    let items = seen(|observed| {
        let settings = &mut of(observed, "backend").details.as_mut().unwrap().settings;
        for field in ["environment/TOKEN", "environment/LOG_LEVEL", "logging/options/token", "labels/auth"] {
            settings.insert(field.to_owned(), "canary".to_owned());
        }
    });
    assert_eq!(items.len(), 4);
    for (_, _, path, wanted, found) in items {
        assert!(
            !wanted.contains("canary") && !found.contains("canary") && wanted != found,
            "{path:?}: {wanted} {found}"
        );
    }
}

#[test]
fn what_does_not_serve_is_told_by_service() {
    let mut observed = in_sync();
    of(&mut observed, "backend").health = Health::Starting;
    of(&mut observed, "edge").state = State::Other("paused".to_owned());
    assert_eq!(
        fault_words(&release(), &observed),
        [
            "backend: expected running and healthy, found still starting",
            "edge: expected running and healthy, found paused"
        ]
    );
}

#[test]
fn the_rendered_file_runs_images_by_id() {
    let images = BTreeMap::from([("backend".to_owned(), "sha256:abc".to_owned())]);
    let prepared = Prepared::new(project(), images, BTreeMap::new());
    assert!(prepared.contents["compose.yaml"].contains("sha256:abc"));
    assert_eq!(prepared.release.project, project());
    let stored = prepared.stored().into_iter().find(|one| one.path.ends_with("manifest.json")).unwrap();
    let crate::host::Source::Inline(manifest) = stored.source else { panic!("{stored:?}") };
    let again = Release::read(&manifest).unwrap();
    assert_eq!(again, prepared.release);
    assert_eq!(again.project.hash(&BTreeMap::new()), project().hash(&BTreeMap::new()));
    assert!(
        project().services["backend"].compose.image == "registry.example.com/tasktracker/backend:3f2c1ab"
    );
}

#[test]
fn a_damaged_manifest_is_told_by_its_path_in_the_projects_folder() {
    let path = "releases/aa/manifest.json";
    let damaged = |directory: &str| crate::observe::damaged(directory, &project(), path, "nothing");
    let gone = Observed {
        directory: "/opt/tasktracker".to_owned(),
        damaged: Some(damaged("/opt/tasktracker")),
        ..Observed::default()
    };
    let there = FileFact::File { mode: 0o644, uid: 0, gid: 0, size: 1, sha256: None };
    let other = Observed { files: [(path.to_owned(), there)].into(), ..gone.clone() };
    for (observed, kind) in [(gone, DriftKind::FileMissing), (other, DriftKind::FileChanged)] {
        let told = drift("app-1", &project(), &observed);
        let told: Vec<_> = told.iter().map(|item| (item.kind, item.path.as_deref())).collect();
        assert!(told.contains(&(kind, Some(path))), "{told:?}");
    }
}

/// The results of the probes of the example's backend.
fn probed(observed: &mut Observed, probe: Probe, failure: ProbeFailure) {
    let id = of(observed, "backend").id.clone();
    observed.probe_results.insert((id, probe), Err(failure));
}

#[test]
fn failed_probes_are_drift_of_a_serving_container_and_faults_of_its_readiness() {
    let unexpected =
        || ProbeFailure::Unexpected("expected /text as rolled out, found another value".to_owned());
    let not_loaded = |path: &str| (DriftKind::ConfigNotLoaded, path.to_owned());
    let loaded = Probe::Loaded("files/x".to_owned());
    assert_eq!(
        kinds(|it| probed(it, loaded.clone(), unexpected())),
        [not_loaded("tt-staging-app-backend-1/files/x")]
    );
    assert_eq!(
        kinds(|it| probed(it, Probe::Object("/api/x".to_owned()), unexpected())),
        [not_loaded("/api/x")],
        "an API object belongs to no container"
    );
    // A closed gate is no difference, and who is not ready cannot have loaded anything.
    assert_eq!(kinds(|it| probed(it, Probe::Gate, unexpected())), []);
    let mut observed = in_sync();
    probed(&mut observed, loaded, unexpected());
    probed(&mut observed, Probe::Ready, ProbeFailure::NoAnswer("connection refused".to_owned()));
    assert_eq!(found(&observed), []);
    assert_eq!(fault_words(&release(), &observed), ["backend: expected ready, found connection refused"]);
}

#[test]
fn what_is_oom_killed_whenever_it_starts_is_helped_within_the_spec_and_the_host() {
    let limit = project().services["backend"].compose.limits.mem_limit;
    // What was done, the share that the spec gives, whether something may be moved aside, and what is free: what helps next.
    let table = [
        (None, 50, true, 8 * limit, Some(MemoryRemedy::Raise(2 * limit))),
        (Some((2 * limit, false)), 50, true, 8 * limit, Some(MemoryRemedy::Raise(4 * limit))),
        (Some((3 * limit, false)), 50, true, 8 * limit, Some(MemoryRemedy::Raise(4 * limit))),
        (Some((4 * limit, false)), 50, false, 8 * limit, None),
        (Some((4 * limit, false)), 50, true, 8 * limit, Some(MemoryRemedy::MoveAside(&ASIDE))),
        (Some((4 * limit, true)), 50, true, 8 * limit, None),
        (None, 0, true, 8 * limit, Some(MemoryRemedy::MoveAside(&ASIDE))),
        (None, 0, false, 8 * limit, None),
        (None, 50, false, limit + limit / 8, None),
        (None, 50, false, limit + limit / 4, Some(MemoryRemedy::Raise(limit + limit / 4))),
    ];
    for (done, max_memory_percent, may_move, available, expected) in table {
        let mut desired = project();
        let read_at_start = may_move.then(|| ASIDE.clone());
        desired.out_of_memory.insert("backend".to_owned(), OutOfMemory { max_memory_percent, read_at_start });
        let mut observed = in_sync();
        let memory = Some(crate::host::Memory { total: 8 * limit, available });
        observed.facts = Some(crate::host::Facts { memory, ..crate::host::Facts::for_tests() });
        let mut ledger = observed.ledger.take().unwrap();
        if let Some((raised, moved_aside)) = done {
            ledger = ledger.with_memory_help("backend", limit, raised, moved_aside);
            let details = of(&mut observed, "backend").details.as_mut().unwrap();
            for field in ["mem_limit", "memswap_limit"] {
                details.settings.insert(field.to_owned(), raised.to_string());
            }
        }
        observed.applied = observed.applied.map(|applied| ledger.with_raised_memory(applied));
        observed.ledger = Some(ledger);
        assert_eq!(drift("app-1", &desired, &observed), [], "a raised limit is no drift");
        let backend = of(&mut observed, "backend");
        backend.state = State::Other("restarting".to_owned());
        let details = backend.details.as_mut().unwrap();
        (details.restarts, details.process) = (5, None);
        let id = backend.id.clone();
        observed.oom_kills.insert(id.clone(), 1);
        let once = drift("app-1", &desired, &observed);
        assert_eq!(once.iter().map(|item| item.kind).collect::<Vec<_>>(), [DriftKind::Restarting]);
        observed.oom_kills.insert(id, 2);
        let applied = &observed.applied.as_ref().unwrap().project;
        assert_eq!(crate::diff::memory_remedy("backend", applied, &desired, &observed), expected);
        let told = drift("app-1", &desired, &observed);
        let answer = if expected.is_some() { Answer::Heal } else { Answer::Report };
        let told: Vec<_> = told.iter().map(|item| (item.kind, item.answer, item.found.as_str())).collect();
        let by_now = done.map_or(limit, |(raised, _)| raised) >> 20;
        let found = format!("OOM-killed whenever it starts, with a limit of {by_now}Mi");
        assert_eq!(told, [(DriftKind::OutOfMemory, answer, found.as_str())]);
    }
}
