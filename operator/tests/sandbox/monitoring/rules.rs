//! Each alert of a stack, as promtool sees it: told when it should be, not just below its threshold, not just before its
//! time, and ended; and whether these tests see a rule that is another one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tasktracker_crds::{ALERTS, validation::read_stack};
use tasktracker_operator::{component, model::ComponentName, source::Stack};
use tasktracker_testbed::packages;

/// What an alert is tried with.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    alert: String,
    /// What is special about it, where an alert has several trials.
    #[serde(default)]
    case: String,
    /// By how much a threshold is another one that must be seen, where it counts things.
    step: Option<f64>,
    /// How far samples and evaluations are apart, where it is about weeks.
    #[serde(default = "a_minute")]
    every: String,
    /// How long everything was as it was before.
    #[serde(default = "not_at_all")]
    begins: String,
    series: BTreeMap<String, Values>,
    /// When it is told at the earliest.
    after: String,
    /// By how much it may be told earlier, as versions of Prometheus differ in what belongs to a range.
    #[serde(default = "not_at_all")]
    earlier: String,
    /// How long what made it fire is over, when it is ended at the latest.
    #[serde(default = "half_an_hour")]
    ends: String,
    labels: BTreeMap<String, String>,
    summary: String,
    description: String,
    /// The page about it, where it is not the one of its name.
    page: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Values {
    #[serde(default)]
    before: Value,
    quiet: Value,
    fires: Value,
}

fn a_minute() -> String {
    "1m".to_owned()
}

fn not_at_all() -> String {
    "0m".to_owned()
}

fn half_an_hour() -> String {
    "30m".to_owned()
}

fn trials() -> Vec<Trial> {
    serde_saphyr::from_str(include_str!("rules.yaml")).unwrap()
}

/// The rules of a stack of two hosts, with its own wishes about them.
fn rules(wishes: &str) -> String {
    let text = include_str!("../../../../examples/staging.yaml");
    let text = text.replace("roles: [app]", "roles: [app, monitoring]");
    let text = text.replace("tasktracker}", "tasktracker, publicUrl: https://tasks.example.com}");
    let stack = read_stack(&format!("{text}  monitoring: {{rules: {{{wishes}}}}}\n")).unwrap();
    let stack = Stack::new(stack, "staging.yaml".into());
    let project = component::project(&stack, &stack.spec.hosts[0], ComponentName::Monitoring).unwrap();
    project.files["files/prometheus/rules.yml"].content.clone()
}

fn minutes(text: &str) -> usize {
    let (number, unit) = text.split_at(text.len() - 1);
    number.parse::<usize>().unwrap() * if unit == "h" { 60 } else { 1 }
}

