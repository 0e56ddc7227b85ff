//! Notifications: what is sent to people once, where the status shows it as long as it lasts. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tasktracker_crds::{Answer, NotificationEvent, TaskTrackerStackStatus, conditions::reasons};

use super::ProjectReport;
use crate::{model::ComponentName, plan::Waiting};

/// How the reason begins on the host on which something was tried.
const TRIED: &str = "this desired state was tried";
/// Longest text of one message, in characters.
const LONGEST: usize = 1500;

/// What people were notified of last, so that nothing is sent twice.
///
/// A stored format, in `notifications.json` and in the notes of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NotificationState {
    /// Each component of which anything was known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<ComponentName, Notified>,
    /// Hashes of the plans that wait for a person, by host and component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_plans: Option<String>,
}

/// What people were notified of about one component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Notified {
    /// The releases that were in force, by host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub in_force: String,
    /// The revision or version that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What it is about.
    pub event: NotificationEvent,
    /// The message, on a few lines.
    pub text: String,
}

/// Notifications that follow from the reports of every host of a stack, and the state after them. What is in force
/// before the first notification is not new.
pub fn notifications(
    stack: &str,
    reports: &[ProjectReport],
    status: &TaskTrackerStackStatus,
    before: &NotificationState,
) -> (Vec<Notification>, NotificationState) {
    let asked: Vec<&ProjectReport> = reports.iter().filter(|report| report.retained.is_none()).collect();
    let components: BTreeSet<ComponentName> = asked.iter().map(|report| report.component).collect();
    let mut new = Vec::new();
    let mut next = before.clone();
    next.components.retain(|component, _| components.contains(component));
    for component in components {
        let reports: Vec<&ProjectReport> =
            asked.iter().copied().filter(|report| report.component == component).collect();
        let (events, state) = of_component(component, &reports, before.components.get(&component));
        new.extend(events.into_iter().map(|(event, text)| message(event, &format!("{stack}: {text}"))));
        match state {
            Some(state) => drop(next.components.insert(component, state)),
            None => drop(next.components.remove(&component)),
        }
    }
    let waiting: Vec<_> = waits(&asked, reasons::APPROVAL_NEEDED).collect();
    let plans =
        waiting.iter().map(|(report, _)| format!("{}/{}={}", report.host, report.component, report.plan));
    let plans: Vec<String> = plans.collect();
    let plans = (!plans.is_empty()).then(|| plans.join(" "));
    let is_new = plans.is_some() && plans != before.waiting_plans;
    if let Some(plan) = status.waiting_plan.as_ref().filter(|_| is_new) {
        new.push(message(NotificationEvent::ApprovalNeeded, &approval_needed(stack, plan, &waiting)));
    }
    if plans.is_some() || is_known(&asked) {
        next.waiting_plans = plans;
    }
    (new, next)
}

fn message(event: NotificationEvent, text: &str) -> Notification {
    Notification { event, text: text.chars().take(LONGEST).collect() }
}

/// Whether it is known what every project waits for: of a host that could not be checked it is not.
fn is_known(reports: &[&ProjectReport]) -> bool {
    reports.iter().all(|report| report.failure.is_none() || report.waiting.is_some())
}

/// The projects that wait for a reason.
fn waits<'a>(
    reports: &'a [&ProjectReport],
    reason: &'static str,
) -> impl Iterator<Item = (&'a ProjectReport, &'a Waiting)> {
    let waiting = reports.iter().filter_map(|report| Some((*report, report.waiting.as_ref()?)));
    waiting.filter(move |(_, waiting)| waiting.reason == reason)
}

