//! One case for each field of a container.

use serde_json::{Value, json};
use tasktracker_crds::{Answer, DriftKind};

use super::{Bench, docker};

const CONTAINER: &str = "tt-staging-app-frontend-1";

/// A field of the recipe, its other value, and what must be told: field, wanted and found.
struct Field(&'static str, Value, &'static str, &'static str, &'static str);

/// Fields that Compose can set, changed in a container that is otherwise made the same.
fn fields() -> Vec<Field> {
    let host =
        |name: &'static str, value: Value, field, wanted, found| Field(name, value, field, wanted, found);
    vec![
        Field("/Env/-", json!("EXTRA=1"), "environment/EXTRA", "not set", "a value of 1 bytes"),
        Field(
            "/Env/-",
            json!("DRAIN_TIMEOUT=31"),
            "environment/DRAIN_TIMEOUT",
            "a value of 2 bytes",
            "another value of 2 bytes",
        ),
        Field("/Cmd", json!(["serve"]), "command", "not set", "[\"serve\"]"),
        Field(
            "/Entrypoint",
            json!(["/frontend", "x"]),
            "entrypoint",
            "[\"/frontend\"]",
            "[\"/frontend\",\"x\"]",
        ),
        Field("/User", json!("1000:1000"), "user", "10002:10002", "1000:1000"),
        Field("/WorkingDir", json!("/tmp"), "working_dir", "not set", "/tmp"),
        Field("/Hostname", json!("web"), "hostname", "not set", "web"),
        Field("/Domainname", json!("example.com"), "domainname", "not set", "example.com"),
        Field("/Labels/mine", json!("yes"), "labels/mine", "not set", "a value of 3 bytes"),
        Field(
            "/Labels/tasktracker.dev~1environment",
            json!("other"),
            "labels/tasktracker.dev/environment",
            "test",
            "other",
        ),
        Field(
            "/Healthcheck/Test",
            json!(["CMD", "/frontend"]),
            "healthcheck/test",
            "[\"CMD\",\"/frontend\",\"healthcheck\"]",
            "[\"CMD\",\"/frontend\"]",
        ),
        Field("/Healthcheck/Interval", json!(5_000_000_000_u64), "healthcheck/interval", "2s", "5s"),
        Field("/Healthcheck/Timeout", json!(1_000_000_000), "healthcheck/timeout", "3s", "1s"),
        Field("/Healthcheck/StartPeriod", json!(9_000_000_000_u64), "healthcheck/start_period", "20s", "9s"),
        Field("/Healthcheck/Retries", json!(9), "healthcheck/retries", "5", "9"),
        Field("/StopSignal", json!("SIGINT"), "stop_signal", "not set", "SIGINT"),
        Field("/StopTimeout", json!(7), "stop_grace_period", "35s", "7s"),
        Field("/Tty", json!(true), "tty", "not set", "true"),
        Field("/OpenStdin", json!(true), "stdin_open", "not set", "true"),
        Field("/ExposedPorts", json!({"7/tcp": {}}), "expose/7/tcp", "not set", "exposed"),
        host("/HostConfig/MemorySwap", json!(134_217_728), "memswap_limit", "64Mi", "128Mi"),
        host("/HostConfig/MemoryReservation", json!(33_554_432), "mem_reservation", "not set", "32Mi"),
        host("/HostConfig/NanoCpus", json!(500_000_000), "cpus", "0.25", "0.5"),
        host("/HostConfig/CpuShares", json!(512), "cpu_shares", "not set", "512"),
        host("/HostConfig/CpusetCpus", json!("0"), "cpuset", "not set", "0"),
        host("/HostConfig/PidsLimit", json!(64), "pids_limit", "256", "64"),
        host(
            "/HostConfig/RestartPolicy",
            json!({"Name": "on-failure", "MaximumRetryCount": 3}),
            "restart",
            "unless-stopped",
            "on-failure:3",
        ),
        host("/HostConfig/ReadonlyRootfs", json!(false), "read_only", "true", "not set"),
        host("/HostConfig/CapAdd", json!(["NET_RAW"]), "cap_add", "not set", "[\"NET_RAW\"]"),
        host("/HostConfig/CapDrop", json!(["MKNOD"]), "cap_drop", "[\"ALL\"]", "[\"MKNOD\"]"),
        host("/HostConfig/SecurityOpt", json!([]), "security_opt", "[\"no-new-privileges:true\"]", "not set"),
        host(
            "/HostConfig/Sysctls",
            json!({"net.ipv4.tcp_keepalive_time": "77"}),
            "sysctls/net.ipv4.tcp_keepalive_time",
            "not set",
            "77",
        ),
        host(
            "/HostConfig/Ulimits",
            json!([{"Name": "nofile", "Soft": 512, "Hard": 1024}]),
            "ulimits/nofile",
            "not set",
            "512:1024",
        ),
        host("/HostConfig/Tmpfs", json!({"/scratch": "size=1m"}), "tmpfs//scratch", "not set", "size=1m"),
        host("/HostConfig/Binds", json!(["/srv:/mnt:ro"]), "volumes//mnt", "not set", "bind /srv ro"),
        host("/HostConfig/LogConfig/Type", json!("none"), "logging/driver", "json-file", "none"),
        host(
            "/HostConfig/LogConfig/Config/max-file",
            json!("9"),
            "logging/options/max-file",
            "a value of 1 bytes",
            "another value of 1 bytes",
        ),
        host("/HostConfig/ShmSize", json!(1_048_576), "shm_size", "not set", "1Mi"),
        host("/HostConfig/Init", json!(true), "init", "not set", "true"),
        host("/HostConfig/PidMode", json!("host"), "pid", "not set", "host"),
        host("/HostConfig/IpcMode", json!("host"), "ipc", "not set", "host"),
        host("/HostConfig/Dns", json!(["192.0.2.1"]), "dns", "not set", "[\"192.0.2.1\"]"),
        host("/HostConfig/DnsSearch", json!(["example.com"]), "dns_search", "not set", "[\"example.com\"]"),
        host(
            "/HostConfig/ExtraHosts",
            json!(["db:192.0.2.2"]),
            "extra_hosts",
            "not set",
            "[\"db:192.0.2.2\"]",
        ),
        host("/HostConfig/OomScoreAdj", json!(100), "oom_score_adj", "not set", "100"),
        host("/HostConfig/GroupAdd", json!(["44"]), "group_add", "not set", "[\"44\"]"),
        host(
            "/HostConfig/Devices",
            json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"}]),
            "devices",
            "not set",
            "[\"{\\\"CgroupPermissions…",
        ),
        host(
            "/HostConfig/PortBindings",
            json!({"9999/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9999"}]}),
            "ports/9999/tcp",
            "not set",
            "127.0.0.1:9999",
        ),
        Field(
            "/NetworkingConfig/EndpointsConfig/tt-staging/Aliases/-",
            json!("web"),
            "networks/tt-staging/aliases",
            "frontend",
            "frontend web",
        ),
    ]
}

