//! What is another way with today's engine: its store gives every image a digest, also those that no registry has, and
//! networks have defaults.

use tasktracker_testbed::{Compose, Engine, HostOptions, packages};

use crate::{
    quiet::{DEFAULTS, check, settled, with_each_default, with_network_defaults},
    registry::Scene,
    stage::{Stage, wait_until},
};

fn current() -> HostOptions {
    HostOptions { engine: Engine::Current, compose: Compose::Current, ..HostOptions::default() }
}

fn assert_current(stage: &Stage) {
    let version = stage.on_host("docker version --format '{{.Server.Version}}'");
    assert_eq!(version.trim(), packages::newer::CURRENT_ENGINE);
}

#[test]
#[ignore = "builds an engine: `cargo xtask soak engine`"]
fn soak_what_was_loaded_comes_from_no_registry_and_what_was_pulled_does() {
    let scene = Scene::with("soak-engine", current());
    assert_current(&scene.stage);
    // The registry has other images under the names of those that were loaded.
    scene.push_revision("r2", "one");
    let named = |name: &str| format!("{}/tasktracker/{name}", scene.registry.address());
    for image in ["backend", "frontend"] {
        let loaded = format!("registry.example.com/tasktracker/{image}:r1");
        scene.stage.on_host(&format!("docker tag {loaded} {}", named(&format!("{image}:one"))));
    }
    let digests = scene.stage.on_host(&format!(
        "docker image inspect --format '{{{{len .RepoDigests}}}}' {}",
        named("backend:one")
    ));
    assert_ne!(digests.trim(), "0", "what was loaded has a digest");
    scene.write("one", "secret: registry", "");
    let operator = scene.stage.start_operator();
    operator.wait_until_ready("staging");
    assert_eq!(scene.image(), named("backend:one"));
    let pulled = scene.push_revision("r2", "two");
    scene.write("two", "secret: registry", "");
    let expected = format!("{}@{pulled}", named("backend:two"));
    wait_until(format_args!("{expected} runs, found {}: {}", scene.image(), operator.said()), || {
        scene.image() == expected && operator.is_ready("staging")
    });
    operator.stop();
}

#[test]
#[ignore = "takes minutes: `cargo xtask soak engine`"]
fn soak_thousand_checks_with_each_default() {
    let stage = settled("soak-engine-defaults", current());
    assert_current(&stage);
    check(&stage, 1_000, 9);
    with_each_default(&stage, &DEFAULTS, 500);
    with_network_defaults(&stage, 1_000);
}
