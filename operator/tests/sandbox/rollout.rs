//! Changes that nobody notices: new containers take over while the old ones serve.

use std::net::SocketAddr;

use tasktracker_testbed::{DemoHost, SandboxHost, Seen, Users, titles};

use crate::stage::{Stage, succeeded, wait_until_listening};

const SOAK: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 2s}}\n";
/// Requests that users make before and after a change: of some hundred milliseconds.
const AROUND: usize = 100;

/// Nothing failed, and everything that was acknowledged is there.
pub(crate) fn assert_unnoticed(host: &SandboxHost, what: &str, seen: &Seen) {
    let there = titles(SocketAddr::new(host.address(), 8000)).unwrap();
    let lost: Vec<&String> = seen.created.difference(&there).collect();
    assert_no_failure(what, seen);
    assert!(lost.is_empty() && !seen.created.is_empty(), "{what}: lost {lost:?}");
}

pub(crate) fn assert_no_failure(what: &str, seen: &Seen) {
    println!("{what}: {} requests, p99 {} ms", seen.latencies.len(), seen.p99().as_millis());
    assert!(seen.failures.is_empty(), "{what}: {} failed: {:?}", seen.failures.len(), seen.failures);
}

#[test]
fn a_change_of_image_environment_secret_or_number_costs_no_request() {
    let stage = Stage::new("rollout");
    let write = |revision: &str, backend: &str| {
        let app = format!("tasktracker, backend: {{{backend}}}}}");
        stage.write_stack(
            "staging.yaml",
            &stage.stack("staging", revision, SOAK).replace("tasktracker}", &app),
        );
    };
    stage.write_value("api", "TOKEN", b"one");
    let secret = "secretEnv: {TOKEN: {secret: api, key: TOKEN}}";
    write("r1", secret);
    stage.apply();
    let edge = || stage.on_host("docker inspect --format '{{.Id}}' tt-staging-app-edge-1");
    let before = edge();
    let steps: [(&str, &dyn Fn()); 5] = [
        ("another image", &|| write("r2", secret)),
        ("another environment", &|| write("r2", &format!("{secret}, env: {{A: b}}"))),
        ("three of them", &|| write("r2", &format!("{secret}, env: {{A: b}}, replicas: 3"))),
        ("another secret", &|| stage.write_value("api", "TOKEN", b"two")),
        ("one of them, and the image before", &|| write("r1", secret)),
    ];
    for (number, (what, change)) in steps.into_iter().enumerate() {
        let users = Users::start(stage.page(), &format!("step-{number}"));
        users.wait_for_requests(AROUND);
        change();
        stage.apply();
        users.wait_for_requests(AROUND);
        assert_unnoticed(&stage.host, what, &users.stop());
        let (code, status) = stage.json(&["status"]);
        assert_eq!(code, 0, "{what}: {status:#}");
    }
    assert_eq!(edge(), before, "the edge was replaced");
    // The edge itself is another one: it alone is made anew, when the new backend serves.
    let backends =
        || stage.on_host("docker ps -aq --no-trunc --filter label=com.docker.compose.service=backend");
    let served = backends();
    write("r1", &format!("{secret}, env: {{B: c}}}}, edge: {{resources: {{memory: 96Mi, cpu: 300m}}"));
    stage.apply();
    assert!(edge() != before && backends() != served, "nothing was replaced");
    assert_eq!((stage.json(&["status"]).0, stage.http(3500, "GET /api/health/ready").0), (0, 200));
}

