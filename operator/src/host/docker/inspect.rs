//! What `inspect` tells, in one form: a field of the Compose Specification and a text for each setting.
//!
//! What is as Docker has it by default is left out, whichever way an engine says so, and so is what we do not know.
//! Two containers with the same settings differ in nothing that Compose can set or Docker can change.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Engine, NetworkOrVolume,
    container::{entries, texts},
};

/// Settings of a container, network or volume: field and text.
pub type Settings = BTreeMap<String, String>;

/// What `inspect` says of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Its settings.
    pub settings: Settings,
    /// Its first process, as the host numbers it; none while it does not run.
    pub process: Option<u32>,
    /// How often Docker started it again by itself.
    pub restarts: u64,
    /// When it was started last, by the daemon's clock; nothing where it never was.
    pub started_at: Option<Timestamp>,
    /// How long it has run since; nothing while it does not run, or where the daemon does not tell its time.
    pub uptime: Option<Duration>,
    /// Exit status of its last run; nothing while it runs.
    pub exit_code: Option<i32>,
    /// What its health check said last, where that failed.
    pub health_output: Option<String>,
    /// Whether Docker calls it unhealthy although no check of its health failed: it was paused, and is not checked again
    /// before its next turn.
    pub awaits_check: bool,
    /// IDs of its networks, by name; only of those it is really in.
    pub network_ids: BTreeMap<String, String>,
}

/// What an image brings along for its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Settings that a container has unless it is given others.
    pub settings: Settings,
    /// Folders that get a volume of their own unless they are given one.
    pub volumes: Vec<String>,
}

/// Characters of a health check's output that are kept.
const MOST_OUTPUT: usize = 300;

/// Fields with one value: where it is, what Compose calls it, and the texts that mean Docker's default.
const FIELDS: &[(&str, &str, &[&str])] = &[
    ("/Config/Domainname", "domainname", &[]),
    ("/Config/OpenStdin", "stdin_open", &[]),
    ("/Config/StopSignal", "stop_signal", &["SIGTERM"]),
    ("/Config/StopTimeout", "stop_grace_period", &[]),
    ("/Config/Tty", "tty", &[]),
    ("/Config/User", "user", &[]),
    ("/Config/WorkingDir", "working_dir", &["/"]),
    ("/HostConfig/AutoRemove", "auto_remove", &[]),
    ("/HostConfig/BlkioWeight", "blkio_config/weight", &[]),
    ("/HostConfig/CgroupParent", "cgroup_parent", &[]),
    ("/HostConfig/CpuPeriod", "cpu_period", &[]),
    ("/HostConfig/CpuQuota", "cpu_quota", &["-1"]),
    ("/HostConfig/CpuRealtimePeriod", "cpu_rt_period", &[]),
    ("/HostConfig/CpuRealtimeRuntime", "cpu_rt_runtime", &[]),
    ("/HostConfig/CpuShares", "cpu_shares", &[]),
    ("/HostConfig/CpusetCpus", "cpuset", &[]),
    ("/HostConfig/CpusetMems", "cpuset_mems", &[]),
    ("/HostConfig/Init", "init", &[]),
    ("/HostConfig/IpcMode", "ipc", &["private", "shareable"]),
    ("/HostConfig/KernelMemory", "kernel_memory", &[]),
    ("/HostConfig/KernelMemoryTCP", "kernel_memory_tcp", &[]),
    ("/HostConfig/Memory", "mem_limit", &[]),
    ("/HostConfig/MemoryReservation", "mem_reservation", &[]),
    ("/HostConfig/MemorySwap", "memswap_limit", &[]),
    ("/HostConfig/MemorySwappiness", "mem_swappiness", &["-1"]),
    ("/HostConfig/NanoCpus", "cpus", &[]),
    ("/HostConfig/OomKillDisable", "oom_kill_disable", &[]),
    ("/HostConfig/OomScoreAdj", "oom_score_adj", &[]),
    ("/HostConfig/PidMode", "pid", &[]),
    ("/HostConfig/PidsLimit", "pids_limit", &["-1"]),
    ("/HostConfig/Privileged", "privileged", &[]),
    ("/HostConfig/PublishAllPorts", "publish_all_ports", &[]),
    ("/HostConfig/ReadonlyRootfs", "read_only", &[]),
    ("/HostConfig/Runtime", "runtime", &[]),
    ("/HostConfig/ShmSize", "shm_size", &["67108864"]),
    ("/HostConfig/UTSMode", "uts", &[]),
    ("/HostConfig/UsernsMode", "userns_mode", &[]),
    ("/HostConfig/VolumeDriver", "volume_driver", &["local"]),
    ("/HostConfig/LogConfig/Type", "logging/driver", &[]),
];

