use super::*;
use crate::{diff::Change, engine::Error, host, plan::Waiting};

fn stack() -> Stack {
    let text = include_str!("../../../examples/staging.yaml");
    Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "staging.yaml".into())
}

#[test]
fn series_exist_at_zero_and_go_with_the_stack() {
    let metrics = Metrics::new().unwrap();
    let before = metrics.text().lines().filter(|line| line.contains("stack=")).count();
    let stack = stack();
    metrics.begin(&stack);
    let labels = StackLabels::of(&stack);
    metrics.healed(&labels, DriftKind::Missing, 0.2);
    metrics.phase(&labels, "observe", 0.1);
    let text = metrics.text();
    assert!(
        text.contains(
            r#"tasktracker_stack_ready{environment="staging",namespace="default",stack="staging"} 0"#
        ),
        "{text}"
    );
    assert!(text.contains(r#"tasktracker_drift_items{component="app",environment="staging",host="app-1",layer="files",namespace="default",stack="staging"} 0"#));
    metrics.end(&stack.key);
    let after = metrics.text().lines().filter(|line| line.contains("stack=")).count();
    assert_eq!((before, after), (0, 0));
}

#[test]
fn no_two_metrics_have_one_name() {
    let (names, mut registries) = (Registry::new(), Vec::new());
    let mut register =
        |name: &str| registered::<IntGaugeVec>(&names, &mut registries, name, "help", &[]).is_ok();
    assert_eq!([register("one"), register("other"), register("one")], [true, true, false]);
}

#[test]
fn counters_of_hosts_that_stay_survive_a_spec_with_other_hosts() {
    let text = include_str!("../../../examples/staging.yaml");
    let with = |names: &[&str]| {
        let mut resource = tasktracker_crds::validation::read_stack(text).unwrap();
        let host = resource.spec.hosts[0].clone();
        resource.spec.hosts = names
            .iter()
            .map(|name| tasktracker_crds::HostSpec { name: name.parse().unwrap(), ..host.clone() })
            .collect();
        Stack::new(resource, "staging.yaml".into())
    };
    let metrics = Metrics::new().unwrap();
    let (one, two) = (with(&["app-1"]), with(&["app-1", "app-2"]));
    let labels = StackLabels::of(&one);
    metrics.begin(&one);
    metrics.connected(&labels, "app-1");
    metrics.reconciled(&labels, SUCCESS);
    metrics.change(&one, &two);
    let line = |start: &str, part: &str| {
        let text = metrics.text();
        text.lines().find(|line| line.starts_with(start) && line.contains(part)).map(str::to_owned)
    };
    assert!(line("tasktracker_ssh_reconnects_total", "app-1").unwrap().ends_with(" 1"));
    assert!(line("tasktracker_reconcile_total", "success").unwrap().ends_with(" 1"));
    assert!(line("tasktracker_host_reachable", "app-2").is_some(), "the new one begins at 0");
    metrics.change(&two, &one);
    assert!(!metrics.text().contains("app-2"), "and goes");
    assert!(line("tasktracker_ssh_reconnects_total", "app-1").unwrap().ends_with(" 1"));
}

#[test]
fn that_a_change_was_taken_back_is_not_forgotten_while_its_host_is_away() {
    let (metrics, labels) = (Metrics::new().unwrap(), StackLabels::of(&stack()));
    let change = Change {
        desired_hash: "d".to_owned(),
        from_release: None,
        from_revision: None,
        to_revision: "r2".to_owned(),
        items: Vec::new(),
        adopts: Vec::new(),
        restarts: None,
    };
    let waits = ProjectReport {
        host: "app-1".to_owned(),
        waiting: Some(Waiting { reason: "RolledBack", message: String::new(), change }),
        ..ProjectReport::default()
    };
    let away = |before: &ProjectReport| {
        Error::from(host::Error::ConnectionLost)
            .report(&component::projects(&stack())[0], Some(before.clone()))
    };
    let (first, fine) =
        (away(&waits), ProjectReport { host: "app-1".to_owned(), ..ProjectReport::default() });
    let (second, told) = (away(&first), "tasktracker_change_waiting{");
    for (before, report, is_told) in [
        (&ProjectReport::default(), &waits, true),
        (&waits, &first, true),
        (&first, &second, true),
        (&second, &fine, false),
    ] {
        metrics.checked(&labels, before, report, 0.0);
        assert_eq!(metrics.text().contains(told), is_told, "{}", metrics.text());
    }
}
