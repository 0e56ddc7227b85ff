//! How many messages people get when two hosts are lost: a real Alertmanager with a stack's configuration and its real timers,
//! beside one that groups alone, and one that does neither.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tasktracker_operator::{component, model::ComponentName, source::Stack};
use tasktracker_testbed::{Recorder, hostile, http, packages};

use super::table::{Rows, put};

/// When the last alert of a fast storm begins to fire, and of a slow one.
const SPREADS: [(&str, Duration); 2] = [("fast", Duration::from_secs(8)), ("slow", Duration::from_secs(210))];
/// How long is listened after that: longer than any group waits.
const AFTER: Duration = Duration::from_secs(330);
/// How often Prometheus sends an alert again that still fires.
const AGAIN: Duration = Duration::from_mins(1);
/// A critical alert is told after this at the latest.
const LATEST: Duration = Duration::from_mins(1);
/// Of what is compared, the least that must be saved.
const LEAST_SAVED: f64 = 0.7;

/// What fires for each lost host: alert, severity, and on what.
const OF_A_HOST: [(&str, &str, &[&str]); 12] = [
    ("InstanceDown", "critical", &["host"]),
    ("HostUnreachable", "critical", &["tasktracker"]),
    ("TargetDown", "warning", &["monitoring"]),
    ("SamplesNotSent", "warning", &["monitoring"]),
    ("ContainerUnhealthy", "warning", &["backend", "frontend", "edge", "node-exporter", "prometheus-agent"]),
    ("ContainerCrashLooping", "warning", &["backend", "frontend", "edge"]),
    ("ContainerNearMemoryLimit", "warning", &["backend", "frontend", "prometheus-agent"]),
    ("MemoryLeakSuspected", "warning", &["backend", "frontend"]),
    ("InstanceHighCpuUsage", "warning", &["host"]),
    ("InstanceHighMemoryUsage", "warning", &["host"]),
    ("InstanceDiskSpaceLow", "critical", &["/", "/var"]),
    ("InstanceHighDiskIo", "warning", &["sda", "sdb", "sdc", "sdd", "sde", "sdf", "sdg"]),
];
/// What fires once.
const OF_THE_STACK: [(&str, &str, &str); 5] = [
    ("HighErrorRate", "critical", "backend"),
    ("EndpointFailing", "warning", "backend"),
    ("HighLatencyP95", "warning", "backend"),
    ("TaskCreationFailureSpike", "warning", "backend"),
    ("AbnormalTraffic", "info", "backend"),
];

/// Every alert of the storm, by its labels.
fn alerts(stack: &Stack) -> Vec<BTreeMap<&'static str, String>> {
    let labels = |alert: &str, severity: &str, service: &str, more: &[(&'static str, String)]| {
        let own = [
            ("alertname", alert.to_owned()),
            ("severity", severity.to_owned()),
            ("service", service.to_owned()),
            ("namespace", stack.key.namespace.clone()),
            ("stack", stack.key.name.clone()),
            ("environment", stack.spec.environment.to_string()),
        ];
        own.into_iter().chain(more.iter().cloned()).collect::<BTreeMap<_, _>>()
    };
    let of_hosts = ["app-1", "app-2"].into_iter().flat_map(|host| {
        OF_A_HOST.into_iter().flat_map(move |(alert, severity, things)| {
            let more = move |thing: &str| {
                [("host", host.to_owned()), ("instance", host.to_owned()), ("on", thing.to_owned())]
            };
            things.iter().map(move |thing| (alert, severity, *thing, more(thing)))
        })
    });
    let of_hosts = of_hosts.map(|(alert, severity, thing, more)| labels(alert, severity, thing, &more));
    let of_stack = OF_THE_STACK.into_iter().map(|(alert, severity, service)| {
        labels(alert, severity, service, &[("instance", stack.key.name.clone())])
    });
    let mut all: Vec<_> = of_hosts.chain(of_stack).collect();
    // As they happen to come: the same in every run.
    let mut state = 20_260_401_u64;
    for place in (1..all.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(state >> 33).unwrap_or_default() % (place + 1);
        all.swap(place, other);
    }
    all
}

