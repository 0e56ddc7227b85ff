//! Nothing false and nothing written: checks of a host that nobody touches find nothing and leave it as it is.

use serde_json::Value;
use tasktracker_operator::{engine::CheckOptions, observe::Depth};
use tasktracker_testbed::{Compose, Engine, HostOptions};
use tokio::runtime::Runtime;

use crate::stage::{Stage, wait_until};

fn newer() -> HostOptions {
    HostOptions { engine: Engine::Newer, compose: Compose::Newer, ..HostOptions::default() }
}

/// A host with a release, on which nothing happens any more.
pub(crate) fn settled(name: &str, options: HostOptions) -> Stage {
    let stage = Stage::with(name, options);
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n"));
    stage.apply();
    stage
}

/// Everything on the host: files with all their times, and `inspect` of everything but what health checks change.
fn everything(stage: &Stage) -> Vec<String> {
    let files = stage.as_root("find /opt/tasktracker -printf '%p %i %m %u %s %T@ %C@\\n' | sort");
    let container = "{{.Id}} {{.Name}} {{.Created}} {{.Image}} {{.RestartCount}} {{.State.Status}} {{.State.StartedAt}} {{json .Config}} {{json .HostConfig}} {{json .Mounts}} {{json .NetworkSettings}}";
    let objects = stage.as_root(&format!(
        "docker container ls -aq | sort | xargs -r docker container inspect --format '{container}'
         for kind in network volume; do docker $kind ls -q | sort | xargs -r docker $kind inspect --format '{{{{json .}}}}'; done
         docker image ls -q --no-trunc | sort -u"
    ));
    files.lines().chain(objects.lines()).map(str::to_owned).collect()
}

