//! Settings of a container: what the applied release asks for, and how they differ from what `inspect` says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    host::{Container, Engine, ImageConfig, Settings},
    project::{
        Project,
        compose::{
            BindOptions, COMPOSE_NUMBER, Healthcheck, Limits, Logging, Mount, Propagation, PublishedPort,
            Service, Ulimit, interpolated,
        },
        labels,
    },
    release::Release,
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
    let mut wanted = wanted(applied, name, &service.compose, image, (engine, directory));
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
///
/// A service is taken apart field by field: one that is rendered and not compared does not compile.
fn wanted(
    applied: &Release,
    name: &str,
    service: &Service,
    image: &ImageConfig,
    host: (&Engine, &str),
) -> Settings {
    let Service {
        image: _,      // compared by its ID
        scale: _,      // counted
        depends_on: _, // nothing that a container shows, but for a label that is Compose's own
        entrypoint,
        command,
        user,
        group_add,
        pid,
        network_mode,
        environment,
        ports,
        volumes,
        tmpfs,
        networks: _, // among the release's aliases
        extra_hosts,
        sysctls,
        ulimits,
        healthcheck,
        labels: own_labels,
        limits,
        logging,
        restart,
        stop_grace_period,
    } = service;
    let mut wanted = image.settings.clone();
    texts(&mut wanted, "environment", environment);
    texts(&mut wanted, "labels", own_labels);
    texts(&mut wanted, "sysctls", sysctls);
    process(&mut wanted, entrypoint.as_ref(), command.as_ref());
    unordered(&mut wanted, "group_add", group_add.iter().map(|group| interpolated(group)));
    let hosts = extra_hosts.iter().map(|(host, address)| interpolated(&format!("{host}:{address}")));
    unordered(&mut wanted, "extra_hosts", hosts);
    in_memory(&mut wanted, tmpfs);
    mounted(&mut wanted, volumes, &applied.project, host);
    let limited = |(name, Ulimit { soft, hard }): (&String, &Ulimit)| {
        (format!("ulimits/{name}"), format!("{soft}:{hard}"))
    };
    wanted.extend(ulimits.iter().map(limited));
    published(&mut wanted, ports);
    match network_mode {
        Some(mode) => drop(wanted.insert("network_mode".to_owned(), mode.as_str().to_owned())),
        None => joined(&mut wanted, applied, name),
    }
    if let Some(hash) = applied.service_hashes.get(name) {
        wanted.insert(format!("labels/{}", labels::SERVICE_HASH), hash.clone());
    }
    let texts = [
        ("user", user.as_ref().map(|user| interpolated(user))),
        ("pid", pid.map(|pid| pid.as_str().to_owned())),
        ("restart", Some(restart.clone())),
        ("stop_grace_period", Some(seconds(stop_grace_period).to_string())),
    ];
    wanted.extend(texts.into_iter().filter_map(|(field, text)| Some((field.to_owned(), text?))));
    log(&mut wanted, logging);
    health(&mut wanted, healthcheck.as_ref());
    limit(&mut wanted, limits);
    wanted
}

/// A setting for each key of a mapping.
fn texts(wanted: &mut Settings, field: &str, texts: &BTreeMap<String, String>) {
    wanted.extend(texts.iter().map(|(key, text)| (format!("{field}/{key}"), interpolated(text))));
}

/// A list whose order means nothing; nothing where it is empty.
fn unordered(wanted: &mut Settings, field: &str, list: impl Iterator<Item = String>) {
    let mut list: Vec<String> = list.collect();
    list.sort();
    if !list.is_empty() {
        wanted.insert(field.to_owned(), Value::from(list).to_string());
    }
}

/// What runs. Docker leaves out the image's command where the entrypoint is another one.
fn process(wanted: &mut Settings, entrypoint: Option<&Vec<String>>, command: Option<&Vec<String>>) {
    if entrypoint.is_some() {
        wanted.remove("command");
    }
    for (field, words) in [("entrypoint", entrypoint), ("command", command)] {
        let Some(words) = words else { continue };
        wanted.insert(field.to_owned(), list(words));
    }
}

/// A list in its order.
fn list(words: &[String]) -> String {
    words.iter().map(|word| interpolated(word)).collect::<Value>().to_string()
}

fn in_memory(wanted: &mut Settings, tmpfs: &[String]) {
    for tmpfs in tmpfs {
        let (path, options) = tmpfs.split_once(':').unwrap_or((tmpfs, ""));
        wanted.insert(format!("tmpfs/{path}"), options.to_owned());
    }
}

