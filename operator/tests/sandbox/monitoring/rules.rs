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
use tasktracker_crds::{ALERTS, RECONCILIATION_ALERTS, validation::read_stack};
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

impl Trial {
    /// Whether a rule is the one that is tried: several of one name differ in their cause.
    fn is_about(&self, rule: &Value) -> bool {
        let cause = self.labels.get("cause").map_or(Value::Null, |cause| cause.as_str().into());
        rule["alert"] == self.alert.as_str() && rule["labels"]["cause"] == cause
    }
}

fn trials() -> Vec<Trial> {
    serde_saphyr::from_str(include_str!("rules.yaml")).unwrap()
}

/// Those of the alerts that the operator's chart has, too.
fn reconciliation_trials() -> Vec<Trial> {
    serde_saphyr::from_str(include_str!("reconciliation.yaml")).unwrap()
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
    let unit = match unit {
        "d" => 24 * 60,
        "h" => 60,
        _ => 1,
    };
    number.parse::<usize>().unwrap() * unit
}

/// A value for each step of one part of a trial, going on from the one before; steps are so many minutes `apart`.
fn values(of: &Value, steps: usize, apart: usize, before: f64) -> Vec<Option<f64>> {
    if steps == 0 {
        return Vec::new();
    }
    let text = match of {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut all = Vec::new();
    for way in text.split(", ") {
        let (way, so_long) = way.split_once(" for ").unwrap_or((way, ""));
        let left = steps - all.len();
        let so_many = if so_long.is_empty() { left } else { left.min(minutes(so_long) / apart) };
        let before = all.iter().rev().find_map(|value| *value).unwrap_or(before);
        all.extend(values_of_one_way(way, so_many, before));
    }
    all
}

fn values_of_one_way(way: &str, steps: usize, before: f64) -> Vec<Option<f64>> {
    if way == "_" {
        return vec![None; steps];
    }
    let steps = u32::try_from(steps).unwrap();
    let each = |first: f64, step: f64| (0..steps).map(move |number| Some(step.mul_add(number.into(), first)));
    if let Some(step) = way.strip_prefix("by ") {
        let step: f64 = step.parse().unwrap();
        return each(before + step, step).collect();
    }
    let sign = way.rfind(['+', '-']).filter(|place| *place > 0);
    match sign {
        Some(place) => each(way[..place].parse().unwrap(), way[place..].parse().unwrap()).collect(),
        None => each(way.parse().unwrap(), 0.0).collect(),
    }
}

/// A series over several parts, as promtool reads it.
fn input(series: &str, apart: usize, parts: &[(&Value, usize)]) -> Value {
    let mut all: Vec<Option<f64>> = Vec::new();
    for (part, steps) in parts {
        let before = all.iter().rev().find_map(|value| *value).unwrap_or_default();
        all.extend(values(part, *steps, apart, before));
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
    let quiet = trial.series.iter().map(|(series, values)| {
        input(series, apart, &[(&values.before, begins), (&values.quiet, lasts + 60)])
    });
    let quiet = test("is quiet", quiet.collect(), vec![told(after, false), told(lasts + 59, false)]);
    let changing = trial.series.iter().map(|(series, values)| {
        let parts = [(&values.before, begins), (&values.fires, lasts), (&values.quiet, ends + 1)];
        input(series, apart, &parts)
    });
    let mut alerts = vec![told(after, true), told(lasts + ends, false)];
    if after > earlier {
        alerts.insert(0, told(after - earlier - 1, false));
    }
    [quiet, test("fires", changing.collect(), alerts)]
}

/// A file with an alert and those series of its group that it is made of, and where in it the alert is.
fn group(rules: &Value, trial: &Trial) -> (Value, usize) {
    let groups = rules["groups"].as_array().unwrap().iter();
    let mut having = groups.filter_map(|group| {
        let mut group = group.clone();
        let rules = group["rules"].as_array_mut()?;
        rules.retain(|rule| rule["alert"].is_null() || trial.is_about(rule));
        let alert = rules.iter().find(|rule| trial.is_about(rule))?;
        let mut used = alert["expr"].as_str()?.to_owned();
        // Each is made of those before it.
        let mut is_kept: Vec<bool> = Vec::new();
        for rule in rules.iter().rev() {
            let name = rule["record"].as_str().unwrap_or_default();
            is_kept.push(rule["record"].is_null() || used.contains(name));
            if is_kept.last() == Some(&true) {
                used.push_str(rule["expr"].as_str()?);
            }
        }
        rules.retain(|_| is_kept.pop().unwrap_or_default());
        let index = rules.iter().position(|rule| trial.is_about(rule))?;
        Some((json!({ "groups": [group] }), index))
    });
    having.next().unwrap_or_else(|| panic!("there is no {}", trial.alert))
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
        .map(|(number, trial)| write_trials(folder, number, &group(&rules, trial).0, &[trial]))
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
    let rules = rules("");
    fs::write(folder.path().join("rules.yml"), &rules).unwrap();
    for promtool in promtools() {
        let mut check = Command::new(promtool);
        assert_passes(check.current_dir(folder.path()).args(["check", "rules", "--lint-fatal", "rules.yml"]));
    }
    for (trials, alerts) in [(trials(), ALERTS), (reconciliation_trials(), RECONCILIATION_ALERTS)] {
        assert_told(folder.path(), &rules, &trials);
        let tried: BTreeSet<&str> = trials.iter().map(|trial| trial.alert.as_str()).collect();
        // Watchdog fires always.
        let all: BTreeSet<&str> = alerts.iter().copied().filter(|name| *name != "Watchdog").collect();
        assert_eq!(tried, all);
        for alert in alerts {
            let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/runbooks/{alert}.md"));
            assert!(page.exists(), "there is no page about {alert}");
        }
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

/// What else may be in the place of a word of an expression: of an operator the opposite, of a number a higher and a lower one.
fn others(word: &str, step: Option<f64>) -> Vec<String> {
    let opposite = match word {
        "<" | "<=" => Some(">"),
        ">" | ">=" => Some("<"),
        "==" => Some("!="),
        _ => None,
    };
    let written = word.trim_matches(['(', ')']);
    let number = written.parse::<f64>().into_iter().flat_map(|number| {
        let step = step.unwrap_or_else(|| (number.abs() * 0.02).max(0.02));
        [number + step, number - step].map(|other| word.replace(written, &other.to_string()))
    });
    opposite.map(str::to_owned).into_iter().chain(number).collect()
}

/// The group of an alert, with another one in its place, each with what is other about it, and whether that is its
/// expression.
fn mutants(rules: &Value, trial: &Trial) -> Vec<(String, bool, Value)> {
    let mut found = Vec::new();
    let (rules, index) = group(rules, trial);
    let rule = &rules["groups"][0]["rules"][index];
    let mut add = |what: String, is_expression: bool, change: &dyn Fn(&mut Value)| {
        let mut changed = rules.clone();
        change(&mut changed["groups"][0]["rules"][index]);
        assert_ne!(changed, rules, "{}: {what}", trial.alert);
        found.push((format!("{} {}: {what}", trial.alert, trial.case), is_expression, changed));
    };
    let words: Vec<&str> = rule["expr"].as_str().unwrap().split_whitespace().collect();
    for (place, word) in words.iter().enumerate() {
        for other in others(word, trial.step) {
            let expression = [&words[..place], &[other.as_str()], &words[place + 1..]].concat().join(" ");
            add(expression.clone(), true, &|rule| rule["expr"] = expression.as_str().into());
        }
    }
    let time = minutes(rule["for"].as_str().unwrap());
    for other in [Some(time + 1), time.checked_sub(1)].into_iter().flatten() {
        add(format!("for {other} minutes"), false, &|rule| rule["for"] = format!("{other}m").into());
    }
    for label in rule["labels"].as_object().unwrap().keys() {
        add(format!("another {label}"), false, &|rule| rule["labels"][label] = "other".into());
        add(format!("without {label}"), false, &|rule| {
            drop(rule["labels"].as_object_mut().unwrap().remove(label));
        });
    }
    for annotation in rule["annotations"].as_object().unwrap().keys() {
        add(format!("another {annotation}"), false, &|rule| rule["annotations"][annotation] = "other".into());
    }
    found
}

/// One in so many of the rules that are other ones is tried with every change; all of them by `cargo xtask soak monitoring`.
const SAMPLE: usize = 8;

#[test]
fn an_alert_that_is_another_one_is_seen() {
    assert_others_are_seen(SAMPLE);
}

#[test]
#[ignore = "takes long: `cargo xtask soak monitoring`"]
fn soak_every_alert_that_is_another_one_is_seen() {
    assert_others_are_seen(1);
}

fn assert_others_are_seen(one_in: usize) {
    let trials: Vec<Trial> = trials().into_iter().chain(reconciliation_trials()).collect();
    let rules: Value = serde_saphyr::from_str(&rules("")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // What is other about each, and of each file with a trial, of which it is.
    let (mut changed, mut files): (Vec<String>, Vec<usize>) = Default::default();
    let mut all = 0;
    for (place, first) in trials.iter().enumerate() {
        let (group, index) = group(&rules, first);
        let rule = &group["groups"][0]["rules"][index];
        if trials[..place].iter().any(|trial| trial.is_about(rule)) {
            continue;
        }
        for (what, is_expression, rules) in mutants(&rules, first) {
            all += 1;
            if all % one_in != 0 {
                continue;
            }
            let trials = trials.iter().filter(|trial| trial.is_about(rule));
            // What else is about an alert is seen in any of its trials.
            for trial in trials.take(if is_expression { usize::MAX } else { 1 }) {
                write_trials(folder.path(), files.len(), &rules, &[trial]);
                files.push(changed.len());
            }
            changed.push(what);
        }
    }
    // One run for all of them; of each file it says whether its tests passed.
    let [promtool, _] = promtools();
    let mut command = Command::new(promtool);
    command.current_dir(folder.path()).args(["test", "rules"]);
    command.args((0..files.len()).map(|number| format!("tests-{number}.yml")));
    let output = command.output().unwrap();
    let said =
        [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned()).concat();
    let parts: Vec<&str> = said.split("Processing test file:").skip(1).collect();
    assert_eq!(parts.len(), files.len(), "{said}");
    let failed = parts.iter().filter(|part| !part.contains("SUCCESS")).map(|part| {
        let file = part.split_whitespace().next().unwrap();
        let number = file.trim_start_matches("tests-").trim_end_matches(".yml");
        files[number.parse::<usize>().unwrap()]
    });
    let seen: BTreeSet<usize> = failed.collect();
    let survivors = changed.iter().enumerate().filter(|(number, _)| !seen.contains(number));
    let survivors: Vec<&String> = survivors.map(|(_, what)| what).collect();
    println!("{all} rules that are other ones, {} tried, {} not seen", changed.len(), survivors.len());
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
