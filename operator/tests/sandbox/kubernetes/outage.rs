//! The API server goes, comes back, and comes back with older data: hosts are kept as they were, and nothing is deleted.

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use crate::stage::{Running, Stage, elapse, phase, wait_until};

const POLICY: &str = "  policy: {rollout: {soak: 1s}, deletion: Down}\n";

const FRONTEND: &str = "--filter label=com.docker.compose.project=tt-staging-app --filter label=com.docker.compose.service=frontend";

/// A container is removed, and is there again.
fn is_repaired(stage: &Stage, operator: &Running) {
    let old = stage.on_host(&format!("docker ps -q {FRONTEND}"));
    stage.on_host(&format!("docker rm -f {old}"));
    let serving = format!("docker ps -q --filter health=healthy {FRONTEND}");
    let is_there = || stage.on_host(&serving).lines().count() == 1 && stage.on_host(&serving) != old;
    wait_until(format_args!("it is repaired:\n{}", operator.said()), is_there);
}

/// How often it was told that something was put right.
fn times_healed(cluster: &Cluster) -> u64 {
    let events = cluster.events("staging");
    events.iter().filter(|(reason, ..)| reason == "DriftHealed").map(|(_, _, times)| times).sum()
}

#[test]
fn hosts_are_kept_while_the_api_server_is_away_and_after_its_data_went_back() {
    outage("kube-outage", Duration::from_secs(14));
}

#[test]
#[ignore = "minutes: `cargo xtask soak kubernetes`"]
fn soak_of_an_api_server_that_is_away_for_minutes() {
    outage("kube-outage-soak", Duration::from_mins(5));
}

fn outage(name: &str, lasting: Duration) {
    let (stage, mut cluster) = (Stage::new(name), Cluster::start());
    cluster.add_key(&stage);
    let operator = cluster.start_operator();
    cluster.apply(&stage.stack("staging", "r1", POLICY));
    cluster.wait_until_ready("staging", &operator);

    // Gone, or there without a word, for longer than the lease is good for: what breaks is put right all the same, and
    // nothing else is done.
    for is_gone in [true, false] {
        let told_before = times_healed(&cluster);
        if is_gone {
            cluster.plane.stop().unwrap();
        } else {
            cluster.plane.signal("STOP").unwrap();
        }
        let away = Instant::now();
        is_repaired(&stage, &operator);
        elapse(lasting.saturating_sub(away.elapsed()));
        is_repaired(&stage, &operator);
        let (status, said) = tasktracker_testbed::http(operator.metrics, "GET /livez").unwrap();
        assert_eq!(status, 200, "{said}");
        if is_gone {
            cluster.plane.go_on().unwrap();
        } else {
            cluster.plane.signal("CONT").unwrap();
        }
        let answers = Instant::now();
        cluster.wait("staging", &operator, "what happened meanwhile is told", || {
            times_healed(&cluster) >= told_before + 2
        });
        cluster.wait_until_ready("staging", &operator);
        println!(
            "{} for {} s, told {} s later",
            if is_gone { "gone" } else { "without a word" },
            answers.duration_since(away).as_secs(),
            answers.elapsed().as_secs()
        );
    }

    phase("the data goes back");
    // Its data goes back: a stack that was made since is gone from it, and one that was changed has its old spec.
    cluster.plane.snapshot("snapshot").unwrap();
    cluster.wait_until_ready("staging", &operator);
    cluster.apply(&stage.stack("staging", "r2", POLICY));
    cluster.wait("staging", &operator, "r2 is in force", || {
        cluster.get("tts/staging", "{.status.revision}") == "r2"
    });
    cluster.wait_until_ready("staging", &operator);
    cluster.apply(&crate::kubernetes::quiet::stack(&stage, 7, ", deletion: Down"));
    cluster.wait_until_ready("stack-7", &operator);
    let before = stage.on_host("docker ps -aq --no-trunc | sort");
    cluster.plane.restore("snapshot").unwrap();
    cluster.wait("staging", &operator, "the spec went back", || {
        cluster.condition("staging", "Stalled") == "True/SpecWentBack"
    });
    assert_eq!(cluster.get("tts/staging", "{.spec.revision}"), "r1");
    wait_until(format_args!("the other one is let go:\n{}", operator.said()), || {
        operator.log().contains("its hosts are left as they are")
    });
    operator.wait_for_checks("staging", "app-1", 5);
    assert_eq!(stage.on_host("docker ps -aq --no-trunc | sort"), before, "{}", operator.log());
    is_repaired(&stage, &operator);
    assert_eq!(cluster.get("tts/staging", "{.status.revision}"), "r2", "repaired towards what was applied");

    phase("a person mends the spec");
    // Somebody looks at it, and changes it.
    cluster.apply(&stage.stack("staging", "r2", POLICY));
    cluster.wait_until_ready("staging", &operator);
    assert_eq!(cluster.get("tts/staging", "{.status.revision}"), "r2");
}
