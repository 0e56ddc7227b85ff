//! Reports of projects, and the status, events and notifications made of them. Pure: the writing is left to the engine and
//! the front ends.

pub mod events;
pub mod notifications;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tasktracker_crds::{
    Answer, ComponentStatus, DRIFT_ITEMS_PER_COMPONENT, DRIFT_ITEMS_PER_STACK, DriftItem, HISTORY,
    HistoryEntry, HostStatus, TaskTrackerStackStatus,
    conditions::{self, reasons},
};

use crate::{
    certificate::Certificate,
    model::{ComponentName, Hold},
    plan::{self, Waiting},
    source::ProjectKey,
};

/// Longest text that one project adds to a message, in bytes.
const LONGEST_PART: usize = 300;
/// Longest message of a condition without what says how many more there are, in bytes.
const LONGEST_MESSAGE: usize = 4_096;
/// How a text ends that was shortened.
const ELLIPSIS: &str = " …";

/// What one check of one project came to.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
pub struct ProjectReport {
    /// Name of the host.
    pub host: String,
    /// Component that was checked.
    pub component: ComponentName,
    /// Whether another writer is at work.
    pub busy: bool,
    /// Whether something of an interrupted rollout is left, to be finished or taken back.
    pub interrupted: bool,
    /// Whether balancers are told not to send anybody there.
    pub drained: bool,
    /// What kept the host from being checked or repaired.
    pub failure: Option<Failure>,
    /// Release that was last rolled out.
    pub release: Option<String>,
    /// Its revision, for a component that has one.
    pub revision: Option<String>,
    /// What people know that release by: its revision, or the generation that it was rolled out for.
    pub version: Option<String>,
    /// What keeps its services from serving, one text each.
    #[serde(skip)]
    pub faults: Vec<String>,
    /// Whether every service of it serves.
    pub healthy: bool,
    /// The certificate that users are shown.
    pub certificate: Option<Certificate>,
    /// Why users are shown none, where they should be, and the service that should show it.
    pub uncertified: Option<(String, String)>,
    /// Every difference from it.
    pub drift: Vec<DriftItem>,
    /// Revision of a change that is being rolled out.
    pub rolling_out: Option<String>,
    /// A change that waits.
    pub waiting: Option<Waiting>,
    /// That a change was taken back or is held, where the host could not be checked since: nothing but a person ends it.
    #[serde(skip)]
    pub waited: Option<&'static str>,
    /// Why nothing is written at present.
    pub hold: Option<Hold>,
    /// Hash of its plan; empty where it could not be read.
    pub plan: String,
    /// Where the spec names the host no longer: what is there, and how it ends.
    pub retained: Option<String>,
    /// What is done once it is approved, in full.
    #[serde(skip)]
    pub document: Option<serde_json::Value>,
    /// The rollouts that the host remembers, newest first.
    #[serde(skip)]
    pub history: Vec<HistoryEntry>,
    /// Generation of the spec that this was checked with.
    #[serde(skip)]
    pub generation: Option<i64>,
    /// The annotation by which a person asked for a check, as it was then.
    #[serde(skip)]
    pub reconcile: Option<String>,
}

/// What kept a host from being checked or repaired.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Reason, as in conditions.
    pub reason: &'static str,
    /// One line: what, where, expected, found, remedy.
    pub message: String,
    /// Whether the host answered at all.
    pub reachable: bool,
    /// Whether a person must act first.
    pub stalled: bool,
}

impl ProjectReport {
    /// A project that was not checked yet.
    pub fn unknown(key: &ProjectKey) -> Self {
        let message = "not checked yet".to_owned();
        let failure = Failure { reason: reasons::PENDING, message, reachable: false, stalled: false };
        let ProjectKey { host, component, .. } = key;
        Self { host: host.clone(), component: *component, failure: Some(failure), ..Self::default() }
    }

    /// Why a change waits, as far as that is known.
    pub fn waits_for(&self) -> Option<&'static str> {
        self.waiting.as_ref().map(|waiting| waiting.reason).or(self.waited)
    }

    /// Whether nothing differs and nothing waits. Unknown never counts as in sync.
    pub fn in_sync(&self) -> bool {
        sync_fault(self).is_none()
    }

    /// Whether something is being done about what is not as it should be, or will be tried again: not where a person
    /// wants nothing to be written, and not about what is only reported or waits for approval.
    fn is_worked_on(&self) -> bool {
        let acts = self.rolling_out.is_some()
            || self.waiting.as_ref().is_some_and(Waiting::is_tried)
            || self.drift.iter().any(|item| item.answer != Answer::Report)
            || (self.waiting.is_none() && (self.drift.is_empty() || !self.healthy));
        self.failure.is_some() || self.busy || (self.hold.is_none() && acts)
    }

    /// Whether the host answered.
    pub fn reachable(&self) -> bool {
        self.failure.as_ref().is_none_or(|failure| failure.reachable)
    }
}

