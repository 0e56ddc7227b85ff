//! What real engines say of containers, kept in `tests/golden/inspect`: unit tests compare with it, and this test with
//! what engines say now. `UPDATE_GOLDEN=1` writes it anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
};

use serde_json::{Value, json};
use tasktracker_crds::DriftKind;
use tasktracker_operator::{
    component::app_project,
    diff,
    engine::now,
    host::{Host, Source},
    ledger::{Course, Ledger, Signature},
    observe::{self, Depth, Inputs, Observed},
    project::{
        BlueGreen, File, Project, Service, Strategy, Volume, VolumeRole,
        compose::{self, BindOptions, Joined, Propagation, Ulimit},
        labels,
    },
    release::Prepared,
    secret::Seals,
    source::Stack,
};
use tasktracker_testbed::{Compose, Engine, HostOptions};
use tokio::runtime::Runtime;

use crate::stage::{Stage, wait_until};

#[path = "../golden/changes.rs"]
mod changes;
#[path = "../golden/sample.rs"]
mod sample;

use sample::sample;

/// A project that was deployed by hand as the operator does it.
struct Deployed<'a> {
    stage: &'a Stage,
    host: Arc<Host>,
    runtime: Runtime,
    project: Project,
    prepared: Prepared,
}

impl<'a> Deployed<'a> {
    fn new(stage: &'a Stage, project: Project, stack: &str) -> Self {
        let id = |image: &str| stage.on_host(&format!("docker image inspect --format '{{{{.Id}}}}' {image}"));
        let images = project.services.iter();
        let images =
            images.map(|(name, service)| (name.clone(), id(&service.compose.image).trim().to_owned()));
        let prepared = Prepared::new(project.clone(), images.collect(), Seals::new());
        let labels = format!("--label {}={} --label {}={stack}", labels::OWNER, project.owner, labels::STACK);
        stage.on_host(&format!("docker network create {labels} {}", project.network));
        for volume in project.volumes.values() {
            stage.on_host(&format!("docker volume create {labels} {}", volume.name));
        }
        let (_, host) = stage.managed();
        let deployed = Self { stage, host, runtime: Runtime::new().unwrap(), project, prepared };
        deployed.write_files(stack);
        deployed.up(&format!("{}/compose.yaml", deployed.folder()), "");
        let faults = std::fmt::from_fn(|formatter| write!(formatter, "serves: {:?}", deployed.faults()));
        wait_until(faults, || deployed.faults().is_empty());
        deployed
    }

    fn write_files(&self, stack: &str) {
        let signature = Signature { epoch: 1, when: "noon".into(), who: "test".into(), why: "a test".into() };
        let release = &self.prepared.release;
        let ledger = Ledger::empty(&self.project.owner, stack);
        let ledger = ledger.succeeded(release, &Course::default(), &signature).placement();
        for placement in [self.prepared.stored(), self.prepared.live()].concat().into_iter().chain([ledger]) {
            let Source::Inline(content) = placement.source else {
                panic!("{} has no content", placement.path)
            };
            self.stage.host.write_file(format!("{}/{}", self.folder(), placement.path), content).unwrap();
        }
        self.stage.as_root("chown -R deploy: /opt/tasktracker");
    }

    fn folder(&self) -> String {
        format!("/opt/tasktracker/{}", self.project.folder)
    }

    fn up(&self, file: &str, arguments: &str) {
        let (name, folder) = (&self.project.name, self.folder());
        self.stage.on_host(&format!(
            "docker compose -p {name} -f {file} --project-directory {folder} --env-file /dev/null \
             up -d --pull never --no-build {arguments} 2>&1"
        ));
    }

    fn observed(&self) -> Observed {
        self.runtime
            .block_on(observe::observe(&self.host, &self.project, Depth::Whole))
            .unwrap()
            .with(Inputs::default(), now())
    }

    fn faults(&self) -> Vec<diff::Fault> {
        diff::faults(&self.prepared.release, &self.observed())
    }

    /// Kinds and paths of what a whole check finds.
    fn drift(&self) -> BTreeSet<(DriftKind, String)> {
        let drift = diff::drift("app-1", &self.project, &self.observed());
        drift.into_iter().map(|item| (item.kind, item.path.unwrap_or_default())).collect()
    }

    /// Two whole checks find nothing, and the engine says what is kept.
    fn assert_known(&self, engine: &str) {
        for check in 1..=2 {
            assert_eq!(self.drift(), BTreeSet::new(), "check {check}");
        }
        assert_golden(
            &format!("{}-{engine}", self.project.folder.rsplit('/').next().unwrap()),
            &self.answers(),
        );
    }

