//! Nothing is written where nothing happens, and what fails is tried less and less often.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tasktracker_testbed::{DemoHost, hostile};

use super::cluster::Cluster;
use crate::stage::{Running, Stage, wait_until};

/// Stacks that are followed.
const STACKS: usize = 20;

/// A stack with ports of its own.
pub(crate) fn stack(stage: &Stage, number: usize, policy: &str) -> String {
    let base = 20_000 + number * 20;
    let names = ["page", "api", "http", "https"].iter().enumerate();
    let ports: Vec<String> = names.map(|(index, name)| format!("{name}: {}", base + index)).collect();
    let more = format!("  policy: {{rollout: {{soak: 1s}}{policy}}}\n  ports: {{{}}}\n", ports.join(", "));
    stage.stack(&format!("stack-{number}"), "r1", &more).replace("interval: 300ms", "interval: 5s")
}

/// Everything in the API server that a write would change.
fn versions(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for kind in ["tts", "configmaps", "events.events.k8s.io"] {
        let path = "{range .items[*]}{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        for line in cluster.kubectl(&["get", kind, "-o", &format!("jsonpath={path}")]).lines() {
            let (name, version) = line.split_once(' ').unwrap();
            all.insert(format!("{kind}/{name}"), version.to_owned());
        }
    }
    all
}

fn failures(operator: &Running) -> f64 {
    operator.metric("tasktracker_reconcile_total", &["stack=\"away\"", "result=\"error\""]).unwrap()
}

/// So many stacks, some of them rolled out and the others waiting for approval, and one whose host is away: for so long,
/// nothing is written.
fn nothing_is_written(name: &str, deployed: usize, lasting: Duration) {
    let (stage, cluster) = (Stage::new(name), Cluster::start());
    cluster.add_key(&stage);
    for number in 0..STACKS {
        let policy = if number < deployed { "" } else { ", upgrade: Approve" };
        cluster.apply(&stack(&stage, number, policy));
    }
    let away = hostile::closed_port().unwrap();
    let text = stack(&stage, STACKS, "").replace(&format!("stack-{STACKS}"), "away");
    let text = text.replace(
        &format!("address: {}, port: {}", stage.host.address(), stage.host.port()),
        &format!("address: {}, port: {}", away.ip(), away.port()),
    );
    cluster.apply(&text);
    let operator = cluster.start_operator();
    for number in 0..STACKS {
        let stack = format!("stack-{number}");
        if number < deployed {
            cluster.wait_until_ready(&stack, &operator);
        } else {
            cluster.wait(&stack, &operator, "its plan waits", || {
                cluster.condition(&stack, "Approved") == "False/ApprovalNeeded"
            });
        }
    }
    cluster.wait("away", &operator, "it is told", || {
        cluster.condition("away", "HostsReachable") == "False/Unreachable"
    });
    // Events that wait to be written are written by then.
    let mut before = versions(&cluster);
    wait_until(format_args!("nothing waits to be written: {}", operator.said()), || {
        operator.wait_for_checks("stack-0", "app-1", 1);
        let settled = std::mem::replace(&mut before, versions(&cluster));
        settled == before
    });
    let on_host = stage.snapshot();
    let epoch = || stage.on_host("cat /opt/tasktracker/.epoch");
    let (tenure, failed) = (epoch(), failures(&operator));
    let checks = || {
        operator.metric("tasktracker_reconcile_total", &["stack=\"stack-0\"", "result=\"success\""]).unwrap()
    };
    let (checked, began) = (checks(), Instant::now());
    while began.elapsed() < lasting {
        operator.wait_for_checks("stack-0", "app-1", 1);
    }
    wait_until("the host that is away is tried again", || failures(&operator) > failed);
    assert_eq!(versions(&cluster), before, "something was written");
    assert_eq!((epoch(), stage.snapshot()), (tenure, on_host), "something was written to the host");
    let (checked, failed) = (checks() - checked, failures(&operator) - failed);
    // 1 s, 2 s, 4 s, … up to a minute, each up to a tenth more: the first minute has the most. A slow machine has fewer.
    let most = 6.0 + began.elapsed().as_secs_f64() / 60.0;
    assert!(failed <= most, "{failed} failures");
    println!(
        "{STACKS} stacks, {deployed} of them rolled out: {checked} checks of one, {failed} failures of the host that is away, nothing written in {} s",
        began.elapsed().as_secs()
    );
}

#[test]
fn twenty_stacks_that_nobody_touches_are_quiet_for_a_minute() {
    nothing_is_written("kube-quiet", 2, Duration::from_mins(1));
}

#[test]
#[ignore = "ten minutes: `cargo xtask soak kubernetes`"]
fn soak_of_twenty_stacks_that_nobody_touches() {
    nothing_is_written("kube-quiet-soak", STACKS, Duration::from_mins(10));
}
