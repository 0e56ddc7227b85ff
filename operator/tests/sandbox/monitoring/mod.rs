//! Metrics from every replica and host reach the store that the stack brings along.

mod cluster;
mod containers;
mod external;
mod faults;
mod mailbox;
mod memory;
mod reload;
mod rules;
mod runbooks;
mod tls;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use serde_json::Value;
use tasktracker_operator::component;
use tasktracker_testbed::{DemoHost, http, http_as, images};

use crate::stage::{Stage, phase, wait_until};

/// `admin:secret-of-the-test`, as HTTP sends it.
const ADMIN: &str = "Basic YWRtaW46c2VjcmV0LW9mLXRoZS10ZXN0";
const PASSWORD: &[u8] = b"secret-of-the-test";
const PROMETHEUS: &str = "tt-staging-monitoring-prometheus-1";
/// How long an alert may take: until it is seen, until it has held, and until its group is told.
const TOLD: Duration = Duration::from_mins(8);
const POLICY: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 1s}}\n";

/// A stage with the images of monitoring, the current Prometheus among them.
fn stage(name: &str) -> Stage {
    let stage = Stage::new(name);
    stage.load(&["alertmanager", "node-exporter", "blackbox-exporter"]);
    let archive = images::prometheus(&stage.host, &mut |line| println!("{line}")).unwrap();
    stage.host.load_image(&archive).unwrap();
    stage.write_value("monitoring", "password", PASSWORD);
    stage
}

fn stack(stage: &Stage, prometheus: &str, backend: &str, alertmanager: &str) -> String {
    let text = stage.stack("staging", "r1", POLICY).replace("roles: [app]", "roles: [app, monitoring]");
    let app = format!("tasktracker, backend: {{{backend}}}}}");
    let text = text.replace("tasktracker}", &app);
    format!(
        "{text}  monitoring: {{prometheus: {{image: \"{}\"}}, nodeExporter: {{image: \"{}\"}}, alertmanager: {{{alertmanager}}}}}\n",
        prometheus,
        images::NODE_EXPORTER
    )
}

fn at(stage: &Stage, port: u16) -> SocketAddr {
    SocketAddr::new(stage.host.address(), port)
}

/// What the store answers to a query: status and body.
fn query_answer(stage: &Stage, query: &str) -> Option<(u16, String)> {
    let encoded = query.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    let path = format!("GET /api/v1/query?query={}", encoded.collect::<String>());
    http_as(at(stage, 9090), ADMIN, &path)
}

/// The same: labels and values.
fn query(stage: &Stage, query: &str) -> Vec<(Value, f64)> {
    let Some((200, body)) = query_answer(stage, query) else { return Vec::new() };
    let answer: Value = serde_json::from_str(&body).unwrap();
    let results = answer["data"]["result"].as_array().cloned().unwrap();
    let value = |one: &Value| one["value"][1].as_str().unwrap().parse().unwrap();
    results.into_iter().map(|one| (one["metric"].clone(), value(&one))).collect()
}

fn sum(stage: &Stage, of: &str) -> f64 {
    query(stage, of).iter().map(|(_, value)| value).sum()
}

/// The ports of a host that others reach.
fn bound(stage: &Stage) -> BTreeSet<String> {
    let shown = stage.as_root("ss -Hltun");
    let words = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let all = words.filter(|words| !words[4].starts_with("127.") && !words[4].starts_with("[::1]"));
    all.map(|words| format!("{}/{}", words[4].rsplit(':').next().unwrap(), words[0])).collect()
}

/// The ports that the stack asks for, with that of SSH.
fn ports(stage: &Stage) -> BTreeSet<String> {
    let (stack, _) = stage.managed();
    let projects = component::for_host(&stack, &stack.spec.hosts[0]);
    let published = projects.iter().flat_map(|project| project.services.values()).flat_map(|service| {
        service.compose.ports.iter().map(|port| format!("{}/{}", port.published, port.protocol))
    });
    // The node exporter is in the host's own network.
    published.chain(["9100/tcp".to_owned(), format!("{}/tcp", stage.host.port())]).collect()
}

