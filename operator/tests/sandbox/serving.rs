//! What users get: everything that takes it from them while every container is healthy is seen, and healed by the smallest
//! action that can help.

use std::time::Instant;

use serde_json::Value;
use tasktracker_testbed::Users;

use crate::stage::{Running, Stage, phase, wait_until};

const SOAK: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 1s}}\n";
/// The project's folder.
const APP: &str = "/opt/tasktracker/staging/app";
const EDGE: &str = "tt-staging-app-edge-1";

fn id(stage: &Stage, container: &str) -> String {
    stage.on_host(&format!("docker inspect --format '{{{{.Id}}}}' {container}"))
}

/// Whether users get the page and the API at every port.
fn is_served(stage: &Stage) -> bool {
    let is_good = |port: u16, path: &str| stage.http(port, &format!("GET {path}")).0 == 200;
    is_good(3500, "/") && is_good(3500, "/api/tasks") && is_good(8000, "/tasks")
}

/// Something done by hand, and what must be told and done about it.
struct Break {
    name: &'static str,
    script: String,
    told: &'static [&'static str],
    done: &'static str,
}

/// Gives the edge another configuration through its own interface, which no file shows.
fn load(routes: &str) -> String {
    let server = format!(r#"{{"listen":[":3500"],"routes":[{routes}]}}"#);
    let config = format!(
        r#"{{"admin":{{"listen":"localhost:2019"}},"apps":{{"http":{{"servers":{{"x":{server}}}}}}}}}"#
    );
    format!(
        "docker exec {EDGE} wget -q -O - --header 'Content-Type: application/json' --post-data '{config}' http://127.0.0.1:2019/load"
    )
}

/// What is done about the edge, the smallest first.
const SMALLEST_FIRST: [&str; 3] = ["reload edge", "restart tt-staging-app-edge-1", "recreate edge"];

/// What runs a program in the network namespace of a container.
fn inside(container: &str) -> String {
    format!("nsenter -n -t $(docker inspect --format '{{{{.State.Pid}}}}' {container})")
}

fn breaks() -> Vec<Break> {
    let case = |name, script: &str, told, done| Break { name, script: script.to_owned(), told, done };
    vec![
        case(
            "a folder that services cannot enter",
            &format!("chmod 700 {APP}/files/edge"),
            &["FileMode"],
            "set the mode of files/edge",
        ),
        case(
            "a folder of somebody else",
            &format!(
                "chown root:root {APP}/files/edge/upstreams/backend; chmod 700 {APP}/files/edge/upstreams/backend"
            ),
            &["FileMode", "owner 0"],
            "give files/edge/upstreams/backend to user",
        ),
        case(
            "the name of who serves is gone",
            &format!("rm {APP}/files/edge/upstreams/frontend/*"),
            &["FileMissing"],
            "write files/edge/upstreams/frontend/",
        ),
        case(
            "a proxy in no network",
            &format!("docker network disconnect tt-staging {EDGE}"),
            &["ConfigChanged"],
            "connect tt-staging-app-edge-1 to tt-staging",
        ),
        case(
            "another configuration, with errors",
            &load(r#"{"handle":[{"handler":"static_response","status_code":500}]}"#),
            &["NotServing", "found 500"],
            "reload edge",
        ),
        case(
            "another configuration, without a port",
            &load(r#"{"handle":[{"handler":"static_response","body":"hacked"}]}"#),
            &["NotServing", "8000/tasks"],
            "reload edge",
        ),
        case(
            "another name and another address of who serves",
            &format!(
                "cd {APP}/files/edge/upstreams/backend && mv * other && cd ../../addresses/backend && mv * 192.0.2.7"
            ),
            &["FileMissing", "files/edge/upstreams/backend/"],
            "write files/edge/upstreams/backend/",
        ),
        case(
            "a port that leads nowhere",
            "iptables -w -t nat -F DOCKER; pkill -KILL docker-proxy",
            &["NotServing", "packets to the host's port do not reach it"],
            "recreate edge",
        ),
        case(
            "a proxy whose interface is down",
            &format!("{} ip link set eth0 down", inside(EDGE)),
            &["NotServing"],
            "restart tt-staging-app-edge-1",
        ),
        case(
            "a backend whose interface is down",
            &format!(
                "{} ip link set eth0 down",
                inside("$(docker ps -qf label=com.docker.compose.service=backend)")
            ),
            &["NotServing", "itself: "],
            "replace tt-staging-app-backend-",
        ),
    ]
}

fn since(operator: &Running, before: usize) -> String {
    operator.log().get(before..).unwrap_or_default().to_owned()
}

#[test]
fn whatever_takes_answers_from_users_is_seen_and_healed_by_the_smallest_action() {
    let stage = Stage::new("serving");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    for Break { name, script, told, done } in breaks() {
        phase(name);
        let before = operator.log().len();
        let users = Users::start(stage.page(), name);
        stage.as_root(&script);
        wait_until(format_args!("{name}: {told:?} is told and {done} done: {}", operator.said()), || {
            let log = since(&operator, before);
            told.iter().all(|words| log.contains(words)) && log.contains(done)
        });
        wait_until(format_args!("{name}: users are served again: {}", operator.said()), || {
            is_served(&stage) && operator.is_ready("staging")
        });
        let bigger = SMALLEST_FIRST.iter().skip_while(|action| !done.starts_with(**action)).skip(1);
        let log = since(&operator, before);
        let done_too: Vec<_> =
            bigger.filter(|action| log.contains(&format!("repairing: {action}"))).collect();
        assert!(done_too.is_empty(), "{name}: {done} was not enough: {done_too:?} {}", operator.said());
        let seen = users.stop();
        println!("{name}: {} of {} requests failed", seen.failures.len(), seen.latencies.len());
        assert!(!seen.failures.is_empty(), "{name}: users felt nothing");
    }

    phase("what no repair of ours helps");
    let before = operator.log().len();
    // Each repair is undone at once, as by somebody who insists.
    let insists = load(r#"{"handle":[{"handler":"static_response","status_code":500}]}"#);
    stage.as_root(&format!("(while sleep 0.2; do {insists}; done) >/dev/null 2>&1 & echo $! >/tmp/insists"));
    wait_until(format_args!("a person is asked: {}", operator.said()), || {
        since(&operator, before).contains("NotConverging")
    });
    let (code, status) = stage.json(&["status"]);
    let report = &status[0]["report"];
    assert_eq!((code, &report["healthy"]), (2, &Value::Bool(false)), "{report:#}");
    stage.as_root("kill $(cat /tmp/insists)");
    stage.on_host(&format!("docker restart -t 1 {EDGE}"));
    wait_until(format_args!("it is over: {}", operator.said()), || {
        is_served(&stage) && operator.is_ready("staging")
    });
    operator.stop();
}

#[test]
fn what_docker_can_put_right_in_place_costs_users_nothing() {
    let stage = Stage::new("in-place");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    stage.apply();
    let containers = ["tt-staging-app-backend-1", "tt-staging-app-frontend-1", EDGE];
    let ids = || containers.map(|container| id(&stage, container));
    let (before, whole) = (ids(), stage.snapshot());
    stage.on_host("docker network create zz-other");
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    let users = Users::start(stage.page(), "in-place");
    for container in containers {
        for (script, done) in [
            (format!("docker update --memory 48m --memory-swap 48m {container}"), "update"),
            (format!("docker update --cpus 0.1 {container}"), "update"),
            (format!("docker update --pids-limit 99 {container}"), "update"),
            (format!("docker update --restart no {container}"), "update"),
            (format!("docker network connect --alias x zz-other {container}"), "disconnect"),
            (format!("docker rename {container} mine"), "rename"),
        ] {
            phase(&script);
            let said = operator.log().len();
            stage.on_host(&script);
            wait_until(format_args!("{script}: {done}: {}", operator.said()), || {
                since(&operator, said).contains(done)
                    && operator.is_ready("staging")
                    && stage.on_host("docker ps --format '{{.Names}}'").contains(container)
            });
        }
    }
    users.wait_for_requests(50);
    let seen = users.stop();
    assert_eq!(seen.failures, [""; 0]);
    stage.on_host("docker network rm zz-other");
    assert_eq!((ids(), stage.snapshot()), (before.clone(), whole));

    phase("a container that is in no network");
    stage.on_host("docker network disconnect tt-staging tt-staging-app-backend-1");
    wait_until(format_args!("it is connected: {}", operator.said()), || {
        is_served(&stage) && operator.is_ready("staging")
    });
    assert_eq!(ids(), before);
    assert_eq!(stage.json(&["status"]).0, 0);

    phase("requests that are lost once");
    let said = operator.log().len();
    // Of each three connections within the host, the first: of a check that asks twice at this port, one.
    let rule = "INPUT -i lo -p tcp --dport 3500 --syn -m statistic --mode nth --every 3 --packet 0 -j REJECT --reject-with tcp-reset";
    stage.as_root(&format!("iptables -w -I {rule}"));
    wait_until(format_args!("three were lost: {}", operator.said()), || {
        let counted = stage.as_root("iptables -w -nvxL INPUT | awk '/statistic/ {print $1}'");
        counted.trim().parse::<u32>().unwrap() >= 3
    });
    stage.as_root(&format!("iptables -w -D {rule}"));
    operator.wait_for_checks("staging", "app-1", 2);
    assert!(!since(&operator, said).contains("NotServing"), "{}", operator.said());
    assert_eq!(ids(), before);

    phase("a frozen backend");
    let said = operator.log().len();
    stage.as_root("kill -STOP $(docker inspect --format '{{.State.Pid}}' tt-staging-app-backend-1)");
    wait_until("it is seen", || {
        let log = since(&operator, said);
        log.contains("Unhealthy") || log.contains("NotServing")
    });
    let seen = Instant::now();
    wait_until(format_args!("users are served: {}", operator.said()), || is_served(&stage));
    println!("a frozen backend: users are served {:.1} s after it was seen", seen.elapsed().as_secs_f32());
    operator.wait_until_ready("staging");
    operator.stop();
}

#[test]
fn a_backend_that_hangs_with_the_database_locked_is_ended() {
    let stage = Stage::new("hung");
    let policy = "  policy: {rollout: {soak: 1s, drainTimeout: 1s, healthTimeout: 10s}}\n";
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", policy));
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    let users = Users::start(stage.page(), "hung");
    let said = operator.log().len();
    // The byte that SQLite locks while it writes; requests create tasks all the while.
    stage.as_root(
        "pid=$(docker inspect --format '{{.State.Pid}}' tt-staging-app-backend-1)
         until kill -STOP $pid; grep -qE \"POSIX .* WRITE $pid .* 120 120\" /proc/locks; do kill -CONT $pid; sleep 0.01; done",
    );
    wait_until(format_args!("users are served again: {}", operator.said()), || {
        since(&operator, said).contains("repairing: restart tt-staging-app-backend-1 at once")
            && is_served(&stage)
            && operator.is_ready("staging")
    });
    assert!(!users.stop().failures.is_empty());
    assert_eq!(stage.json(&["status"]).0, 0);
    operator.stop();
}