fn mounted(wanted: &mut Settings, mounts: &[Mount], project: &Project, (engine, directory): (&Engine, &str)) {
    for mount in mounts {
        // What an empty volume takes over when it is mounted first, nobody sees afterwards.
        let Mount { kind, source, target, read_only, bind, volume: _ } = mount;
        let source = match mount.project_folder() {
            Some(folder) => format!("{directory}/{}/{folder}", project.folder),
            None => project.volumes.get(source).map_or(source, |volume| &volume.name).clone(),
        };
        let propagation = match bind {
            Some(BindOptions { propagation }) => Some(*propagation),
            None if kind == "bind" && shares_data(&source, &engine.root) => Some(Propagation::Rslave),
            None => None,
        };
        let access = if *read_only { "ro" } else { "rw" };
        let propagation = propagation.map(|it| format!(" {}", it.as_str())).unwrap_or_default();
        wanted.insert(format!("volumes/{target}"), format!("{kind} {source} {access}{propagation}"));
    }
}

/// Whether a folder contains the engine's own data or lies in it: then Docker passes on mounts below it by itself.
fn shares_data(folder: &str, root: &str) -> bool {
    !root.is_empty() && (folder.starts_with(root) || root.starts_with(folder))
}

/// Published ports; those that the image announces, too, are no longer only announced.
fn published(wanted: &mut Settings, ports: &[PublishedPort]) {
    let mut bindings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // The mode means something in a swarm alone.
    for PublishedPort { target, host_ip, published, protocol, mode: _ } in ports {
        let address = host_ip.map_or_else(|| "*".to_owned(), |address| address.to_string());
        let inside = format!("{target}/{protocol}");
        wanted.remove(&format!("expose/{inside}"));
        bindings.entry(inside).or_default().insert(format!("{address}:{published}"));
    }
    let joined = |bindings: BTreeSet<String>| bindings.into_iter().collect::<Vec<_>>().join(" ");
    wanted.extend(bindings.into_iter().map(|(inside, all)| (format!("ports/{inside}"), joined(all))));
}

/// The project's network, and the names by which a service is known in it.
fn joined(wanted: &mut Settings, applied: &Release, name: &str) {
    let field = format!("networks/{}", applied.project.network);
    wanted.insert(format!("{field}/aliases"), applied.aliases(name).join(" "));
    wanted.insert(field, "connected".to_owned());
}

fn log(wanted: &mut Settings, logging: &Logging) {
    let Logging { driver, options } = logging;
    wanted.insert("logging/driver".to_owned(), driver.clone());
    texts(wanted, "logging/options", options);
}

/// The health check of a service, in the place of the image's own.
fn health(wanted: &mut Settings, check: Option<&Healthcheck>) {
    let Some(check) = check else { return };
    let Healthcheck { test, interval, timeout, retries, start_period } = check;
    let nanoseconds = |text: &str| (seconds(text) * 1_000_000_000).to_string();
    let fields = [
        ("test", list(test)),
        ("interval", nanoseconds(interval)),
        ("timeout", nanoseconds(timeout)),
        ("start_period", nanoseconds(start_period)),
        ("retries", retries.to_string()),
    ];
    wanted.retain(|field, _| !field.starts_with("healthcheck/"));
    wanted.extend(fields.map(|(field, text)| (format!("healthcheck/{field}"), text)));
}

fn limit(wanted: &mut Settings, limits: &Limits) {
    let Limits { mem_limit, memswap_limit, cpus, pids_limit, read_only, cap_drop, cap_add, security_opt } =
        limits;
    let numbers = [
        ("mem_limit", mem_limit.to_string()),
        ("memswap_limit", memswap_limit.to_string()),
        ("cpus", format!("{:.0}", cpus * 1_000_000_000.0)),
        ("pids_limit", pids_limit.to_string()),
    ];
    wanted.extend(numbers.map(|(field, text)| (field.to_owned(), text)));
    if *read_only {
        wanted.insert("read_only".to_owned(), "true".to_owned());
    }
    for (field, list) in [("cap_drop", cap_drop), ("cap_add", cap_add), ("security_opt", security_opt)] {
        unordered(wanted, field, list.iter().cloned());
    }
}

/// Whole seconds of a text such as `35s`, the one form that is rendered.
fn seconds(text: &str) -> u64 {
    text.trim_end_matches('s').parse().unwrap_or_default()
}

/// A setting as people are told of it. Values that may be secret are not shown: what is in the environment, in log
/// options and in labels that are not ours.
pub(super) fn shown(field: &str, text: Option<&str>, other: Option<&str>) -> String {
    let Some(text) = text else {
        return if field == "restart" { "no" } else { "not set" }.to_owned();
    };
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
