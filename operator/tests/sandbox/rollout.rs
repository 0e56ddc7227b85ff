//! Changes that nobody notices: new containers take over while the old ones serve.

use std::net::SocketAddr;

use tasktracker_testbed::DemoHost;

use crate::{
    stage::Stage,
    users::{Seen, Users, titles},
};

const SOAK: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 2s}}\n";

/// Nothing failed, and everything that was acknowledged is there.
fn assert_unnoticed(stage: &Stage, what: &str, seen: &Seen) {
    let there = titles(SocketAddr::new(stage.host.address(), 8000));
    let lost: Vec<&String> = seen.created.difference(&there).collect();
    println!("{what}: {} requests, p99 {} ms", seen.latencies.len(), seen.p99().as_millis());
    assert!(seen.failures.is_empty(), "{what}: {} failed: {:?}", seen.failures.len(), seen.failures);
    assert!(lost.is_empty() && !seen.created.is_empty(), "{what}: lost {lost:?}");
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
        std::thread::sleep(std::time::Duration::from_millis(500));
        change();
        stage.apply();
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_unnoticed(&stage, what, &users.stop());
        let (code, status) = stage.json(&["status"]);
        assert_eq!(code, 0, "{what}: {status:#}");
    }
    assert_eq!(edge(), before, "the edge was replaced");
}