/// Lists: where, what Compose calls them, and whether their order means nothing.
const LISTS: &[(&str, &str, bool)] = &[
    ("/Config/Cmd", "command", false),
    ("/Config/Entrypoint", "entrypoint", false),
    ("/Config/Healthcheck/Test", "healthcheck/test", false),
    ("/HostConfig/BlkioDeviceReadBps", "blkio_config/device_read_bps", true),
    ("/HostConfig/BlkioDeviceReadIOps", "blkio_config/device_read_iops", true),
    ("/HostConfig/BlkioDeviceWriteBps", "blkio_config/device_write_bps", true),
    ("/HostConfig/BlkioDeviceWriteIOps", "blkio_config/device_write_iops", true),
    ("/HostConfig/BlkioWeightDevice", "blkio_config/weight_device", true),
    ("/HostConfig/CapAdd", "cap_add", true),
    ("/HostConfig/CapDrop", "cap_drop", true),
    ("/HostConfig/DeviceCgroupRules", "device_cgroup_rules", true),
    ("/HostConfig/DeviceRequests", "device_requests", true),
    ("/HostConfig/Devices", "devices", true),
    ("/HostConfig/Dns", "dns", false),
    ("/HostConfig/DnsOptions", "dns_opt", false),
    ("/HostConfig/DnsSearch", "dns_search", false),
    ("/HostConfig/ExtraHosts", "extra_hosts", true),
    ("/HostConfig/GroupAdd", "group_add", true),
    ("/HostConfig/Links", "links", true),
    ("/HostConfig/VolumesFrom", "volumes_from", true),
];

/// Mappings: where, and what Compose calls them; a setting for each key.
const MAPPINGS: &[(&str, &str)] = &[
    ("/Config/Labels", "labels"),
    ("/HostConfig/LogConfig/Config", "logging/options"),
    ("/HostConfig/StorageOpt", "storage_opt"),
    ("/HostConfig/Sysctls", "sysctls"),
    ("/HostConfig/Tmpfs", "tmpfs"),
];

/// Times of a health check, in nanoseconds; 0 is Docker's default.
const HEALTH: [(&str, &str); 5] = [
    ("Interval", "interval"),
    ("Retries", "retries"),
    ("StartInterval", "start_interval"),
    ("StartPeriod", "start_period"),
    ("Timeout", "timeout"),
];