/// A value for each minute of one part of a trial, going on from the one before.
fn values(of: &Value, minutes: usize, before: f64) -> Vec<Option<f64>> {
    if minutes == 0 {
        return Vec::new();
    }
    let text = match of {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text == "_" {
        return vec![None; minutes];
    }
    let minutes = u32::try_from(minutes).unwrap();
    let steps =
        |first: f64, step: f64| (0..minutes).map(move |minute| Some(step.mul_add(minute.into(), first)));
    if let Some(step) = text.strip_prefix("by ") {
        let step: f64 = step.parse().unwrap();
        return steps(before + step, step).collect();
    }
    let sign = text.rfind(['+', '-']).filter(|place| *place > 0);
    match sign {
        Some(place) => steps(text[..place].parse().unwrap(), text[place..].parse().unwrap()).collect(),
        None => steps(text.parse().unwrap(), 0.0).collect(),
    }
}

/// A series over several parts, as promtool reads it.
fn input(series: &str, parts: &[(&Value, usize)]) -> Value {
    let mut all: Vec<Option<f64>> = Vec::new();
    for (part, minutes) in parts {
        let before = all.iter().rev().find_map(|value| *value).unwrap_or_default();
        all.extend(values(part, *minutes, before));
    }
    let words = all.iter().map(|value| value.map_or("_".to_owned(), |value| format!("{value:.6}")));
    json!({ "series": series, "values": words.collect::<Vec<_>>().join(" ") })
}

/// The two tests of a trial: always just beside the threshold; and beyond it, then beside it again.
fn tests(trial: &Trial) -> [Value; 2] {
    let apart = minutes(&trial.every);
    // From here on, one is as long as samples are apart.
    let [begins, after, ends, earlier] =
        [&trial.begins, &trial.after, &trial.ends, &trial.earlier].map(|text| minutes(text).div_ceil(apart));
    let lasts = after + 3;
    let told = |minute: usize, is_told: bool| {
        let annotations = json!({
            "summary": trial.summary,
            "description": trial.description,
            "runbook_url": trial.page.clone().unwrap_or_else(|| format!("https://tasktracker.dev/runbooks/{}", trial.alert)),
        });
        let alerts = if is_told {
            json!([{ "exp_labels": trial.labels, "exp_annotations": annotations }])
        } else {
            json!([])
        };
        let minute = (begins + minute) * apart;
        json!({ "eval_time": format!("{minute}m"), "alertname": trial.alert, "exp_alerts": alerts })
    };
    let test = |name: &str, series: Vec<Value>, alerts: Vec<Value>| {
        json!({
            "name": format!("{} {} {name}", trial.alert, trial.case),
            "interval": trial.every,
            "input_series": series,
            "alert_rule_test": alerts,
        })
    };
    let quiet = trial
        .series
        .iter()
        .map(|(series, values)| input(series, &[(&values.before, begins), (&values.quiet, lasts + 60)]));
    let quiet = test("is quiet", quiet.collect(), vec![told(after, false), told(lasts + 59, false)]);
    let changing = trial.series.iter().map(|(series, values)| {
        let parts = [(&values.before, begins), (&values.fires, lasts), (&values.quiet, ends + 1)];
        input(series, &parts)
    });
    let mut alerts = vec![told(after, true), told(lasts + ends, false)];
    if after > earlier {
        alerts.insert(0, told(after - earlier - 1, false));
    }
    [quiet, test("fires", changing.collect(), alerts)]
}

/// A file with an alert and the series of its group that others are made of, and where in it the alert is.
fn group(rules: &Value, name: &str) -> (Value, usize) {
    let groups = rules["groups"].as_array().unwrap().iter();
    let mut having = groups.filter_map(|group| {
        let mut group = group.clone();
        let rules = group["rules"].as_array_mut()?;
        rules.retain(|rule| rule["alert"].is_null() || rule["alert"] == name);
        let index = rules.iter().position(|rule| rule["alert"] == name)?;
        Some((json!({ "groups": [group] }), index))
    });
    having.next().unwrap_or_else(|| panic!("there is no {name}"))
}

/// Writes trials of an alert beside the rules that they try, under a number; tells the name of the file with them.
fn write_trials(folder: &Path, number: usize, rules: &Value, trials: &[&Trial]) -> String {
    let rules_file = format!("rules-{number}.yml");
    fs::write(folder.join(&rules_file), rules.to_string()).unwrap();
    let tests: Vec<Value> = trials.iter().flat_map(|trial| tests(trial)).collect();
    let all = json!({ "rule_files": [rules_file], "evaluation_interval": trials[0].every, "tests": tests });
    let name = format!("tests-{number}.yml");
    fs::write(folder.join(&name), all.to_string()).unwrap();
    name
}

/// promtool of the current Prometheus, and of the version before it.
fn promtools() -> [PathBuf; 2] {
    let current = packages::monitoring::prometheus(&mut |_| {}).unwrap();
    let before = packages::monitoring::prometheus_2(&mut |_| {}).unwrap();
    [current, before].map(|bin| bin.join("promtool"))
}

/// Trials of rules pass with every version.
fn assert_told(folder: &Path, rules: &str, trials: &[Trial]) {
    let rules: Value = serde_saphyr::from_str(rules).unwrap();
    let files: Vec<String> = trials
        .iter()
        .enumerate()
        .map(|(number, trial)| write_trials(folder, number, &group(&rules, &trial.alert).0, &[trial]))
        .collect();
    for promtool in promtools() {
        assert_passes(Command::new(promtool).current_dir(folder).args(["test", "rules"]).args(&files));
    }
}

fn assert_passes(command: &mut Command) {
    let output = command.output().unwrap();
    let said =
        [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {said}");
}

#[test]
fn every_alert_is_told_in_time_and_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let trials = trials();
    let rules = rules("");
    fs::write(folder.path().join("rules.yml"), &rules).unwrap();
    for promtool in promtools() {
        let mut check = Command::new(promtool);
        assert_passes(check.current_dir(folder.path()).args(["check", "rules", "--lint-fatal", "rules.yml"]));
    }
    assert_told(folder.path(), &rules, &trials);
    let tried: BTreeSet<&str> = trials.iter().map(|trial| trial.alert.as_str()).chain(["Watchdog"]).collect();
    assert_eq!(tried.into_iter().collect::<Vec<_>>(), ALERTS);
    for alert in ALERTS {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/runbooks/{alert}.md"));
        assert!(page.exists(), "there is no page about {alert}");
    }
    let labels = |name: &str| {
        let rules: Value = serde_saphyr::from_str(&rules).unwrap();
        let all = rules["groups"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap().clone());
        all.into_iter().find(|rule| rule["alert"] == name).unwrap()["labels"].clone()
    };
    assert_eq!(labels("Watchdog")["severity"], "none");
}

/// The comparison that makes an alert: its operator and its threshold.
fn comparison(expression: &str) -> (&str, f64) {
    let words: Vec<&str> = expression.split_whitespace().collect();
    let place = words.windows(2).find_map(|two| {
        let is_operator = ["<", ">", "<=", ">="].contains(&two[0]);
        let threshold: f64 = two[1].trim_matches(['(', ')']).parse().ok().filter(|_| is_operator)?;
        Some((two[0], threshold))
    });
    place.unwrap_or_else(|| panic!("nothing is compared in {expression}"))
}

/// The group of an alert, with another one in its place, each with what is other about it.
fn mutants(rules: &Value, name: &str, step: Option<f64>) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let (rules, index) = group(rules, name);
    let rule = &rules["groups"][0]["rules"][index];
    let mut add = |what: String, change: &dyn Fn(&mut Value)| {
        let mut changed = rules.clone();
        change(&mut changed["groups"][0]["rules"][index]);
        assert_ne!(changed, rules, "{name}: {what}");
        found.push((format!("{name}: {what}"), changed));
    };
    let expression = rule["expr"].as_str().unwrap();
    let (operator, threshold) = comparison(expression);
    let written = format!(" {operator} {threshold}");
    assert!(expression.contains(&written), "{name}: {written}");
    let flipped = if operator.starts_with('<') { ">" } else { "<" };
    let step = step.unwrap_or_else(|| (threshold.abs() * 0.02).max(0.02));
    for (what, other) in [
        ("the other way round", format!(" {flipped} {threshold}")),
        ("a higher threshold", format!(" {operator} {}", threshold + step)),
        ("a lower threshold", format!(" {operator} {}", threshold - step)),
    ] {
        add(what.to_owned(), &|rule| rule["expr"] = expression.replace(&written, &other).into());
    }
    let time = minutes(rule["for"].as_str().unwrap());
    for other in [Some(time + 1), time.checked_sub(1)].into_iter().flatten() {
        add(format!("for {other} minutes"), &|rule| rule["for"] = format!("{other}m").into());
    }
    for label in rule["labels"].as_object().unwrap().keys() {
        add(format!("another {label}"), &|rule| rule["labels"][label] = "other".into());
        add(format!("without {label}"), &|rule| drop(rule["labels"].as_object_mut().unwrap().remove(label)));
    }
    for annotation in rule["annotations"].as_object().unwrap().keys() {
        add(format!("another {annotation}"), &|rule| rule["annotations"][annotation] = "other".into());
    }
    found
}