/// The status of a stack from the newest report of each host; `now` is used only where a condition flips. It speaks of the
/// oldest spec that a host was checked with.
pub fn status(old: &TaskTrackerStackStatus, reports: &[ProjectReport], now: &Time) -> TaskTrackerStackStatus {
    // What is left on a host that nothing asks for is told, and is no fault.
    let asked: Vec<ProjectReport> =
        reports.iter().filter(|report| report.retained.is_none()).cloned().collect();
    let generation = asked.iter().map(|report| report.generation).min().flatten();
    let conditions = facts(&asked, now)
        .into_iter()
        .map(|fact| condition(&old.conditions, fact, generation, now))
        .collect();
    // A project that never had a revision has none to wait for.
    let waits = asked.iter().any(|report| report.revision.is_none() && report.release.is_none());
    let mut revisions: Vec<&String> = asked.iter().filter_map(|report| report.revision.as_ref()).collect();
    revisions.sort();
    revisions.dedup();
    TaskTrackerStackStatus {
        observed_generation: generation,
        conditions,
        revision: (revisions.len() == 1 && !waits).then(|| revisions[0].clone()),
        waiting_plan: asked.iter().any(waits_for_approval).then(|| stack_plan(&asked)),
        hosts: host_statuses(reports),
        last_handled_reconcile: asked
            .first()
            .and_then(|first| first.reconcile.clone())
            .filter(|value| asked.iter().all(|report| report.reconcile.as_ref() == Some(value))),
        history: history(reports),
        waiting_plan_config_map: old.waiting_plan_config_map.clone(),
        notes: old.notes.clone(),
    }
}

/// The status of a stack whose newest spec is refused: what is known of an older one stays, and a person must act.
pub fn refused(
    known: Option<&TaskTrackerStackStatus>,
    old: &TaskTrackerStackStatus,
    message: &str,
    generation: Option<i64>,
    now: &Time,
) -> TaskTrackerStackStatus {
    let fault = || Some((reasons::INVALID_SPEC, message.to_owned()));
    let facts = [
        fact(conditions::READY, fault().as_slice()),
        abnormal(conditions::RECONCILING, None),
        abnormal(conditions::STALLED, fault()),
    ];
    let mut status = known.unwrap_or(old).clone();
    status.conditions.retain(|condition| facts.iter().all(|fact| fact.kind != condition.type_));
    if known.is_none() {
        // Nothing checks its hosts: what was known of them may be so no longer.
        let kinds =
            [conditions::IN_SYNC, conditions::HEALTHY, conditions::HOSTS_REACHABLE, conditions::APPROVED];
        status.conditions = kinds.map(|kind| unknown(&old.conditions, kind, generation, now)).to_vec();
    }
    let told = facts.into_iter().map(|fact| condition(&old.conditions, fact, generation, now));
    status.conditions = told.chain(status.conditions).collect();
    status.observed_generation = generation;
    status
}

/// The last rollouts on all hosts, newest first.
fn history(reports: &[ProjectReport]) -> Vec<HistoryEntry> {
    let mut all: Vec<HistoryEntry> = reports.iter().flat_map(|report| report.history.clone()).collect();
    all.sort_by(|one, other| other.when.cmp(&one.when).then_with(|| one.host.cmp(&other.host)));
    all.truncate(HISTORY);
    all
}

/// What is reported of each host, with its projects; of many differences, the first ones.
fn host_statuses(reports: &[ProjectReport]) -> Vec<HostStatus> {
    let mut left = DRIFT_ITEMS_PER_STACK;
    let mut hosts: Vec<HostStatus> = Vec::new();
    for report in reports {
        let mut component = component_status(report);
        component.drift.truncate(left);
        left -= component.drift.len();
        match hosts.iter_mut().find(|host| host.name == report.host) {
            Some(host) => add(host, report, component),
            None => hosts.push(host_status(report, component)),
        }
    }
    hosts
}