#[test]
fn samples_of_every_replica_and_host_reach_the_store_and_nobody_else_is_let_in() {
    let stage = stage("monitoring");
    let text = stack(&stage, images::PROMETHEUS, "replicas: 3", "");
    let url = format!("tasktracker, publicUrl: \"http://{}\",", stage.page());
    stage.write_stack("staging.yaml", &text.replace("tasktracker,", &url));
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");

    phase("every target");
    let up = || {
        let up = query(&stage, "up == 1").into_iter().map(|(labels, _)| {
            let of = ["host", "stack", "environment"].map(|label| labels[label].as_str().unwrap_or_default());
            assert_eq!(of, ["app-1", "staging", "test"], "{labels}");
            labels["job"].as_str().unwrap().to_owned()
        });
        let mut jobs: Vec<String> = up.collect();
        jobs.sort();
        jobs
    };
    let all =
        ["agent", "alertmanager", "backend", "backend", "backend", "edge", "node", "prometheus", "public"];
    wait_until(format_args!("all are up: {:?}; {}", up(), operator.said()), || up() == all);
    wait_until("users get the page", || sum(&stage, "probe_success{job=\"public\"}") > 0.0);
    assert!(sum(&stage, "probe_duration_seconds{job=\"public\"}") > 0.0);
    assert!(sum(&stage, "node_memory_MemTotal_bytes") > 1e9);
    wait_until("the operator's own are there", || sum(&stage, "tasktracker_stack_ready") >= 1.0);
    assert!(!query(&stage, "node_filesystem_avail_bytes").is_empty());

    phase("requests of all replicas");
    let created = r#"sum(http_requests_total{job="backend", method="POST", route="/tasks", status="201"})"#;
    let count = || query(&stage, created).first().map(|(_, value)| *value);
    assert_eq!(count(), Some(0.0));
    for number in 0..60 {
        let (status, _) = stage.http(3500, &format!("POST /api/tasks\n{{\"title\": \"{number}\"}}"));
        assert_eq!(status, 201);
    }
    wait_until("each is counted once", || count() >= Some(60.0));
    assert_eq!(count(), Some(60.0));
    assert!(sum(&stage, "caddy_http_requests_total{job=\"edge\"}") >= 60.0);

    phase("ports");
    assert_eq!(bound(&stage), ports(&stage), "what is bound, and what the stack asks for");

    phase("nobody else is let in");
    for (port, path) in [
        (9090, "/api/v1/query?query=up"),
        (9090, "/metrics"),
        (9090, "/-/healthy"),
        (9093, "/api/v2/alerts"),
        (9093, "/-/healthy"),
        (9100, "/metrics"),
    ] {
        let request = format!("GET {path}");
        let wrong = http_as(at(&stage, port), "Basic YWRtaW46d3Jvbmc=", &request).unwrap().0;
        let right = http_as(at(&stage, port), ADMIN, &request).unwrap().0;
        assert_eq!(
            (http(at(&stage, port), &request).unwrap().0, wrong, right),
            (401, 401, 200),
            "{port}{path}"
        );
    }
    let shown = stage.on_host("ps -eo args; docker ps -aq | xargs docker inspect");
    assert!(!shown.contains("secret-of-the-test"));

    phase("another configuration is in force");
    let life = format!("docker inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {PROMETHEUS}");
    let before = stage.on_host(&life);
    let file = "/opt/tasktracker/staging/monitoring/files/prometheus/prometheus.yml";
    let log = operator.log().len();
    stage.on_host(&format!("sed -i 's/15s/1h/' {file} && docker kill -s HUP {PROMETHEUS}"));
    let config = || {
        let answer = http_as(at(&stage, 9090), ADMIN, "GET /api/v1/status/config");
        answer.map_or(String::new(), |(_, body)| body)
    };
    wait_until(format_args!("it is taken back: {}", operator.said()), || {
        operator.log()[log..].contains("healed: prometheus files/prometheus/prometheus.yml")
    });
    operator.wait_until_ready("staging");
    assert!(config().contains("scrape_interval: 15s"), "{}", config());
    runbooks::assert_commands_work(&stage);
    assert_eq!(stage.on_host(&life), before, "it was reloaded, not started anew");
    operator.stop();
}