#[test]
fn an_alert_that_is_another_one_is_seen() {
    let trials = trials();
    let rules: Value = serde_saphyr::from_str(&rules("")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut changed = Vec::new();
    for name in ALERTS {
        // The first trial of an alert is the one at its threshold; others may take days of samples.
        let Some(first) = trials.iter().find(|trial| trial.alert == *name) else { continue };
        for (what, rules) in mutants(&rules, name, first.step) {
            write_trials(folder.path(), changed.len(), &rules, &[first]);
            changed.push(what);
        }
    }
    // One run for all of them; of each file it says whether its tests passed.
    let [promtool, _] = promtools();
    let mut command = Command::new(promtool);
    command.current_dir(folder.path()).args(["test", "rules"]);
    command.args((0..changed.len()).map(|number| format!("tests-{number}.yml")));
    let output = command.output().unwrap();
    let said =
        [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned()).concat();
    let parts: Vec<&str> = said.split("Processing test file:").skip(1).collect();
    assert_eq!(parts.len(), changed.len(), "{said}");
    let passed = parts.iter().filter(|part| part.contains("SUCCESS")).map(|part| {
        let file = part.split_whitespace().next().unwrap();
        let number = file.trim_start_matches("tests-").trim_end_matches(".yml");
        &changed[number.parse::<usize>().unwrap()]
    });
    let survivors: Vec<&String> = passed.collect();
    println!("{} rules that are other ones, {} not seen", changed.len(), survivors.len());
    assert!(survivors.is_empty(), "{survivors:#?}");
}

#[test]
fn a_stack_says_what_is_otherwise_about_its_alerts() {
    let trials = trials();
    let cpu = trials.iter().find(|trial| trial.alert == "InstanceHighCpuUsage").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = rules("override: {InstanceHighCpuUsage: {threshold: 0.9, for: 10m, severity: critical}}");
    let mut trial = cpu.clone();
    trial.after = "11m".to_owned();
    trial.labels.insert("severity".to_owned(), "critical".to_owned());
    for (series, values) in &mut trial.series {
        if series.contains("idle") {
            *values = serde_json::from_value(json!({ "quiet": "by 3.1", "fires": "by 2.9" })).unwrap();
        }
    }
    trial.description = "Over five minutes 90.17% of their time was used.".to_owned();
    assert_told(folder.path(), &other, &[trial]);
    let own = rules(
        "extra: [{alert: QueueLong, expr: queue:length:sum > 5, for: 1m, severity: warning, summary: 'It is {{ $value }}'}], extraRecords: [{record: queue:length:sum, expr: sum by (queue) (queue_length)}]",
    );
    let mut trial = cpu.clone();
    trial.alert = "QueueLong".to_owned();
    trial.after = "1m".to_owned();
    trial.series =
        serde_json::from_value(json!({ "queue_length{queue=\"a\"}": { "quiet": 5, "fires": 6 } })).unwrap();
    let labels = [("queue", "a"), ("instance", "staging"), ("service", "staging"), ("severity", "warning")];
    trial.labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    (trial.summary, trial.description) = ("It is 6".to_owned(), "It is 6.".to_owned());
    trial.page = Some("https://tasktracker.dev/runbooks".to_owned());
    assert_told(folder.path(), &own, &[trial]);
    let without = rules("disable: [InstanceHighCpuUsage, Watchdog]");
    assert!(!without.contains("alert: InstanceHighCpuUsage") && without.contains("alert: InstanceDown"));
}
