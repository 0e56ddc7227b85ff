//! What people are told of a stack once, rather than shown as long as it lasts. Pure.

use serde::{Deserialize, Serialize};
use tasktracker_crds::{
    NotificationEvent, TaskTrackerStackStatus,
    conditions::{self, reasons},
};

use super::HostReport;

/// Longest text of one message, in characters.
const LONGEST: usize = 1500;

/// What was told of a stack last, so that nothing is told twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Told {
    /// Whether it was known at all what is in force.
    pub known: bool,
    /// The releases that were in force, by host.
    pub in_force: String,
    /// Hash of the desired state that was taken back.
    pub rolled_back: Option<String>,
    /// Hash of the plan that waits for a person.
    pub waiting_plan: Option<String>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What it is about.
    pub event: NotificationEvent,
    /// The message, on a few lines.
    pub text: String,
}

/// What is new in the reports of every host of a stack, and what is told from then on. What is in force when nothing was
/// ever told is no news.
pub fn news(
    stack: &str,
    reports: &[HostReport],
    status: &TaskTrackerStackStatus,
    told: &Told,
) -> (Vec<News>, Told) {
    let asked: Vec<&HostReport> = reports.iter().filter(|report| report.retained.is_none()).collect();
    let mut news = Vec::new();
    let mut add = |event, text: String| {
        let text: String = text.chars().take(LONGEST).collect();
        news.push(News { event, text });
    };
    let mut next = told.clone();
    let is_true = |kind: &str| status.conditions.iter().any(|one| one.type_ == kind && one.status == "True");
    let in_force: Vec<String> = asked
        .iter()
        .filter_map(|report| Some(format!("{}={}", report.host, report.release.as_ref()?)))
        .collect();
    let in_force = in_force.join(" ");
    if !told.known {
        if asked.iter().any(|report| report.failure.is_some() && report.release.is_none()) {
            return (news, next);
        }
        (next.known, next.in_force) = (true, in_force);
    } else if is_true(conditions::READY) && in_force != told.in_force {
        let hosts: Vec<&str> = asked.iter().map(|report| report.host.as_str()).collect();
        let revision = status.revision.as_deref().unwrap_or("several");
        add(
            NotificationEvent::Succeeded,
            format!("{stack}: revision {revision} is in force on {}", hosts.join(", ")),
        );
        next.in_force = in_force;
    }
    let waits = |reason: &'static str| {
        let waiting = asked.iter().filter_map(|report| Some((report, report.waiting.as_ref()?)));
        waiting.filter(move |(_, waiting)| waiting.reason == reason)
    };
    let failed = waits(reasons::ROLLED_BACK).chain(waits(reasons::ROLLOUT_HELD)).next();
    let hash = failed.map(|(_, waiting)| waiting.change.desired_hash.clone());
    if let Some((report, waiting)) = failed.filter(|_| hash != told.rolled_back) {
        let to = &waiting.change.to_revision;
        let what = if waiting.reason == reasons::ROLLED_BACK { "was taken back" } else { "failed" };
        let text = format!("{stack}: revision {to} {what} on {}: {}", report.host, waiting.message);
        add(NotificationEvent::RolledBack, text);
    }
    next.rolled_back = hash;
    if let Some(plan) = status.waiting_plan.as_ref().filter(|plan| Some(*plan) != told.waiting_plan.as_ref())
    {
        let changes: Vec<String> = waits(reasons::APPROVAL_NEEDED)
            .map(|(report, waiting)| {
                let from = waiting.change.from_revision.as_deref().unwrap_or("nothing");
                format!("{}: revision {from} to {}", report.host, waiting.change.to_revision)
            })
            .collect();
        let name = stack.rsplit('/').next().unwrap_or(stack);
        let text = format!(
            "{stack}: plan {plan} waits for approval ({}); see `plan`, then `approve {name} {plan}`",
            changes.join("; ")
        );
        add(NotificationEvent::ApprovalNeeded, text);
    }
    next.waiting_plan.clone_from(&status.waiting_plan);
    (news, next)
}

/// A text as Slack shows it literally: nothing in it is a link, or calls people.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{diff::Change, plan::Waiting, report};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn host(name: &str, release: &str, waiting: Option<&'static str>) -> HostReport {
        let change = Change {
            desired_hash: "d1".to_owned(),
            from_release: None,
            from_revision: Some("r1".to_owned()),
            to_revision: "r2".to_owned(),
            items: Vec::new(),
            adopts: Vec::new(),
            restarts: None,
        };
        HostReport {
            host: name.to_owned(),
            release: Some(release.to_owned()),
            revision: Some("r1".to_owned()),
            healthy: true,
            plan: "p".to_owned(),
            waiting: waiting.map(|reason| Waiting { reason, message: "it did not serve".to_owned(), change }),
            ..HostReport::default()
        }
    }

    fn tell(reports: &[HostReport], told: &mut Told) -> Vec<String> {
        let now = Time("2026-01-31T18:00:00Z".parse().unwrap());
        let status = report::status(&TaskTrackerStackStatus::default(), reports, None, &now);
        let (news, next) = news("default/staging", reports, &status, told);
        *told = next;
        news.into_iter().map(|news| format!("{:?} {}", news.event, news.text)).collect()
    }

    #[test]
    fn what_is_in_force_is_told_once_and_when_every_host_has_it() {
        let told = &mut Told::default();
        assert!(tell(&[host("a", "1", None), host("b", "1", None)], told).is_empty(), "it was so before");
        let half = [host("a", "2", None), host("b", "1", Some(reasons::ROLLING_OUT))];
        assert!(tell(&half, told).is_empty());
        let all = [host("a", "2", None), host("b", "2", None)];
        assert_eq!(tell(&all, told), ["Succeeded default/staging: revision r1 is in force on a, b"]);
        assert!(tell(&all, told).is_empty());
        let kept: Told = serde_json::from_str(&serde_json::to_string(told).unwrap()).unwrap();
        assert_eq!(&kept, told);
    }

    #[test]
    fn a_way_back_is_told_once_and_again_when_it_happens_again() {
        let told = &mut Told { known: true, in_force: "a=1".to_owned(), ..Told::default() };
        let failed = [host("a", "1", Some(reasons::ROLLED_BACK))];
        let text = "RolledBack default/staging: revision r2 was taken back on a: it did not serve";
        assert_eq!(tell(&failed, told), [text]);
        assert!(tell(&failed, told).is_empty());
        assert!(tell(&[host("a", "1", None)], told).is_empty());
        assert_eq!(tell(&failed, told), [text]);
    }

    #[test]
    fn a_plan_that_waits_is_told_with_what_to_do() {
        let told = &mut Told { known: true, in_force: "a=1".to_owned(), ..Told::default() };
        let waits = [host("a", "1", Some(reasons::APPROVAL_NEEDED))];
        let found = tell(&waits, told);
        assert!(
            found[0].contains("a: revision r1 to r2") && found[0].contains("`approve staging "),
            "{found:?}"
        );
        assert!(tell(&waits, told).is_empty());
    }

    #[test]
    fn nobody_is_called_by_what_a_container_wrote() {
        assert_eq!(escaped("<!channel> a&b"), "&lt;!channel&gt; a&amp;b");
    }
}
