//! Notifications: what is sent to people once, where the status shows it as long as it lasts. Pure.

use serde::{Deserialize, Serialize};
use tasktracker_crds::{Answer, NotificationEvent, TaskTrackerStackStatus, conditions::reasons};

use super::ProjectReport;
use crate::plan::Waiting;

/// How the reason begins on the host on which something was tried.
const TRIED: &str = "this desired state was tried";
/// Longest text of one message, in characters.
const LONGEST: usize = 1500;

/// What people were notified of last, so that nothing is sent twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NotificationState {
    /// Whether it was known at all what is in force.
    pub known: bool,
    /// The releases that were in force, by host.
    pub in_force: String,
    /// The revision that failed.
    pub rolled_back: Option<String>,
    /// Hashes of the plans that wait for a person, by host.
    pub waiting_plans: Option<String>,
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
    let mut new = Vec::new();
    let mut add = |event, text: String| {
        let text: String = text.chars().take(LONGEST).collect();
        new.push(Notification { event, text });
    };
    let mut next = before.clone();
    let in_force: Vec<String> = asked
        .iter()
        .filter_map(|report| Some(format!("{}={}", report.host, report.release.as_ref()?)))
        .collect();
    let in_force = in_force.join(" ");
    if !before.known {
        if asked.iter().any(|report| report.failure.is_some() && report.release.is_none()) {
            return (new, next);
        }
        (next.known, next.in_force) = (true, in_force);
    } else if asked.iter().all(|report| serves(report)) && in_force != before.in_force {
        let hosts: Vec<&str> = asked.iter().map(|report| report.host.as_str()).collect();
        let revision = status.revision.as_deref().unwrap_or("several");
        add(
            NotificationEvent::Succeeded,
            format!("{stack}: revision {revision} is in force on {}", hosts.join(", ")),
        );
        next.in_force = in_force;
    }
    // What a host that could not be checked waits for is not known.
    let is_known = asked.iter().all(|report| report.failure.is_none() || report.waiting.is_some());
    let waits = |reason: &'static str| {
        let waiting = asked.iter().filter_map(|report| Some((report, report.waiting.as_ref()?)));
        waiting.filter(move |(_, waiting)| waiting.reason == reason)
    };
    // The host on which it failed says more than those that only heard of it.
    let failed = waits(reasons::ROLLOUT_HELD).chain(waits(reasons::ROLLED_BACK));
    let failed = failed.max_by_key(|(_, waiting)| waiting.message.contains(TRIED));
    let revision = failed.map(|(_, waiting)| waiting.change.to_revision.clone());
    if let Some((report, waiting)) = failed.filter(|_| revision != before.rolled_back) {
        let to = &waiting.change.to_revision;
        let text = format!("{stack}: revision {to} failed on {}: {}", report.host, waiting.message);
        add(NotificationEvent::RolledBack, text);
    }
    if revision.is_some() || is_known {
        next.rolled_back = revision;
    }
    let waiting: Vec<_> = waits(reasons::APPROVAL_NEEDED).collect();
    let plans: Vec<String> =
        waiting.iter().map(|(report, _)| format!("{}={}", report.host, report.plan)).collect();
    let plans = (!plans.is_empty()).then(|| plans.join(" "));
    let is_new = plans.is_some() && plans != before.waiting_plans;
    if let Some(plan) = status.waiting_plan.as_ref().filter(|_| is_new) {
        add(NotificationEvent::ApprovalNeeded, approval_needed(stack, plan, &waiting));
    }
    if plans.is_some() || is_known {
        next.waiting_plans = plans;
    }
    (new, next)
}

fn approval_needed(stack: &str, plan: &str, waiting: &[(&&ProjectReport, &Waiting)]) -> String {
    let changes: Vec<String> = waiting
        .iter()
        .map(|(report, waiting)| {
            let from = waiting.change.from_revision.as_deref().unwrap_or("nothing");
            format!("{}: revision {from} to {}", report.host, waiting.change.to_revision)
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
        assert_eq!(notify(&all, state), ["Succeeded default/staging: revision r1 is in force on a, b"]);
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
        let state = &mut NotificationState {
            known: true,
            in_force: "a=1".to_owned(),
            ..NotificationState::default()
        };
        let failed = [host("a", "1", Some(reasons::ROLLED_BACK))];
        let text = "RolledBack default/staging: revision r2 failed on a: it did not serve";
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
        let found = notify(&both, &mut NotificationState { known: true, ..NotificationState::default() });
        assert!(found[0].contains("failed on b: this desired"), "{found:?}");
    }

    #[test]
    fn a_plan_that_waits_is_told_with_what_to_do() {
        let state = &mut NotificationState {
            known: true,
            in_force: "a=1".to_owned(),
            ..NotificationState::default()
        };
        let waits = [host("a", "1", Some(reasons::APPROVAL_NEEDED))];
        let found = notify(&waits, state);
        assert!(
            found[0].contains("a: revision r1 to r2") && found[0].contains("`approve staging "),
            "{found:?}"
        );
        assert!(notify(&waits, state).is_empty());
    }

    #[test]
    fn nobody_is_called_by_what_a_container_wrote() {
        assert_eq!(escaped("<!channel> a&b"), "&lt;!channel&gt; a&amp;b");
    }
}