/// Adds another project of a host: it answered if any of them had an answer.
fn add(host: &mut HostStatus, report: &ProjectReport, component: ComponentStatus) {
    host.reachable |= report.reachable();
    host.retained &= report.retained.is_some();
    host.message = host.message.take().or_else(|| project_message(report));
    host.hold = host.hold.take().or_else(|| report.hold.as_ref().map(|hold| hold.message.clone()));
    // What is still there of a component that the spec asks for again is told by its newest report.
    if host.components.iter().all(|known| known.name != component.name) {
        host.components.push(component);
    }
}

fn waits_for_approval(report: &ProjectReport) -> bool {
    report.waiting.as_ref().is_some_and(|waiting| waiting.reason == reasons::APPROVAL_NEEDED)
}

/// Hash of the plan of the stack, over the hosts that were read.
fn stack_plan(reports: &[ProjectReport]) -> String {
    let read = reports.iter().filter(|report| !report.plan.is_empty());
    plan::hash_of(read.map(|report| (report.host.as_str(), report.component.as_str(), report.plan.clone())))
}

fn host_status(report: &ProjectReport, component: ComponentStatus) -> HostStatus {
    HostStatus {
        name: report.host.clone(),
        reachable: report.reachable(),
        message: project_message(report),
        retained: report.retained.is_some(),
        hold: report.hold.as_ref().map(|hold| hold.message.clone()),
        components: vec![component],
    }
}

/// What is wrong with a project, or how it is retained.
fn project_message(report: &ProjectReport) -> Option<String> {
    let failure = report.failure.as_ref().map(|failure| shortened(&failure.message, LONGEST_PART));
    failure.or(report.retained.clone())
}

fn component_status(report: &ProjectReport) -> ComponentStatus {
    ComponentStatus {
        name: report.component.to_string(),
        release: report.release.clone(),
        revision: report.revision.clone(),
        retained: report.retained.is_some(),
        healthy: report.healthy,
        change_waiting: report.waiting.is_some(),
        message: project_message(report),
        drift_count: u32::try_from(report.drift.len()).unwrap_or(u32::MAX),
        drift: report.drift.iter().take(DRIFT_ITEMS_PER_COMPONENT).cloned().collect(),
    }
}

struct Fact {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

/// One condition from what is true and, where it is not, why.
fn fact(kind: &'static str, faults: &[(&'static str, String)]) -> Fact {
    match faults.first() {
        None => Fact { kind, status: true, reason: reasons::SUCCEEDED, message: String::new() },
        Some((reason, _)) => Fact { kind, status: false, reason, message: joined(faults) },
    }
}

/// The messages of faults, one after the other; of many, the first ones and how many more there are. A status must stay
/// small however many hosts fail at once.
fn joined(faults: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    for (number, (_, message)) in faults.iter().enumerate() {
        let part = shortened(message, LONGEST_PART);
        if text.len() + part.len() > LONGEST_MESSAGE {
            let more = faults.len() - number;
            text.push_str(&format!("; and {more} more"));
            break;
        }
        text.push_str(if number == 0 { "" } else { "; " });
        text.push_str(&part);
    }
    text
}

/// The beginning of a text, at most so many bytes.
fn shortened(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end =
        (0..=longest - ELLIPSIS.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}{ELLIPSIS}", &text[..end])
}

fn facts(reports: &[ProjectReport], now: &Time) -> Vec<Fact> {
    let are_several = reports.iter().any(|report| report.component != reports[0].component);
    let place = |report: &ProjectReport| {
        if are_several { format!("{} ({})", report.host, report.component) } else { report.host.clone() }
    };
    let all = |fault: &dyn Fn(&ProjectReport) -> Option<(&'static str, String)>| -> Vec<_> {
        reports
            .iter()
            .filter_map(|report| {
                fault(report).map(|(reason, text)| (reason, format!("{}: {text}", place(report))))
            })
            .collect()
    };
    let stalled = all(&|report| {
        if let Some(waiting) = report.waiting.as_ref().filter(|waiting| waiting.needs_person()) {
            return Some((waiting.reason, waiting.message.clone()));
        }
        report
            .failure
            .as_ref()
            .filter(|failure| failure.stalled)
            .map(|failure| (failure.reason, failure.message.clone()))
    });
    let unsynced = all(&sync_fault);
    let unhealthy = all(&|report| health_fault(report, now));
    let unreachable = all(&|report| {
        report
            .failure
            .as_ref()
            .filter(|failure| !failure.reachable)
            .map(|failure| (failure.reason, failure.message.clone()))
    });
    let unapproved = all(&|report| {
        report
            .waiting
            .as_ref()
            .filter(|waiting| waiting.reason == reasons::APPROVAL_NEEDED)
            .map(|waiting| (waiting.reason, waiting.message.clone()))
    });
    // What keeps a project from being ready is told once: the first of what it is out of sync and not healthy for.
    let not_ready = all(&|report| sync_fault(report).or_else(|| health_fault(report, now)));
    let working =
        stalled.is_empty() && !not_ready.is_empty() && reports.iter().any(ProjectReport::is_worked_on);
    vec![
        fact(conditions::READY, &not_ready),
        abnormal(conditions::RECONCILING, working.then(|| not_ready[0].clone())),
        abnormal(conditions::STALLED, stalled.first().cloned()),
        fact(conditions::IN_SYNC, &unsynced),
        fact(conditions::HEALTHY, &unhealthy),
        fact(conditions::HOSTS_REACHABLE, &unreachable),
        fact(conditions::APPROVED, &unapproved),
    ]
}

