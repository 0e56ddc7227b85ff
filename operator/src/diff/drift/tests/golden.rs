//! What real engines said of containers that Compose made of rendered services, against what the services want.

use serde_json::{Value, json};

use super::*;
use crate::project::{
    BlueGreen, File, Service, Strategy, Volume, VolumeRole,
    compose::{BindOptions, Joined, Propagation, Ulimit},
};

#[path = "../../../../tests/golden/changes.rs"]
mod changes;
#[path = "../../../../tests/golden/sample.rs"]
mod sample;

use sample::sample;

const APP: [&str; 2] = [
    include_str!("../../../../tests/golden/inspect/app-20.10.json"),
    include_str!("../../../../tests/golden/inspect/app-26.1.json"),
];
const SAMPLE: [&str; 2] = [
    include_str!("../../../../tests/golden/inspect/sample-20.10.json"),
    include_str!("../../../../tests/golden/inspect/sample-26.1.json"),
];

/// A host as an engine tells of it, with the release that was deployed there.
fn observed(answers: &Value, project: Project) -> Observed {
    let release = answered_release(answers, project);
    let containers = answers["containers"].as_array().unwrap().iter().map(answered_container).collect();
    let image = |image: &Value| (text_of(&image["Id"]), Arc::new(ImageConfig::read(image)));
    let network = (text_of(&answers["network"]["Name"]), Some(NetworkOrVolume::network(&answers["network"])));
    let volume = |volume: &Value| (text_of(&volume["Name"]), Some(NetworkOrVolume::volume(volume)));
    Observed {
        containers,
        images: answers["images"].as_array().unwrap().iter().map(image).collect(),
        engine: crate::host::Engine::read(&answers["info"]),
        networks: BTreeMap::from([network]),
        volumes: answers["volumes"].as_array().unwrap().iter().map(volume).collect(),
        ..in_sync_with_files(release)
    }
}

/// The release of a project: its images by their IDs, and its hashes, as the containers have them.
fn answered_release(answers: &Value, project: Project) -> Release {
    let of_service = |part: fn(&Value) -> &Value| -> BTreeMap<String, String> {
        let containers = answers["containers"].as_array().unwrap().iter();
        containers
            .map(|container| {
                (text_of(&container["list"]["Labels"][compose::COMPOSE_SERVICE]), part(container))
            })
            .map(|(service, part)| (service, text_of(part)))
            .collect()
    };
    let images = of_service(|container| &container["list"]["ImageID"]);
    let service_hashes = of_service(|container| &container["list"]["Labels"][labels::SERVICE_HASH]);
    Release { service_hashes, ..Prepared::new(project, images, BTreeMap::new()).release }
}

/// Where the first container of a service is.
fn place(answers: &Value, service: &str) -> usize {
    let mut all = answers["containers"].as_array().unwrap().iter();
    all.position(|one| one["list"]["Labels"][compose::COMPOSE_SERVICE] == service).unwrap()
}

/// Names of fields that differ, by container.
fn differing(observed: &Observed) -> Vec<String> {
    let project = &observed.applied.as_ref().unwrap().project;
    let items = drift("app-1", project, observed);
    items.into_iter().map(|item| item.path.unwrap_or_default()).collect()
}

#[test]
fn containers_of_every_engine_are_as_their_services_want_them() {
    for (project, answers) in
        APP.map(|text| (project(), text)).into_iter().chain(SAMPLE.map(|text| (sample(), text)))
    {
        let answers: Value = serde_json::from_str(answers).unwrap();
        let observed = observed(&answers, project);
        let wanted: u32 = observed
            .applied
            .iter()
            .flat_map(|it| it.project.services.values())
            .map(|it| it.compose.scale)
            .sum();
        assert_eq!(observed.containers.len(), wanted as usize);
        assert_eq!(differing(&observed), Vec::<String>::new());
        assert!(serving(observed.applied.as_ref().unwrap(), &observed));
        assert_eq!(host_defaults(&observed), BTreeMap::new());
    }
}