/// Images of a revision that fails in its own way, made on a host from those that are there.
pub(crate) fn make_bad(host: &SandboxHost, revision: &str, script: &str) {
    let registry = "registry.example.com/tasktracker";
    let script = format!(
        "docker tag {registry}/frontend:r1 {registry}/frontend:{revision}
         docker rm -f bad bad-backend 2>/dev/null
         docker create --name bad-backend {registry}/backend:r1 >/dev/null
         rm -rf /tmp/real && mkdir /tmp/real && docker export bad-backend | tar -x -C /tmp/real && mv /tmp/real/backend /tmp/real/real
         printf '%s\\n' '#!/bin/sh' '[ \"$1\" = healthcheck ] && exec /real \"$@\"' '{script}' >/tmp/wrapper && chmod +x /tmp/wrapper
         docker create --name bad --entrypoint /backend caddy:2.6.2 >/dev/null
         (cd /tmp/real && tar -c real $(ls -d lib* usr 2>/dev/null)) | docker cp - bad:/ && docker cp /tmp/wrapper bad:/backend
         docker commit --change 'ENTRYPOINT [\"/backend\"]' --change 'CMD []' --change 'USER 10001:10001' bad {registry}/backend:{revision} >/dev/null
         docker rm -f bad bad-backend >/dev/null"
    );
    succeeded(&mut host.command_as_deploy(&script));
}

