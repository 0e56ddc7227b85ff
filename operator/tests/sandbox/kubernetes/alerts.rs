//! Drift reaches a person: a real Prometheus with the chart's rules, a real Alertmanager, and whoever it tells.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tasktracker_testbed::{ControlPlaneOptions, HostKeyKind, Recorder, hostile, http, packages};

use super::cluster::{Cluster, chart};
use crate::stage::{Running, Stage, phase, wait_until, wait_until_within};

/// How long an alert may take: rules wait for minutes before they fire.
const LIMIT: Duration = Duration::from_mins(8);

/// A server that ends with this.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus that scrapes one operator as the chart's `ServiceMonitor` says, and an Alertmanager that tells a webhook.
struct Monitoring {
    prometheus: SocketAddr,
    webhook: Recorder,
    _servers: [Server; 2],
}

impl Monitoring {
    fn start(folder: &Path, operator: SocketAddr, token: &str) -> Self {
        let (prometheus, alertmanager) = (hostile::closed_port().unwrap(), hostile::closed_port().unwrap());
        let webhook = Recorder::start().unwrap();
        let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
        fs::copy(chart().join("files/alerts.yaml"), folder.join("alerts.yaml")).unwrap();
        write("token", token.to_owned());
        write(
            "prometheus.yaml",
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [alerts.yaml]\n\
                 alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}\n\
                 scrape_configs: [{{job_name: tasktracker-operator, honor_labels: true, authorization: {{credentials_file: token}}, static_configs: [{{targets: ['{operator}']}}]}}]\n"
            ),
        );
        write(
            "alertmanager.yaml",
            format!(
                "route: {{receiver: person, group_by: ['...'], group_wait: 0s, group_interval: 1s}}\n\
                 receivers: [{{name: person, webhook_configs: [{{url: 'http://{}/alerts'}}]}}]\n",
                webhook.address
            ),
        );
        let bin = packages::monitoring::prometheus_2(&mut |_| {}).unwrap();
        let first = Server::start(
            Command::new(bin.join("prometheus"))
                .arg(format!("--config.file={}", folder.join("prometheus.yaml").display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
                .arg(format!("--web.listen-address={prometheus}")),
            &folder.join("prometheus.log"),
        );
        let second = Server::start(
            Command::new(packages::monitoring::alertmanager(&mut |_| {}).unwrap())
                .arg(format!("--config.file={}", folder.join("alertmanager.yaml").display()))
                .arg(format!("--storage.path={}", folder.join("alertmanager").display()))
                .arg(format!("--web.listen-address={alertmanager}"))
                .arg("--cluster.listen-address="),
            &folder.join("alertmanager.log"),
        );
        Self { prometheus, webhook, _servers: [first, second] }
    }

    /// What a query comes to.
    fn query(&self, query: &str) -> Vec<Value> {
        let answer = http(self.prometheus, &format!("GET /api/v1/query?query={query}"));
        let text = answer.map(|(_, text)| text).unwrap_or_default();
        let start = text.find('{').unwrap_or_default();
        let end = text.rfind('}').map_or(0, |end| end + 1);
        let answer: Value =
            serde_json::from_str(text.get(start..end).unwrap_or_default()).unwrap_or_default();
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// The alerts that a person was told of: name, whether it fires, and its summary.
    fn told(&self) -> Vec<(String, bool, String)> {
        let taken = self.webhook.taken();
        let alerts = taken.iter().flat_map(|taken| taken.body["alerts"].as_array().unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        alerts
            .map(|alert| {
                let fires = alert["status"] == "firing";
                (text(&alert["labels"]["alertname"]), fires, text(&alert["annotations"]["summary"]))
            })
            .collect()
    }

    /// Waits until a person was told that an alert fires, or that it is over.
    fn tells(&self, alert: &str, fires: bool, operator: &Running) {
        let began = Instant::now();
        let is_told = || self.told().iter().any(|(name, firing, _)| name == alert && *firing == fires);
        let story = std::fmt::from_fn(|formatter| {
            let known = ["ALERTS", "tasktracker_host_failure", "up"].map(|query| self.query(query));
            write!(formatter, "{alert} {fires}: {:?}\n{known:?}\n{}", self.told(), operator.log())
        });
        wait_until_within(LIMIT, story, is_told);
        println!("{alert} {} after {} s", if fires { "fires" } else { "is over" }, began.elapsed().as_secs());
    }
}

#[test]
fn what_does_not_heal_a_host_with_another_key_and_a_dead_operator_reach_a_person() {
    let (stage, cluster) =
        (Stage::new("kube-alerts"), Cluster::with_chart(&ControlPlaneOptions::default(), &[]));
    cluster.add_key(&stage);
    let operator = cluster.start_as_chart(&[]);
    cluster.kubectl(&["create", "serviceaccount", "reader"]);
    let role = "--clusterrole=tasktracker-operator-metrics-reader";
    cluster.kubectl(&["create", "clusterrolebinding", "metrics", role, "--serviceaccount=default:reader"]);
    let token = cluster.kubectl(&["create", "token", "reader", "--duration=1h"]);
    let monitoring = Monitoring::start(&cluster.plane.path(""), operator.metrics, token.trim());
    cluster.apply(&stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n"));
    cluster.wait_until_ready("staging", &operator);
    let ready = || {
        monitoring
            .query("tasktracker_stack_ready")
            .first()
            .is_some_and(|one| one["value"][1] == "1" && one["metric"]["namespace"] == "default")
    };
    wait_until("Prometheus knows that it is ready", ready);

    phase("drift that does not heal");
    // Somebody changes it back again and again.
    let break_again = "until [ -e /tmp/enough ]; do sleep 0.2; echo other >>/opt/tasktracker/staging/app/files/edge/Caddyfile; done";
    let stubborn = stage
        .host
        .command_as_deploy(break_again)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stubborn = Server(stubborn);
    cluster.wait("staging", &operator, "it does not converge", || {
        cluster.condition("staging", "Stalled") == "True/NotConverging"
    });
    monitoring.tells("DriftNotHealing", true, &operator);
    stage.on_host("touch /tmp/enough");
    stubborn.0.wait().unwrap();
    cluster.command_ends(0, &["retry", "staging"]);
    cluster.wait_until_ready("staging", &operator);
    monitoring.tells("DriftNotHealing", false, &operator);
    let summaries: Vec<String> = monitoring.told().into_iter().map(|(_, _, summary)| summary).collect();
    assert!(summaries.iter().any(|summary| summary.contains("default/staging")), "{summaries:?}");

    phase("another host key");
    // The host shows another key.
    stage.host.replace_host_key(HostKeyKind::Ed25519).unwrap();
    monitoring.tells("HostKeyChanged", true, &operator);
    assert!(!monitoring.told().iter().any(|(name, _, _)| name == "HostUnreachable"), "one cause, one alert");

    phase("an operator that is gone");
    // Nobody is there any more who could tell.
    let log = operator.log();
    operator.kill();
    let began = Instant::now();
    let absent = || {
        monitoring.told().iter().any(|(name, fires, summary)| {
            name == "ReconcileStale" && *fires && summary.contains("any operator")
        })
    };
    let story = std::fmt::from_fn(|formatter| {
        write!(formatter, "ReconcileStale fires: {:?}\n{log}", monitoring.told())
    });
    wait_until_within(LIMIT, story, absent);
    println!("ReconcileStale fires after {} s", began.elapsed().as_secs());
}