    /// Makes every service anew, some with one field changed; all else, their labels too, is as it was.
    fn recreate(&self, changes: &[&changes::Change]) {
        let mut project = self.project.clone();
        for change in changes {
            (change.make)(&mut project.services.get_mut(change.service).unwrap().compose);
        }
        let (before, images) = (&self.prepared.release, self.prepared.release.images.clone());
        let other = Prepared::new(project, images, Seals::new());
        let mut text = other.contents["compose.yaml"].clone();
        for (service, hash) in &other.release.service_hashes {
            text = text.replace(hash, &before.service_hashes[service]);
        }
        // Beside the project's folder, where it is no drift.
        self.stage.host.write_file("/tmp/other.yaml", text).unwrap();
        self.up("/tmp/other.yaml", "--force-recreate");
    }

    /// Everything that the engine says of the project, without what is another in each run.
    fn answers(&self) -> Value {
        let get = |path: &str| get(self.stage, path);
        let all = get("/containers/json?all=1");
        let is_ours = |entry: &&Value| entry["Labels"]["com.docker.compose.project"] == self.project.name;
        let mut entries: Vec<&Value> = all.as_array().unwrap().iter().filter(is_ours).collect();
        entries.sort_by_key(|entry| entry["Names"][0].to_string());
        let id = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
        let containers: Vec<Value> = entries
            .into_iter()
            .map(|entry| {
                let inspect = get(&format!("/containers/{}/json", id(entry, "Id")));
                json!({ "list": list_entry(entry), "inspect": container(&inspect) })
            })
            .collect();
        // In the order of the containers: that of their IDs is another one for each build.
        let mut images: Vec<String> = Vec::new();
        for image in containers.iter().map(|container| id(&container["list"], "ImageID")) {
            if !images.contains(&image) {
                images.push(image);
            }
        }
        let image = |id: &String| only(&get(&format!("/images/{id}/json")), &["Id", "Config"]);
        let volume =
            |name: &String| only(&get(&format!("/volumes/{name}")), &["Name", "Driver", "Labels", "Options"]);
        let mut network = get(&format!("/networks/{}", self.project.network));
        // Addresses are Docker's own choice.
        network["IPAM"] = only(&network["IPAM"], &["Driver"]);
        let engine =
            ["DockerRootDir", "DefaultRuntime", "MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota"];
        json!({
            "containers": containers,
            "images": images.iter().map(image).collect::<Vec<_>>(),
            "info": only(&get("/info"), &engine),
            "network": only(&network, &["Id", "Name", "Driver", "EnableIPv6", "Internal", "Attachable", "Ingress",
                "ConfigOnly", "Labels", "Options", "IPAM"]),
            "volumes": self.project.volumes.values().map(|one| volume(&one.name)).collect::<Vec<_>>(),
        })
    }
}

/// The answer of the engine to a GET.
fn get(stage: &Stage, path: &str) -> Value {
    let mut stream = UnixStream::connect(stage.host.path("/run/docker.sock")).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{path}: {answer}");
    serde_json::from_str(body).unwrap()
}

/// An object with some of its keys.
fn only(value: &Value, keys: &[&str]) -> Value {
    let pairs = keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(key)?.clone())));
    Value::Object(pairs.collect())
}

/// Lists that Docker and Compose put into any order.
fn sorted(value: &mut Value, pointer: &str) {
    if let Some(list) = value.pointer_mut(pointer).and_then(Value::as_array_mut) {
        list.sort_by_key(Value::to_string);
    }
}

fn list_entry(entry: &Value) -> Value {
    let mut kept =
        only(entry, &["Id", "Names", "Image", "ImageID", "Labels", "State", "Status", "Ports", "Mounts"]);
    let status = entry["Status"].as_str().unwrap();
    let health = status.split_once('(').map(|(_, health)| format!(" ({health}")).unwrap_or_default();
    kept["Status"] = json!(format!("Up 2 minutes{health}"));
    let networks = entry["NetworkSettings"]["Networks"].as_object().unwrap();
    let networks: BTreeMap<&String, Value> = networks.keys().map(|name| (name, json!({}))).collect();
    kept["NetworkSettings"] = json!({ "Networks": networks });
    for list in ["/Ports", "/Mounts"] {
        sorted(&mut kept, list);
    }
    kept
}

