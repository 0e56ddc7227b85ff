//! TLS at the edge: certificates from a secret, from the edge itself and from an authority, and how they are renewed.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tasktracker_testbed::{DemoHost, TlsClient, USERS, Users, http_answer};

use crate::{
    rollout::assert_no_failure,
    stage::{Running, Stage, wait_until},
};

const NAME: &str = "tasks.test";
const LIMITS: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 2s, healthTimeout: 20s}}\n";
const EDGE: &str = "tt-staging-app-edge-1";

/// A stack whose page is `https://tasks.test`.
fn with_tls(stage: &Stage, tls: &str) -> String {
    let app = format!("tasktracker, publicUrl: \"https://{NAME}\", tls: {{{tls}}}}}");
    stage.stack("staging", "r1", LIMITS).replace("tasktracker}", &app)
}

fn port(stage: &Stage, port: u16) -> SocketAddr {
    SocketAddr::new(stage.host.address(), port)
}

/// The edge's container, and since when it runs.
fn edge(stage: &Stage) -> String {
    stage.on_host(&format!("docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {EDGE}"))
}

fn edge_runs(stage: &Stage) -> bool {
    !stage.on_host(&format!("docker ps -q --filter name={EDGE}")).is_empty()
}

/// An authority of a test's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate that holds until the first day of a year, and its key.
    pub(crate) fn issue(&self, name: &str, until: i32) -> (String, String) {
        self.issue_from(name, 2020, until)
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue_from(&self, name: &str, from: i32, until: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

pub(crate) fn write_pair(stage: &Stage, secret: &str, (chain, key): &(String, String)) {
    stage.write_value(secret, "tls.crt", chain.as_bytes());
    stage.write_value(secret, "tls.key", key.as_bytes());
}

fn expiry(running: &Running) -> Option<f64> {
    running.metric("tasktracker_certificate_expiry_timestamp_seconds", &["host=\"app-1\""])
}

fn status(stage: &Stage) -> Value {
    stage.json(&["status"]).1[0]["report"].clone()
}

fn has_status(answer: &str, status: u16) -> bool {
    answer.starts_with(&format!("HTTP/1.1 {status} "))
}

#[test]
fn a_certificate_from_a_secret_is_shown_and_another_one_taken_up_without_a_restart() {
    let stage = Stage::new("tls-secret");
    let authority = Authority::new();
    let client = TlsClient::new(NAME, &authority.0.pem()).unwrap();
    // Nothing is begun with a certificate that users would not accept.
    let refused = [
        (authority.issue("other.test", 2040), "not for tasks.test"),
        ((authority.issue(NAME, 2040).0, authority.issue(NAME, 2040).1), "another certificate's"),
        (authority.issue(NAME, 2021), "ended 2021"),
        (authority.issue_from(NAME, 2039, 2040), "does not hold before 2039"),
    ];
    stage.write_stack("staging.yaml", &with_tls(&stage, "mode: Secret, secret: web"));
    for (pair, words) in &refused {
        write_pair(&stage, "web", pair);
        let told = stage.command(&["apply"]);
        let said =
            [told.stdout, told.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(!told.status.success() && said.contains(words), "{said}");
        assert_eq!(stage.on_host("docker ps -aq"), "", "{words}");
    }
    write_pair(&stage, "web", &authority.issue(NAME, 2040));
    let running = stage.start_operator();
    running.wait_until_ready("staging");
    let page = port(&stage, 443);
    let answer = client.ask(page, "GET /").unwrap();
    assert!(has_status(&answer, 200) && answer.contains("Strict-Transport-Security: max-age"), "{answer}");
    for (number, path) in [(443, "/api/tasks"), (443, "/api/health/ready"), (8000, "/tasks")] {
        let answer = client.ask(port(&stage, number), &format!("GET {path}")).unwrap();
        assert!(has_status(&answer, 200), "{number} {path}: {answer}");
    }
    assert!(has_status(&client.ask(page, "GET /metrics").unwrap(), 404));
    let plain = http_answer(port(&stage, 80), "GET /tasks?a=b").unwrap();
    assert!(has_status(&plain, 308) && plain.contains("Location: https://tasks.test/tasks?a=b"), "{plain}");
    assert_eq!(stage.http(80, "GET /api/health/ready").0, 200, "balancers ask without TLS");
    assert_eq!(stage.http(3500, "GET /").0, 0, "the port without TLS is closed");
    let day_2040 = 2_208_988_800.0;
    wait_until("the end of the certificate is told", || expiry(&running) == Some(day_2040));
    assert_eq!(status(&stage)["certificate"]["notAfter"], "2040-01-01T00:00:00Z");

    let (before, shown) = (edge(&stage), client.shown(page).unwrap());
    let users = Users::start_over_tls(page, &client, "renewal");
    write_pair(&stage, "web", &authority.issue(NAME, 2041));
    let is_new = || client.shown(page).is_ok_and(|now| now != shown) && running.is_ready("staging");
    wait_until("the new certificate is shown", is_new);
    users.wait_for_requests(100);
    let seen = users.stop();
    assert_no_failure("another certificate", &seen);
    println!("asked once more: {}", seen.asked_again);
    assert!(seen.asked_again <= USERS, "one reload ends at most one request of each user");
    assert_eq!(edge(&stage), before, "the edge was restarted");
    wait_until("the new end is told", || expiry(&running) > Some(day_2040));

    // A bad one changes nothing, and is told.
    let shown = client.shown(page).unwrap();
    for (pair, words) in &refused {
        write_pair(&stage, "web", pair);
        wait_until(format_args!("{words} is told"), || {
            let waiting = &status(&stage)["waiting"];
            let message = waiting["message"].as_str().unwrap_or_default();
            waiting["reason"] == "SecretMissing" && message.contains(words)
        });
    }
    assert_eq!((edge(&stage), client.shown(page).unwrap()), (before, shown));
    running.stop();
}

#[test]
fn users_are_shown_the_certificate_that_is_in_force_whatever_becomes_of_a_change() {
    let stage = Stage::new("tls-change");
    let authority = Authority::new();
    let client = TlsClient::new(NAME, &authority.0.pem()).unwrap();
    let page = port(&stage, 443);
    let first = with_tls(&stage, "mode: Secret, secret: web");
    write_pair(&stage, "web", &authority.issue(NAME, 2040));
    stage.write_stack("staging.yaml", &first);
    stage.apply();
    let shown = client.shown(page).unwrap();

    // Another name, another secret, and a revision that fails when it has the traffic.
    write_pair(&stage, "other", &authority.issue("other.test", 2040));
    let bad = first.replace(NAME, "other.test").replace("secret: web", "secret: other");
    let hook =
        "tls: {mode: Secret, secret: other}, hooks: {postRollout: {command: [/backend, no-such-thing]}}";
    let bad = bad.replace("tls: {mode: Secret, secret: other}", hook);
    stage.write_stack("staging.yaml", &bad.replace("revision: r1", "revision: r2"));
    let refused = stage.command(&["apply"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("app.hooks.postRollout"), "{said}");
    assert_eq!(client.shown(page).unwrap(), shown);
    stage.write_stack("staging.yaml", &first);
    assert_eq!(stage.json(&["status"]).0, 0);

    // A file that somebody changed, and that the edge took up: both are taken back.
    let folder = "/opt/tasktracker/staging/app/secrets/edge";
    let (chain, key) = authority.issue(NAME, 2050);
    stage.as_root(&format!("printf '%s' '{chain}' >{folder}/tls.crt; printf '%s' '{key}' >{folder}/tls.key"));
    stage.on_host(&format!("docker exec {EDGE} caddy reload --config /etc/caddy/Caddyfile --force 2>&1"));
    assert_ne!(client.shown(page).unwrap(), shown);
    stage.apply();
    assert_eq!(client.shown(page).unwrap(), shown);

    // While another value waits, the edge is made anew with the one in force, and nobody is told otherwise.
    let waits = first.replace("{rollout", "{upgrade: Approve, rollout");
    stage.write_stack("staging.yaml", &waits);
    write_pair(&stage, "web", &authority.issue(NAME, 2041));
    let operator = stage.start_operator();
    wait_until("the new value waits", || operator.log().contains("ApprovalNeeded"));
    stage.on_host(&format!("docker rm -f {EDGE}"));
    wait_until("the edge is back", || client.shown(page).is_ok_and(|again| again == shown));
    wait_until(format_args!("it is healed: {}", operator.said()), || operator.log().contains("healed: edge"));
    assert!(!operator.log().contains("ERROR"), "{}", operator.log());
    operator.stop();
}

#[test]
fn the_edges_own_authority_outlives_its_container() {
    let stage = Stage::new("tls-internal");
    let running = stage.start_operator();
    let internal = with_tls(&stage, "mode: Internal");
    stage.write_stack("staging.yaml", &internal);
    running.wait_until_ready("staging");
    let root = format!("docker exec {EDGE} cat /data/caddy/pki/authorities/local/root.crt");
    let authority = stage.on_host(&root);
    let client = TlsClient::new(NAME, &authority).unwrap();
    let page = port(&stage, 443);
    let shown = client.shown(page).unwrap();
    stage.on_host(&format!("docker rm -f {EDGE}"));
    wait_until("the edge is back", || client.shown(page).is_ok_and(|again| again == shown));
    assert_eq!(stage.on_host(&root), authority);
    wait_until("it is told", || running.is_ready("staging"));
    // What the edge keeps is no data: without it, it begins anew.
    stage.on_host(&format!("docker rm -f {EDGE} && docker volume rm tt-staging-app-edge"));
    let is_anew = || client.shown(page).is_err() && running.is_ready("staging") && edge_runs(&stage);
    wait_until(format_args!("the edge has an authority again: {}", running.said()), is_anew);
    let client = TlsClient::new(NAME, &stage.on_host(&root)).unwrap();
    client.shown(page).unwrap();
    // A drained host says so with and without TLS.
    stage.write_stack("staging.yaml", &internal.replace("roles: [app]", "roles: [app], state: Drained"));
    let is_drained = || {
        client.ask(page, "GET /api/health/ready").is_ok_and(|answer| has_status(&answer, 503))
            && stage.http(80, "GET /api/health/ready").0 == 503
    };
    wait_until("the host is drained", is_drained);
    assert!(has_status(&client.ask(page, "GET /api/tasks").unwrap(), 200));
    // Without TLS again: nobody has to say that what the edge kept is not needed.
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", LIMITS));
    let is_plain = || stage.http(3500, "GET /").0 == 200 && running.is_ready("staging");
    wait_until("the page is there without TLS", is_plain);
    assert!(client.ask(page, "GET /").is_err() && expiry(&running).is_none());
    let volumes = || stage.on_host("docker volume ls -q");
    assert!(volumes().contains("tt-staging-app-edge"));
    running.stop();
    std::fs::remove_file(stage.path("stacks/staging.yaml")).unwrap();
    let deleted = stage.command(&["delete", "staging", "--volumes"]);
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    assert_eq!(volumes(), "", "keys are left");
}

/// Starts another Caddy on the host, which is an authority for whoever shows that a name is theirs; its root certificate.
fn start_authority(stage: &Stage) -> String {
    let address = stage.host.address();
    let caddyfile = format!(
        "{{
	default_sni {address}
	skip_install_trust
}}
https://{address}:9443 {{
	tls internal
	acme_server
}}"
    );
    stage.on_host(&format!(
        "mkdir -p /tmp/acme && printf '%s\\n' '{caddyfile}' >/tmp/acme/Caddyfile
         docker rm -f acme 2>/dev/null
         docker run -d --name acme --add-host {NAME}:{address} -p 9443:9443 -v /tmp/acme:/etc/caddy:ro caddy:2.6.2"
    ));
    let root = "docker exec acme cat /data/caddy/pki/authorities/local/root.crt 2>/dev/null || true";
    let mut found = String::new();
    wait_until("the authority is there", || {
        found = stage.on_host(root);
        !found.is_empty()
    });
    found
}

