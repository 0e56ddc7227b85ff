//! Two hosts with monitoring: people are called once, and also while one of them is away.

use std::net::SocketAddr;

use serde_json::Value;
use tasktracker_testbed::{DemoHost, Recorder, SandboxHost, http_as, images};

use super::{ADMIN, stage};
use crate::stage::{Running, Stage, load, phase, succeeded, wait_until, wait_until_within};

/// Both hosts, and whom they call.
pub(super) struct Pair {
    pub(super) stage: Stage,
    pub(super) second: SandboxHost,
    pager: Recorder,
}

impl Pair {
    pub(super) fn start(name: &str) -> Self {
        let stage = stage(name);
        let second = Stage::another_host(&format!("{name}-2"));
        load(&second, &["alertmanager", "node-exporter", "blackbox-exporter"]);
        second.load_image(&images::prometheus(&second, &mut |_| {}).unwrap()).unwrap();
        stage.write_value("pager", "routingKey", b"key");
        let pager = Recorder::start_at(stage.host.gateway()).unwrap();
        Self { stage, second, pager }
    }

    /// Asks for silences, and for something more of the monitoring.
    pub(super) fn write(&self, silences: &str, more: &str) {
        let receivers = format!(
            "silences: [{silences}], receivers: {{pagerduty: {{routingKeySecretRef: {{name: pager}}, url: \"http://{}/v2/enqueue\"}}}}",
            self.pager.address
        );
        let text = super::stack(&self.stage, images::PROMETHEUS, "replicas: 1", &receivers);
        let host = format!(
            "    - {{name: mon-2, address: {}, port: {}, roles: [monitoring], hostKeys: [\"{}\"]}}\n  ssh:",
            self.second.address(),
            self.second.port(),
            self.second.host_key()
        );
        let rules = "rules: {override: {ServiceDown: {for: 15s}, InstanceDiskSpaceLow: {for: 15s}}, disable: [InstanceHighCpuUsage, InstanceHighMemoryUsage, InstanceHighDiskIo, InstanceDiskFullSoon, ClockSkew]}";
        let monitoring = format!("monitoring: {{{more}{rules}, ");
        let text = text.replace("  ssh:", &host).replace("monitoring: {", &monitoring);
        self.stage.write_stack("staging.yaml", &text);
    }

    /// What an Alertmanager answers.
    fn ask(&self, host: usize, request: &str) -> String {
        let address = if host == 0 { self.stage.host.address() } else { self.second.address() };
        http_as(SocketAddr::new(address, 9093), ADMIN, request).map(|(_, body)| body).unwrap_or_default()
    }

