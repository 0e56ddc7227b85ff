use tasktracker_crds::{Answer, DriftItem, DriftKind};

use super::*;

fn time(seconds: i64) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap())
}

fn good() -> ProjectReport {
    ProjectReport {
        host: "app-1".to_owned(),
        component: ComponentName::App,
        release: Some("0123456789ab".to_owned()),
        revision: Some("1".to_owned()),
        healthy: true,
        ..ProjectReport::default()
    }
}

fn key() -> ProjectKey {
    let stack = crate::source::StackKey { namespace: "default".to_owned(), name: "staging".to_owned() };
    ProjectKey { stack, host: "app-1".to_owned(), component: ComponentName::App }
}

fn failing(stalled: bool) -> ProjectReport {
    let failure =
        Failure { reason: reasons::HOST_KEY_CHANGED, message: "no".to_owned(), reachable: false, stalled };
    ProjectReport { failure: Some(failure), healthy: false, ..good() }
}

fn told(report: ProjectReport) -> Vec<(String, String, String)> {
    let status = status(
        &TaskTrackerStackStatus::default(),
        &[ProjectReport { generation: Some(3), ..report }],
        &time(1),
    );
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(3)));
    status
        .conditions
        .into_iter()
        .map(|condition| (condition.type_, condition.status, condition.reason))
        .collect()
}

fn of<'a>(told: &'a [(String, String, String)], kind: &str) -> (&'a str, &'a str) {
    let (_, status, reason) = told.iter().find(|(name, _, _)| name == kind).unwrap();
    (status, reason)
}

#[test]
fn without_a_certificate_that_holds_nobody_is_served() {
    let ending = |second| {
        let moment = |second| k8s_openapi::jiff::Timestamp::from_second(second).unwrap();
        let name = "tasks.example.com".to_owned();
        let (not_before, not_after) = (moment(0), moment(second));
        Certificate { name, not_before, not_after, fingerprint: "00".to_owned() }
    };
    let report = |second| ProjectReport { certificate: Some(ending(second)), ..good() };
    assert_eq!(of(&told(report(2)), "Healthy"), ("True", "Succeeded"));
    for kind in ["Healthy", "Ready"] {
        assert_eq!(of(&told(report(1)), kind), ("False", "CertificateNotValid"));
        let uncertified =
            ProjectReport { uncertified: Some(("nothing listens".to_owned(), "edge".to_owned())), ..good() };
        assert_eq!(of(&told(uncertified), kind), ("False", "Unhealthy"));
    }
}

#[test]
fn a_good_host_makes_a_ready_stack() {
    let told = told(good());
    for kind in ["Ready", "InSync", "Healthy", "HostsReachable", "Approved"] {
        assert_eq!(of(&told, kind), ("True", "Succeeded"), "{kind}");
    }
    assert_eq!(of(&told, "Reconciling").0, "False");
    assert_eq!(of(&told, "Stalled").0, "False");
}

#[test]
fn what_a_cut_rollout_left_is_not_in_sync_though_nothing_differs() {
    let told = told(ProjectReport { interrupted: true, ..good() });
    assert_eq!(of(&told, "InSync"), ("False", "RollingOut"));
    assert_eq!(of(&told, "Ready"), ("False", "RollingOut"));
    assert_eq!(of(&told, "Reconciling").0, "True");
}

#[test]
fn a_changed_host_key_is_stalled_and_never_reconciling_too() {
    let told = told(failing(true));
    assert_eq!(of(&told, "Stalled"), ("True", "HostKeyChanged"));
    assert_eq!(of(&told, "Reconciling").0, "False");
    assert_eq!(of(&told, "Ready"), ("False", "HostKeyChanged"));
    assert_eq!(of(&told, "InSync").0, "False");
}

#[test]
fn a_passing_failure_is_tried_again() {
    let told = told(failing(false));
    assert_eq!(of(&told, "Reconciling").0, "True");
    assert_eq!(of(&told, "Stalled").0, "False");
}