#[test]
fn an_acme_authority_issues_certificates_and_they_are_renewed_without_a_restart() {
    let stage = Stage::new("tls-acme");
    let root = start_authority(&stage);
    stage.write_value("authority", "ca.crt", root.as_bytes());
    let client = TlsClient::new(NAME, &root).unwrap();
    let page = port(&stage, 443);
    let acme = |port: u16| {
        let directory = format!("https://{}:{port}/acme/local/directory", stage.host.address());
        let acme = format!("email: \"a@example.com\", directory: \"{directory}\", caSecret: authority");
        with_tls(&stage, &format!("mode: Acme, acme: {{{acme}}}"))
    };
    // Without a certificate, nothing counts as rolled out.
    stage.write_stack("staging.yaml", &acme(9444).replace("healthTimeout: 20s", "healthTimeout: 5s"));
    let told = stage.command(&["apply"]);
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(said.contains("edge: expected to show a certificate for tasks.test"), "{said}");
    stage.write_stack("staging.yaml", &acme(9443));
    let running = stage.start_operator();
    running.wait_until_ready("staging");
    let shown = client.shown(page).unwrap();
    // What was issued is kept: the authority is not asked again for each new container.
    stage.on_host(&format!("docker rm -f {EDGE}"));
    let is_back = || client.shown(page).is_ok_and(|again| again == shown) && running.is_ready("staging");
    wait_until("the edge is back", is_back);
    // Time is made to pass faster: the edge is told that certificates are to be renewed when they are some seconds old.
    let end = || status(&stage)["certificate"]["notAfter"].as_str().unwrap_or_default().to_owned();
    let (before, first_end) = (edge(&stage), end());
    assert!(expiry(&running).is_some(), "the metric is there");
    let config = stage.on_host(&format!("docker exec {EDGE} wget -qO- http://127.0.0.1:2019/config/"));
    let mut config: Value = serde_json::from_str(&config).unwrap();
    let automation = &mut config["apps"]["tls"]["automation"];
    automation["renew_interval"] = json!("1s");
    automation["policies"][0]["renewal_window_ratio"] = json!(0.9999);
    stage.on_host(&format!("printf '%s' '{config}' | docker exec -i {EDGE} caddy reload --config -"));
    wait_until("another certificate is shown", || client.shown(page).is_ok_and(|again| again != shown));
    assert_eq!(edge(&stage), before, "the edge was restarted");
    assert!(end() > first_end, "{first_end}");
    running.stop();
}
