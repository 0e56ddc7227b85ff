//! Metrics from every replica and host reach the store that the stack brings along.

mod containers;
mod rules;

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tasktracker_testbed::{DemoHost, http, http_as, images};

use crate::{
    news::Webhook,
    stage::{Stage, phase, wait_until, wait_until_within},
};

/// `admin:secret-of-the-test`, as HTTP sends it.
const ADMIN: &str = "Basic YWRtaW46c2VjcmV0LW9mLXRoZS10ZXN0";
const PASSWORD: &[u8] = b"secret-of-the-test";
const PROMETHEUS: &str = "tt-staging-monitoring-prometheus-1";
const POLICY: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 1s}}\n";

fn stack(stage: &Stage, revision: &str, backend: &str, alertmanager: &str) -> String {
    let text = stage.stack("staging", revision, POLICY).replace("roles: [app]", "roles: [app, monitoring]");
    let app = format!("tasktracker, backend: {{{backend}}}}}");
    let text = text.replace("tasktracker}", &app);
    format!(
        "{text}  monitoring: {{prometheus: {{image: \"{}\"}}, nodeExporter: {{image: \"{}\"}}, alertmanager: {{{alertmanager}}}}}\n",
        images::PROMETHEUS,
        images::NODE_EXPORTER
    )
}

fn at(stage: &Stage, port: u16) -> SocketAddr {
    SocketAddr::new(stage.host.address(), port)
}

/// What the store answers to a query: labels and values.
fn query(stage: &Stage, query: &str) -> Vec<(Value, f64)> {
    let encoded = query.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    let path = format!("GET /api/v1/query?query={}", encoded.collect::<String>());
    let Some((200, body)) = http_as(at(stage, 9090), ADMIN, &path) else { return Vec::new() };
    let answer: Value = serde_json::from_str(&body).unwrap();
    let results = answer["data"]["result"].as_array().cloned().unwrap();
    let value = |one: &Value| one["value"][1].as_str().unwrap().parse().unwrap();
    results.into_iter().map(|one| (one["metric"].clone(), value(&one))).collect()
}

fn sum(stage: &Stage, of: &str) -> f64 {
    query(stage, of).iter().map(|(_, value)| value).sum()
}

#[test]
fn samples_of_every_replica_and_host_reach_the_store_and_nobody_else_is_let_in() {
    let stage = Stage::new("monitoring");
    stage.load(&["prometheus", "alertmanager", "node-exporter"]);
    stage.write_value("monitoring", "password", PASSWORD);
    stage.write_stack("staging.yaml", &stack(&stage, "r1", "replicas: 3", ""));
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
    wait_until(format_args!("all are up: {:?}; {}", up(), operator.said()), || {
        up() == ["agent", "alertmanager", "backend", "backend", "backend", "node", "prometheus"]
    });
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
    assert_eq!(stage.on_host(&life), before, "it was reloaded, not started anew");
    operator.stop();
}

/// How long an alert may take: until it is seen, until it has held, and until its group is told.
const TOLD: Duration = Duration::from_mins(5);

#[test]
fn an_alert_calls_whoever_is_named_for_it_and_nobody_else() {
    let stage = Stage::new("alerts");
    stage.load(&["prometheus", "alertmanager", "node-exporter"]);
    let (pager, slack) = (Webhook::start_at(stage.host.gateway()), Webhook::start_at(stage.host.gateway()));
    stage.write_value("monitoring", "password", PASSWORD);
    stage.write_value("pager", "routingKey", b"canary-of-the-pager");
    stage.write_value("slack", "url", format!("http://{}/canary-of-slack", slack.address).as_bytes());
    let receivers = format!(
        "receivers: {{pagerduty: {{routingKeySecretRef: {{name: pager}}, url: \"http://{}/v2/enqueue\"}}, slack: {{webhookSecretRef: {{name: slack}}}}}}",
        pager.address
    );
    stage.write_stack("staging.yaml", &stack(&stage, "r1", "replicas: 1", &receivers));
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    wait_until("the backend is known", || sum(&stage, "up{job=\"backend\"}") > 0.0);

    phase("a backend that nobody may start again");
    stage.on_host("echo 'a test' >/opt/tasktracker/staging/app/HOLD");
    stage.on_host("docker stop -t 1 $(docker ps -qf label=com.docker.compose.service=backend)");
    wait_until_within(TOLD, format_args!("it is told: {}", operator.said()), || {
        !pager.taken.lock().unwrap().is_empty()
    });
    let (path, event) = pager.taken.lock().unwrap()[0].clone();
    assert_eq!((path.as_str(), &event["event_action"]), ("/v2/enqueue", &"trigger".into()), "{event:#}");
    assert_eq!(event["routing_key"], "canary-of-the-pager");
    let payload = &event["payload"];
    assert_eq!(payload["summary"], "[FIRING:1] ServiceDown (test)", "{event:#}");
    assert_eq!(payload["severity"], "critical");
    let told = payload["custom_details"]["alerts"].as_str().unwrap();
    assert!(
        told.contains("No instance of the backend answers.") && told.contains("/ServiceDown"),
        "{event:#}"
    );
    assert_eq!(event["links"][0]["href"], "https://tasktracker.dev/runbooks/ServiceDown");
    assert_eq!(pager.taken.lock().unwrap().len(), 1);
    let others = slack.taken.lock().unwrap().clone();
    assert!(others.is_empty(), "{others:#?}");
    let shown = stage.on_host("ps -eo args; docker ps -aq | xargs docker inspect; cat /opt/tasktracker/staging/monitoring/files/*/*");
    assert!(!shown.contains("canary"));

    phase("it is over");
    stage.on_host("rm /opt/tasktracker/staging/app/HOLD");
    operator.wait_until_ready("staging");
    let over = r#"count(ALERTS{alertname="ServiceDown", alertstate="firing"}) or vector(0)"#;
    wait_until("it does not fire any more", || {
        query(&stage, over).first().is_some_and(|(_, count)| *count == 0.0)
    });
    operator.stop();
}
