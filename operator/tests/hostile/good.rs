//! What a host says that is exactly as its release.

use std::{fmt::Write as _, path::PathBuf, sync::LazyLock};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use tasktracker_operator::{
    component::app_project,
    engine,
    ledger::Ledger,
    model::sha256,
    project::{
        compose::{COMPOSE_NUMBER, COMPOSE_ONE_OFF, COMPOSE_PROJECT, COMPOSE_SERVICE, Mount, Service},
        labels,
    },
    release::Prepared,
    source::Stack,
};

use crate::{
    fake_docker::{answer, json as json_answer},
    fake_sshd::Said,
};

/// The operator's folder on the fake host.
pub(crate) const DIRECTORY: &str = "/opt/tasktracker";

/// What the paths of details of containers begin with, and that of the list does not: every ID here is of this digit.
pub(crate) const INSPECT: &str = "/containers/c";

/// The stack of the first example.
pub(crate) static STACK: LazyLock<Stack> = LazyLock::new(|| {
    let text = include_str!("../../../examples/staging.yaml");
    Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), PathBuf::new())
});

/// The release that was rolled out to the fake host.
pub(crate) static RELEASE: LazyLock<Prepared> = LazyLock::new(|| {
    let project = app_project(&STACK, STACK.spec.app.as_ref().unwrap());
    let images = ["backend", "edge", "frontend"].map(|name| (name.to_owned(), image_id(name)));
    Prepared::new(project, images.into(), std::collections::BTreeMap::new())
});

/// The ledger of the fake host.
pub(crate) fn ledger() -> Ledger {
    let mut ledger = Ledger::empty(&STACK.owner(), &STACK.key.to_string());
    ledger.current = Some(RELEASE.release.id.clone());
    ledger.compose = Some("2.26.1-4".to_owned());
    ledger
}

fn image_id(service: &str) -> String {
    format!("sha256:{}", sha256(service.as_bytes()))
}

/// ID of the container of a service.
pub(crate) fn container_id(service: &str) -> String {
    format!("c{}", &sha256(service.as_bytes())[1..])
}

pub(crate) fn probe() -> String {
    format!(
        "user deploy\ndocker present\ncompose 2.26.1-4\nsocket open\napi 1.41 20.10.24\nfolder ok\n\
        disk 1000 400 0 0 /opt\nforwarding 1\nseconds {}\n",
        engine::now().as_second()
    )
}

/// What the helper answers.
pub(crate) fn helper(question: &str) -> String {
    let lines = match question.split(' ').next().unwrap_or_default() {
        "list" => list(),
        "texts" => texts(),
        "mounts" if question == "mounts 0" => "M 8:1 / /\n".to_owned(),
        "mounts" => format!("M 8:1 / /\nM 8:1 {DIRECTORY}/staging/app/files/edge /etc/caddy\n"),
        _ => String::new(),
    };
    format!("{lines}END 1\n")
}

/// The path of the applied release's manifest.
pub(crate) fn manifest_path() -> String {
    format!("staging/app/{}", RELEASE.release.stored("manifest.json"))
}

fn list() -> String {
    let mut lines = String::new();
    let upstreams =
        ["", "/backend", "/frontend"].map(|service| format!("/app/files/edge/upstreams{service}"));
    let folders = ["", "/app", "/app/files", "/app/files/edge", "/app/releases"].map(str::to_owned);
    for folder in folders.iter().chain(&upstreams) {
        writeln!(lines, "S staging{folder} 41ed 4096 1500 1500 7 2026-01-01 10:00:00.0 +0000").unwrap();
    }
    let mut files: Vec<(String, &str)> = RELEASE
        .contents
        .iter()
        .map(|(path, content)| (format!("staging/app/{path}"), content.as_str()))
        .collect();
    files.push(("staging/app/ledger.json".to_owned(), ""));
    files.push((manifest_path(), ""));
    for (path, content) in &files {
        writeln!(lines, "S {path} 81a4 {} 1500 1500 8 2026-01-01 10:00:00.0 +0000", content.len()).unwrap();
    }
    lines.push('\n');
    for (path, content) in &files {
        writeln!(lines, "{}  {path}", sha256(content.as_bytes())).unwrap();
    }
    lines
}

/// A line of the answer to `texts`.
pub(crate) fn text_line(path: &str, content: &[u8]) -> String {
    format!("T {path} {}\n", BASE64_STANDARD.encode(content))
}

fn texts() -> String {
    let manifest = RELEASE.release.manifest().into_bytes();
    let ledger = serde_json::to_vec(&ledger()).unwrap();
    text_line("staging/app/ledger.json", &ledger) + &text_line(&manifest_path(), &manifest)
}

/// What the Docker API answers.
pub(crate) fn docker(path: &str) -> Said {
    let parts: Vec<&str> = path.split(['/', '?']).collect();
    let project = &RELEASE.release.project;
    match parts.as_slice() {
        ["", "containers", "json", _] => json_answer(&containers()),
        ["", "containers", id, "json"] => {
            match project.services.keys().find(|name| container_id(name) == *id) {
                Some(service) => json_answer(&inspect(service, &project.services[service].compose)),
                None => answer("404 Not Found", b"{\"message\":\"No such container\"}"),
            }
        }
        ["", "images", id, "json"] => json_answer(&json!({"Id": id, "Config": {"Env": null}})),
        ["", "networks", _] => json_answer(&json!({
            "Id": "net-1", "Driver": "bridge", "Options": {}, "IPAM": {"Driver": "default"}, "Labels": made_labels()
        })),
        ["", "volumes", _] => {
            json_answer(&json!({"Driver": "local", "Options": null, "Labels": made_labels()}))
        }
        ["", "info"] => json_answer(&json!({"DockerRootDir": "/var/lib/docker", "DefaultRuntime": "runc"})),
        ["", "events", _] => Said::new(crate::fake_docker::endless_head(), crate::fake_sshd::Then::Hang),
        _ => answer("400 Bad Request", b"{\"message\":\"a path that is not known\"}"),
    }
}

