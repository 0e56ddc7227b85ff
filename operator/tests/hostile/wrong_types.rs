//! Answers of the Docker API in which values are of other types or states than any Docker has.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fake_docker::{answer as answer_of, body, json as answer},
    fake_sshd::Script,
    good,
    stage::{Expected, LIMIT, check, check_texts, check_within, docker, expect, items},
};

/// A script in which the JSON of some answers is changed.
fn changed(path: &'static str, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Script {
    docker(path, move |said| {
        let mut value = body(&said);
        change(&mut value);
        answer(&value)
    })
}

/// Puts a value in the place of every text, number and truth value.
fn replace(value: &mut Value, other: &Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|value| replace(value, other)),
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, other)),
        leaf => leaf.clone_from(other),
    }
}

const PATHS: [&str; 6] = ["/containers/json", good::INSPECT, "/images/", "/networks/", "/volumes/", "/info"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_any_type_are_no_panic() {
    let others = [json!(null), json!(-1), json!(1.5e300), json!(true), json!([{"a": [u64::MAX]}])];
    for path in PATHS {
        for other in &others {
            let value = other.clone();
            let evaluations = check(changed(path, move |good| replace(good, &value))).await;
            check_texts(&format!("{path} {other}"), &evaluations);
        }
        let evaluations = check(changed(path, |good| *good = json!("-"))).await;
        check_texts(&format!("{path} is a text"), &evaluations);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_another_type_is_told_where_it_matters() {
    let table: [(&str, Script, &[&str]); 7] = [
        (
            "a volume without labels",
            changed("/volumes/", |volume| volume["Labels"] = json!(5)),
            &[
                "VolumeChanged tt-staging-app-data/labels/tasktracker.dev/owner: not set",
                "VolumeChanged tt-staging-app-data/labels/tasktracker.dev/stack: not set",
            ],
        ),
        (
            "a network of another driver",
            changed("/networks/", |network| network["Driver"] = json!(-3)),
            &["NetworkChanged tt-staging/driver: -3"],
        ),
        (
            "a memory below nothing",
            changed(good::INSPECT, |inspect| inspect["HostConfig"]["Memory"] = json!(-7)),
            &[
                "ConfigChanged tt-staging-app-backend-1/mem_limit: -7",
                "ConfigChanged tt-staging-app-edge-1/mem_limit: -7",
                "ConfigChanged tt-staging-app-frontend-1/mem_limit: -7",
            ],
        ),
        (
            "a state that nobody knows",
            changed("/containers/json", |list| list[0]["State"] = json!("hibernating")),
            &[],
        ),
        (
            "a container that ended",
            changed("/containers/json", |list| {
                list[0]["State"] = json!("exited");
                list[0]["Status"] = json!("Exited (\u{1b}[31m-137\n) long ago");
            }),
            &["Stopped tt-staging-app-backend-1: exited"],
        ),
        (
            "restarts below nothing",
            changed(good::INSPECT, |inspect| inspect["RestartCount"] = json!(-4)),
            &[],
        ),
        (
            "no container is any",
            changed("/containers/json", |list| *list = json!([{}, null, 7, "x", [[]]])),
            &["Missing -: nothing", "Missing -: nothing", "Missing -: nothing"],
        ),
    ];
    for (name, script, wanted) in table {
        expect(name, script, &Expected::Items(wanted)).await;
    }
}

/// The list of containers, with many more of them. It is made beforehand: it is no memory of the check.
fn crowd(extra: impl Fn(&mut Value)) -> Script {
    let list = good::containers();
    let pattern = list[0].clone();
    let mut body = list.to_string();
    body.pop();
    for number in 0..10_000 {
        let mut container = pattern.clone();
        container["Id"] = json!(format!("{number:064x}"));
        container["Names"] = json!([format!("/crowd-{number}")]);
        extra(&mut container);
        body.push(',');
        body.push_str(&container.to_string());
    }
    body.push(']');
    let said = answer_of("200 OK", body.as_bytes());
    docker("/containers/json", move |_| said.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_containers_are_checked_in_time() {
    let patient = Duration::from_secs(10).max(LIMIT);
    let stranger = |container: &mut Value| {
        for key in ["Labels", "NetworkSettings", "Mounts"] {
            container[key] = json!({});
        }
    };
    let foreign = crowd(stranger);
    let found = items(&check_within(foreign, patient).await);
    assert!(found.is_empty(), "{} items", found.len());
    let on_our_port = crowd(|container| {
        stranger(container);
        container["Ports"] = json!([{"PublicPort": 3500, "Type": "tcp"}]);
    });
    let found = items(&check_within(on_our_port, patient).await);
    assert_eq!(found.len(), 10_000);
    assert_eq!(found[0], "Rogue crowd-0: has port 3500");
    let ours = check_within(crowd(|_| {}), patient).await;
    let found = items(&ours);
    assert_eq!(found.len(), 10_000);
    assert_eq!(found[0], "Orphan crowd-0: one more container of backend, running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_none_is_not_asked_for() {
    let odd = changed("/containers/json", |list| list[0]["Id"] = json!("../../info?\u{1b}[31m\n"));
    expect("an odd ID", odd, &Expected::Good).await;
    let none = changed("/containers/json", |list| list[0]["Id"] = json!(7));
    expect("no ID", none, &Expected::Good).await;
    // Of two with one ID, one is too many.
    let twice = changed("/containers/json", |list| {
        let first = list[0].clone();
        list.as_array_mut().unwrap().push(first);
    });
    let evaluations = check(twice).await;
    check_texts("twice", &evaluations);
    assert!(evaluations.is_ok());
}