#[test]
fn drift_and_nothing_applied_are_not_in_sync() {
    let item = DriftItem {
        host: "app-1".to_owned(),
        component: "app".to_owned(),
        service: Some("edge".to_owned()),
        kind: DriftKind::Missing,
        path: None,
        wanted: String::new(),
        found: String::new(),
        first_seen: None,
        answer: Answer::Heal,
    };
    assert_eq!(
        of(&told(ProjectReport { drift: vec![item.clone(); 30], ..good() }), "InSync"),
        ("False", "Drifted")
    );
    assert_eq!(of(&told(ProjectReport { release: None, ..good() }), "InSync"), ("False", "Pending"));
    let status = status(
        &TaskTrackerStackStatus::default(),
        &[ProjectReport { drift: vec![item; 30], ..good() }],
        &time(1),
    );
    let component = &status.hosts[0].components[0];
    assert_eq!((component.drift.len(), component.drift_count), (20, 30));
}

#[test]
fn what_nobody_does_anything_about_is_not_reconciling() {
    let item = |answer| DriftItem {
        host: "app-1".to_owned(),
        component: "app".to_owned(),
        service: None,
        kind: DriftKind::FileExtra,
        path: None,
        wanted: String::new(),
        found: String::new(),
        first_seen: None,
        answer,
    };
    let hold = crate::model::Hold { reason: reasons::HELD, message: String::new() };
    let drifted = |answer| ProjectReport { drift: vec![item(answer)], ..good() };
    let reconciling = |report| of(&told(report), "Reconciling").0.to_owned();
    assert_eq!(reconciling(drifted(Answer::Heal)), "True");
    assert_eq!(reconciling(drifted(Answer::Report)), "False");
    assert_eq!(reconciling(ProjectReport { hold: Some(hold), ..drifted(Answer::Heal) }), "False");
    assert_eq!(reconciling(ProjectReport { healthy: false, ..good() }), "True");
    assert_eq!(of(&told(drifted(Answer::Report)), "InSync"), ("False", "Drifted"));
}

#[test]
fn transition_times_move_only_when_a_condition_flips() {
    let first = status(&TaskTrackerStackStatus::default(), &[good()], &time(1));
    let same = status(&first, &[good()], &time(2));
    assert_eq!(first, same);
    let other = status(&same, &[failing(false)], &time(3));
    let ready = other.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.last_transition_time, time(3));
    let approved = other.conditions.iter().find(|condition| condition.type_ == "Approved").unwrap();
    assert_eq!(approved.last_transition_time, time(1));
}

#[test]
fn the_plan_that_waits_is_the_one_of_all_hosts_that_were_read() {
    let waiting = |reason| {
        let change = crate::diff::Change::default();
        Some(crate::plan::Waiting { reason, message: String::new(), change })
    };
    let host = |name: &str, plan: &str, waiting| ProjectReport {
        host: name.into(),
        plan: plan.into(),
        waiting,
        ..good()
    };
    let plan = |reports: &[ProjectReport]| {
        status(&TaskTrackerStackStatus::default(), reports, &time(1)).waiting_plan
    };
    let (one, other) = (host("a", "1", waiting(reasons::APPROVAL_NEEDED)), host("b", "2", None));
    let unread = ProjectReport { host: "c".into(), ..failing(false) };
    let both = crate::plan::hash_of([("b", "app", "2".to_owned()), ("a", "app", "1".to_owned())]);
    assert_eq!(plan(&[one, other.clone(), unread]), Some(both));
    assert_eq!(plan(&[host("a", "1", waiting(reasons::WINDOW_CLOSED)), other]), None, "nobody is asked");
}

/// What kstatus makes of an object, by its own rules: deletion, generation, then the conditions in their order.
fn kstatus(generation: i64, deleted: bool, status: &TaskTrackerStackStatus) -> &'static str {
    if deleted {
        return "Terminating";
    }
    if status.observed_generation.is_some_and(|observed| observed != generation) {
        return "InProgress";
    }
    for condition in &status.conditions {
        match (condition.type_.as_str(), condition.status.as_str()) {
            ("Reconciling", "True") => return "InProgress",
            ("Stalled", "True") => return "Failed",
            _ => {}
        }
    }
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    if ready.is_some_and(|ready| ready.status != "True") { "InProgress" } else { "Current" }
}