    /// How often it looked up whether somebody was called already.
    fn decisions(&self, host: usize) -> f64 {
        let text = self.ask(host, "GET /metrics");
        let line = text.lines().find_map(|line| line.strip_prefix("alertmanager_nflog_queries_total "));
        line.and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    /// Alerts that a person was called for, in the order in which that was.
    fn calls(&self) -> Vec<String> {
        let calls = self.pager.taken().into_iter().filter(|call| call.body["event_action"] == "trigger");
        let summary = |body: &Value| body["payload"]["summary"].as_str().unwrap().to_owned();
        calls.map(|call| summary(&call.body)).collect()
    }

    /// Silences that are in force on a host: who made them, and why.
    fn silences(&self, host: usize) -> Vec<(String, String)> {
        let all: Value = serde_json::from_str(&self.ask(host, "GET /api/v2/silences")).unwrap_or_default();
        let all = all.as_array().cloned().unwrap_or_default().into_iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let active = all.filter(|one| one["status"]["state"] == "active");
        let mut found: Vec<_> = active.map(|one| (text(&one["createdBy"]), text(&one["comment"]))).collect();
        found.sort();
        found.dedup();
        found
    }

    fn wait_for_silences(&self, operator: &Running, expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> =
            expected.iter().map(|(by, why)| ((*by).to_owned(), (*why).to_owned())).collect();
        for host in 0..2 {
            wait_until(
                format_args!("{expected:?} on {host}: {:?}; {}", self.silences(host), operator.said()),
                || self.silences(host) == expected,
            );
        }
    }
}

#[test]
#[ignore = "takes long: `cargo xtask soak monitoring`"]
fn soak_two_alertmanagers_call_once_and_one_alone_calls_too() {
    let pair = Pair::start("pair");
    let silence = |reason: &str| {
        format!(
            "{{matchers: ['alertname=\"TargetDown\"'], until: \"2100-01-01T00:00:00Z\", reason: {reason}}}"
        )
    };
    pair.write(&silence("moving"), "");
    let operator = pair.stage.start_operator();
    operator.wait_until_ready("staging");
    for host in 0..2 {
        wait_until(format_args!("{host} knows the other: {}", operator.said()), || {
            pair.ask(host, "GET /metrics").lines().any(|line| line == "alertmanager_cluster_members 2")
        });
    }

    phase("silences of the spec, and of a person");
    let ours = |reason: &'static str| ("tasktracker-operator", reason);
    pair.wait_for_silences(&operator, &[ours("moving")]);
    let person = r#"{"matchers": [{"name": "a", "value": "b", "isRegex": false, "isEqual": true}], "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z", "createdBy": "jane", "comment": "mine"}"#;
    pair.ask(1, &format!("POST /api/v2/silences\n{person}"));
    pair.write(&silence("other"), "");
    pair.wait_for_silences(&operator, &[("jane", "mine"), ours("other")]);
    wait_until(format_args!("the rollout is over: {}", operator.said()), || {
        operator.metric("tasktracker_stack_in_sync", &[]) == Some(1.0)
    });
    // Somebody ends one of the spec.
    let all: Value = serde_json::from_str(&pair.ask(0, "GET /api/v2/silences")).unwrap();
    let is_ours = |one: &&Value| one["comment"] == "other" && one["status"]["state"] == "active";
    let all = all.as_array().unwrap().iter().filter(is_ours);
    let log = operator.log().len();
    for one in all {
        pair.ask(0, &format!("DELETE /api/v2/silence/{}", one["id"].as_str().unwrap()));
    }
    wait_until(format_args!("it is made again: {}", operator.said()), || {
        operator.log()[log..].contains("/api/v2/silences")
    });
    pair.wait_for_silences(&operator, &[("jane", "mine"), ours("other")]);
    let container = "tt-staging-monitoring-alertmanager-1";
    wait_until("each has written down what it knows", || {
        [&pair.stage.host, &pair.second].into_iter().all(|host| {
            let written =
                format!("docker cp {container}:/alertmanager/silences - 2>/dev/null | grep -ac mine || true");
            succeeded(&mut host.command_as_deploy(&written)).trim() != "0"
        })
    });
    for host in [&pair.stage.host, &pair.second] {
        succeeded(&mut host.command_as_deploy(&format!("docker rm -f {container}")));
    }
    pair.wait_for_silences(&operator, &[("jane", "mine"), ours("other")]);
    operator.wait_until_ready("staging");

    phase("both are there");
    let before = [pair.decisions(0), pair.decisions(1)];
    pair.stage.on_host("echo 'a test' >/opt/tasktracker/staging/app/HOLD");
    pair.stage.on_host("docker stop -t 1 $(docker ps -qf label=com.docker.compose.service=backend)");
    wait_until_within(super::TOLD, format_args!("it is told: {}", operator.said()), || {
        !pair.calls().is_empty()
    });
    wait_until("both have decided", || (0..2).all(|host| pair.decisions(host) > before[host]));
    assert_eq!(pair.calls(), ["[FIRING:1] ServiceDown (test)"]);

    phase("one is away");
    pair.stage.on_host(&format!(
        "echo 'a test' >/opt/tasktracker/staging/monitoring/HOLD; docker kill {container}"
    ));
    pair.stage.as_root(super::faults::SMALL_DISK);
    wait_until_within(super::TOLD, format_args!("the other tells: {}", operator.said()), || {
        pair.calls().len() > 1
    });
    assert_eq!(pair.calls()[1], "[FIRING:1] InstanceDiskSpaceLow (test)");

    phase("it is back");
    pair.stage.on_host("rm /opt/tasktracker/staging/monitoring/HOLD");
    wait_until_within(super::TOLD, format_args!("it has decided: {}", operator.said()), || {
        pair.decisions(0) > 1.0
    });
    assert_eq!(pair.calls().len(), 2, "{:?}", pair.calls());
    pair.stage.as_root(super::faults::NO_SMALL_DISK);
    operator.stop();
}