/// Fields that a command changes in a container that is there.
const COMMANDS: [(&str, &str, &str, &str); 6] = [
    ("docker update --cpus 0.1 CONTAINER", "cpus", "0.25", "0.1"),
    ("docker update --restart always CONTAINER", "restart", "unless-stopped", "always"),
    ("docker update --pids-limit 99 CONTAINER", "pids_limit", "256", "99"),
    ("docker update --memory-swap 128m CONTAINER", "memswap_limit", "64Mi", "128Mi"),
    ("docker network connect bridge CONTAINER", "networks/bridge", "not set", "connected"),
    ("docker rename CONTAINER renamed", "container_name", "tt-staging-app-frontend-1", "renamed"),
];

/// Makes each field another one, and returns how many there are.
pub(super) fn each_field(bench: &Bench) -> usize {
    let recipe = docker::recipe(&bench.stage, CONTAINER);
    let renew = |recipe: &Value| {
        bench.stage.on_host(&format!("docker rm -f {CONTAINER} renamed 2>/dev/null; true"));
        docker::run(&bench.stage, CONTAINER, recipe);
    };
    renew(&recipe);
    assert_eq!(bench.check().drift, Vec::new(), "the same container made by hand is no drift");
    let mut wrong = Vec::new();
    for Field(pointer, value, field, wanted, found) in fields() {
        let mut other = recipe.clone();
        change(&mut other, pointer, value);
        renew(&other);
        wrong.extend(mistold(bench, CONTAINER, field, wanted, found));
    }
    for (command, field, wanted, found) in COMMANDS {
        renew(&recipe);
        bench.stage.on_host(&command.replace("CONTAINER", CONTAINER));
        let container = if field == "container_name" { "renamed" } else { CONTAINER };
        wrong.extend(mistold(bench, container, field, wanted, found));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    renew(&recipe);
    bench.stage.on_host(&format!("docker network disconnect tt-staging {CONTAINER}"));
    let told: Vec<String> = config_changes(bench).into_iter().map(|(path, ..)| path).collect();
    let expected = ["", "/aliases"].map(|part| format!("{CONTAINER}/networks/tt-staging{part}"));
    assert_eq!(told, expected);
    // The connection that the plan names ends it.
    bench.stage.apply();
    assert_eq!(bench.check().drift, Vec::new());
    fields().len() + COMMANDS.len() + 1
}

/// Sets a value at a JSON pointer; `-` at its end adds to a list.
fn change(recipe: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = if parent.is_empty() { recipe } else { recipe.pointer_mut(parent).unwrap() };
    let key = key.replace("~1", "/");
    match parent {
        Value::Array(list) => {
            // A later entry of the same name wins in a list of variables.
            list.push(value);
        }
        other => other[&key] = value,
    }
}

/// Path, wanted and found of every setting that differs; what else differs may only come of a process that ended.
fn config_changes(bench: &Bench) -> Vec<(String, String, String)> {
    let evaluation = bench.check();
    let mut told = Vec::new();
    for item in evaluation.drift {
        if item.kind == DriftKind::ConfigChanged {
            assert_eq!((item.host.as_str(), item.component.as_str()), ("app-1", "app"));
            assert_eq!((item.service.as_deref(), item.answer), (Some("frontend"), Answer::Heal));
            told.push((item.path.unwrap(), without_hashes(&item.wanted), without_hashes(&item.found)));
        } else {
            let ended = [DriftKind::Stopped, DriftKind::Restarting, DriftKind::Unhealthy];
            assert!(ended.contains(&item.kind), "{item:#?}");
        }
    }
    let actions: Vec<String> = evaluation.plan.repairs.iter().map(|repair| repair.action.words()).collect();
    let in_place = ["rename ", "update ", "connect ", "disconnect "];
    let repairs = |action: &String| {
        action == "recreate frontend" || in_place.iter().any(|words| action.starts_with(words))
    };
    assert_eq!(actions.iter().any(repairs), !told.is_empty(), "{told:?}: {actions:?}");
    told
}

/// A text without the names that hold the hash of a service's definition.
fn without_hashes(text: &str) -> String {
    let is_hash = |word: &&str| {
        let last = word.rsplit_once('-').map(|(_, last)| last);
        last.is_some_and(|last| last.len() == 16 && last.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    text.split(' ').filter(|word| !is_hash(word)).collect::<Vec<_>>().join(" ")
}

/// What is wrong with what is told of a field.
fn mistold(bench: &Bench, container: &str, field: &str, wanted: &str, found: &str) -> Option<String> {
    let told = config_changes(bench);
    let fits =
        |told: &str| found.strip_suffix('…').map_or(told == found, |beginning| told.starts_with(beginning));
    let right = match told.as_slice() {
        [(path, told_wanted, told_found)] => {
            *path == format!("{container}/{field}") && told_wanted == wanted && fits(told_found)
        }
        _ => false,
    };
    (!right).then(|| format!("{field}: expected {wanted:?} and {found:?}, found {told:?}"))
}