#[test]
fn kstatus_understands_what_is_told() {
    let waiting = |reason| {
        let change = crate::diff::Change::default();
        Some(crate::plan::Waiting { reason, message: String::new(), change })
    };
    let seen = |report: ProjectReport| ProjectReport { generation: Some(3), ..report };
    let of = |report: ProjectReport, generation: i64| {
        let status = status(&TaskTrackerStackStatus::default(), &[seen(report)], &time(1));
        kstatus(generation, false, &status)
    };
    let waits = |reason| of(ProjectReport { waiting: waiting(reason), ..good() }, 3);
    let rows = [
        ("everything is as asked for", of(good(), 3), "Current"),
        ("a newer spec was not checked yet", of(good(), 4), "InProgress"),
        ("not checked yet", of(ProjectReport::unknown(&key()), 3), "InProgress"),
        ("a passing failure", of(failing(false), 3), "InProgress"),
        ("a changed host key", of(failing(true), 3), "Failed"),
        ("a rollout", of(ProjectReport { rolling_out: Some("2".to_owned()), ..good() }, 3), "InProgress"),
        ("another writer", of(ProjectReport { busy: true, ..good() }, 3), "InProgress"),
        ("a service that is down", of(ProjectReport { healthy: false, ..good() }, 3), "InProgress"),
        ("a rollout that was taken back", waits(reasons::ROLLED_BACK), "Failed"),
        ("one that is left for a person", waits(reasons::ROLLOUT_HELD), "Failed"),
        ("a missing secret", waits(reasons::SECRET_MISSING), "Failed"),
        ("images on their way", waits(reasons::PULLING_IMAGES), "InProgress"),
        ("a plan that waits for approval", waits(reasons::APPROVAL_NEEDED), "InProgress"),
        ("a window that is closed", waits(reasons::WINDOW_CLOSED), "InProgress"),
        ("a spec that went back", waits(reasons::SPEC_WENT_BACK), "Failed"),
    ];
    for (what, found, wanted) in rows {
        assert_eq!(found, wanted, "{what}");
    }
    let known = status(&TaskTrackerStackStatus::default(), &[seen(good())], &time(1));
    let lost = refused(None, &known, "spec.revision: no", Some(4), &time(2));
    let state = |kind: &str| lost.conditions.iter().find(|one| one.type_ == kind).unwrap().status.clone();
    assert_eq!(["Ready", "Stalled", "InSync", "Healthy"].map(state), ["False", "True", "Unknown", "Unknown"]);
    let refused = refused(Some(&known), &known, "spec.revision: no", Some(4), &time(2));
    assert_eq!(kstatus(4, false, &refused), "Failed");
    assert_eq!(kstatus(4, true, &refused), "Terminating");
    assert!(refused.conditions.iter().filter(|condition| condition.type_ == "Ready").count() == 1);
}

#[test]
fn nothing_is_reconciling_and_stalled_at_once() {
    let reasons = [
        None,
        Some(reasons::APPROVAL_NEEDED),
        Some(reasons::ROLLED_BACK),
        Some(reasons::PULLING_IMAGES),
        Some(reasons::LEADERSHIP_UNKNOWN),
        Some(reasons::SPEC_WENT_BACK),
    ];
    let failures = [None, failing(false).failure, failing(true).failure];
    let mut hosts = Vec::new();
    for (reason, failure) in
        reasons.iter().flat_map(|reason| failures.iter().map(move |failure| (reason, failure)))
    {
        for bits in 0..16 {
            let is = |bit: u8| bits & (1 << bit) != 0;
            let change = crate::diff::Change::default();
            let waiting =
                reason.map(|reason| crate::plan::Waiting { reason, message: String::new(), change });
            hosts.push(ProjectReport {
                waiting,
                failure: failure.clone(),
                busy: is(0),
                interrupted: is(1),
                healthy: is(2),
                rolling_out: is(3).then(|| "2".to_owned()),
                ..good()
            });
        }
    }
    for pair in hosts.windows(2) {
        let told = status(&TaskTrackerStackStatus::default(), pair, &time(1));
        let is = |kind: &str| told.conditions.iter().any(|one| one.type_ == kind && one.status == "True");
        assert!(!(is("Reconciling") && is("Stalled")), "{pair:?}");
        assert!(!(is("Ready") && (is("Reconciling") || is("Stalled"))), "{pair:?}");
    }
}

