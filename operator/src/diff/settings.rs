//! Settings of a container: what the applied release asks for, and how they differ from what `inspect` says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    host::{Container, Engine, ImageConfig, Settings},
    project::{
        compose::{self, COMPOSE_NUMBER},
        labels,
    },
    release::{self, Release},
};

/// Labels that Compose keeps for itself.
const COMPOSE_LABELS: [&str; 2] = ["labels/com.docker.compose.", "labels/desktop.docker.io/"];
/// A volume that Docker named by itself has a name of this many hexadecimal digits.
const ANONYMOUS_DIGITS: usize = 64;

/// One setting that differs: field, wanted and found; nothing on a side where it is Docker's default.
pub(super) type Difference = (String, Option<String>, Option<String>);

/// What differs between a container and its service, field by field.
pub(super) fn differences(
    applied: &Release,
    name: &str,
    container: &Container,
    image: &ImageConfig,
    engine: &Engine,
    directory: &str,
) -> Vec<Difference> {
    let (Some(service), Some(details)) = (applied.project.services.get(name), &container.details) else {
        return Vec::new();
    };
    let mut wanted = wanted(applied, name, &service.compose, image, directory);
    let number = container.labels.get(COMPOSE_NUMBER).map_or("1", String::as_str);
    let own_name = format!("{}-{name}-{number}", applied.project.name);
    let mut found = details.settings.clone();
    // A container that was renamed keeps the name that Compose gave it as an alias: its own name is no alias.
    let is_aliases = |field: &String| field.starts_with("networks/") && field.ends_with("/aliases");
    for (_, aliases) in found.iter_mut().filter(|(field, _)| is_aliases(field)) {
        *aliases = aliases.split(' ').filter(|alias| *alias != own_name).collect::<Vec<_>>().join(" ");
    }
    found.retain(|field, text| !(is_aliases(field) && text.is_empty()));
    wanted.insert("container_name".to_owned(), own_name);
    found.insert("container_name".to_owned(), container.name.clone());
    found.retain(|field, text| !is_anonymous(field, text, image));
    if found.get("runtime") == Some(&engine.default_runtime) {
        found.remove("runtime");
    }
    for settings in [&mut wanted, &mut found] {
        settings.retain(|field, _| {
            !engine.unsupported.contains(&field.as_str())
                && !COMPOSE_LABELS.iter().any(|prefix| field.starts_with(prefix))
        });
    }
    compare(&wanted, &found)
}

/// The fields in which two settings differ.
pub(super) fn compare(wanted: &Settings, found: &Settings) -> Vec<Difference> {
    let fields: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    fields
        .into_iter()
        .filter(|field| wanted.get(*field) != found.get(*field))
        .map(|field| (field.clone(), wanted.get(field).cloned(), found.get(field).cloned()))
        .collect()
}