/// An Alertmanager and whom it calls; it ends with this.
struct Caller {
    child: Child,
    address: std::net::SocketAddr,
    recorder: Recorder,
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Caller {
    /// Starts one that tells everything to a webhook, under the name of whoever would be called.
    fn start(folder: &Path, config: &Value) -> Result<Self> {
        let (recorder, address) = (Recorder::start()?, hostile::closed_port()?);
        let mut config = config.clone();
        config["templates"] = json!([]);
        for receiver in config["receivers"].as_array_mut().into_iter().flatten() {
            let name = receiver["name"].as_str().unwrap_or_default().to_owned();
            let hook =
                json!({ "url": format!("http://{}/{name}", recorder.address), "send_resolved": false });
            *receiver = json!({ "name": name });
            if name != "nobody" {
                receiver["webhook_configs"] = json!([hook]);
            }
        }
        fs::create_dir_all(folder)?;
        fs::write(folder.join("alertmanager.yml"), config.to_string())?;
        let log = File::create(folder.join("log"))?;
        let mut command = Command::new(packages::monitoring::alertmanager(&mut |line| println!("{line}"))?);
        command.arg(format!("--config.file={}", folder.join("alertmanager.yml").display()));
        command.arg(format!("--storage.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--cluster.listen-address=");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let caller = Self { child, address, recorder };
        let began = Instant::now();
        while http(address, "GET /-/ready").is_none_or(|(status, _)| status != 200) {
            ensure!(
                began.elapsed() < Duration::from_secs(30),
                "Alertmanager does not start: {}",
                folder.display()
            );
            thread::sleep(Duration::from_millis(100));
        }
        Ok(caller)
    }

    fn send(&self, alerts: &[&BTreeMap<&'static str, String>]) -> Result<()> {
        let until = tasktracker_operator::engine::now() + jiff::SignedDuration::from_mins(4);
        let alerts: Vec<Value> =
            alerts.iter().map(|labels| json!({ "labels": labels, "endsAt": until.to_string() })).collect();
        let answer = http(self.address, &format!("POST /api/v2/alerts\n{}", Value::from(alerts)));
        ensure!(answer.as_ref().is_some_and(|(status, _)| *status == 200), "Alertmanager: {answer:?}");
        Ok(())
    }

    /// When an alert was told first.
    fn told(&self, labels: &BTreeMap<&'static str, String>) -> Option<Instant> {
        let labels = json!(labels);
        let taken = self.recorder.taken();
        let has = |body: &Value| {
            body["alerts"].as_array().is_some_and(|all| all.iter().any(|one| one["labels"] == labels))
        };
        taken.iter().find(|taken| has(&taken.body)).map(|taken| taken.at)
    }
}

/// Lets a storm pass over some of them; tells when each alert began to fire.
fn pass(
    callers: &[&Caller],
    alerts: &[BTreeMap<&'static str, String>],
    spread: Duration,
) -> Result<Vec<Instant>> {
    let (began, count) = (Instant::now(), u32::try_from(alerts.len())?);
    let mut begun: Vec<Instant> = Vec::new();
    let mut sent = Instant::now();
    while began.elapsed() < spread + AFTER {
        let due = began.elapsed().as_secs_f64() / spread.as_secs_f64() * f64::from(count);
        let mut fresh = Vec::new();
        while begun.len() < alerts.len() && f64::from(u32::try_from(begun.len())?) <= due {
            fresh.push(&alerts[begun.len()]);
            begun.push(Instant::now());
        }
        if sent.elapsed() >= AGAIN {
            fresh = alerts[..begun.len()].iter().collect();
            sent = Instant::now();
        }
        if !fresh.is_empty() {
            callers.iter().try_for_each(|caller| caller.send(&fresh))?;
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(begun)
}

/// How late a critical alert is told at the most, in seconds. One that is not told itself says nothing new beside another one
/// that is: of its host, or of its stack.
fn latest(caller: &Caller, alerts: &[BTreeMap<&'static str, String>], begun: &[Instant]) -> Result<f64> {
    let mut latest = Duration::ZERO;
    for (labels, began) in alerts.iter().zip(begun).filter(|(labels, _)| labels["severity"] == "critical") {
        let stands_for = |one: &&BTreeMap<&'static str, String>| {
            one["alertname"] == "InstanceDown" && one.get("host") == labels.get("host")
        };
        let at = caller.told(labels).or_else(|| caller.told(alerts.iter().find(stands_for)?));
        let at = at.with_context(|| format!("nobody was told of {labels:?}"))?;
        latest = latest.max(at.saturating_duration_since(*began));
    }
    Ok(latest.as_secs_f64())
}

/// A stack with a receiver for each severity, and the configuration of its Alertmanager.
fn configured() -> Result<(Stack, Value)> {
    let text =
        include_str!("../../../examples/staging.yaml").replace("roles: [app]", "roles: [app, monitoring]");
    let receivers = "pagerduty: {routingKeySecretRef: {name: a}}, slack: {webhookSecretRef: {name: b}}, email: {to: [a@example.com], from: b@example.com, smarthost: \"localhost:25\"}";
    let text = format!("{text}  monitoring: {{alertmanager: {{receivers: {{{receivers}}}}}}}\n");
    let stack = tasktracker_crds::validation::read_stack(&text);
    let stack = stack.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    let stack = Stack::new(stack, "staging.yaml".into());
    let project = component::project(&stack, &stack.spec.hosts[0], ComponentName::Monitoring);
    let project = project.context("the component is not there")?;
    let file = &project.files["files/alertmanager/alertmanager.yml"];
    let whole: Value = serde_saphyr::from_str(&file.content)?;
    Ok((stack, whole))
}

pub(crate) fn storm() -> Result<(Rows, BTreeMap<&'static str, f64>)> {
    let (stack, whole) = configured()?;
    let mut grouped = whole.clone();
    grouped["inhibit_rules"] = json!([]);
    let mut each = grouped.clone();
    each["route"]["group_by"] = json!(["..."]);
    let configs = [("each", &each), ("grouped", &grouped), ("whole", &whole)];
    let alerts = alerts(&stack);
    let folder = tempfile::tempdir()?;
    println!("{} alerts; this takes ten minutes", alerts.len());
    let storms = thread::scope(|scope| {
        let storm = |(name, spread): (&'static str, Duration)| {
            let (alerts, folder) = (&alerts, folder.path());
            scope.spawn(move || {
                let start =
                    |(kind, config): (&str, &Value)| Caller::start(&folder.join(name).join(kind), config);
                let callers = configs.into_iter().map(start).collect::<Result<Vec<_>>>()?;
                let begun = pass(&callers.iter().collect::<Vec<_>>(), alerts, spread)?;
                let messages = callers.iter().map(|caller| caller.recorder.taken().len()).collect::<Vec<_>>();
                Ok((messages, latest(&callers[2], alerts, &begun)?))
            })
        };
        let running: Vec<_> = SPREADS.into_iter().map(storm).collect();
        let joined = running.into_iter().map(|one| one.join().expect("a storm does not panic"));
        joined.collect::<Result<Vec<(Vec<usize>, f64)>>>()
    })?;
    let mut rows = Rows::new();
    let keys = [["fast_each", "fast_grouped", "fast_whole"], ["slow_each", "slow_grouped", "slow_whole"]];
    let late = ["fast_critical_after", "slow_critical_after"];
    let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    for ((keys, late), (messages, latest)) in keys.into_iter().zip(late).zip(&storms) {
        for (key, messages) in keys.into_iter().zip(messages) {
            put(&mut rows, key, "messages", count(*messages));
        }
        put(&mut rows, late, "s", *latest);
    }
    let saved = |storm: usize, from: usize, to: usize| {
        1.0 - count(storms[storm].0[to]) / count(storms[storm].0[from])
    };
    let ratios = BTreeMap::from([
        ("saved_fast", saved(0, 0, 2)),
        ("saved_slow", saved(1, 0, 2)),
        ("saved_by_grouping_fast", saved(0, 0, 1)),
        ("saved_by_grouping_slow", saved(1, 0, 1)),
        ("saved_with_inhibition", saved(1, 1, 2)),
    ]);
    for key in ["saved_fast", "saved_slow"] {
        ensure!(ratios[key] >= LEAST_SAVED, "{key}: expected at least {LEAST_SAVED}, found {}", ratios[key]);
    }
    for (_, latest) in &storms {
        ensure!(*latest <= LATEST.as_secs_f64(), "a critical alert was told after {latest:.0} s");
    }
    Ok((rows, ratios))
}
