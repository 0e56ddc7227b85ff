use tasktracker_crds::{Answer, DriftItem, DriftKind};

use super::*;

fn time(seconds: i64) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap())
}

fn good() -> HostReport {
    HostReport {
        host: "app-1".to_owned(),
        component: "app".to_owned(),
        release: Some("0123456789ab".to_owned()),
        revision: Some("1".to_owned()),
        healthy: true,
        ..HostReport::default()
    }
}

fn failing(stalled: bool) -> HostReport {
    let failure =
        Failure { reason: reasons::HOST_KEY_CHANGED, message: "no".to_owned(), reachable: false, stalled };
    HostReport { failure: Some(failure), healthy: false, ..good() }
}

fn told(report: HostReport) -> Vec<(String, String, String)> {
    let status = status(&TaskTrackerStackStatus::default(), &[HostReport { generation: Some(3), ..report }], &time(1));
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
    let report = |second| HostReport { certificate: Some(ending(second)), ..good() };
    assert_eq!(of(&told(report(2)), "Healthy"), ("True", "Succeeded"));
    for kind in ["Healthy", "Ready"] {
        assert_eq!(of(&told(report(1)), kind), ("False", "CertificateNotValid"));
        let uncertified = HostReport { uncertified: Some("nothing listens".to_owned()), ..good() };
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
    let told = told(HostReport { cut: true, ..good() });
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
        of(&told(HostReport { drift: vec![item.clone(); 30], ..good() }), "InSync"),
        ("False", "Drifted")
    );
    assert_eq!(of(&told(HostReport { release: None, ..good() }), "InSync"), ("False", "Pending"));
    let status = status(
        &TaskTrackerStackStatus::default(),
        &[HostReport { drift: vec![item; 30], ..good() }],
        &time(1),
    );
    assert_eq!((status.hosts[0].drift.len(), status.hosts[0].drift_count), (20, 30));
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
    let hold = crate::plan::Hold { reason: reasons::HELD, message: String::new() };
    let drifted = |answer| HostReport { drift: vec![item(answer)], ..good() };
    let reconciling = |report| of(&told(report), "Reconciling").0.to_owned();
    assert_eq!(reconciling(drifted(Answer::Heal)), "True");
    assert_eq!(reconciling(drifted(Answer::Report)), "False");
    assert_eq!(reconciling(HostReport { hold: Some(hold), ..drifted(Answer::Heal) }), "False");
    assert_eq!(reconciling(HostReport { healthy: false, ..good() }), "True");
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
    let host = |name: &str, plan: &str, waiting| HostReport {
        host: name.into(),
        plan: plan.into(),
        waiting,
        ..good()
    };
    let plan = |reports: &[HostReport]| {
        status(&TaskTrackerStackStatus::default(), reports, &time(1)).waiting_plan
    };
    let (one, other) = (host("a", "1", waiting(reasons::APPROVAL_NEEDED)), host("b", "2", None));
    let unread = HostReport { host: "c".into(), ..failing(false) };
    let both = crate::plan::hash_of([("b", "app", "2".to_owned()), ("a", "app", "1".to_owned())]);
    assert_eq!(plan(&[one, other.clone(), unread]), Some(both));
    assert_eq!(plan(&[host("a", "1", waiting(reasons::WINDOW_CLOSED)), other]), None, "nobody is asked");
}