#[test]
fn each_changed_field_of_a_service_is_exactly_that_difference() {
    let mut compared = std::collections::BTreeSet::new();
    for answers in SAMPLE {
        let observed = observed(&serde_json::from_str(answers).unwrap(), sample());
        for change in changes::CHANGES {
            let mut release = observed.applied.clone().unwrap();
            let service = &mut release.project.services.get_mut(change.service).unwrap().compose;
            let before = serde_json::to_value(&*service).unwrap();
            (change.make)(service);
            let after = serde_json::to_value(&*service).unwrap();
            let (before, after) = (before.as_object().unwrap(), after.as_object().unwrap());
            let keys = before.keys().chain(after.keys());
            compared.extend(keys.filter(|key| before.get(*key) != after.get(*key)).cloned());
            let name = format!("{}-{}-1/", release.project.name, change.service);
            let other = Observed { applied: Some(release), ..observed.clone() };
            let mut found = differing(&other);
            found.retain(|path| path.starts_with(&name));
            let expected: Vec<String> = change.fields.iter().map(|field| format!("{name}{field}")).collect();
            assert_eq!(found, expected);
        }
    }
    let services = sample().services;
    let fields = services.values().flat_map(fields);
    // The image is compared by its ID, containers are counted, and Compose alone knows of dependencies.
    let others = ["image", "scale", "depends_on"];
    let missing: Vec<String> =
        fields.filter(|field| !others.contains(&field.as_str()) && !compared.contains(field)).collect();
    assert_eq!(missing, Vec::<String>::new(), "fields without a change");
}

/// The fields that the definition of a service says.
fn fields(service: &Service) -> Vec<String> {
    let fields = serde_json::to_value(&service.compose).unwrap();
    fields.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_sample_uses_every_field() {
    let services = sample().services;
    let rendered: std::collections::BTreeSet<String> = services.values().flat_map(fields).collect();
    let bare = compose::Service::new("a", sample().services["web"].compose.limits.clone());
    let compose::Service {
        image: _,
        scale: _,
        entrypoint: _,
        command: _,
        user: _,
        group_add: _,
        pid: _,
        network_mode: _,
        environment: _,
        ports: _,
        volumes: _,
        tmpfs: _,
        networks: _,
        extra_hosts: _,
        depends_on: _,
        sysctls: _,
        ulimits: _,
        healthcheck: _,
        labels: _,
        limits: _,
        logging: _,
        restart: _,
        stop_grace_period: _,
    } = bare;
    let optional = "entrypoint command user group_add pid network_mode environment ports volumes tmpfs networks \
                    extra_hosts depends_on sysctls ulimits healthcheck labels logging cap_add";
    for field in optional.split_whitespace() {
        assert!(rendered.contains(field), "no service of the sample has {field}");
    }
}

#[test]
fn each_changed_field_of_an_answer_is_exactly_that_difference() {
    let changes = [
        ("agent", "/Config/Entrypoint", json!(["/bin/sleep"]), "entrypoint"),
        ("agent", "/Config/Cmd", json!(["1"]), "command"),
        ("store", "/HostConfig/PidMode", json!("host"), "pid"),
        ("agent", "/HostConfig/GroupAdd", json!(["4"]), "group_add"),
        ("store", "/Config/Cmd", json!(["echo $$HOME; exec sleep 86400"]), "command"),
        (
            "store",
            "/HostConfig/Sysctls/net.ipv4.tcp_keepalive_time",
            json!("7"),
            "sysctls/net.ipv4.tcp_keepalive_time",
        ),
        ("store", "/HostConfig/ExtraHosts/0", json!("archive:192.0.2.9"), "extra_hosts"),
        ("store", "/HostConfig/PortBindings/9200~1tcp/0/HostIp", json!(""), "ports/9200/tcp"),
        ("store", "/HostConfig/PortBindings/5140~1udp/0/HostIp", json!("127.0.0.2"), "ports/5140/udp"),
        (
            "store",
            "/HostConfig/Ulimits",
            json!([{"Name": "nofile", "Soft": 1024, "Hard": 4096}]),
            "ulimits/memlock",
        ),
        (
            "store",
            "/NetworkSettings/Networks/tt-sample/Aliases",
            json!(["store"]),
            "networks/tt-sample/aliases",
        ),
        ("web", "/HostConfig/PidsLimit", json!(4096), "pids_limit"),
        ("web", "/HostConfig/ReadonlyRootfs", json!(false), "read_only"),
        ("web", "/HostConfig/LogConfig/Config/tag", json!("{{.ID}}"), "logging/options/tag"),
        ("web", "/HostConfig/LogConfig/Config/labels", json!("mine"), "logging/options/labels"),
        ("web", "/Config/Healthcheck/Retries", json!(4), "healthcheck/retries"),
    ];
    for text in SAMPLE {
        let answers: Value = serde_json::from_str(text).unwrap();
        for (service, pointer, value, field) in &changes {
            let mut other = answers.clone();
            let inspect = &mut other["containers"][place(&answers, service)]["inspect"];
            *inspect.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} of {service}")) =
                value.clone();
            let expected = format!("tt-sample-sample-{service}-1/{field}");
            assert_eq!(differing(&observed(&other, sample())), [expected]);
        }
    }
}