fn container(inspect: &Value) -> Value {
    let mut kept = only(inspect, &["Id", "Name", "Image", "RestartCount", "Config", "HostConfig", "Mounts"]);
    // These are as the machine's kernel has them.
    for key in ["CgroupnsMode", "KernelMemory", "KernelMemoryTCP", "MemorySwappiness", "OomKillDisable"] {
        kept["HostConfig"].as_object_mut().unwrap().remove(key);
    }
    kept["State"] = json!({ "Status": inspect["State"]["Status"], "Pid": 4711 });
    let mut networks = inspect["NetworkSettings"]["Networks"].clone();
    for joined in networks.as_object_mut().unwrap().values_mut() {
        let own = ["Aliases", "DNSNames", "DriverOpts", "IPAMConfig", "Links", "NetworkID"];
        *joined = only(joined, &own);
        for list in ["Aliases", "DNSNames"] {
            // Docker's own name for a container, twelve digits of its ID, comes first.
            let is_name = |text: &Value| {
                let text = text.as_str().unwrap_or_default();
                !(text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            };
            if let Some(list) = joined.get_mut(list).and_then(Value::as_array_mut) {
                list.sort_by_key(|text| (is_name(text), text.to_string()));
            }
        }
    }
    kept["NetworkSettings"] = json!({ "Networks": networks });
    for list in ["Binds", "Mounts", "ExtraHosts", "Ulimits"].map(|list| format!("/HostConfig/{list}")) {
        sorted(&mut kept, &list);
    }
    for list in ["/Mounts", "/Config/Env"] {
        sorted(&mut kept, list);
    }
    kept
}

/// A text with IDs and hashes numbered in their order: those of this run say nothing.
fn numbered(mut text: String) -> String {
    for digits in [64, 16] {
        let is_hash = |word: &&str| {
            word.len() == digits && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut seen = Vec::new();
        let words = text.split(|character: char| !character.is_ascii_alphanumeric()).filter(is_hash);
        for word in words {
            if !seen.contains(&word.to_owned()) {
                seen.push(word.to_owned());
            }
        }
        for (number, word) in seen.iter().enumerate() {
            let other = format!("{:02x}", number + 1).repeat(digits / 2);
            text = text.replace(word, &other);
            if digits == 64 {
                // Docker names containers by twelve digits, too.
                text = text.replace(&word[..12], &other[..12]);
            }
        }
    }
    text
}

/// Compares with what is kept, or keeps it.
fn assert_golden(name: &str, answers: &Value) {
    let found = numbered(serde_json::to_string_pretty(answers).unwrap()) + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/inspect/{name}.json"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let other = kept.lines().zip(found.lines()).find(|(kept, found)| kept != found);
    assert!(
        kept == found,
        "{}: this engine says something else, first {other:?}; `UPDATE_GOLDEN=1` writes it anew",
        path.display()
    );
}

/// The first example.
fn staging() -> Project {
    let text = include_str!("../../../examples/staging.yaml");
    let stack = Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), PathBuf::new());
    app_project(&stack, stack.spec.app.as_ref().unwrap())
}

/// Each change, made on a container: exactly its fields are told.
fn assert_changes(deployed: &Deployed) {
    let mut left: BTreeMap<&str, Vec<&changes::Change>> = BTreeMap::new();
    for change in changes::CHANGES {
        left.entry(change.service).or_default().push(change);
    }
    while left.values().any(|changes| !changes.is_empty()) {
        let now: Vec<&changes::Change> = left.values_mut().filter_map(Vec::pop).collect();
        deployed.recreate(&now);
        let path = |change: &changes::Change, number: u32, field: &str| {
            format!("{}-{}-{number}/{field}", deployed.project.name, change.service)
        };
        let expected: BTreeSet<(DriftKind, String)> = now
            .iter()
            .flat_map(|change| {
                let numbers = 1..=deployed.project.services[change.service].compose.scale;
                numbers.flat_map(move |number| {
                    change
                        .fields
                        .iter()
                        .map(move |field| (DriftKind::ConfigChanged, path(change, number, field)))
                })
            })
            .collect();
        assert_eq!(deployed.drift(), expected);
    }
    deployed.recreate(&[]);
    assert_eq!(deployed.drift(), BTreeSet::new());
}

fn every_answer_is_known(name: &str, options: HostOptions, engine: &str) {
    let stage = Stage::with(name, options);
    // A folder with all of the host below is passed on only where that is a shared mount, as it is under systemd.
    stage.as_root("mount --make-shared /");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", ""));
    let sample = Deployed::new(&stage, sample(), "default/sample");
    sample.assert_known(engine);
    let store = format!("{}-store-1", sample.project.name);
    stage.on_host(&format!("docker update --pids-limit 99 {store}"));
    let expected = (DriftKind::ConfigChanged, format!("{store}/pids_limit"));
    assert_eq!(sample.drift(), BTreeSet::from([expected]));
    assert_changes(&sample);
    for image in ["backend", "frontend"] {
        let image = format!("registry.example.com/tasktracker/{image}");
        stage.on_host(&format!("docker tag {image}:r1 {image}:3f2c1ab"));
    }
    Deployed::new(&stage, staging(), "default/staging").assert_known(engine);
}

#[test]
fn every_field_is_read_from_the_oldest_engine() {
    every_answer_is_known("golden-old", HostOptions::default(), "20.10");
}

#[test]
fn every_field_is_read_from_a_newer_engine() {
    let options = HostOptions { engine: Engine::Newer, compose: Compose::Newer, ..HostOptions::default() };
    every_answer_is_known("golden-new", options, "26.1");
}
