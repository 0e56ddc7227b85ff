//! Other configurations of Prometheus: taken up without a restart and without a gap, or refused before they are anywhere.

use std::time::Duration;

use serde_json::Value;
use tasktracker_testbed::{Users, http_as, images};

use super::{ADMIN, PROMETHEUS, at, query_answer, stage};
use crate::stage::{Stage, phase, wait_until};

/// Changes in every run of the tests, good and bad ones.
const FEW: (u32, u32) = (4, 2);
/// The same in a soak.
const MANY: (u32, u32) = (50, 10);
/// How often targets are scraped.
const INTERVAL: Duration = Duration::from_secs(15);

/// The rules that are loaded, as Prometheus shows them.
fn loaded(stage: &Stage) -> String {
    http_as(at(stage, 9090), ADMIN, "GET /api/v1/rules").map(|(_, body)| body).unwrap_or_default()
}

/// When a job's `up` was stored within the last hour, in seconds.
fn samples(stage: &Stage, job: &str) -> Vec<f64> {
    let (_, body) = query_answer(stage, &format!("up{{job=\"{job}\"}}[1h]")).unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap();
    let series = answer["data"]["result"].as_array().unwrap();
    assert_eq!(series.len(), 1, "{job}: {body}");
    series[0]["values"].as_array().unwrap().iter().map(|sample| sample[0].as_f64().unwrap()).collect()
}

/// The longest time between two of them; a scrape that comes after the last change is waited for.
fn longest_gap(stage: &Stage, job: &str) -> f64 {
    let before = samples(stage, job).len();
    wait_until(format_args!("{job} is scraped again"), || samples(stage, job).len() > before.max(3));
    samples(stage, job).windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max)
}

fn change(name: &str, (good, bad): (u32, u32)) {
    let stage = stage(name);
    let write = |rules: &str| {
        let text = super::stack(&stage, images::PROMETHEUS, "replicas: 1", "");
        let text = text.replace("monitoring: {", &format!("monitoring: {{rules: {{{rules}}}, "));
        stage.write_stack("staging.yaml", &text);
    };
    let threshold = |number: u32| format!("0.7{number:03}1");
    let override_of =
        |number: u32| format!("override: {{InstanceHighMemoryUsage: {{threshold: {}}}}}", threshold(number));
    write(&override_of(0));
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    let life =
        || stage.on_host(&format!("docker inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {PROMETHEUS}"));
    let before = life();
    let users = Users::start(stage.page(), name);

    phase("good ones");
    for number in 1..=good {
        write(&override_of(number));
        wait_until(format_args!("{number} is loaded: {}", operator.said()), || {
            loaded(&stage).contains(&threshold(number))
        });
    }

    phase("bad ones");
    let last = threshold(good);
    for number in 1..=bad {
        let said = operator.log().len();
        let extra = format!(
            "extra: [{{alert: Wrong{number}, expr: 'sum(', for: 1m, severity: info, summary: wrong}}]"
        );
        write(&format!("{}, {extra}", override_of(good)));
        wait_until(format_args!("{number} is refused: {}", operator.said()), || {
            let log = operator.log();
            log[said..].contains(&format!("Wrong{number}"))
                || log[said..].contains("unclosed left parenthesis")
        });
        assert!(loaded(&stage).contains(&last) && !loaded(&stage).contains("Wrong"));
    }
    write(&override_of(good + 1));
    wait_until(format_args!("the next is loaded: {}", operator.said()), || {
        loaded(&stage).contains(&threshold(good + 1)) && operator.is_ready("staging")
    });

    assert_eq!(life(), before, "it was never started anew");
    assert_eq!(users.stop().failures, [""; 0]);
    for job in ["prometheus", "agent", "node", "backend"] {
        let gap = longest_gap(&stage, job);
        println!("{job}: at most {gap:.1} s between two samples, over {} changes", good + bad);
        assert!(gap < INTERVAL.as_secs_f64() * 2.0, "{job}: a scrape is missing, {gap} s");
    }
    operator.stop();
}

#[test]
fn changes_are_loaded_without_a_gap_and_wrong_ones_are_refused() {
    change("reload", FEW);
}

#[test]
#[ignore = "counts: `cargo xtask soak monitoring`"]
fn soak_fifty_changes_are_loaded_without_a_gap() {
    change("reload-soak", MANY);
}
