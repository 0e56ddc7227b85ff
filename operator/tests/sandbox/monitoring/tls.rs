//! TLS wherever something of the monitoring is reached over the network, also between two hosts.

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::Value;
use tasktracker_testbed::{DemoHost, TlsClient, http};

use super::{ADMIN, bound, cluster::Pair, ports};
use crate::{
    stage::{phase, wait_until},
    tls::{Authority, write_pair},
};

const NAME: &str = "monitoring.test";
const TLS: &str = "tls: {secretRef: {name: monitoring-tls}, serverName: monitoring.test}, ";
/// What others reach on a host with everything.
const PORTS: [u16; 3] = [9090, 9093, 9100];

/// Both hosts, as who trusts an authority sees them.
struct Seen<'a> {
    pair: &'a Pair,
    client: TlsClient,
}

impl Seen<'_> {
    fn address(&self, host: usize, port: u16) -> SocketAddr {
        let address = if host == 0 { self.pair.stage.host.address() } else { self.pair.second.address() };
        SocketAddr::new(address, port)
    }

    /// Status and body; 0 where nobody answers.
    fn ask(&self, host: usize, port: u16, request: &str) -> (u16, String) {
        let answer = self.client.ask_as(self.address(host, port), ADMIN, request).unwrap_or_default();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(), body.to_owned())
    }

    /// Host and job of every target that a store knows to be up.
    fn up(&self, host: usize) -> BTreeSet<String> {
        let (_, body) = self.ask(host, 9090, "GET /api/v1/query?query=up==1");
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        let all = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let text = |one: &Value, label: &str| one["metric"][label].as_str().unwrap_or_default().to_owned();
        all.iter().map(|one| format!("{} {}", text(one, "host"), text(one, "job"))).collect()
    }

    fn has_line(&self, host: usize, line: &str) -> bool {
        self.ask(host, 9093, "GET /metrics").1.lines().any(|found| found == line)
    }

    /// The certificates that are shown.
    fn shown(&self) -> BTreeSet<Vec<u8>> {
        let all = (0..2).flat_map(|host| PORTS.map(|port| self.address(host, port)));
        all.map(|address| self.client.shown(address).unwrap_or_default()).collect()
    }
}

#[test]
fn with_tls_nothing_of_the_monitoring_speaks_without_it_and_a_renewed_certificate_is_taken_up() {
    let pair = Pair::start("mon-tls");
    let authority = Authority::new();
    write_pair(&pair.stage, "monitoring-tls", &authority.issue(NAME, 2035));
    pair.stage.write_value("monitoring-tls", "ca.crt", authority.pem().as_bytes());
    let silence = "{matchers: ['alertname=\"TargetDown\"'], until: \"2100-01-01T00:00:00Z\", reason: moving}";
    pair.write(silence, TLS);
    let seen = Seen { pair: &pair, client: TlsClient::new(NAME, &authority.pem()).unwrap() };
    let operator = pair.stage.start_operator();
    operator.wait_until_ready("staging");

    phase("they reach each other");
    let of_host = |host: &str, jobs: &[&str]| -> BTreeSet<String> {
        jobs.iter().map(|job| format!("{host} {job}")).collect()
    };
    let agents: BTreeSet<String> = of_host("app-1", &["agent", "backend", "edge", "node"])
        .union(&of_host("mon-2", &["agent", "node"]))
        .cloned()
        .collect();
    for (host, name) in ["app-1", "mon-2"].into_iter().enumerate() {
        let own = of_host(name, &["alertmanager", "prometheus"]);
        let all: BTreeSet<String> = agents.union(&own).cloned().collect();
        wait_until(format_args!("all are up: {:?}; {}", seen.up(host), operator.said()), || {
            seen.up(host) == all
        });
        wait_until("it knows the other", || seen.has_line(host, "alertmanager_cluster_members 2"));
        wait_until("the silence is there", || {
            seen.ask(host, 9093, "GET /api/v2/silences").1.contains("moving")
        });
        let own = "GET /api/v1/query?query=tasktracker_stack_ready";
        wait_until("the operator's own are there", || seen.ask(host, 9090, own).1.contains("staging"));
        let alerted = "GET /api/v1/alertmanagers";
        wait_until("it knows whom to tell", || {
            seen.ask(host, 9090, alerted).1.matches("https://").count() == 2
        });
    }

    phase("nothing is said without it, or to others");
    let stranger = TlsClient::new(NAME, &Authority::new().pem()).unwrap();
    for port in PORTS {
        let address = seen.address(0, port);
        let plain = http(address, "GET /metrics").map(|(status, _)| status);
        assert_eq!(plain, Some(400), "{port}");
        assert!(stranger.ask(address, "GET /metrics").is_err(), "{port}");
        let nobody = seen.client.ask(address, "GET /metrics").unwrap();
        assert!(nobody.starts_with("HTTP/1.1 401"), "{port}: {nobody}");
        assert_eq!(seen.ask(0, port, "GET /metrics").0, 200, "{port}");
    }
    assert!(stranger.ask(seen.address(0, 9094), "").is_err());
    assert_eq!(bound(&pair.stage), ports(&pair.stage), "what is bound, and what the stack asks for");

    phase("a renewed certificate");
    let before = seen.shown();
    assert_eq!(before.len(), 1);
    let life = "docker inspect -f '{{.Id}} {{.State.StartedAt}}' tt-staging-monitoring-prometheus-1 tt-staging-monitoring-alertmanager-1";
    let lives = pair.stage.on_host(life);
    write_pair(&pair.stage, "monitoring-tls", &authority.issue(NAME, 2036));
    wait_until(format_args!("it is shown: {}", operator.said()), || {
        let shown = seen.shown();
        shown.len() == 1 && shown.is_disjoint(&before)
    });
    operator.wait_until_ready("staging");
    assert_eq!(pair.stage.on_host(life), lives, "nothing was started anew for it");
    wait_until("all are up", || (0..2).all(|host| seen.up(host).is_superset(&agents)));
    operator.stop();
}