#[test]
fn each_changed_mount_of_an_answer_is_exactly_that_difference() {
    for text in SAMPLE {
        let answers: Value = serde_json::from_str(text).unwrap();
        for (service, target, key, value) in [
            ("agent", "/host/proc", "Source", json!("/proc/1")),
            ("agent", "/host/root", "Propagation", json!("rprivate")),
            ("agent", "/host/sys", "RW", json!(true)),
            ("store", "/var/lib/store", "Name", json!("other")),
        ] {
            let mut other = answers.clone();
            let mounts =
                other["containers"][place(&answers, service)]["inspect"]["Mounts"].as_array_mut().unwrap();
            let mount = mounts.iter_mut().find(|mount| mount["Destination"] == target).unwrap();
            mount[key] = value;
            let expected = format!("tt-sample-sample-{service}-1/volumes/{target}");
            assert_eq!(differing(&observed(&other, sample())), [expected]);
        }
    }
}

#[test]
fn no_limit_is_the_same_to_a_service_and_to_an_engine() {
    let mut answers: Value = serde_json::from_str(SAMPLE[0]).unwrap();
    let mut project = sample();
    let unlimited = Ulimit { soft: -1, hard: -1 };
    project.services.get_mut("store").unwrap().compose.ulimits.insert("memlock".to_owned(), unlimited);
    let all = answers["containers"].as_array_mut().unwrap().iter_mut();
    let limits = all.filter_map(|one| one["inspect"]["HostConfig"]["Ulimits"].as_array_mut()).flatten();
    let mut memory = limits.filter(|limit| limit["Name"] == "memlock");
    *memory.next().unwrap() = json!({"Name": "memlock", "Soft": -1, "Hard": -1});
    assert!(memory.next().is_none());
    drop(memory);
    assert_eq!(differing(&observed(&answers, project)), Vec::<String>::new());
}

#[test]
fn a_service_without_a_health_check_serves_as_soon_as_it_runs() {
    let answers: Value = serde_json::from_str(SAMPLE[0]).unwrap();
    let mut observed = observed(&answers, sample());
    let release = observed.applied.clone().unwrap();
    assert_eq!(of(&mut observed, "agent").health, Health::None);
    assert_eq!(fault_words(&release, &observed), Vec::<String>::new());
    of(&mut observed, "agent").health = Health::Unhealthy;
    assert_eq!(
        fault_words(&release, &observed),
        ["agent: expected running, found unhealthy"],
        "by the image's own check"
    );
    of(&mut observed, "agent").state = State::Other("restarting".to_owned());
    assert_eq!(fault_words(&release, &observed), ["agent: expected running, found restarting"]);
    of(&mut observed, "web").health = Health::None;
    let web = "web: expected running and healthy, found running without a health check";
    assert_eq!(fault_words(&release, &observed)[1], web);
}