fn health_fault(report: &ProjectReport, now: &Time) -> Option<(&'static str, String)> {
    if let Some(certificate) = &report.certificate
        && let Some(found) = certificate.fault(now.0)
    {
        let name = &certificate.name;
        let message = format!(
            "expected a certificate for {name} that holds, found {found}; renew it, or see the log of the service that shows it"
        );
        return Some((reasons::CERTIFICATE_NOT_VALID, message));
    }
    if let Some((found, service)) = &report.uncertified {
        return Some((
            reasons::UNHEALTHY,
            format!("{service}: expected to show users a certificate, found {found}"),
        ));
    }
    let fault = || match report.faults.as_slice() {
        [] => "no service is known to serve".to_owned(),
        [only] => only.clone(),
        [first, more @ ..] => format!("{first}; and {} more services do not serve", more.len()),
    };
    (!report.healthy).then(|| (reasons::UNHEALTHY, fault()))
}

/// A condition that is true when something is not normal, as kstatus wants it.
fn abnormal(kind: &'static str, fault: Option<(&'static str, String)>) -> Fact {
    match fault {
        Some((reason, message)) => Fact { kind, status: true, reason, message },
        None => Fact { kind, status: false, reason: reasons::SUCCEEDED, message: String::new() },
    }
}

fn sync_fault(report: &ProjectReport) -> Option<(&'static str, String)> {
    if let Some(failure) = &report.failure {
        return Some((failure.reason, failure.message.clone()));
    }
    if report.busy {
        return Some((reasons::LOCKED, "another writer is at work".to_owned()));
    }
    if let Some(item) = report.drift.first() {
        let service = item.service.as_deref().or(item.path.as_deref()).unwrap_or("host");
        return Some((
            reasons::DRIFTED,
            format!("{} differences, first {} of {service}", report.drift.len(), item.kind.as_str()),
        ));
    }
    if let Some(waiting) = &report.waiting {
        return Some((waiting.reason, waiting.message.clone()));
    }
    if let Some(revision) = &report.rolling_out {
        return Some((reasons::ROLLING_OUT, format!("revision {revision} is being rolled out")));
    }
    if report.interrupted {
        let message = "what an interrupted rollout left is taken back".to_owned();
        return Some((reasons::ROLLING_OUT, message));
    }
    report.release.is_none().then(|| (reasons::PENDING, "nothing is rolled out yet".to_owned()))
}

/// A condition of which nothing is known.
fn unknown(old: &[Condition], kind: &'static str, generation: Option<i64>, now: &Time) -> Condition {
    let fact = Fact { kind, status: false, reason: reasons::INVALID_SPEC, message: String::new() };
    let before = old.iter().find(|condition| condition.type_ == kind && condition.status == "Unknown");
    let since = before.map_or(now, |condition| &condition.last_transition_time).clone();
    let status = "Unknown".to_owned();
    Condition { status, last_transition_time: since, ..condition(old, fact, generation, now) }
}

fn condition(old: &[Condition], fact: Fact, generation: Option<i64>, now: &Time) -> Condition {
    let status = if fact.status { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == fact.kind && condition.status == status);
    Condition {
        type_: fact.kind.to_owned(),
        status: status.to_owned(),
        reason: fact.reason.to_owned(),
        message: fact.message,
        observed_generation: generation,
        last_transition_time: before
            .map_or_else(|| now.clone(), |condition| condition.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests;
