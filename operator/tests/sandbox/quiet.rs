//! Nothing false and nothing written: checks of a host that nobody touches find nothing and leave it as it is.

use tasktracker_operator::{engine::CheckOptions, observe::Depth};
use tasktracker_testbed::{Compose, Engine, HostOptions};
use tokio::runtime::Runtime;

use crate::stage::{Stage, wait_until};

fn newer() -> HostOptions {
    HostOptions { engine: Engine::Newer, compose: Compose::Newer, ..HostOptions::default() }
}

/// A host with a release, on which nothing happens any more.
fn settled(name: &str, options: HostOptions) -> Stage {
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
fn check(stage: &Stage, checks: usize, restarts: usize) {
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
