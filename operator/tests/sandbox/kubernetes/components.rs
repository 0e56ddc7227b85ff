//! The status of a stack with two components, as the API server stores it.

use serde_json::{Value, json};
use tasktracker_testbed::ControlPlaneOptions;

use super::cluster::Cluster;
use crate::stage::{Stage, phase};

#[test]
fn the_api_server_stores_the_status_of_each_component() {
    let stage = Stage::new("kube-components");
    stage.load(&["echo-r1"]);
    let cluster = Cluster::with_chart(&ControlPlaneOptions::default(), &[]);
    cluster.add_key(&stage);
    cluster.kubectl(&["create", "secret", "generic", "echo", "--from-literal=password=canary"]);
    let operator = cluster.start_as_chart(&[]);
    let settings =
        json!({ "image": "registry.example.com/tasktracker/echo:r1", "config": "one" }).to_string();
    let annotations = format!("name: staging, annotations: {{tasktracker.dev/echo: {}}}", json!(settings));
    let policy = "  policy: {rollout: {soak: 1s}, heal: Report}\n";
    cluster.apply(&stage.stack("staging", "r1", policy).replace("name: staging", &annotations));
    cluster.wait_until_ready("staging", &operator);
    let components = || -> Vec<Value> {
        let status = cluster.object("tts/staging")["status"].clone();
        status["hosts"][0]["components"].as_array().cloned().unwrap_or_default()
    };
    let of = |components: &[Value], key: &str| -> Vec<Value> {
        components.iter().map(|component| component[key].clone()).collect()
    };
    let stored = components();
    assert_eq!(of(&stored, "name"), ["app", "echo"]);
    assert_eq!(of(&stored, "revision"), [json!("r1"), Value::Null]);
    assert!(of(&stored, "release").iter().all(Value::is_string), "{stored:?}");

    phase("drift of one component");
    stage.on_host("docker stop tt-staging-echo-echo-1");
    cluster.wait("staging", &operator, "the drift is stored", || {
        components().last().is_some_and(|echo| echo["drift"][0]["kind"] == "Stopped")
    });
    assert_eq!(components()[0]["drift"].as_array().map_or(0, Vec::len), 0);
    let differs = 2;
    let both = cluster.command_ends(differs, &["status"]);
    let rows = |text: &str| -> Vec<String> {
        let of_host = text.lines().filter(|line| line.contains(" app-1 ") && line.ends_with(['0', '1']));
        of_host.map(|line| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(rows(&both), ["app r1 yes yes 0", "echo - yes no 1"], "{both}");
    let echo = cluster.command_ends(differs, &["status", "--component", "echo"]);
    assert_eq!(rows(&echo), ["echo - yes no 1"], "{echo}");
    let app = cluster.command_ends(differs, &["plan", "--component", "app"]);
    assert!(!app.contains("Stopped"), "{app}");
    let echo = cluster.command_ends(differs, &["plan", "--component", "echo"]);
    assert!(echo.contains("Stopped"), "{echo}");
    operator.stop();
}
