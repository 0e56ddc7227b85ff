//! Events: what changed from one report of a host to the next; the same text for the same thing. Pure.

use tasktracker_crds::{DriftItem, conditions::reasons};

use super::{Failure, ProjectReport};

/// Reasons of events, beside those of conditions.
pub mod reason {
    /// Differences were seen for the first time.
    pub const DRIFT_DETECTED: &str = "DriftDetected";
    /// What a stack had left on a host is gone, or forgotten.
    pub const HOST_DELETED: &str = "HostDeleted";
    /// Differences went away after a repair.
    pub const DRIFT_HEALED: &str = "DriftHealed";
    /// A change is being rolled out.
    pub const ROLLOUT_STARTED: &str = "RolloutStarted";
    /// A change is in force.
    pub const ROLLOUT_SUCCEEDED: &str = "RolloutSucceeded";
    /// A change did not serve, and the release before does again.
    pub const ROLLOUT_ROLLED_BACK: &str = "RolloutRolledBack";
    /// A change did not serve, and was left for a person to examine.
    pub const ROLLOUT_HELD: &str = "RolloutHeld";
    /// A plan waits for a person.
    pub const APPROVAL_NEEDED: &str = "ApprovalNeeded";
    /// A host does not answer.
    pub const HOST_UNREACHABLE: &str = "HostUnreachable";
    /// A host answers again.
    pub const HOST_RECOVERED: &str = "HostRecovered";
    /// A host shows another key than the pinned ones.
    pub const HOST_KEY_CHANGED: &str = "HostKeyChanged";
    /// Nothing is written for a while.
    pub const SUSPENDED: &str = "Suspended";
    /// Writing may go on.
    pub const RESUMED: &str = "Resumed";
    /// What an annotation asks for cannot be done.
    pub const REQUEST_REFUSED: &str = "RequestRefused";
}

/// Differences that one event names; the rest is counted.
const NAMED: usize = 10;

/// An event about a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackEvent {
    /// Reason, one of [`reason`].
    pub reason: &'static str,
    /// Whether something is wrong.
    pub is_warning: bool,
    /// Host, or the stack as a whole.
    pub host: Option<String>,
    /// One line; the same for the same thing.
    pub note: String,
}

impl StackEvent {
    /// Something on a host.
    pub fn on(host: &str, reason: &'static str, is_warning: bool, note: &str) -> Self {
        Self { reason, is_warning, host: Some(host.to_owned()), note: format!("{host}: {note}") }
    }
}

/// Events from one report of a host to the next; `new` are the differences that were not there before, `healed`
/// those that a repair took away, in words.
pub fn events(
    before: &ProjectReport,
    after: &ProjectReport,
    new: &[&DriftItem],
    healed: &[String],
) -> Vec<StackEvent> {
    let host = after.host.as_str();
    let mut all = Vec::new();
    let mut add = |reason, is_warning, note: &str| all.push(StackEvent::on(host, reason, is_warning, note));
    failures(before.failure.as_ref(), after.failure.as_ref(), &mut add);
    if !new.is_empty() {
        add(reason::DRIFT_DETECTED, true, &listed(new.iter().map(|item| words(item)).collect()));
    }
    if !healed.is_empty() {
        add(reason::DRIFT_HEALED, false, &listed(healed.to_vec()));
    }
    if let Some(revision) = after.rolling_out.as_ref().filter(|_| before.rolling_out != after.rolling_out) {
        let from = after.revision.as_deref().unwrap_or("nothing");
        add(reason::ROLLOUT_STARTED, false, &format!("revision {from} to {revision}"));
    }
    let is_known = !before.host.is_empty() && after.failure.is_none();
    if let Some(release) = after.release.as_ref().filter(|_| is_known && before.release != after.release) {
        let revision = after.revision.as_deref().unwrap_or_default();
        add(
            reason::ROLLOUT_SUCCEEDED,
            false,
            &format!("release {release} of revision {revision} is in force"),
        );
    }
    let is_new = |reason: &str| {
        let was = before.waiting.as_ref().map(|waiting| (waiting.reason, &waiting.change.desired_hash));
        let waiting = after.waiting.as_ref().filter(|waiting| waiting.reason == reason)?;
        (was != Some((waiting.reason, &waiting.change.desired_hash))).then(|| waiting.message.clone())
    };
    if let Some(message) = is_new(reasons::ROLLED_BACK) {
        add(reason::ROLLOUT_ROLLED_BACK, true, &message);
    }
    if let Some(message) = is_new(reasons::ROLLOUT_HELD) {
        add(reason::ROLLOUT_HELD, true, &message);
    }
    all
}

