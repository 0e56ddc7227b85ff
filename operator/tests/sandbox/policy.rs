//! What a person asks the operator not to do: reports go on, writes do not. And how soon everything is told.

use serde_json::{Value, json};

use crate::stage::{Stage, wait_until};

const SOAK: &str = "rollout: {soak: 1s}";

fn drift(status: &Value) -> Vec<String> {
    let items = status[0]["report"]["drift"].as_array().unwrap();
    items
        .iter()
        .map(|item| format!("{} {}", item["kind"].as_str().unwrap(), item["answer"].as_str().unwrap()))
        .collect()
}

#[test]
fn whoever_asks_for_it_has_reports_without_writes() {
    let stage = Stage::new("policy");
    let stack = |more: &str| stage.stack("staging", "r1", more);
    let usual = format!("  policy: {{{SOAK}}}\n");
    stage.write_stack("staging.yaml", &stack(&usual));
    stage.apply();
    let stopped = "docker inspect --format '{{.State.Running}}' tt-staging-app-frontend-1";
    stage.on_host("docker stop tt-staging-app-frontend-1");
    let before = stage.snapshot();

    let hold = "/opt/tasktracker/staging/app/HOLD";
    let suspend = "  suspend: {until: 2999-01-01T00:00:00Z, reason: audit}\n";
    let frozen = stack(&usual).replace("roles: [app]", "roles: [app], state: Frozen");
    let cases = [
        ("Suspended", stack(&format!("{usual}{suspend}")), ""),
        ("Frozen", frozen, ""),
        ("Held", stack(&usual), "printf 'incident 42\\nuntil: 2999-01-01T00:00:00Z\\n' >"),
    ];
    for (reason, text, hand) in cases {
        if !hand.is_empty() {
            stage.on_host(&format!("{hand}{hold}"));
        }
        stage.write_stack("staging.yaml", &text);
        let (code, status) = stage.json(&["status"]);
        assert_eq!((code, &status[0]["report"]["hold"]["reason"]), (2, &json!(reason)));
        assert_eq!(drift(&status), ["Stopped Heal"]);
        let applied = stage.command(&["apply"]);
        assert_eq!(applied.status.code(), Some(1), "{reason}: apply wrote");
        let operator = stage.start_operator();
        wait_until("it is reported", || {
            operator.metric("tasktracker_drift_items", &["layer=\"containers\""]) == Some(1.0)
                && operator.log().contains(&format!("reason=\"{reason}\""))
        });
        let suspended = f64::from(u8::from(reason == "Suspended"));
        assert_eq!(operator.metric("tasktracker_stack_suspended", &[]), Some(suspended));
        operator.wait_for_checks("staging", "app-1", 3);
        operator.stop();
        assert_eq!(stage.on_host(stopped).trim(), "false", "{reason}: it was healed");
    }
    stage.on_host(&format!("echo 2020-01-01T00:00:00Z >{hold}"));
    let report = format!("  policy: {{{SOAK}, heal: Report, ignore: [{{kind: FileExtra}}]}}\n");
    stage.write_stack("staging.yaml", &stack(&report));
    stage.on_host("touch /opt/tasktracker/staging/app/notes");
    let (_, status) = stage.json(&["status"]);
    assert_eq!(
        (drift(&status), &status[0]["report"]["hold"]),
        (vec!["Stopped Report".to_owned()], &Value::Null)
    );
    stage.on_host(&format!("rm {hold} /opt/tasktracker/staging/app/notes"));
    assert_eq!(stage.snapshot(), before, "something was written");

    stage.write_stack(
        "staging.yaml",
        &stack(&format!("{usual}  suspend: {{until: 2020-01-01T00:00:00Z, reason: over}}\n")),
    );
    stage.apply();
    assert_eq!(stage.json(&["status"]).0, 0, "a suspension that is over suspends nothing");
}

#[test]
fn events_wake_the_operator_long_before_its_interval_and_ages_survive_its_restart() {
    let stage = Stage::new("woken");
    let text = stage.stack("staging", "r1", &format!("  policy: {{{SOAK}, heal: Report}}\n"));
    stage.write_stack("staging.yaml", &text.replace("interval: 300ms", "interval: 10m"));
    stage.apply();
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    // The rota of the host finds everything within a minute, too: what counts is what woke the operator.
    let told = |kind: &str, woken: f64| {
        wait_until(kind, || {
            operator.metric("tasktracker_drift_detected_total", &[&format!("kind=\"{kind}\"")]) == Some(1.0)
        });
        assert_eq!(
            operator.metric("tasktracker_drift_detect_seconds_count", &[]),
            Some(woken),
            "{kind}: nothing woke"
        );
    };
    stage.on_host("docker stop tt-staging-app-frontend-1");
    told("Stopped", 1.0);
    stage.on_host("echo '# mine' >>/opt/tasktracker/staging/app/compose.yaml");
    told("FileChanged", 2.0);
    // The daemon goes away and comes back with the stream of its events: the first check that succeeds listens again.
    let is_failing = || operator.metric("tasktracker_host_failure", &[]).is_some();
    stage.host.stop_docker().unwrap();
    wait_until("the check fails", is_failing);
    stage.host.start_docker().unwrap();
    stage.on_host("docker start tt-staging-app-edge-1 tt-staging-app-backend-1");
    wait_until("a check succeeds, and finds what was stopped before", || {
        stage.on_host("docker ps -q --filter health=healthy").lines().count() == 2
            && !is_failing()
            && operator.metric("tasktracker_drift_items", &["layer=\"containers\""]) == Some(1.0)
    });
    let before = operator.metric("tasktracker_drift_detect_seconds_count", &[]).unwrap();
    stage.on_host("docker pause tt-staging-app-edge-1");
    told("Paused", before + 1.0);
    operator.stop();
    let first_seen = |stage: &Stage| {
        let (_, status) = stage.json(&["status"]);
        let items = status[0]["report"]["drift"].as_array().unwrap().clone();
        items.iter().map(|item| item["firstSeen"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = first_seen(&stage);
    assert_eq!(before.len(), 3);
    let operator = stage.start_operator();
    wait_until("the differences are known again", || {
        operator.metric("tasktracker_drift_oldest_seconds", &[]) > Some(0.0)
    });
    assert_eq!(
        operator.metric("tasktracker_drift_detected_total", &["kind=\"Stopped\""]),
        Some(0.0),
        "it is not new"
    );
    operator.stop();
    assert_eq!(first_seen(&stage), before);
    stage.on_host("docker unpause tt-staging-app-edge-1");
}