impl Details {
    /// Reads the answer of `GET /containers/ID/json`, given at `now` by the daemon's clock.
    pub(crate) fn read(answer: &Value, now: Option<Timestamp>) -> Self {
        let mut settings = common(answer);
        let id = answer["Id"].as_str().unwrap_or_default();
        let short = id.get(..12).unwrap_or(id);
        let name = text(&answer["Name"]).trim_start_matches('/').to_owned();
        let hostname = text(&answer["Config"]["Hostname"]);
        let network_mode = borrowed_network(&answer["HostConfig"]["NetworkMode"]);
        if hostname != short && network_mode != "host" {
            put(&mut settings, "hostname", hostname.clone());
        }
        put(&mut settings, "network_mode", network_mode.clone());
        security(&answer["HostConfig"], &mut settings);
        restart(&answer["HostConfig"]["RestartPolicy"], &mut settings);
        unmasked(&answer["HostConfig"], &mut settings);
        ports(&answer["HostConfig"]["PortBindings"], &mut settings);
        exposed(answer, &mut settings);
        ulimits(&answer["HostConfig"]["Ulimits"], &mut settings);
        for mount in entries(&answer["Mounts"]) {
            mounted(mount, &mut settings);
        }
        let mut network_ids = BTreeMap::new();
        for (network, joined) in answer["NetworkSettings"]["Networks"].as_object().into_iter().flatten() {
            if *network == network_mode {
                continue;
            }
            joined_network(network, joined, &[&name, short, &hostname], &mut settings);
            let network_id = text(&joined["NetworkID"]);
            if !network_id.is_empty() {
                network_ids.insert(network.clone(), network_id);
            }
        }
        let restarts = answer["RestartCount"].as_u64().unwrap_or_default();
        let process =
            answer["State"]["Pid"].as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0);
        let started_at = started_at(&answer["State"]);
        let exit_code = exit_code(&answer["State"]).filter(|_| process.is_none() && started_at.is_some());
        let health = &answer["State"]["Health"];
        let health_output = failed_check(&health["Log"]);
        let awaits_check = health["Status"] == "unhealthy" && health["FailingStreak"] == 0;
        let details = Self {
            settings,
            process,
            restarts,
            started_at,
            uptime: None,
            exit_code,
            health_output,
            awaits_check,
            network_ids,
        };
        details.at(now)
    }

    /// The same details at another time, by the daemon's clock.
    pub(super) fn at(self, now: Option<Timestamp>) -> Self {
        let uptime = self.process.and_then(|_| Some(elapsed(self.started_at?, now?)));
        Self { uptime, ..self }
    }
}

/// A container that never ran was started in the year 1.
fn started_at(state: &Value) -> Option<Timestamp> {
    let started = state["StartedAt"].as_str()?.parse::<Timestamp>().ok()?;
    (started > Timestamp::UNIX_EPOCH).then_some(started)
}

/// The output of the last health check, where that failed; on one line, and not a long one.
fn failed_check(log: &Value) -> Option<String> {
    let last = log.as_array()?.last().filter(|last| last["ExitCode"] != 0)?;
    let words: Vec<&str> = last["Output"].as_str()?.split_whitespace().collect();
    let output: String = words.join(" ").chars().take(MOST_OUTPUT).collect();
    (!output.is_empty()).then_some(output)
}

fn exit_code(state: &Value) -> Option<i32> {
    i32::try_from(state["ExitCode"].as_i64()?).ok()
}

/// Nothing where `end` is earlier: the time of an answer is cut to seconds.
fn elapsed(begin: Timestamp, end: Timestamp) -> Duration {
    end.duration_since(begin).max(SignedDuration::ZERO).unsigned_abs()
}

impl ImageConfig {
    /// Reads the answer of `GET /images/ID/json`.
    pub(crate) fn read(answer: &Value) -> Self {
        let mut settings = common(answer);
        exposed(answer, &mut settings);
        let volumes = answer["Config"]["Volumes"].as_object().into_iter().flatten();
        Self { settings, volumes: volumes.map(|(path, _)| path.clone()).collect() }
    }
}

/// What containers and images have alike.
fn common(answer: &Value) -> Settings {
    let mut settings = Settings::new();
    let at = |pointer: &str| answer.pointer(pointer).unwrap_or(&Value::Null);
    for (pointer, field, defaults) in FIELDS {
        let value = at(pointer);
        let text = text(value);
        let is_nothing = *value == Value::Bool(false) || value.as_i64() == Some(0);
        if !is_nothing && !defaults.contains(&text.as_str()) {
            put(&mut settings, field, text);
        }
    }
    for (pointer, field, unordered) in LISTS {
        let mut texts: Vec<String> = entries(at(pointer)).map(text).collect();
        if *unordered {
            texts = texts.iter().map(|text| text.trim_start_matches("CAP_").to_owned()).collect();
            texts.sort();
        }
        if !texts.is_empty() {
            put(&mut settings, field, Value::from(texts).to_string());
        }
    }
    for (pointer, field) in MAPPINGS {
        for (key, value) in texts(at(pointer)) {
            settings.insert(format!("{field}/{key}"), value);
        }
    }
    for entry in entries(at("/Config/Env")) {
        let entry = text(entry);
        let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
        settings.insert(format!("environment/{name}"), value.to_owned());
    }
    for (key, field) in HEALTH {
        let text = text(&at("/Config/Healthcheck")[key]);
        if text != "0" {
            put(&mut settings, &format!("healthcheck/{field}"), text);
        }
    }
    settings
}