/// Nothing is another way than it was.
fn assert_same(stage: &Stage, before: &[String], after: &str) {
    let now = everything(stage);
    let gone: Vec<&String> = before.iter().filter(|line| !now.contains(line)).collect();
    let new: Vec<&String> = now.iter().filter(|line| !before.contains(line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "{after} wrote something: {gone:#?} became {new:#?}");
}

/// Makes checks on one connection after another: the operator is restarted `restarts` times in between.
pub(crate) fn check(stage: &Stage, checks: usize, restarts: usize) {
    let runtime = Runtime::new().unwrap();
    let before = everything(stage);
    let started = std::time::Instant::now();
    for run in 0..=restarts {
        let (stack, host) = stage.managed();
        for number in 0..checks / (restarts + 1) {
            let depth = [Depth::Woken, Depth::Whole, Depth::Woken, Depth::Slow][number % 4];
            let options = CheckOptions::read_only(depth);
            let evaluations = runtime.block_on(stage.check(&stack, &host, options)).unwrap();
            for evaluation in evaluations {
                assert!(
                    evaluation.drift.is_empty() && evaluation.plan.is_empty(),
                    "run {run}, check {number}: {:#?}",
                    evaluation.drift
                );
            }
        }
    }
    println!(
        "{checks} checks with {restarts} restarts: nothing found, {:.1} s",
        started.elapsed().as_secs_f64()
    );
    assert_same(stage, &before, "a check");
}

#[test]
fn a_hundred_plans_find_nothing_and_write_nothing() {
    let stage = settled("quiet", HostOptions::default());
    let before = everything(&stage);
    assert_eq!(stage.json(&["plan"]).0, 0);
    assert_same(&stage, &before, "`plan`");
    stage.on_host("docker stop tt-staging-app-frontend-1");
    let before = everything(&stage);
    assert_eq!(stage.json(&["plan"]).0, 2);
    assert_same(&stage, &before, "a plan with repairs");
    stage.apply();
    check(&stage, 100, 1);
}

#[test]
#[ignore = "takes minutes: `cargo xtask soak quiet`"]
fn soak_thousand_checks_with_the_oldest_engine() {
    check(&settled("soak-old", HostOptions::default()), 1_000, 9);
}

#[test]
#[ignore = "takes minutes: `cargo xtask soak quiet`"]
fn soak_thousand_checks_with_a_newer_engine() {
    check(&settled("soak-new", newer()), 1_000, 9);
}

/// `run` itself, beside a host that nobody touches.
fn run(stage: &Stage, checks: f64, restarts: usize) {
    let before = everything(stage);
    for _ in 0..restarts {
        let operator = stage.start_operator();
        operator.wait_until_ready("staging");
        wait_until("checks are made", || {
            operator.metric("tasktracker_reconcile_total", &["result=\"success\""]) >= Some(checks)
        });
        assert_eq!(operator.metric("tasktracker_reconcile_total", &["result=\"error\""]), Some(0.0));
        let (_, text) = tasktracker_testbed::http(operator.metrics, "GET /metrics").unwrap();
        let detected = text.lines().filter(|line| line.starts_with("tasktracker_drift_detected_total"));
        detected.for_each(|line| assert!(line.ends_with(" 0"), "{line}"));
        operator.stop();
    }
    assert_same(stage, &before, "`run`");
}

#[test]
#[ignore = "takes minutes: `cargo xtask soak quiet`"]
fn soak_run_with_the_oldest_engine() {
    run(&settled("soak-run-old", HostOptions::default()), 50.0, 4);
}

#[test]
#[ignore = "takes minutes: `cargo xtask soak quiet`"]
fn soak_run_with_a_newer_engine() {
    run(&settled("soak-run-new", newer()), 50.0, 4);
}

/// What a daemon gives every container and network by itself: other settings of `daemon.json`.
pub(crate) const DEFAULTS: [&str; 9] = [
    r#"{"default-shm-size": "128M"}"#,
    r#"{"log-opts": {"labels": "a,b", "max-size": "1m"}}"#,
    r#"{"log-driver": "local"}"#,
    r#"{"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 4096, "Soft": 2048}}}"#,
    r#"{"init": true}"#,
    r#"{"default-ipc-mode": "private"}"#,
    r#"{"dns": ["127.0.0.1"], "dns-search": ["lab.test"]}"#,
    r#"{"mtu": 1450, "userland-proxy": false}"#,
    r#"{"no-new-privileges": true, "live-restore": true}"#,
];

/// Restarts the daemon with another `daemon.json`: what is there is as it was made, and nothing is made anew.
fn restart_with(stage: &Stage, settings: &str) {
    let made =
        || stage.on_host("docker ps -aq --no-trunc | sort; docker network inspect -f '{{.Id}}' tt-staging");
    let before = made();
    stage.host.stop_docker().unwrap();
    stage.host.write_file("/etc/docker/daemon.json", settings).unwrap();
    stage.host.start_docker().unwrap();
    let (_, status) = stage.json(&["status"]);
    let drift = status[0]["report"]["drift"].as_array().cloned().unwrap();
    // Containers may be starting still, or were ended by a daemon that does not leave them running any more.
    let is_changed = |kind: &Value| kind.as_str().is_some_and(|kind| kind.ends_with("Changed"));
    let changed: Vec<_> = drift.iter().filter(|item| is_changed(&item["kind"])).collect();
    assert!(changed.is_empty(), "{settings}: {changed:#?}");
    // Containers may have other addresses by now, of which files tell.
    stage.apply();
    assert_eq!(made(), before, "{settings}");
}

/// A daemon's defaults that change under a release are no drift: neither of what is there nor of what is made from then on.
pub(crate) fn with_each_default(stage: &Stage, defaults: &[&str], checks: usize) {
    for settings in defaults {
        println!("{settings}");
        restart_with(stage, settings);
        check(stage, checks, 1);
        stage.on_host("docker rm -f $(docker ps -q)");
        stage.apply();
        check(stage, checks, 1);
    }
    restart_with(stage, "{}");
    check(stage, checks, 1);
}

/// Those of networks, which take theirs when they are made, are no drift either: newer engines have them.
pub(crate) fn with_network_defaults(stage: &Stage, checks: usize) {
    let network = r#"{"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1450"}}}"#;
    restart_with(stage, network);
    stage.on_host("docker rm -f $(docker ps -q); docker network rm tt-staging");
    stage.apply();
    check(stage, checks, 9);
    restart_with(stage, "{}");
    check(stage, checks, 9);
}

#[test]
fn defaults_of_a_daemon_are_no_drift() {
    with_each_default(&settled("quiet-defaults", HostOptions::default()), &[DEFAULTS[0], DEFAULTS[3]], 8);
}

#[test]
#[ignore = "takes minutes: `cargo xtask soak quiet`"]
fn soak_thousand_checks_with_each_default_of_the_oldest_engine() {
    with_each_default(&settled("soak-defaults-old", HostOptions::default()), &DEFAULTS, 500);
}

#[test]
#[ignore = "takes minutes: `cargo xtask soak quiet`"]
fn soak_thousand_checks_with_each_default_of_a_newer_engine() {
    let stage = settled("soak-defaults-new", newer());
    with_each_default(&stage, &DEFAULTS, 500);
    with_network_defaults(&stage, 1_000);
}
