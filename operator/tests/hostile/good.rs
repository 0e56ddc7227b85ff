//! What a fake host says that has everything as its release wants it.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tasktracker_operator::{
    desired::{self, Project, compose::Service},
    release::{Ledger, Prepared, Release},
    source::Stack,
};

use crate::fake::{Behaviour, Reply, Said};
use std::sync::Arc;

pub(crate) const DIRECTORY: &str = "/opt/tasktracker";
const PROBE: &str =
    "user deploy\ndocker present\ncompose 2.26.1\nsocket open\napi 1.41 20.10.24\nfolder ok\nforwarding 1\n";

/// A release, and the answers that make it be in place.
#[derive(Clone)]
pub(crate) struct Good {
    pub(crate) stack: Stack,
    prepared: Prepared,
    ledger: String,
}

impl Good {
    pub(crate) fn new() -> Self {
        let text = include_str!("../../../examples/staging.yaml");
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "staging.yaml".into());
        let project = desired::for_host(&stack, &stack.spec.hosts[0]).remove(0);
        let images = project.services.keys().map(|name| (name.clone(), format!("sha256:{name}"))).collect();
        let prepared = Prepared::new(project, images);
        let current = Some(prepared.release.id.clone());
        let ledger = Ledger { current, ..Ledger::empty(&stack.owner(), &stack.key.to_string()) };
        Self { stack, prepared, ledger: serde_json::to_string_pretty(&ledger).unwrap() }
    }

    pub(crate) fn behaviour(&self) -> Behaviour {
        let (docker, helper) = (self.clone(), self.clone());
        Behaviour {
            docker: Arc::new(move |path| docker.docker(path)),
            helper: Arc::new(move |question| helper.helper(question)),
            probe: PROBE.to_owned(),
        }
    }

    fn release(&self) -> &Release {
        &self.prepared.release
    }

    fn project(&self) -> &Project {
        &self.prepared.release.project
    }

    pub(crate) fn helper(&self, question: &str) -> Said {
        let folder = &self.project().folder;
        let mut lines = String::new();
        match question.split(' ').next().unwrap_or_default() {
            "list" => {
                for part in ["staging", folder, &format!("{folder}/files"), &format!("{folder}/files/edge")] {
                    lines.push_str(&format!("S {part} 41ed 4096 1 x y\n"));
                }
                for (path, record) in &self.release().files {
                    lines.push_str(&format!("S {folder}/{path} 81a4 {} 2 x y\n", record.size));
                    lines.push_str(&format!("{}  {folder}/{path}\n", record.sha256));
                }
            }
            "texts" => {
                let manifest = serde_json::to_string(self.release()).unwrap();
                let path = format!("releases/{}/manifest.json", self.release().id);
                for (path, text) in [("ledger.json", &self.ledger), (path.as_str(), &manifest)] {
                    lines.push_str(&format!("T {folder}/{path} {}\n", BASE64_STANDARD.encode(text)));
                }
            }
            _ => {}
        }
        Said::Lines(format!("{lines}END 1\n"))
    }

    pub(crate) fn docker(&self, path: &str) -> Reply {
        let project = self.project();
        let words: Vec<&str> = path.trim_start_matches('/').split(['/', '?']).collect();
        let labels = json!({"tasktracker.dev/owner": project.owner, "tasktracker.dev/stack": self.stack.key.to_string()});
        match words.as_slice() {
            ["info", ..] => {
                Reply::Json(json!({"DockerRootDir": "/var/lib/docker", "DefaultRuntime": "runc"}))
            }
            ["containers", "json", ..] => Reply::Json(
                project.services.iter().map(|(name, service)| self.listed(name, service)).collect(),
            ),
            ["containers", id, "json"] => match project.services.get(id.trim_end_matches("-id")) {
                Some(service) => Reply::Json(self.inspected(id.trim_end_matches("-id"), service)),
                None => Reply::Status(404, "{}".to_owned()),
            },
            ["images", ..] => Reply::Json(json!({"Id": "sha256:x", "Config": {}})),
            ["networks", ..] => Reply::Json(
                json!({"Id": "n", "Driver": "bridge", "IPAM": {"Driver": "default"}, "Labels": labels}),
            ),
            ["volumes", ..] => Reply::Json(json!({"Driver": "local", "Labels": labels})),
            _ => Reply::Status(404, "{}".to_owned()),
        }
    }

    pub(crate) fn listed(&self, name: &str, service: &Service) -> Value {
        json!({
            "Id": format!("{name}-id"), "Names": [format!("/{}-{name}-1", self.project().name)], "ImageID": format!("sha256:{name}"),
            "State": "running", "Status": "Up 2 minutes (healthy)", "Labels": self.labels(name, service),
            "Ports": service.ports.iter().map(|port| json!({"PublicPort": port.published.parse::<u16>().unwrap(), "Type": "tcp"})).collect::<Vec<_>>(),
        })
    }

    fn labels(&self, name: &str, service: &Service) -> BTreeMap<String, String> {
        let mut labels = service.labels.clone();
        for (key, value) in [
            ("project", self.project().name.as_str()),
            ("service", name),
            ("container-number", "1"),
            ("oneoff", "False"),
        ] {
            labels.insert(format!("com.docker.compose.{key}"), value.to_owned());
        }
        labels.insert("tasktracker.dev/service-hash".to_owned(), self.release().service_hashes[name].clone());
        labels
    }

    fn inspected(&self, name: &str, service: &Service) -> Value {
        let project = self.project();
        let nanoseconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap() * 1_000_000_000;
        let check = &service.healthcheck;
        let ports: BTreeMap<String, Value> = service
            .ports
            .iter()
            .map(|port| (format!("{}/tcp", port.target), json!([{"HostIp": "", "HostPort": port.published}])))
            .collect();
        let mounts: Vec<Value> = service
            .volumes
            .iter()
            .map(|mount| {
                let source =
                    format!("{DIRECTORY}/{}/{}", project.folder, mount.source.trim_start_matches("./"));
                json!({"Type": mount.kind, "Name": project.volumes.get(&mount.source), "Source": source,
                    "Destination": mount.target, "RW": !mount.read_only})
            })
            .collect();
        let limits = &service.limits;
        json!({
            "Id": format!("{name}-id"), "Name": format!("/{}-{name}-1", project.name), "RestartCount": 0,
            "State": {"Pid": 7},
            "Config": {
                "Hostname": format!("{name}-id").chars().take(12).collect::<String>(), "User": service.user,
                "Env": service.environment.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
                "Labels": self.labels(name, service), "StopTimeout": nanoseconds(&service.stop_grace_period) / 1_000_000_000,
                "Healthcheck": {"Test": check.test, "Interval": nanoseconds(&check.interval), "Timeout": nanoseconds(&check.timeout),
                    "StartPeriod": nanoseconds(&check.start_period), "Retries": check.retries},
            },
            "HostConfig": {
                "Memory": limits.mem_limit, "MemorySwap": limits.memswap_limit, "NanoCpus": format!("{:.0}", limits.cpus * 1e9).parse::<u64>().unwrap(),
                "PidsLimit": limits.pids_limit, "ReadonlyRootfs": limits.read_only, "CapDrop": limits.cap_drop, "CapAdd": limits.cap_add,
                "SecurityOpt": limits.security_opt, "RestartPolicy": {"Name": service.restart}, "PortBindings": ports,
                "LogConfig": {"Type": service.logging.driver, "Config": service.logging.options},
                "Tmpfs": service.tmpfs.iter().map(|tmpfs| tmpfs.split_once(':').unwrap()).collect::<BTreeMap<_, _>>(),
            },
            "Mounts": mounts,
            "NetworkSettings": {"Networks": {project.network.clone(): {"NetworkID": "n", "Aliases": [name]}}},
        })
    }
}
