//! Stacks that are wrong in some way: told, and no harm to the others.

use std::time::{Duration, Instant};

use tasktracker_testbed::{hostile, http};

use super::cluster::Cluster;
use crate::stage::{Running, phase, wait_until};

const STACK: &str = include_str!("../../../../examples/staging.yaml");

/// A stack whose host is at an address of this machine.
fn stack(name: &str, address: std::net::SocketAddr) -> String {
    let place = format!("address: {}\n      port: {}", address.ip(), address.port());
    STACK
        .replace("name: staging\n", &format!("name: {name}\n"))
        .replace("address: staging.example.com", &place)
}

fn total(operator: &Running, name: &str) -> f64 {
    operator.metric(name, &["controller=\"tasktrackerstack\""]).unwrap()
}

#[test]
fn one_stack_that_is_wrong_does_not_keep_the_others_from_being_followed() {
    let cluster = Cluster::start();
    let (silent, away) = (hostile::silent().unwrap(), hostile::closed_port().unwrap());
    // Stored before the rule was there that it breaks.
    let crd = tasktracker_crds::crd_yaml().unwrap();
    let loose = crd.replace("enum:\n                    - Auto\n                    - Report", "");
    assert_ne!(loose, crd);
    cluster.apply(&loose);
    let stored = || {
        let text = format!("{}\n  policy: {{heal: Sometimes}}\n", stack("stored", away).trim_end());
        cluster.plane.apply(&text).is_ok()
    };
    wait_until("the API server takes it", stored);
    cluster.apply(&crd);
    phase("a stored spec that is invalid, and a defect");
    let operator =
        cluster.operator("administrator", "operator.log", &[], &[("TASKTRACKER_DEFECT", "poison")]);
    cluster.apply(&stack("poison", away));
    let invalid = || cluster.condition("stored", "Stalled") == "True/InvalidSpec";
    cluster.wait("stored", &operator, "it is told", invalid);
    let message = cluster.get("tts/stored", "{.status.conditions[?(@.type=='Ready')].message}");
    assert!(message.contains("spec.policy.heal") && message.contains("Sometimes"), "{message}");
    assert_eq!(cluster.condition("stored", "Reconciling"), "False/Succeeded");
    wait_until("the defect is counted", || {
        total(&operator, "controller_runtime_reconcile_panics_total") >= 1.0
    });

    phase("a host that is silent");
    cluster.add_any_key("staging-ssh");
    // A host that says nothing: something is known of the stack at once, before anybody waited for the host.
    let began = Instant::now();
    cluster.apply(&stack("slow", silent.address()));
    cluster.wait("slow", &operator, "a first condition", || {
        cluster.condition("slow", "Ready") == "False/Pending"
    });
    let first = began.elapsed();
    println!("first condition after {} ms", first.as_millis());
    assert!(first < Duration::from_secs(5), "{first:?}");
    assert_eq!(cluster.condition("slow", "Reconciling"), "True/Pending");

    phase("the same name in another namespace");
    // The same name in another namespace would be the same project on the host: the one that came later is refused,
    // whatever comes first by its name. API servers tell times in seconds.
    cluster.kubectl(&["create", "namespace", "another"]);
    let created = cluster.get("tts/slow", "{.metadata.creationTimestamp}");
    let probe =
        ["create", "configmap", "probe", "--dry-run=server", "-o", "jsonpath={.metadata.creationTimestamp}"];
    wait_until("the API server's time is another second", || cluster.kubectl(&probe) != created);
    let twin =
        stack("slow", silent.address()).replace("  name: slow\n", "  name: slow\n  namespace: another\n");
    cluster.apply(&twin);
    let told = || {
        cluster.kubectl(&[
            "get",
            "tts",
            "slow",
            "-n",
            "another",
            "-o",
            "jsonpath={.status.conditions[?(@.type=='Stalled')].message}",
        ])
    };
    wait_until(format_args!("it is refused: {}", operator.said()), || {
        told().contains("expected another name than that of default/slow")
    });
    assert_ne!(cluster.condition("slow", "Stalled"), "True/InvalidSpec");

    phase("an update that is invalid");
    // A spec that is not valid any more leaves the one before in force, and says so.
    let roots = stack("slow", silent.address())
        .replace("roles: [app]", "roles: [app]\n      directory: /etc/tasktracker");
    cluster.apply(&roots);
    cluster
        .wait("slow", &operator, "it is told", || cluster.condition("slow", "Stalled") == "True/InvalidSpec");
    let generation = cluster.get("tts/slow", "{.metadata.generation}");
    assert_eq!(cluster.get("tts/slow", "{.status.observedGeneration}"), generation);
    cluster.apply(&stack("slow", silent.address()));
    cluster.wait("slow", &operator, "it is valid again", || {
        cluster.condition("slow", "Stalled") != "True/InvalidSpec"
    });
    assert_eq!(http(operator.metrics, "GET /livez").unwrap().0, 200);

    phase("a command in a spec");
    // Who writes a stack runs no programs beside the operator.
    let runs = stack("runs", away)
        .replace("tasktracker}", "tasktracker, registryAuth: {command: [cat, /etc/hostname]}}");
    cluster.apply(&runs);
    cluster.wait("runs", &operator, "it is refused", || {
        cluster.condition("runs", "Stalled") == "True/InvalidSpec"
    });
    let state = |kind: &str| cluster.condition("runs", kind);
    assert_eq!([state("Healthy"), state("InSync")], ["Unknown/InvalidSpec", "Unknown/InvalidSpec"]);
    let ready = operator.metric("tasktracker_stack_ready", &["stack=\"runs\"", "environment=\"staging\""]);
    assert_eq!(ready, Some(0.0), "an alert has something to see");

    phase("a restart");
    // Whoever is there after a restart knows which of the twins came first.
    operator.stop();
    let operator =
        cluster.operator("administrator", "operator.log", &[], &[("TASKTRACKER_DEFECT", "check of slow")]);
    wait_until(format_args!("one is refused: {}", operator.said()), || {
        operator.log().contains("expected another name than that of default/slow")
    });
    cluster.wait("slow", &operator, "the first one is followed", || {
        cluster.condition("slow", "Stalled") == "False/Succeeded"
    });

    phase("a check that ends in a defect");
    // A check that ends in a defect is told as that, and counted; the others go on.
    cluster.wait("slow", &operator, "the defect is told", || {
        cluster.condition("slow", "Ready") == "False/InternalError"
    });
    // Its twin may have been checked first, as long as it was the only one that had been read.
    let panics = ["namespace=\"default\"", "stack=\"slow\"", "result=\"panic\""];
    wait_until(format_args!("it is tried again:\n{}", operator.said()), || {
        operator.metric("tasktracker_reconcile_total", &panics).is_some_and(|count| count >= 2.0)
    });
    assert!(told().contains("expected another name"), "{}", told());
    let others = ["stack=\"poison\"", "result=\"error\""];
    wait_until(format_args!("another one is checked:\n{}", operator.said()), || {
        operator.metric("tasktracker_reconcile_total", &others).is_some_and(|count| count >= 1.0)
    });
}