/// What is new in the reports of one component, and its state after that; none as long as nothing is known.
fn of_component(
    component: ComponentName,
    reports: &[&ProjectReport],
    before: Option<&Notified>,
) -> (Vec<(NotificationEvent, String)>, Option<Notified>) {
    let mut new = Vec::new();
    let in_force =
        reports.iter().filter_map(|report| Some(format!("{}={}", report.host, report.release.as_ref()?)));
    let in_force = in_force.collect::<Vec<String>>().join(" ");
    let Some(before) = before else {
        let is_unknown = reports.iter().any(|report| report.failure.is_some() && report.release.is_none());
        return (new, (!is_unknown).then_some(Notified { in_force, rolled_back: None }));
    };
    let mut next = before.clone();
    if reports.iter().all(|report| serves(report)) && in_force != before.in_force {
        let hosts: Vec<&str> = reports.iter().map(|report| report.host.as_str()).collect();
        let versions: BTreeSet<&str> =
            reports.iter().filter_map(|report| report.version.as_deref()).collect();
        let version = if versions.len() > 1 { None } else { versions.into_iter().next() };
        let version = version.unwrap_or("in several versions");
        new.push((
            NotificationEvent::Succeeded,
            format!("{component} {version} is in force on {}", hosts.join(", ")),
        ));
        next.in_force = in_force;
    }
    // The host on which it failed says more than those that only heard of it.
    let failed = waits(reports, reasons::ROLLOUT_HELD).chain(waits(reports, reasons::ROLLED_BACK));
    let failed = failed.max_by_key(|(_, waiting)| waiting.message.contains(TRIED));
    let version = failed.map(|(_, waiting)| waiting.change.to_revision.clone());
    if let Some((report, waiting)) = failed.filter(|_| version != before.rolled_back) {
        let to = &waiting.change.to_revision;
        let text = format!("{component} {to} failed on {}: {}", report.host, waiting.message);
        new.push((NotificationEvent::RolledBack, text));
    }
    if version.is_some() || is_known(reports) {
        next.rolled_back = version;
    }
    (new, Some(next))
}

fn approval_needed(stack: &str, plan: &str, waiting: &[(&ProjectReport, &Waiting)]) -> String {
    let changes: Vec<String> = waiting
        .iter()
        .map(|(report, waiting)| {
            let from = waiting.change.from_revision.as_deref().unwrap_or("nothing");
            format!("{}: {} {from} to {}", report.host, report.component, waiting.change.to_revision)
        })
        .collect();
    let (changes, name) = (changes.join("; "), stack.rsplit('/').next().unwrap_or(stack));
    format!("{stack}: plan {plan} waits for approval ({changes}); see `plan`, then `approve {name} {plan}`")
}

/// Whether a host has what is asked for, and it serves. What is only reported is no reason to say nothing.
fn serves(report: &ProjectReport) -> bool {
    let ProjectReport { failure, waiting, rolling_out, .. } = report;
    let is_quiet = failure.is_none()
        && waiting.is_none()
        && rolling_out.is_none()
        && !report.busy
        && !report.interrupted;
    let is_told_only = report.drift.iter().all(|item| item.answer == Answer::Report);
    is_quiet && is_told_only && report.healthy && report.release.is_some()
}

