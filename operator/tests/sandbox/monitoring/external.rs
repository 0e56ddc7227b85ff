//! A store and an Alertmanager that somebody else runs: those of another stack. And what is not wanted, which is not there.

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::Value;
use tasktracker_testbed::{DemoHost, SandboxHost, http_as, images};

use super::{ADMIN, stack, stage};
use crate::stage::{Stage, load, phase, wait_until};

/// The part of a stack about the host of others, and theirs.
fn theirs(stage: &Stage, other: &SandboxHost) -> String {
    let text = stack(stage, images::PROMETHEUS, "replicas: 1", "");
    let place = |port: u16, address: String| format!("address: {address}, port: {port}");
    text.replace("name: staging", "name: theirs")
        .replace("name: app-1", "name: theirs-1")
        .replace(
            &place(stage.host.port(), stage.host.address().to_string()),
            &place(other.port(), other.address().to_string()),
        )
        .replace(&stage.host.host_key(), &other.host_key())
}

#[test]
fn servers_of_others_get_samples_and_alerts_and_what_is_not_wanted_is_not_there() {
    let stage = stage("mon-external");
    let other = Stage::another_host("mon-external-2");
    load(&other, &["alertmanager", "node-exporter", "blackbox-exporter"]);
    other.load_image(&images::prometheus(&other, &mut |_| {}).unwrap()).unwrap();
    stage.write_stack("theirs.yaml", &theirs(&stage, &other));
    let ask = |port: u16, request: &str| -> Value {
        let answer = http_as(SocketAddr::new(other.address(), port), ADMIN, request);
        answer.and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
    };
    // Jobs of our targets that their store knows to be up since a moment.
    let up = || -> BTreeSet<String> {
        let answer = ask(9090, "GET /api/v1/query?query=up%7Bstack%3D%22staging%22%7D%3D%3D1");
        let all = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| one["metric"]["job"].as_str().unwrap().to_owned()).collect()
    };
    let names = |of: &[&str]| -> BTreeSet<String> { of.iter().map(|name| (*name).to_owned()).collect() };
    let services = || -> BTreeSet<String> {
        let shown = stage.on_host(
            "docker ps -a --format '{{.Label \"com.docker.compose.project\"}} {{.Label \"com.docker.compose.service\"}}' | grep -v ^tt-staging-app | sed 's/^tt-staging-//'",
        );
        shown.lines().map(str::to_owned).collect()
    };
    let server = |port: u16, path: &str| {
        format!(
            "{{url: \"http://{}:{port}{path}\", username: admin, passwordSecretRef: {{name: monitoring}}}}",
            other.address()
        )
    };
    let write = |prometheus: &str, alertmanager: &str, more: &str| {
        let text = stack(&stage, images::PROMETHEUS, "replicas: 1", alertmanager);
        let text = text.replace("prometheus: {", &format!("prometheus: {{{prometheus}, "));
        stage.write_stack(
            "staging.yaml",
            &text.replace("nodeExporter: {", &format!("nodeExporter: {{{more}")),
        );
    };

    phase("a store of others");
    let takes = server(9090, "/api/v1/write");
    write(&format!("external: {takes}"), "enabled: false", "");
    let operator = stage.start_operator();
    operator.wait_until_ready("theirs");
    operator.wait_until_ready("staging");
    let all = names(&["agent", "backend", "edge", "node"]);
    wait_until(format_args!("it has samples: {:?}; {}", up(), operator.said()), || up() == all);
    assert_eq!(services(), names(&["agents node-exporter", "agents prometheus-agent"]));

    phase("a store that sends on, and an Alertmanager of others");
    write(&format!("remoteWrite: [{takes}]"), &format!("external: {}", server(9093, "")), "");
    let all = names(&["agent", "backend", "edge", "node", "prometheus"]);
    wait_until(format_args!("it has samples: {:?}; {}", up(), operator.said()), || up() == all);
    operator.wait_until_ready("staging");
    let told = || {
        let alerts = ask(9093, "GET /api/v2/alerts");
        let all = alerts.as_array().cloned().unwrap_or_default().into_iter();
        all.filter(|one| one["labels"]["stack"] == "staging")
            .any(|one| one["labels"]["alertname"] == "Watchdog")
    };
    wait_until(format_args!("it is told: {}", operator.said()), told);
    let own = ["agents node-exporter", "agents prometheus-agent", "monitoring prometheus"];
    assert_eq!(services(), names(&own));

    phase("what is not wanted");
    write("port: 9090", "enabled: false", "enabled: false, ");
    let own = names(&["agents prometheus-agent", "monitoring prometheus"]);
    wait_until(format_args!("it goes: {:?}; {}", services(), operator.said()), || services() == own);
    operator.wait_until_ready("staging");
    let rules = "cat /opt/tasktracker/staging/monitoring/files/prometheus/rules.yml";
    let rules = stage.on_host(rules);
    assert!(rules.contains("alert: ServiceDown") && !rules.contains("alert: InstanceDown"), "{rules}");
    operator.stop();
}