#[test]
fn a_host_that_is_gone_keeps_no_deleted_stack_for_ever() {
    let cluster = Cluster::start();
    cluster.add_any_key("staging-ssh");
    let operator = cluster.operator("administrator", "operator.log", &["--deletion-timeout", "3"], &[]);
    let text = stack("gone", hostile::closed_port().unwrap());
    cluster.apply(&format!("{}\n  policy: {{deletion: DownAndVolumes}}\n", text.trim_end()));
    let finalizer = || cluster.get("tts/gone", "{.metadata.finalizers[0]}") == "tasktracker.dev/hosts";
    cluster.wait("gone", &operator, "it has a finalizer", finalizer);
    cluster.kubectl(&["delete", "tts", "gone", "--wait=false"]);
    assert!(finalizer(), "it goes before anything was tried");
    cluster.kubectl(&["wait", "--for=delete", "tts/gone", "--timeout=30s"]);
    let told = || {
        cluster
            .events("gone")
            .into_iter()
            .any(|(reason, note, _)| reason == "DeletionAbandoned" && note.contains("app-1"))
    };
    wait_until(format_args!("people are told: {}", operator.said()), told);
    // What has no such policy waits for nobody.
    cluster.apply(&text);
    cluster.wait("gone", &operator, "it is followed", || !cluster.condition("gone", "Ready").is_empty());
    assert_eq!(cluster.get("tts/gone", "{.metadata.finalizers}"), "");
    cluster.kubectl(&["delete", "tts", "gone", "--timeout=5s"]);
}

#[test]
fn a_fleet_is_split_by_namespaces_and_labels() {
    let cluster = Cluster::start();
    let away = hostile::closed_port().unwrap();
    cluster.kubectl(&["create", "namespace", "a"]);
    let labelled = |name: &str, namespace: &str, team: &str| {
        let labels = format!("name: {name}\n  namespace: {namespace}\n  labels: {{team: {team}}}\n");
        cluster.apply(&stack(name, away).replace(&format!("name: {name}\n"), &labels));
    };
    let known = |name: &str, namespace: &str| {
        !cluster
            .kubectl(&["get", "tts", name, "-n", namespace, "-o", "jsonpath={.status.conditions}"])
            .is_empty()
    };
    labelled("one", "a", "red");
    labelled("two", "a", "blue");
    labelled("three", "default", "red");
    let operator = cluster.operator(
        "administrator",
        "operator.log",
        &["--namespaces", "a", "--selector", "team=red"],
        &[],
    );
    wait_until(format_args!("its own is followed: {}", operator.said()), || known("one", "a"));
    // Another one has another lease, and acts beside it.
    let other = cluster.operator("administrator", "other.log", &["--selector", "team=blue"], &[]);
    wait_until(format_args!("the other's is followed: {}", other.said()), || known("two", "a"));
    assert!(!known("three", "default"), "nobody was asked to");
    let leases = cluster.kubectl(&["get", "leases", "-o", "name"]);
    assert_eq!(leases.lines().filter(|name| name.contains("tasktracker-operator-")).count(), 2, "{leases}");
    // A stack that changes hands is let go by the one, and taken up by the other.
    cluster.kubectl(&["label", "tts", "one", "-n", "a", "team=blue", "--overwrite"]);
    wait_until(format_args!("it is let go: {}", operator.said()), || {
        operator.log().contains("it is no longer followed")
    });
    wait_until(format_args!("it is taken up: {}", other.said()), || {
        other.log().contains("following stack=a/one")
    });
}
