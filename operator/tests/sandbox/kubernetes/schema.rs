//! One schema in both doors: what the API server takes and refuses, the check of a file does, for the same reason.

use std::{fs, process::Command};

use tasktracker_crds::validation::{self, Mistake};

use super::cluster::Cluster;

const GOOD: &str = include_str!("../../../../examples/staging.yaml");

fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replace(from, to)
}

fn spec(more: &str) -> String {
    format!("{}\n  {more}\n", GOOD.trim_end())
}

fn app(more: &str) -> String {
    with("tasktracker}", &format!("tasktracker, {more}}}"))
}

fn backend(more: &str) -> String {
    app(&format!("backend: {{{more}}}"))
}

fn host(more: &str) -> String {
    with("roles: [app]", &format!("roles: [app]\n      {more}"))
}

fn policy(more: &str) -> String {
    spec(&format!("policy: {{{more}}}"))
}

fn good() -> Vec<String> {
    let tls = "publicUrl: 'https://tasks.example.com'";
    vec![
        GOOD.to_owned(),
        with("revision: 3f2c1ab", "revision: 'v1.2.3'"),
        with("revision: 3f2c1ab", "revision: '1234567'"),
        with("address: staging.example.com", "address: 10.1.2.3"),
        with("address: staging.example.com", "address: '2001:db8::1'"),
        host("port: 2222"),
        host("directory: /srv/tasks"),
        host("state: Frozen"),
        host("state: Drained"),
        host("bindAddress: 10.1.2.3"),
        host("privateAddress: 10.1.2.3"),
        backend("env: {LOG_STYLE: short}"),
        backend("secretEnv: {TOKEN: {secret: api, key: token}}"),
        backend("resources: {memory: 128Mi, cpu: '0.5'}"),
        backend("replicas: 3"),
        backend("logLevel: debug"),
        app("database: {postgres: {urlSecret: db}}"),
        app(&format!("{tls}, tls: {{mode: Internal}}")),
        app(&format!("{tls}, tls: {{mode: Secret, secret: tls}}")),
        app(&format!("{tls}, tls: {{mode: Acme, acme: {{email: 'a@example.com'}}}}")),
        app("registryAuth: {hostHelper: ecr-login}"),
        app("hooks: {preRollout: {command: [backend, migrate], timeout: 1m}}"),
        policy("heal: Report"),
        policy("upgrade: Approve, windows: [{cron: '0 3 * * *', duration: 1h, timezone: Europe/Berlin}]"),
        policy("rollout: {soak: 5s, onFailure: Hold, maxUnavailable: 2}"),
        policy("ignore: [{component: app, service: backend, kind: ConfigChanged, path: mem_limit}]"),
        policy("deletion: DownAndVolumes, prune: Report"),
        policy("tags: {moved: Follow, interval: 10m}"),
        spec("suspend: {until: '2030-01-01T00:00:00Z', reason: audit}"),
        spec("interval: 5s"),
        spec("approvedPlan: 0123abcd"),
        spec("ports: {page: 8080, api: 8081}"),
        spec("notifications: [{slack: {webhookSecret: slack, channel: '#ops'}, events: [Succeeded]}]"),
    ]
}