/// A text as Slack shows it literally: nothing in it is a link, or calls people.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use tasktracker_crds::{DriftItem, DriftKind};

    use crate::{
        diff::Change,
        report::{self, Failure},
    };

    fn host(name: &str, release: &str, waiting: Option<&'static str>) -> ProjectReport {
        let change = Change {
            desired_hash: "d1".to_owned(),
            from_release: None,
            from_revision: Some("r1".to_owned()),
            to_revision: "r2".to_owned(),
            items: Vec::new(),
            adopts: Vec::new(),
            restarts: None,
        };
        ProjectReport {
            host: name.to_owned(),
            release: Some(release.to_owned()),
            revision: Some("r1".to_owned()),
            version: Some("r1".to_owned()),
            healthy: true,
            plan: "p".to_owned(),
            waiting: waiting.map(|reason| Waiting { reason, message: "it did not serve".to_owned(), change }),
            ..ProjectReport::default()
        }
    }

    fn drift() -> DriftItem {
        DriftItem {
            host: "a".to_owned(),
            component: "app".to_owned(),
            service: None,
            kind: DriftKind::ImageTagMoved,
            path: None,
            wanted: String::new(),
            found: String::new(),
            first_seen: None,
            answer: Answer::Heal,
        }
    }

    fn in_force(releases: &str) -> NotificationState {
        let notified = Notified { in_force: releases.to_owned(), ..Notified::default() };
        NotificationState { components: [(ComponentName::App, notified)].into(), waiting_plans: None }
    }

    fn notify(reports: &[ProjectReport], state: &mut NotificationState) -> Vec<String> {
        let now = Time("2026-01-31T18:00:00Z".parse().unwrap());
        let status = report::status(&TaskTrackerStackStatus::default(), reports, &now);
        let (new, next) = notifications("default/staging", reports, &status, state);
        *state = next;
        new.into_iter().map(|one| format!("{:?} {}", one.event, one.text)).collect()
    }

    #[test]
    fn what_is_in_force_is_told_once_and_when_every_host_has_it() {
        let state = &mut NotificationState::default();
        assert!(notify(&[host("a", "1", None), host("b", "1", None)], state).is_empty(), "it was so before");
        let half = [host("a", "2", None), host("b", "1", Some(reasons::ROLLING_OUT))];
        assert!(notify(&half, state).is_empty());
        let all = [host("a", "2", None), host("b", "2", None)];
        assert_eq!(notify(&all, state), ["Succeeded default/staging: app r1 is in force on a, b"]);
        assert!(notify(&all, state).is_empty());
        let mut third = [host("a", "3", None), host("b", "3", None)];
        third[0].drift.push(drift());
        assert!(notify(&third, state).is_empty(), "something is to be repaired");
        third[0].drift = vec![DriftItem { answer: Answer::Report, ..drift() }];
        assert_eq!(notify(&third, state).len(), 1, "what is only reported keeps nobody from being told");
        let kept: NotificationState = serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
        assert_eq!(&kept, state);
    }

    #[test]
    fn a_way_back_is_told_once_and_again_when_it_happens_again() {
        let state = &mut in_force("a=1");
        let failed = [host("a", "1", Some(reasons::ROLLED_BACK))];
        let text = "RolledBack default/staging: app r2 failed on a: it did not serve";
        assert_eq!(notify(&failed, state), [text]);
        assert!(notify(&failed, state).is_empty());
        // A check that failed is not the end of it.
        let failure =
            Failure { reason: "Unreachable", message: String::new(), reachable: false, stalled: false };
        let unknown = ProjectReport { failure: Some(failure), ..host("a", "1", None) };
        assert!(notify(&[unknown], state).is_empty() && notify(&failed, state).is_empty());
        assert!(notify(&[host("a", "1", None)], state).is_empty());
        assert_eq!(notify(&failed, state), [text]);
        // Another host that only heard of it has nothing new to say.
        let mut both =
            [host("a", "1", Some(reasons::ROLLED_BACK)), host("b", "1", Some(reasons::ROLLOUT_HELD))];
        both[0].waiting.as_mut().unwrap().message = "this desired state failed on b".to_owned();
        both[1].waiting.as_mut().unwrap().message = format!("{TRIED} and failed");
        assert!(notify(&both, state).is_empty());
        let found = notify(&both, &mut in_force(""));
        assert!(found[0].contains("failed on b: this desired"), "{found:?}");
    }

    #[cfg(feature = "echo")]
    #[test]
    fn the_failure_of_one_component_hides_none_of_another() {
        let of = |component, waiting| ProjectReport { component, ..host("a", "1", waiting) };
        let app = |waiting| of(ComponentName::App, waiting);
        let echo = |waiting| of(ComponentName::Echo, waiting);
        let state = &mut NotificationState::default();
        assert!(notify(&[app(None), echo(None)], state).is_empty());
        let failed = Some(reasons::ROLLED_BACK);
        let [of_app, of_echo] = ["app", "echo"]
            .map(|name| format!("RolledBack default/staging: {name} r2 failed on a: it did not serve"));
        assert_eq!(notify(&[app(None), echo(failed)], state), [of_echo]);
        assert_eq!(notify(&[app(failed), echo(failed)], state), [of_app]);
        assert!(notify(&[app(failed), echo(None)], state).is_empty());
        let mut newer = echo(None);
        newer.release = Some("2".to_owned());
        let succeeded = "Succeeded default/staging: echo r1 is in force on a";
        assert_eq!(notify(&[app(failed), newer], state), [succeeded], "whatever the app waits for");
    }

    #[test]
    fn a_plan_that_waits_is_told_with_what_to_do() {
        let state = &mut in_force("a=1");
        let waits = [host("a", "1", Some(reasons::APPROVAL_NEEDED))];
        let found = notify(&waits, state);
        assert!(found[0].contains("a: app r1 to r2") && found[0].contains("`approve staging "), "{found:?}");
        assert!(notify(&waits, state).is_empty());
    }

    #[test]
    fn nobody_is_called_by_what_a_container_wrote() {
        assert_eq!(escaped("<!channel> a&b"), "&lt;!channel&gt; a&amp;b");
    }
}