#[test]
fn a_revision_that_does_not_serve_is_noticed_by_nobody_and_taken_back_once() {
    let stage = Stage::new("rollout-bad");
    let write = |revision: &str| {
        let limits = "  policy: {rollout: {soak: 3s, drainTimeout: 2s, healthTimeout: 8s}}\n";
        let secret = "tasktracker, backend: {secretEnv: {TOKEN: {secret: api, key: TOKEN}}}}";
        let stack = stage.stack("staging", revision, limits).replace("tasktracker}", secret);
        stage.write_stack("staging.yaml", &stack);
    };
    stage.write_value("api", "TOKEN", b"canary-77");
    write("r1");
    stage.apply();
    let there = || {
        stage.on_host("docker ps -a --format '{{.ID}} {{.Names}} {{.State}}' | sort; docker volume ls -q; cd /opt/tasktracker; find . -type f ! -name .epoch ! -name ledger.json ! -path '*/addresses/*' -exec sha256sum {} + | sort")
    };
    let before = there();
    make_bad(&stage.host, "never-healthy", "exec sleep 600");
    make_bad(&stage.host, "ends-at-once", "echo no room for $(cat $TOKEN_FILE); exit 3");
    make_bad(&stage.host, "out-of-memory", "exec tail /dev/zero");
    make_bad(&stage.host, "ends-in-the-soak", "/real & sleep 4; kill $!; exit 1");
    let address = "$(tail -n 1 /etc/hosts | cut -f 1)";
    let answers =
        format!("LISTEN=127.0.0.1:8000 /real & exec caddy respond --listen {address}:8000 --status 500");
    make_bad(&stage.host, "green-but-500", &answers);
    make_bad(&stage.host, "green-but-deaf", "LISTEN=127.0.0.1:8000 exec /real");
    let users = Users::start(stage.page(), "bad");
    let all = [
        "never-healthy",
        "ends-at-once",
        "out-of-memory",
        "ends-in-the-soak",
        "green-but-500",
        "green-but-deaf",
        "not-there",
    ];
    for revision in all {
        write(revision);
        let refused = stage.command(&["apply"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        println!("{revision}: {}", said.trim());
        assert!(revision != "green-but-500" || said.contains("500"), "{said}");
        assert!(revision != "ends-at-once" || said.contains("wrote last: no room for …"), "{said}");
        assert!(!said.contains("canary"), "{said}");
        assert_eq!(refused.status.code(), Some(1), "{revision}: {said}");
        let (code, status) = stage.json(&["status"]);
        let report = &status[0]["report"];
        assert_eq!(
            (code, &report["revision"], &report["drift"]),
            (2, &"r1".into(), &serde_json::json!([])),
            "{status:#}"
        );
    }
    // Nothing is begun where a port cannot be had.
    stage.as_root("perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 3600, ReuseAddr => 1) or die; sleep 60' >/dev/null 2>&1 & echo $! >/tmp/listener");
    let moved = stage.stack("staging", "r1", "  ports: {page: 3600}\n");
    stage.write_stack("staging.yaml", &moved);
    wait_until_listening(&stage.host, 3600);
    let refused = stage.command(&["apply"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("port 3600: expected it to be free for edge, found something"), "{said}");
    stage.as_root("kill $(cat /tmp/listener)");
    stage.on_host("docker run -d --name other -p 3600:80 caddy:2.6.2 >/dev/null");
    let refused = stage.command(&["apply"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("port 3600: expected it to be free for edge, found the container other"), "{said}");
    stage.on_host("docker rm -f other");
    assert_unnoticed(&stage.host, "seven bad revisions and a port", &users.stop());
    write("green-but-deaf");
    let operator = stage.start_operator();
    operator.wait_for_checks("staging", "app-1", 3);
    operator.stop();
    write("r1");
    assert_eq!(stage.json(&["status"]).0, 0);
    assert_eq!(there(), before, "something was replaced or left");
    // One container that cannot be reached is not the release's fault: the next one is.
    let once = "[ -e /data/seen ] || { touch /data/seen; LISTEN=127.0.0.1:8000 exec /real; }; exec /real";
    make_bad(&stage.host, "deaf-once", once);
    write("deaf-once");
    stage.apply();
    assert_eq!(stage.json(&["status"]).0, 0);
    assert_eq!(stage.on_host("docker ps -aq | wc -l"), "3\n");
}

#[test]
fn hooks_run_once_each_with_the_new_backend_and_a_failed_one_changes_nothing() {
    let stage = Stage::new("hooks");
    let write = |revision: &str, hooks: &str| {
        let app = format!(
            "tasktracker, backend: {{secretEnv: {{TOKEN: {{secret: api, key: TOKEN}}}}}}, hooks: {{{hooks}}}}}"
        );
        let stack = stage.stack("staging", revision, SOAK).replace("tasktracker}", &app);
        stage.write_stack("staging.yaml", &stack);
    };
    let refused = || {
        let output = stage.command(&["apply"]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let served = || stage.http(3500, "GET /api/health").1;
    let there = || {
        stage.on_host("docker ps -a --format '{{.ID}} {{.Names}} {{.State}}' | sort; cd /opt/tasktracker; find . -type f ! -name .epoch ! -name ledger.json ! -path '*/addresses/*' -exec sha256sum {} + | sort")
    };
    stage.write_value("api", "TOKEN", b"canary-78");
    for revision in ["one", "two"] {
        make_bad(&stage.host, revision, "exec /real \"$@\"");
    }
    let note = |name: &str| {
        format!(
            "{name}Rollout: {{command: [sh, -c, 'echo {name} $REVISION $(cat $TOKEN_FILE | wc -c) >>/data/hooks']}}"
        )
    };
    let both = format!("{}, {}", note("pre"), note("post"));
    let noted = || stage.as_root("cat /var/lib/docker/volumes/tt-staging-app-data/_data/hooks");
    // The data belongs to the user of the real image.
    write("r1", "");
    stage.apply();
    write("one", &both);
    stage.apply();
    assert_eq!(noted(), "pre one 9\npost one 9\n");

    let before = there();
    let users = Users::start(stage.page(), "hooks");
    write("two", "preRollout: {command: [sh, -c, 'echo no $(cat $TOKEN_FILE); exit 3']}");
    let said = refused();
    assert!(
        said.contains("app.hooks.preRollout") && said.contains("no …") && !said.contains("canary"),
        "{said}"
    );
    assert_eq!(there(), before, "a failed hook changed something");
    let (_, status) = stage.json(&["status"]);
    assert_eq!(status[0]["report"]["drift"], serde_json::json!([]), "{status:#}");
    write("two", "preRollout: {command: [sleep, '600'], timeout: 2s}");
    let said = refused();
    assert!(said.contains("ended by its time limit"), "{said}");
    assert_eq!(there(), before, "a hook without an end changed something");
    // It has the traffic when this one fails, and gives it back.
    write("two", "postRollout: {command: [sh, -c, 'exit 4']}");
    let said = refused();
    assert!(said.contains("app.hooks.postRollout"), "{said}");
    assert_eq!((there(), served().contains("\"one\"")), (before, true));
    write("two", &both);
    stage.apply();
    assert_unnoticed(&stage.host, "hooks", &users.stop());
    assert_eq!(noted(), "pre one 9\npost one 9\npre two 9\npost two 9\n");
    assert_eq!(stage.json(&["status"]).0, 0);
}