/// A volume that an image asks for and that nobody named.
fn is_anonymous(field: &str, text: &str, image: &ImageConfig) -> bool {
    let Some(target) = field.strip_prefix("volumes/") else { return false };
    let name = text.strip_prefix("volume ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    image.volumes.iter().any(|volume| volume == target)
        && name.len() == ANONYMOUS_DIGITS
        && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a container of a service should be like, in the form in which `inspect` is read.
fn wanted(
    applied: &Release,
    name: &str,
    service: &compose::Service,
    image: &ImageConfig,
    directory: &str,
) -> Settings {
    let project = &applied.project;
    let mut wanted = image.settings.clone();
    let mut put = |field: String, text: String| drop(wanted.insert(field, text));
    for (key, value) in &service.environment {
        put(format!("environment/{key}"), value.replace("$$", "$"));
    }
    for (key, value) in &service.labels {
        put(format!("labels/{key}"), value.replace("$$", "$"));
    }
    if let Some(hash) = applied.service_hashes.get(name) {
        put(format!("labels/{}", labels::SERVICE_HASH), hash.clone());
    }
    for tmpfs in &service.tmpfs {
        let (path, options) = tmpfs.split_once(':').unwrap_or((tmpfs, ""));
        put(format!("tmpfs/{path}"), options.to_owned());
    }
    for mount in &service.volumes {
        let access = if mount.read_only { "ro" } else { "rw" };
        let source = match mount.kind.as_str() {
            "volume" => {
                project.volumes.get(&mount.source).map_or(&mount.source, |volume| &volume.name).clone()
            }
            _ => format!("{directory}/{}/{}", project.folder, mount.source.trim_start_matches("./")),
        };
        put(format!("volumes/{}", mount.target), format!("{} {source} {access}", mount.kind));
    }
    if let Some(user) = &service.user {
        put("user".to_owned(), user.clone());
    }
    put(format!("networks/{}", project.network), "connected".to_owned());
    let hash =
        applied.service_hashes.get(name).filter(|_| project.blue_green().any(|(other, _)| other == name));
    let upstream = hash.map(|hash| format!(" {}", release::alias(name, hash))).unwrap_or_default();
    put(format!("networks/{}/aliases", project.network), format!("{name}{upstream}"));
    put("restart".to_owned(), service.restart.clone());
    put("stop_grace_period".to_owned(), seconds(&service.stop_grace_period).to_string());
    put("logging/driver".to_owned(), service.logging.driver.clone());
    for (key, value) in &service.logging.options {
        put(format!("logging/options/{key}"), value.clone());
    }
    for port in &service.ports {
        wanted.remove(&format!("expose/{}/{}", port.target, port.protocol));
        wanted.insert(format!("ports/{}/{}", port.target, port.protocol), format!("*:{}", port.published));
    }
    health(service, &mut wanted);
    limits(service, &mut wanted);
    wanted
}

fn health(service: &compose::Service, wanted: &mut Settings) {
    wanted.retain(|field, _| !field.starts_with("healthcheck/"));
    let check = &service.healthcheck;
    let nanoseconds = |text: &str| (seconds(text) * 1_000_000_000).to_string();
    let fields = [
        ("test", Value::from(check.test.clone()).to_string()),
        ("interval", nanoseconds(&check.interval)),
        ("timeout", nanoseconds(&check.timeout)),
        ("start_period", nanoseconds(&check.start_period)),
        ("retries", check.retries.to_string()),
    ];
    wanted.extend(fields.map(|(field, text)| (format!("healthcheck/{field}"), text)));
}

fn limits(service: &compose::Service, wanted: &mut Settings) {
    let compose::Limits {
        mem_limit,
        memswap_limit,
        cpus,
        pids_limit,
        read_only,
        cap_drop,
        cap_add,
        security_opt,
    } = &service.limits;
    let mut put = |field: &str, text: String| drop(wanted.insert(field.to_owned(), text));
    put("mem_limit", mem_limit.to_string());
    put("memswap_limit", memswap_limit.to_string());
    put("cpus", format!("{:.0}", cpus * 1_000_000_000.0));
    put("pids_limit", pids_limit.to_string());
    if *read_only {
        put("read_only", "true".to_owned());
    }
    for (field, list) in [("cap_drop", cap_drop), ("cap_add", cap_add), ("security_opt", security_opt)] {
        let mut list = list.clone();
        list.sort();
        if !list.is_empty() {
            put(field, Value::from(list).to_string());
        }
    }
}

/// Whole seconds of a text such as `35s`, the one form that is rendered.
fn seconds(text: &str) -> u64 {
    text.trim_end_matches('s').parse().unwrap_or_default()
}

/// A setting as people are told of it. Values that may be secret are not shown: what is in the environment, in log
/// options and in labels that are not ours.
pub(super) fn shown(field: &str, text: Option<&str>, other: Option<&str>) -> String {
    let Some(text) = text else { return "not set".to_owned() };
    let hidden = ["environment/", "logging/options/"].iter().any(|prefix| field.starts_with(prefix))
        || (field.starts_with("labels/") && !field.starts_with("labels/tasktracker.dev/"));
    if hidden {
        // The text differs from the other one by more than its length where that is all that could be told.
        let another =
            if other.is_some_and(|other| other.len() == text.len()) { "another value" } else { "a value" };
        return format!("{another} of {} bytes", text.len());
    }
    let sizes = ["mem_limit", "memswap_limit", "mem_reservation", "shm_size"];
    let mebibytes = text.parse::<u64>().ok().filter(|bytes| sizes.contains(&field) && bytes % (1 << 20) == 0);
    if let Some(bytes) = mebibytes {
        return format!("{}Mi", bytes >> 20);
    }
    let nanoseconds = ["interval", "timeout", "start_period", "start_interval"];
    match (field, text.parse::<f64>()) {
        ("cpus", Ok(number)) => (number / 1e9).to_string(),
        ("stop_grace_period", _) => format!("{text}s"),
        (field, Ok(number)) if nanoseconds.iter().any(|name| field == format!("healthcheck/{name}")) => {
            format!("{}s", number / 1e9)
        }
        _ => text.to_owned(),
    }
}

/// Settings of a network or volume that the operator made: its labels, and nothing else.
pub(super) fn of_made(owner: &str, stack: &str) -> Settings {
    BTreeMap::from([
        (format!("labels/{}", labels::OWNER), owner.to_owned()),
        (format!("labels/{}", labels::STACK), stack.to_owned()),
    ])
}