/// A text as it is, anything else as JSON; nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn put(settings: &mut Settings, field: &str, text: String) {
    if !text.is_empty() {
        settings.insert(field.to_owned(), text);
    }
}

fn restart(policy: &Value, settings: &mut Settings) {
    let (name, tries) = (text(&policy["Name"]), text(&policy["MaximumRetryCount"]));
    let tries = if ["", "0"].contains(&tries.as_str()) { String::new() } else { format!(":{tries}") };
    if name != "no" && !name.is_empty() {
        put(settings, "restart", format!("{name}{tries}"));
    }
}

/// Docker itself turns labels off where a container shares the host's processes or memory: the cause is told, not this.
fn security(host_config: &Value, settings: &mut Settings) {
    let shares = ["PidMode", "IpcMode"].iter().any(|key| host_config[key] == "host")
        || host_config["Privileged"] == true;
    let options = entries(&host_config["SecurityOpt"]).map(text);
    let mut options: Vec<String> = options.filter(|option| !shares || option != "label=disable").collect();
    options.sort();
    if !options.is_empty() {
        put(settings, "security_opt", Value::from(options).to_string());
    }
}

/// Docker hides parts of `/proc` and `/sys` unless it is told not to: then the lists are there and empty.
fn unmasked(host_config: &Value, settings: &mut Settings) {
    let opened = ["MaskedPaths", "ReadonlyPaths"]
        .iter()
        .any(|key| host_config.get(key).is_some_and(|paths| paths.as_array().is_none_or(Vec::is_empty)));
    if opened && host_config["Privileged"] != true {
        put(settings, "systempaths", "unconfined".to_owned());
    }
}

/// The namespace of a network that is not the container's own; nothing for one of its own, whose networks are told apart.
fn borrowed_network(mode: &Value) -> String {
    let mode = text(mode);
    let is_borrowed = ["host", "none"].contains(&mode.as_str()) || mode.starts_with("container:");
    if is_borrowed { mode } else { String::new() }
}

/// The address of a published port in its usual form, as an engine keeps the text that it was given; `*` for every one.
fn listening_at(address: &str) -> String {
    let usual = address.parse().map(|address: IpAddr| address.to_string());
    let address = usual.unwrap_or_else(|_| address.to_owned());
    if address.is_empty() { "*".to_owned() } else { address }
}

fn ports(bindings: &Value, settings: &mut Settings) {
    for (port, addresses) in bindings.as_object().into_iter().flatten() {
        let mut published: Vec<String> = entries(addresses)
            .map(|binding| {
                format!("{}:{}", listening_at(&text(&binding["HostIp"])), text(&binding["HostPort"]))
            })
            .collect();
        published.sort();
        put(settings, &format!("ports/{port}"), published.join(" "));
    }
}

/// Ports that are only announced; those that are published stand there already.
fn exposed(answer: &Value, settings: &mut Settings) {
    for (port, _) in answer["Config"]["ExposedPorts"].as_object().into_iter().flatten() {
        if !settings.contains_key(&format!("ports/{port}")) {
            put(settings, &format!("expose/{port}"), "exposed".to_owned());
        }
    }
}

fn ulimits(limits: &Value, settings: &mut Settings) {
    for limit in entries(limits) {
        let words = format!("{}:{}", text(&limit["Soft"]), text(&limit["Hard"]));
        put(settings, &format!("ulimits/{}", text(&limit["Name"])), words);
    }
}

fn mounted(mount: &Value, settings: &mut Settings) {
    let kind = text(&mount["Type"]);
    let source = if kind == "volume" { text(&mount["Name"]) } else { text(&mount["Source"]) };
    let access = if mount["RW"] == false { "ro" } else { "rw" };
    let propagation = text(&mount["Propagation"]);
    let propagation = if ["", "rprivate"].contains(&propagation.as_str()) {
        String::new()
    } else {
        format!(" {propagation}")
    };
    let words = format!("{kind} {source} {access}{propagation}");
    put(settings, &format!("volumes/{}", text(&mount["Destination"])), words);
}