fn made_labels() -> Value {
    json!({labels::OWNER: STACK.owner(), labels::STACK: STACK.key.to_string()})
}

/// The labels of a container.
fn container_labels(name: &str, service: &Service) -> Value {
    let release = &RELEASE.release;
    let mut all = json!(service.labels);
    all[labels::SERVICE_HASH] = json!(release.service_hashes[name]);
    all[COMPOSE_PROJECT] = json!(release.project.name);
    all[COMPOSE_SERVICE] = json!(name);
    all[COMPOSE_NUMBER] = json!("1");
    all[COMPOSE_ONE_OFF] = json!("False");
    all
}

/// The list of containers.
pub(crate) fn containers() -> Value {
    let project = &RELEASE.release.project;
    let entry = |(name, service): (&String, &Service)| {
        let ports: Vec<Value> = service
            .ports
            .iter()
            .map(|port| json!({"PrivatePort": port.target, "PublicPort": port.published.parse::<u16>().unwrap(), "Type": "tcp"}))
            .collect();
        json!({
            "Id": container_id(name), "Names": [format!("/{}-{name}-1", project.name)], "ImageID": image_id(name),
            "State": "running", "Status": "Up 2 minutes (healthy)", "Labels": container_labels(name, service),
            "Ports": ports, "NetworkSettings": {"Networks": {project.network.clone(): {}}}, "Mounts": mounts(service),
        })
    };
    project.services.iter().map(|(name, service)| entry((name, &service.compose))).collect()
}

fn mounts(service: &Service) -> Value {
    let project = &RELEASE.release.project;
    let mount = |mount: &Mount| {
        let (name, source) = match mount.kind.as_str() {
            "volume" => {
                (project.volumes[&mount.source].name.clone(), "/var/lib/docker/volumes/x/_data".to_owned())
            }
            _ => (
                String::new(),
                format!("{DIRECTORY}/{}/{}", project.folder, mount.source.trim_start_matches("./")),
            ),
        };
        json!({"Type": mount.kind, "Name": name, "Source": source, "Destination": mount.target, "RW": !mount.read_only})
    };
    service.volumes.iter().map(mount).collect()
}

fn pairs(texts: impl Iterator<Item = (String, Value)>) -> Value {
    Value::Object(texts.collect::<Map<_, _>>())
}

fn inspect(name: &str, service: &Service) -> Value {
    let project = &RELEASE.release.project;
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    let environment: Vec<String> =
        service.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let check = service.healthcheck.as_ref().unwrap();
    let ports = service
        .ports
        .iter()
        .map(|port| (format!("{}/tcp", port.target), json!([{"HostIp": "", "HostPort": port.published}])));
    let tmpfs = service.tmpfs.iter().map(|tmpfs| tmpfs.split_once(':').unwrap());
    let limits = &service.limits;
    let nanoseconds = |text: &str| seconds(text) * 1_000_000_000;
    let upstream = format!("{name}-{}", RELEASE.release.service_hashes[name]);
    let aliases: Vec<&str> = [name]
        .into_iter()
        .chain(project.blue_green().any(|(other, _)| other == name).then_some(upstream.as_str()))
        .collect();
    json!({
        "Id": container_id(name), "Name": format!("/{}-{name}-1", project.name), "RestartCount": 0, "State": {"Pid": 4711},
        "Config": {
            "Hostname": &container_id(name)[..12], "User": service.user, "Env": environment,
            "Labels": container_labels(name, service), "StopTimeout": seconds(&service.stop_grace_period),
            "Healthcheck": {"Test": check.test, "Interval": nanoseconds(&check.interval), "Retries": check.retries,
                "Timeout": nanoseconds(&check.timeout), "StartPeriod": nanoseconds(&check.start_period)},
        },
        "HostConfig": {
            "Memory": limits.mem_limit, "MemorySwap": limits.memswap_limit, "PidsLimit": limits.pids_limit,
            "NanoCpus": format!("{:.0}", limits.cpus * 1e9).parse::<u64>().unwrap(), "ReadonlyRootfs": limits.read_only,
            "CapDrop": limits.cap_drop, "CapAdd": limits.cap_add, "SecurityOpt": limits.security_opt,
            "RestartPolicy": {"Name": service.restart}, "NetworkMode": project.network,
            "LogConfig": {"Type": service.logging.driver, "Config": service.logging.options},
            "PortBindings": pairs(ports), "Tmpfs": pairs(tmpfs.map(|(path, options)| (path.to_owned(), json!(options)))),
        },
        "Mounts": mounts(service),
        "NetworkSettings": {"Networks": {project.network.clone(): {"Aliases": aliases, "NetworkID": "net-1"}}},
    })
}