fn bad() -> Vec<String> {
    let tls = "publicUrl: 'https://tasks.example.com'";
    vec![
        with("  name: staging", "  name: staging-of-a-name-that-is-far-too-long"),
        with("environment: staging", "enviroment: staging"),
        with("  environment: staging\n", ""),
        with("environment: staging", "environment: Sta ging"),
        with("revision: 3f2c1ab", "revision: 1234567"),
        with("revision: 3f2c1ab", "revision: 'a b'"),
        with("  revision: 3f2c1ab\n", ""),
        with("name: app-1", "name: App_1"),
        with("address: staging.example.com", "address: 'b;id'"),
        with("roles: [app]", "roles: [ap]"),
        with("roles: [app]", "roles: []"),
        host("port: 70000"),
        host("port: 0"),
        host("directory: /opt"),
        host("directory: opt/x"),
        host("directory: /opt/../etc"),
        host("state: Off"),
        host("jump: nobody"),
        host("bindAddress: 0.0.0.0:80"),
        with(
            "ssh: {user: deploy, identitySecrets: [staging-ssh]}",
            "ssh: {user: deploy, identitySecrets: []}",
        ),
        with(
            "ssh: {user: deploy, identitySecrets: [staging-ssh]}",
            "ssh: {user: 'a b', identitySecrets: [staging-ssh]}",
        ),
        with(
            "ssh: {user: deploy, identitySecrets: [staging-ssh]}",
            "ssh: {user: deploy, identitySecrets: [../x]}",
        ),
        with("app: {registry: registry.example.com/tasktracker}", "app: {}"),
        with("app: {registry: registry.example.com/tasktracker}", "app: {registry: 'a b'}"),
        backend("privileged: true"),
        backend("env: {1A: x}"),
        backend("env: {A: 1}"),
        backend("replicas: 0"),
        backend("replicas: two"),
        backend("resources: {memory: lots}"),
        backend("resources: {cpu: 0.5}"),
        backend("logLevel: loud"),
        backend("secretEnv: {A: {secret: ../x, key: y}}"),
        backend("env: {A_FILE: /x}, secretEnv: {A: {secret: x, key: y}}"),
        app("database: {sqlite: {}, postgres: {urlSecret: a}}"),
        app("tls: {mode: Internal}"),
        app("tls: {mode: Sometimes}"),
        app(&format!("{tls}, tls: {{mode: Secret}}")),
        app(&format!("{tls}, tls: {{mode: Acme}}")),
        app("adopt: {project: --all}"),
        app("edge: {image: 'caddy; id'}"),
        app("digests: {backend: latest}"),
        policy("heal: Sometimes"),
        policy("upgrade: approve"),
        policy("windows: [{cron: soon, duration: 1h}]"),
        policy("rollout: {soak: 10}"),
        policy("rollout: {maxUnavailable: 0}"),
        policy("ignore: [{kind: Nothing}]"),
        policy("deletion: Everything"),
        spec("suspend: {until: tomorrow, reason: audit}"),
        spec("suspend: {until: '2030-01-01T00:00:00Z'}"),
        spec("interval: never"),
        spec("approvedPlan: yes!"),
        spec("ports: {api: 8000, page: 8000}"),
        spec("ports: {page: 99999}"),
        spec("notifications: [{slack: {webhookSecret: slack}, events: []}]"),
        spec("notifications: [{slack: {webhookSecret: slack}, events: [Everything]}]"),
        spec("monitoring: {}"),
    ]
}

/// What the API server says of a text that is to be made, without making it.
fn refusal(cluster: &Cluster, text: &str) -> Option<String> {
    let file = cluster.plane.path("stack.yaml");
    fs::write(&file, text).unwrap();
    let mut command: Command = cluster.plane.kubectl();
    let output =
        command.args(["create", "--dry-run=server", "--validate=strict", "-f"]).arg(&file).output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether both mean the same place or say the same words.
fn agrees(mistake: &Mistake, said: &str) -> bool {
    let last = mistake.path.rsplit(['.', '[']).next().unwrap_or_default().trim_end_matches(']');
    said.contains(&mistake.path)
        || said.contains(&mistake.message)
        || (!last.is_empty() && said.contains(last))
}

#[test]
fn the_api_server_and_the_check_of_a_file_agree() {
    let cluster = Cluster::start();
    let (good, bad) = (good(), bad());
    assert!(good.len() + bad.len() >= 60, "{} specs", good.len() + bad.len());
    println!("{} good and {} bad specs", good.len(), bad.len());
    for text in good {
        validation::read_stack(&text).unwrap_or_else(|found| panic!("{found:?}: {text}"));
        assert_eq!(refusal(&cluster, &text), None, "{text}");
    }
    for text in bad {
        let found = validation::read_stack(&text).expect_err(&text);
        // What is valid and not built yet is refused by the operator, in both doors.
        if text.contains("  monitoring: {}") {
            continue;
        }
        let said =
            refusal(&cluster, &text).unwrap_or_else(|| panic!("the API server takes it: {found:?}: {text}"));
        assert!(found.iter().any(|mistake| agrees(mistake, &said)), "{found:?}\n{said}\n{text}");
    }

    // What cannot be changed, cannot be removed and given anew.
    cluster.apply(GOOD);
    for patch in [r#"{"spec":{"environment":"production"}}"#, r#"{"spec":{"environment":null}}"#] {
        let output = cluster
            .plane
            .kubectl()
            .args(["patch", "tts", "staging", "--type=merge", "-p", patch])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("environment"), "{patch}: {said}");
    }
    for (field, words) in [
        ("tts.spec.policy.rollout", "How long a service may take to become healthy"),
        ("tts.spec.hosts", "The Docker hosts of this environment"),
        ("tts.status.conditions", "Ready, Reconciling, Stalled"),
    ] {
        let explained = cluster.kubectl(&["explain", field]);
        assert!(explained.contains(words), "{field}: {explained}");
    }
}
