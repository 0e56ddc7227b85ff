//! Hosts that a stack names no longer: what is there stays until a person says what becomes of it.

use std::fs;

use tasktracker_testbed::DemoHost;

use super::cluster::Cluster;
use crate::stage::{Stage, wait_until};

const THINGS: &str = "docker ps -aq; docker volume ls -q";

#[test]
fn what_is_left_on_a_host_is_taken_away_or_forgotten_by_a_wish() {
    let (stage, other, cluster) = (Stage::new("kube-left"), Stage::new("kube-left-for"), Cluster::start());
    cluster.add_key(&stage);
    let key = fs::read_to_string(other.host.identity_file()).unwrap();
    cluster.kubectl(&[
        "create",
        "secret",
        "generic",
        "other",
        &format!("--from-literal=ssh-privatekey={key}"),
    ]);
    let here =
        stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n").replace("[key]", "[key, other]");
    let place = |stage: &Stage| format!("address: {}, port: {}", stage.host.address(), stage.host.port());
    let there = here
        .replace("name: app-1", "name: app-2")
        .replace(&place(&stage), &place(&other))
        .replace(&stage.host.host_key(), &other.host.host_key());
    let operator = cluster.start_operator();
    let hosts = || cluster.get("tts/staging", "{.status.hosts[*].name}");
    let has_moved = |text: &str| {
        cluster.apply(text);
        cluster.wait("staging", &operator, "its data would be left", || {
            cluster.condition("staging", "Ready").ends_with("/DataWouldBeLeft")
        });
        cluster.command_ends(0, &["apply", "staging", "--leave-data"]);
        cluster.wait_until_ready("staging", &operator);
    };
    cluster.apply(&here);
    cluster.wait_until_ready("staging", &operator);

    // As long as its data is the newest, only whoever says that it is not needed takes it away.
    cluster.apply(&there);
    cluster.wait("staging", &operator, "it is left", || hosts() == "app-2 app-1");
    cluster.command_ends(0, &["delete", "staging", "--host", "app-1"]);
    let told = |reason: &str| cluster.events("staging").iter().any(|(known, ..)| known == reason);
    cluster.wait("staging", &operator, "that is refused", || told("DataWouldBeLeft"));
    cluster.kubectl(&["annotate", "tts", "staging", "tasktracker.dev/delete-host-"]);

    // It stays where it was, and the way out is told.
    has_moved(&there);
    assert_eq!(hosts(), "app-2 app-1");
    let message = cluster.get("tts/staging", "{.status.hosts[?(@.name=='app-1')].message}");
    assert!(message.contains("delete --kubernetes -n default staging --host app-1"), "{message}");
    for refused in [&["delete", "staging"][..], &["delete", "staging", "--host", "app-2"]] {
        cluster.command_ends(1, refused);
    }
    assert_ne!(stage.on_host(THINGS), "");

    // A wish for another spec is none.
    let wish = |value: &str| {
        cluster.kubectl(&[
            "annotate",
            "--overwrite",
            "tts/staging",
            &format!("tasktracker.dev/delete-host={value}"),
        ])
    };
    let uid = cluster.get("tts/staging", "{.metadata.uid}");
    wish(&format!("app-1@{uid}@1/volumes"));
    let generation = cluster.get("tts/staging", "{.metadata.generation}");
    let reconciled = || operator.total("controller_runtime_reconcile_total", &["result=\"success\""]);
    let before = reconciled();
    wish(&format!("app-1@another@{generation}/volumes"));
    wait_until("the wish is read", || reconciled() > before);
    operator.wait_for_checks("staging", "app-2", 5);
    assert_eq!(hosts(), "app-2 app-1");
    cluster.command_ends(0, &["delete", "staging", "--host", "app-1", "--volumes"]);
    cluster.wait("staging", &operator, "it is taken away", || hosts() == "app-2");
    assert_eq!(stage.on_host(THINGS), "", "{}", operator.log());
    cluster.wait("staging", &operator, "that is told", || told("HostDeleted"));
    let who = "\"who\":\"tasktracker.dev/delete-host\"";
    assert!(operator.log().contains(who), "{}", operator.log());

    // A host that is gone for good is forgotten, also by whoever comes next.
    has_moved(&here);
    other.host.kill_sshd().unwrap();
    cluster.command_ends(0, &["delete", "staging", "--host", "app-2", "--forget"]);
    cluster.wait("staging", &operator, "it is forgotten", || hosts() == "app-1");
    operator.stop();
    let operator = cluster.start_operator();
    cluster.wait_until_ready("staging", &operator);
    assert_eq!(hosts(), "app-1");
}