fn failures(
    before: Option<&Failure>,
    after: Option<&Failure>,
    add: &mut impl FnMut(&'static str, bool, &str),
) {
    let is_of_key = |failure: &&Failure| failure.reason == reasons::HOST_KEY_CHANGED;
    let is_away = |failure: &&Failure| !failure.reachable && failure.reason == reasons::UNREACHABLE;
    if let Some(failure) =
        after.filter(is_of_key).filter(|_| before.as_ref().is_none_or(|before| !is_of_key(before)))
    {
        add(reason::HOST_KEY_CHANGED, true, &failure.message);
    }
    match (before.filter(is_away), after.filter(is_away)) {
        // What the system says of a connection may differ from one try to the next.
        (None, Some(_)) => add(reason::HOST_UNREACHABLE, true, "the host does not answer; see the status"),
        (Some(_), None) => add(reason::HOST_RECOVERED, false, "the host answers again"),
        _ => {}
    }
}

/// One difference: its kind, and what it is about.
pub fn words(item: &DriftItem) -> String {
    let what = item.path.as_deref().or(item.service.as_deref()).unwrap_or("the host");
    let service = item.service.as_deref().filter(|service| *service != what);
    let of = service.map(|service| format!(" of {service}")).unwrap_or_default();
    format!("{} {what}{of}", item.kind.as_str())
}

fn listed(mut words: Vec<String>) -> String {
    words.sort();
    words.dedup();
    let more = words.len().saturating_sub(NAMED);
    words.truncate(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{more}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(release: &str) -> ProjectReport {
        ProjectReport {
            host: "app-1".to_owned(),
            release: Some(release.to_owned()),
            revision: Some("r2".to_owned()),
            ..ProjectReport::default()
        }
    }

    fn failing(reason: &'static str, message: &str) -> ProjectReport {
        let failure = Failure { reason, message: message.to_owned(), reachable: false, stalled: false };
        ProjectReport { failure: Some(failure), ..report("1") }
    }

    fn reasons_of(before: &ProjectReport, after: &ProjectReport) -> Vec<&'static str> {
        events(before, after, &[], &[]).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn what_goes_on_is_told_once() {
        let none = Vec::<&str>::new();
        assert_eq!(reasons_of(&ProjectReport::default(), &report("1")), none, "it was so before");
        assert_eq!(reasons_of(&report("1"), &report("1")), none);
        let rolling = ProjectReport { rolling_out: Some("r3".to_owned()), ..report("1") };
        assert_eq!(reasons_of(&report("1"), &rolling), ["RolloutStarted"]);
        assert_eq!(reasons_of(&rolling, &rolling), none);
        assert_eq!(reasons_of(&rolling, &report("2")), ["RolloutSucceeded"]);
        let away = failing(reasons::UNREACHABLE, "connection refused");
        assert_eq!(reasons_of(&report("1"), &away), ["HostUnreachable"]);
        assert_eq!(
            reasons_of(&away, &failing(reasons::UNREACHABLE, "no route")),
            none,
            "the same in other words"
        );
        assert_eq!(reasons_of(&away, &report("1")), ["HostRecovered"]);
        assert_eq!(reasons_of(&report("1"), &failing(reasons::HOST_KEY_CHANGED, "x")), ["HostKeyChanged"]);
    }

    #[test]
    fn many_differences_are_one_text_whatever_their_order() {
        let words = |count: usize| (0..count).map(|index| format!("Missing s{index:02}")).collect::<Vec<_>>();
        let mut turned = words(12);
        turned.reverse();
        assert_eq!(listed(turned), listed(words(12)));
        assert!(listed(words(12)).ends_with("s09, and 2 more"), "{}", listed(words(12)));
    }
}