/// A network that a container is in; its own names, which Docker adds, are left out of the aliases.
fn joined_network(network: &str, joined: &Value, own: &[&str], settings: &mut Settings) {
    let field = |part: &str| format!("networks/{network}{part}");
    put(settings, &field(""), "connected".to_owned());
    let mut aliases: Vec<String> =
        entries(&joined["Aliases"]).map(text).filter(|alias| !own.contains(&alias.as_str())).collect();
    aliases.sort();
    aliases.dedup();
    put(settings, &field("/aliases"), aliases.join(" "));
    for (key, part) in [("IPv4Address", "/ipv4_address"), ("IPv6Address", "/ipv6_address")] {
        put(settings, &field(part), text(&joined["IPAMConfig"][key]));
    }
    let links: Vec<String> = entries(&joined["Links"]).map(text).collect();
    put(settings, &field("/links"), links.join(" "));
    let options = texts(&joined["DriverOpts"]);
    for (key, value) in options {
        put(settings, &field(&format!("/driver_opts/{key}")), value);
    }
}

impl NetworkOrVolume {
    /// Reads the answer of `GET /networks/NAME`. Addresses are Docker's own choice.
    pub(crate) fn network(answer: &Value) -> Self {
        let mut settings = made(answer, "bridge");
        for (key, field) in [
            ("Attachable", "attachable"),
            ("ConfigOnly", "config_only"),
            ("EnableIPv6", "enable_ipv6"),
            ("Ingress", "ingress"),
            ("Internal", "internal"),
        ] {
            if answer[key] == true {
                put(&mut settings, field, "true".to_owned());
            }
        }
        let driver = text(&answer["IPAM"]["Driver"]);
        if driver != "default" {
            put(&mut settings, "ipam/driver", driver);
        }
        Self { id: text(&answer["Id"]), settings }
    }

    /// Reads the answer of `GET /volumes/NAME`.
    pub(crate) fn volume(answer: &Value) -> Self {
        Self { id: String::new(), settings: made(answer, "local") }
    }
}

fn made(answer: &Value, usual_driver: &str) -> Settings {
    let mut settings = Settings::new();
    let driver = text(&answer["Driver"]);
    if driver != usual_driver {
        put(&mut settings, "driver", driver);
    }
    for (key, field) in [("Labels", "labels"), ("Options", "driver_opts")] {
        for (name, value) in texts(&answer[key]) {
            settings.insert(format!("{field}/{name}"), value);
        }
    }
    settings
}

impl Engine {
    /// Reads the answer of `GET /info`.
    pub(crate) fn read(answer: &Value) -> Self {
        let mut unsupported = Vec::new();
        for (key, fields) in [
            ("MemoryLimit", &["mem_limit", "memswap_limit"][..]),
            ("SwapLimit", &["memswap_limit"]),
            ("PidsLimit", &["pids_limit"]),
            ("CpuCfsQuota", &["cpus"]),
        ] {
            if answer[key] == false {
                unsupported.extend(fields);
            }
        }
        let default_runtime = answer["DefaultRuntime"].as_str().unwrap_or("runc").to_owned();
        Self { root: text(&answer["DockerRootDir"]), default_runtime, unsupported }
    }
}