#[test]
fn a_status_is_small_however_much_differs() {
    let item = |index: usize| DriftItem {
        host: "app-1".to_owned(),
        component: "app".to_owned(),
        service: Some("backend".to_owned()),
        kind: DriftKind::ConfigChanged,
        path: Some(format!("environment/VARIABLE_{index}")),
        wanted: "x".repeat(40),
        found: "y".repeat(40),
        first_seen: Some("2026-01-31T18:00:00.123456789Z".to_owned()),
        answer: Answer::Heal,
    };
    let reports: Vec<ProjectReport> = (0..100)
        .map(|host| ProjectReport {
            host: format!("app-{host}"),
            drift: (0..500).map(item).collect(),
            ..good()
        })
        .collect();
    let told = status(&TaskTrackerStackStatus::default(), &reports, &time(1));
    let size = serde_json::to_vec(&told).unwrap().len();
    assert!(size < 128 << 10, "{size} bytes");
    assert_eq!(told.hosts.iter().map(|host| host.components[0].drift.len()).sum::<usize>(), 100);
    assert_eq!(told.hosts[99].components[0].drift_count, 500);
    let few: Vec<ProjectReport> =
        reports[..3].iter().map(|report| ProjectReport { drift: Vec::new(), ..report.clone() }).collect();
    let told = status(&TaskTrackerStackStatus::default(), &few, &time(1));
    assert!(serde_json::to_vec(&told).unwrap().len() < 16 << 10);
}

#[test]
fn a_status_is_small_when_a_rollout_failed_on_every_host_with_its_logs() {
    let message = format!("backend: unhealthy; {}", "a line that a container wrote last / ".repeat(500));
    let failure =
        |_| Failure { reason: "Unhealthy", message: message.clone(), reachable: true, stalled: true };
    let reports: Vec<ProjectReport> = (0..100)
        .map(|host| ProjectReport {
            host: format!("app-{host}"),
            failure: Some(failure(host)),
            healthy: false,
            ..good()
        })
        .collect();
    let told = status(&TaskTrackerStackStatus::default(), &reports, &time(1));
    let size = serde_json::to_vec(&told).unwrap().len();
    assert!(size < 128 << 10, "{size} bytes");
    let ready = told.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert!(ready.message.starts_with("app-0: backend: unhealthy"), "{}", ready.message);
    assert!(ready.message.ends_with("; and 87 more") && ready.message.len() < 4_200, "{}", ready.message);
}

#[test]
fn a_condition_tells_each_fault_of_a_host_once_and_names_the_service() {
    let message = |report: ProjectReport| {
        let told = status(&TaskTrackerStackStatus::default(), &[report], &time(1));
        told.conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap().message
    };
    assert_eq!(message(failing(false)), "app-1: no");
    let faults = vec!["backend: expected 1 running, found 0".to_owned(), "edge: x".to_owned()];
    let down = ProjectReport { healthy: false, faults, ..good() };
    assert_eq!(
        message(down),
        "app-1: backend: expected 1 running, found 0; and 1 more services do not serve"
    );
}

#[test]
fn the_components_of_a_host_are_one_entry_of_the_status() {
    let echo = ProjectReport { component: ComponentName::Echo, revision: None, ..good() };
    let failing = ProjectReport { failure: failing(false).failure, ..echo.clone() };
    let other = ProjectReport { host: "app-2".to_owned(), ..good() };
    let told = |reports: &[ProjectReport]| status(&TaskTrackerStackStatus::default(), reports, &time(1));
    let told_all = told(&[good(), failing, other]);
    let names: Vec<&str> = told_all.hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["app-1", "app-2"]);
    let components: Vec<&str> =
        told_all.hosts[0].components.iter().map(|component| component.name.as_str()).collect();
    assert_eq!(components, ["app", "echo"]);
    let ready = told_all.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.message, "app-1 (echo): no");
    assert_eq!(told(&[good(), echo]).revision.as_deref(), Some("1"), "echo has no revision to wait for");
}