/// For fuzzing: any bytes as any answer.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let _ = super::container::read_list(data);
    if let Ok(answer) = serde_json::from_slice::<Value>(data) {
        let _ = super::Container::read(&answer);
        let _ = Details::read(&answer, None);
        let _ = ImageConfig::read(&answer);
        let _ = (NetworkOrVolume::network(&answer), NetworkOrVolume::volume(&answer), Engine::read(&answer));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_left_out_however_an_engine_says_them() {
        let old = json!({"Id": "0123456789abcdef", "Name": "/a", "Config": {"Hostname": "0123456789ab", "Tty": false, "Env": null, "Labels": {}},
            "HostConfig": {"Memory": 0, "PidsLimit": null, "IpcMode": "private", "ShmSize": 67_108_864, "RestartPolicy": {"Name": "no"},
                "NetworkMode": "default", "OomKillDisable": false, "CapAdd": null, "MaskedPaths": ["/proc/acpi"], "ReadonlyPaths": ["/proc/bus"]}});
        let new = json!({"Id": "0123456789abcdef", "Config": {"Hostname": "0123456789ab", "SomethingNew": {"x": 1}},
            "HostConfig": {"PidsLimit": -1, "CapAdd": [], "RestartPolicy": {"Name": ""}, "OomKillDisable": null}});
        assert_eq!(Details::read(&old, None).settings, Settings::new());
        assert_eq!(Details::read(&new, None).settings, Settings::new());
    }

    #[test]
    fn answers_of_any_form_are_no_panic() {
        for answer in [
            json!(null),
            json!([1]),
            json!({"Config": 3, "HostConfig": [], "Mounts": {"a": 1}, "RestartCount": -4}),
            json!({"Config": {"Env": [1, null], "Labels": [2]}, "HostConfig": {"Memory": -7, "PidsLimit": "many", "Ulimits": [null]}}),
            json!({"State": {"StartedAt": "long ago", "ExitCode": 1e300}}),
            json!({"State": {"StartedAt": 5, "ExitCode": "-"}}),
        ] {
            let details = Details::read(&answer, None);
            assert_eq!((details.restarts, details.started_at, details.exit_code), (0, None, None));
        }
    }

    #[test]
    fn uptime_and_exit_code_are_read_from_the_state() {
        let now: Timestamp = "2026-01-01T10:00:12Z".parse().unwrap();
        let read = |process: u32, started: &str, code: i64, now: Option<Timestamp>| {
            let state = json!({"Pid": process, "StartedAt": started, "ExitCode": code});
            let details = Details::read(&json!({"State": state}), now);
            (details.uptime, details.exit_code)
        };
        let started = "2026-01-01T10:00:00.5Z";
        assert_eq!(read(7, started, 0, Some(now)), (Some(Duration::from_millis(11_500)), None));
        assert_eq!(read(7, "2026-01-01T11:00:00+01:00", 0, Some(now)), (Some(Duration::from_secs(12)), None));
        assert_eq!(read(7, "2026-01-01T10:00:12.9Z", 0, Some(now)), (Some(Duration::ZERO), None));
        assert_eq!(read(7, started, 0, None), (None, None));
        assert_eq!(read(0, started, 137, Some(now)), (None, Some(137)));
        assert_eq!(read(0, "0001-01-01T00:00:00Z", 0, Some(now)), (None, None), "it never ran");
    }

    #[test]
    fn addresses_of_ports_are_named_alike() {
        let at = |address: &str| {
            let bindings = json!({"80/tcp": [{"HostIp": address, "HostPort": "8080"}]});
            Details::read(&json!({"HostConfig": {"PortBindings": bindings}}), None).settings["ports/80/tcp"]
                .clone()
        };
        assert_eq!((at(""), at("10.0.0.5")), ("*:8080".to_owned(), "10.0.0.5:8080".to_owned()));
        assert_eq!((at("FD00:0:0::5"), at("eth0")), ("fd00::5:8080".to_owned(), "eth0:8080".to_owned()));
    }

    #[test]
    fn a_network_that_is_not_the_own_is_no_network_of_its_own() {
        let with = |mode: &str| {
            let networks = json!({mode: {"Aliases": ["x"]}});
            let answer =
                json!({"HostConfig": {"NetworkMode": mode}, "NetworkSettings": {"Networks": networks}});
            Details::read(&answer, None).settings.into_iter().collect::<Vec<_>>()
        };
        for mode in ["host", "none", "container:0123"] {
            assert_eq!(with(mode), [("network_mode".to_owned(), mode.to_owned())]);
        }
        let own = with("tt-test").into_iter().map(|(field, _)| field).collect::<Vec<_>>();
        assert_eq!(own, ["networks/tt-test", "networks/tt-test/aliases"]);
    }

    #[test]
    fn capabilities_are_named_alike() {
        let with = |name: &str| Details::read(&json!({"HostConfig": {"CapAdd": [name]}}), None).settings;
        assert_eq!(with("CAP_NET_ADMIN"), with("NET_ADMIN"));
    }
}
