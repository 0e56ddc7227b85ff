//! What is known of every stack: newest reports, when differences were first seen, status, metrics, log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tasktracker_crds::{
    Answer, DriftItem, DriftKind, Heal, HostState, TaskTrackerStackStatus, conditions::reasons,
};
use tokio::time::Instant;

use super::{Memory, notifier::Notifier, now, requests};
use crate::{
    component, diff,
    metrics::{Metrics, StackLabels},
    model::ComponentName,
    plan,
    report::{
        self, ProjectReport,
        events::{StackEvent, events, reason},
        notifications::{NotificationState, notifications},
    },
    source::{ProjectKey, RECONCILE_ANNOTATION, Stack, StackKey},
    state::{ItemKey, Since, item_key, moved},
};

/// A project within its stack: host and component.
type Place = (String, ComponentName);

/// Newest report of a project, and since when each of its differences is there.
#[derive(Default)]
struct Seen {
    report: ProjectReport,
    since: Since,
    /// Whether `since` is what an earlier run of the operator knew.
    remembered: bool,
}

#[derive(Default)]
struct StackState {
    /// Projects that the spec in force asks for.
    wanted: BTreeSet<Place>,
    projects: BTreeMap<Place, Seen>,
    status: TaskTrackerStackStatus,
    refused: bool,
    suspended: bool,
    notified: NotificationState,
}

/// Who hears what comes of stacks, beside log and metrics.
pub trait Listener: Send + Sync {
    /// Another status is known of a stack.
    fn status_changed(&self, stack: &StackKey);

    /// Something happened.
    fn record(&self, stack: &Stack, event: StackEvent);
}

/// What is known of every stack.
pub(super) struct Watcher {
    metrics: Arc<Metrics>,
    memory: Arc<Memory>,
    notifier: Option<Notifier>,
    listener: Option<Arc<dyn Listener>>,
    stacks: Mutex<BTreeMap<StackKey, StackState>>,
}

impl Watcher {
    /// Without a notifier, nobody is told anything.
    pub(super) fn new(
        metrics: Arc<Metrics>,
        memory: Arc<Memory>,
        notifier: Option<Notifier>,
        listener: Option<Arc<dyn Listener>>,
    ) -> Self {
        Self { metrics, memory, notifier, listener, stacks: Mutex::default() }
    }

    /// What is known of a stack.
    pub(super) fn status(&self, key: &StackKey) -> Option<TaskTrackerStackStatus> {
        self.lock().get(key).map(|state| state.status.clone())
    }

    /// What waits for a person to approve it, in full, by host and component.
    pub(super) fn waiting_plan(&self, key: &StackKey) -> Option<serde_json::Value> {
        let stacks = self.lock();
        let reports = stacks.get(key)?.projects.values().map(|seen| &seen.report);
        Some(reports.filter_map(|report| report.document.clone()).collect())
    }

    /// Records that a request of a person was refused.
    pub(super) fn refused_request(&self, stack: &Stack, host: &str, refused: &requests::Refused) {
        self.record(stack, [StackEvent::on(host, refused.reason, true, &refused.found)]);
    }

    /// What a stack had left on a host is gone, or forgotten.
    pub(super) fn host_deleted(&self, stack: &Stack, host: &str, note: &str) {
        self.record(stack, [StackEvent::on(host, reason::HOST_DELETED, false, note)]);
        if let Some(state) = self.lock().get_mut(&stack.key) {
            self.take_stock(stack, state, now());
        }
    }

    fn record(&self, stack: &Stack, events: impl IntoIterator<Item = StackEvent>) {
        if let Some(listener) = &self.listener {
            events.into_iter().for_each(|event| listener.record(stack, event));
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A stack comes; `before` is the status that was known of it.
    pub(super) fn begin(&self, stack: &Stack, before: Option<TaskTrackerStackStatus>, now: Timestamp) {
        if let Some(before) = &before {
            self.memory.restore(stack, before);
        }
        let wanted = places(stack);
        self.memory.retain_hosts(&stack.key.to_string(), &hosts(&wanted));
        let known = self.memory.first_seen(&stack.key.to_string()).into_iter();
        let projects = known.filter_map(|((host, component), since)| {
            let place = (host, component.parse().ok()?);
            Some((place, Seen { since, remembered: true, ..Seen::default() }))
        });
        let projects = projects.collect();
        let notified = self.memory.notifications(&stack.key.to_string());
        let status = before.unwrap_or_default();
        let mut state = StackState { wanted, projects, status, notified, ..StackState::default() };
        self.take_stock(stack, &mut state, now);
        self.lock().insert(stack.key.clone(), state);
        self.metrics.begin(stack);
    }

    /// A stack has another spec: what was counted stays, what is gone from it goes.
    pub(super) fn change(&self, before: &Stack, after: &Stack) {
        let wanted = places(after);
        self.memory.retain_hosts(&after.key.to_string(), &hosts(&wanted));
        if let Some(state) = self.lock().get_mut(&after.key) {
            state.projects.retain(|place, _| wanted.contains(place));
            state.wanted = wanted;
        }
        self.metrics.change(before, after);
    }

    /// Whether the newest spec of a stack is refused, so that an older one is in force.
    pub(super) fn set_refused(&self, stack: &Stack, refused: bool, now: Timestamp) {
        if let Some(state) = self.lock().get_mut(&stack.key) {
            state.refused = refused;
            self.tell_stack(stack, state, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StackKey, StackState>> {
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Metrics of the stack as a whole.
    fn tell_stack(&self, stack: &Stack, state: &StackState, now: Timestamp) {
        let labels = StackLabels::of(stack);
        let seen = state.projects.values().filter(|seen| !seen.remembered);
        let seen: Vec<&Seen> = seen.collect();
        let age = |first: Option<&Timestamp>| first.map_or(0.0, |first| since_seconds(*first, now));
        let oldest = age(seen.iter().flat_map(|seen| seen.since.values()).min());
        // What a person wants nothing to be done about is not expected to heal.
        let heals = stack.spec.policy.heal == Heal::Auto;
        let written = seen.iter().filter(|seen| heals && seen.report.hold.is_none());
        let healed = written.flat_map(|seen| &seen.since).filter(|(key, _)| key.0.answer() == Answer::Heal);
        let unhealed = age(healed.map(|(_, first)| first).min());
        // The spec says so, whether a host can be reached or not.
        let suspended = plan::hold(stack.spec.suspend.as_ref(), HostState::Active, None, now).is_some();
        self.metrics.stack(&labels, &state.status, (oldest, unhealed), state.refused, suspended);
    }

    /// A stack goes.
    pub(super) fn end(&self, key: &StackKey) {
        self.lock().remove(key);
        self.memory.unfollow(&key.to_string());
        self.metrics.end(key);
    }

    /// Counts something about a project, where its stack is there and asks for it: nobody would take other series away
    /// again.
    pub(super) fn count(&self, key: &ProjectKey, stack: &Stack, count: impl FnOnce(&Metrics, &StackLabels)) {
        let stacks = self.lock();
        if stacks.get(&key.stack).is_some_and(|state| state.wanted.contains(&place(key))) {
            count(&self.metrics, &StackLabels::of(stack));
        }
    }

    /// A project is worked on.
    pub(super) fn alive(&self, key: &ProjectKey, stack: &Stack, now: Timestamp) {
        self.count(key, stack, |metrics, labels| metrics.alive(labels, key, now));
    }

    /// The newest report of a project.
    pub(super) fn last(&self, key: &ProjectKey) -> Option<ProjectReport> {
        let stacks = self.lock();
        let seen = stacks.get(&key.stack)?.projects.get(&place(key))?;
        Some(seen.report.clone()).filter(|report| !report.host.is_empty())
    }

    /// Takes up a report: what is new is logged once, what is gone was healed. `woken` is when the operator heard that
    /// something may have happened.
    pub(super) fn publish(
        &self,
        stack: &Stack,
        mut report: ProjectReport,
        now: Timestamp,
        woken: Option<Instant>,
    ) {
        let labels = StackLabels::of(stack);
        let mut stacks = self.lock();
        let place = (report.host.clone(), report.component);
        // A check may end when its project is wanted no longer: nobody would take back what it tells.
        let Some(state) = stacks.get_mut(&stack.key).filter(|state| state.wanted.contains(&place)) else {
            return;
        };
        let seen = state.projects.entry(place.clone()).or_default();
        log_failure(stack, &seen.report, &report);
        log_waiting(stack, &seen.report, &report);
        log_hold(stack, &seen.report, &report);
        report.generation = stack.resource.metadata.generation;
        report.reconcile = stack.annotation(RECONCILE_ANNOTATION).map(str::to_owned);
        let since = std::mem::take(&mut seen.since);
        let moved = moved(&since, &report.drift.iter().map(item_key).collect());
        let mut new = Vec::new();
        let mut healed = Vec::new();
        for item in &mut report.drift {
            let key = item_key(item);
            let known = since.get(moved.get(&key).unwrap_or(&key)).copied();
            let first = known.unwrap_or(now);
            if known.is_none() || seen.remembered {
                log_drift(stack, item);
            }
            if known.is_none() {
                new.push(item.clone());
                self.metrics.detected(&labels, item.kind, woken.map(|woken| woken.elapsed().as_secs_f64()));
            }
            item.first_seen = Some(first.to_string());
            seen.since.insert(key, first);
        }
        let seen_all = [reasons::NOT_CONVERGING, reasons::OUT_OF_MEMORY];
        if report.failure.as_ref().is_some_and(|failure| !seen_all.contains(&failure.reason)) {
            // What cannot be seen is not over.
            seen.since.extend(since.clone());
        } else {
            if report.drift.iter().any(diff::is_cause) {
                // Nor is what users do not get, which is not told beside what may be the cause of it.
                let unserved = since.iter().filter(|(key, _)| key.0 == DriftKind::NotServing);
                seen.since.extend(unserved.map(|(key, first)| (key.clone(), *first)));
            }
            // What went away while no operator was there, or while nothing is written, was mended by somebody else.
            if !seen.remembered && report.hold.is_none() {
                let over = since.iter().filter(|(key, _)| !seen.since.contains_key(*key));
                let over = over.filter(|(key, _)| !moved.values().any(|before| before == *key));
                healed = self.tell_healed(stack, &labels, &report.host, over, now);
            }
            seen.remembered = false;
        }
        self.metrics.checked(&labels, &seen.report, &report, seconds(now));
        let new: Vec<&DriftItem> = new.iter().collect();
        self.record(stack, events(&seen.report, &report, &new, &healed));
        seen.report = report;
        if seen.since != since {
            let (host, component) = &place;
            self.memory.set_first_seen(&stack.key.to_string(), host, component.as_str(), &seen.since);
        }
        self.take_stock(stack, state, now);
        self.tell_stack(stack, state, now);
    }

    /// What all projects together come to, those of which nothing is known among them.
    fn take_stock(&self, stack: &Stack, state: &mut StackState, now: Timestamp) {
        let mut is_seen = true;
        let mut reports: Vec<ProjectReport> = Vec::new();
        for key in component::projects(stack) {
            let seen = state.projects.get(&place(&key)).map(|seen| &seen.report);
            let seen = seen.filter(|report| !report.host.is_empty()).cloned();
            is_seen &= seen.is_some();
            reports.push(seen.unwrap_or_else(|| ProjectReport::unknown(&key)));
        }
        reports.extend(super::retained(stack, &self.memory));
        let before = std::mem::take(&mut state.status);
        state.status = report::status(&before, &reports, &Time(now));
        if is_seen {
            self.tell_people(stack, &reports, state);
        }
        if let Some(listener) = &self.listener {
            state.status.notes = self.memory.notes(stack);
            self.record(stack, of_stack(stack, &before, state, now));
            if state.status != before {
                listener.status_changed(&stack.key);
            }
        }
    }

    /// Notifies people of what is new, and records that they were notified.
    fn tell_people(&self, stack: &Stack, reports: &[ProjectReport], state: &mut StackState) {
        let key = stack.key.to_string();
        let (new, notified) = notifications(&key, reports, &state.status, &state.notified);
        if let Some(notifier) = &self.notifier {
            notifier.notify(stack, &new);
        }
        if notified != state.notified {
            self.memory.set_notifications(&key, &notified);
            state.notified = notified;
        }
    }

    /// Tells of differences that are over; in words.
    fn tell_healed<'a>(
        &self,
        stack: &Stack,
        labels: &StackLabels,
        host: &str,
        over: impl Iterator<Item = (&'a ItemKey, &'a Timestamp)>,
        now: Timestamp,
    ) -> Vec<String> {
        let mut healed = Vec::new();
        // What is only reported was mended by somebody else.
        for ((kind, service, path), first) in over.filter(|(key, _)| key.0.answer() != Answer::Report) {
            let seconds = since_seconds(*first, now);
            let what: Vec<&str> = [service, path].into_iter().flatten().map(String::as_str).collect();
            let what = if what.is_empty() { host.to_owned() } else { what.join(" ") };
            self.metrics.healed(labels, *kind, seconds);
            tracing::info!(stack = %stack.key, %host, kind = kind.as_str(), after = ?Duration::from_secs_f64(seconds), "healed: {what}");
            healed.push(format!("{} {what}", kind.as_str()));
        }
        healed
    }
}

/// The projects that a stack asks for.
fn places(stack: &Stack) -> BTreeSet<Place> {
    component::projects(stack).iter().map(place).collect()
}

/// Where a project is within its stack.
fn place(key: &ProjectKey) -> Place {
    (key.host.clone(), key.component)
}

/// Names of the hosts of projects.
fn hosts(places: &BTreeSet<Place>) -> BTreeSet<String> {
    places.iter().map(|(host, _)| host.clone()).collect()
}

/// What happened to the stack as a whole.
fn of_stack(
    stack: &Stack,
    before: &TaskTrackerStackStatus,
    state: &mut StackState,
    now: Timestamp,
) -> Vec<StackEvent> {
    let whole = |reason, is_warning, note: String| StackEvent { reason, is_warning, host: None, note };
    let mut all = Vec::new();
    if let Some(plan) =
        state.status.waiting_plan.as_ref().filter(|_| before.waiting_plan != state.status.waiting_plan)
    {
        let name = &stack.key.name;
        all.push(whole(
            reason::APPROVAL_NEEDED,
            false,
            format!("plan {plan} waits for approval; see `plan`, then `approve {name} {plan}`"),
        ));
    }
    let suspended = plan::hold(stack.spec.suspend.as_ref(), HostState::Active, None, now);
    match (state.suspended, &suspended) {
        (false, Some(hold)) => {
            all.push(whole(reason::SUSPENDED, false, format!("nothing is written: {}", hold.message)));
        }
        (true, None) => all.push(whole(reason::RESUMED, false, "writing may go on".to_owned())),
        _ => {}
    }
    state.suspended = suspended.is_some();
    all
}

fn log_drift(stack: &Stack, item: &DriftItem) {
    let what = item.path.as_deref().or(item.service.as_deref()).unwrap_or("the host");
    let remedy = item.kind.remedy().filter(|_| item.answer == Answer::Report);
    tracing::warn!(
        stack = %stack.key, host = %item.host, component = item.component, kind = item.kind.as_str(), service = item.service, wanted = item.wanted, found = item.found, remedy,
        "drift: {what}"
    );
}

/// A failure is logged when it begins, when it becomes another, and when it ends.
fn log_failure(stack: &Stack, before: &ProjectReport, after: &ProjectReport) {
    match (&before.failure, &after.failure) {
        (old, Some(new)) if old.as_ref() != Some(new) => {
            tracing::error!(stack = %stack.key, host = %after.host, component = %after.component, reason = new.reason, "{}", new.message);
        }
        (Some(_), None) => {
            tracing::info!(stack = %stack.key, host = %after.host, component = %after.component, "the failure is over");
        }
        _ => {}
    }
}

fn log_waiting(stack: &Stack, before: &ProjectReport, after: &ProjectReport) {
    // That other hosts come first is told by what is done there.
    let waiting = after.waiting.as_ref().filter(|waiting| waiting.reason != reasons::ROLLING_OUT);
    if let Some(waiting) = waiting.filter(|waiting| before.waiting.as_ref() != Some(*waiting)) {
        tracing::warn!(stack = %stack.key, host = %after.host, component = %after.component, reason = waiting.reason, to = waiting.change.to_revision, "a change waits: {}", waiting.message);
    }
}

fn log_hold(stack: &Stack, before: &ProjectReport, after: &ProjectReport) {
    match (&before.hold, &after.hold) {
        (old, Some(new)) if old.as_ref() != Some(new) => {
            tracing::warn!(stack = %stack.key, host = %after.host, component = %after.component, reason = new.reason, "nothing is written: {}", new.message);
        }
        (Some(_), None) if after.failure.is_none() => {
            tracing::info!(stack = %stack.key, host = %after.host, component = %after.component, "writing may go on");
        }
        _ => {}
    }
}

fn seconds(now: Timestamp) -> f64 {
    now.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
}

fn since_seconds(first: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(first).as_secs_f64().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::PANIC, report::Failure};

    fn key(host: &str) -> ProjectKey {
        let stack = StackKey { namespace: "default".to_owned(), name: "staging".to_owned() };
        ProjectKey { stack, host: host.to_owned(), component: ComponentName::default() }
    }

    fn away(host: &str) -> ProjectReport {
        let reason = reasons::UNREACHABLE;
        let failure = Failure { reason, message: String::new(), reachable: false, stalled: false };
        ProjectReport { host: host.to_owned(), failure: Some(failure), ..ProjectReport::default() }
    }

    #[test]
    fn what_is_told_of_a_host_that_is_named_no_longer_leaves_nothing() {
        let text = include_str!("../../../examples/staging.yaml");
        let stack = |text: &str| {
            Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "staging.yaml".into())
        };
        let (before, after) = (stack(text), stack(&text.replace("name: app-1", "name: app-2")));
        let metrics = Arc::new(Metrics::new().unwrap());
        let watcher = Watcher::new(metrics.clone(), Arc::new(Memory::none()), None, None);
        watcher.begin(&before, None, Timestamp::UNIX_EPOCH);
        watcher.publish(&before, away("app-1"), Timestamp::UNIX_EPOCH, None);
        assert!(metrics.text().contains("host=\"app-1\""));
        watcher.change(&before, &after);
        // A check that began before.
        watcher.publish(&before, away("app-1"), Timestamp::UNIX_EPOCH, None);
        watcher.alive(&key("app-1"), &before, Timestamp::UNIX_EPOCH);
        watcher.count(&key("app-1"), &before, |metrics, labels| metrics.connected(labels, "app-1"));
        assert!(!metrics.text().contains("host=\"app-1\""), "{}", metrics.text());
        watcher.publish(&after, away("app-2"), Timestamp::UNIX_EPOCH, None);
        assert!(metrics.text().contains("reason=\"Unreachable\""));
        // The same where the whole stack went.
        let count =
            || watcher.count(&key("app-2"), &after, |metrics, labels| metrics.reconciled(labels, PANIC));
        count();
        assert!(metrics.text().contains("result=\"panic\""));
        watcher.end(&after.key);
        count();
        assert!(!metrics.text().contains("stack=\"staging\""), "{}", metrics.text());
    }

    /// A stack, and a watcher that follows it.
    fn following(text: &str) -> (Stack, Arc<Metrics>, Watcher) {
        let stack = tasktracker_crds::validation::read_stack(text).unwrap();
        let stack = Stack::new(stack, "staging.yaml".into());
        let metrics = Arc::new(Metrics::new().unwrap());
        let watcher = Watcher::new(metrics.clone(), Arc::new(Memory::none()), None, None);
        watcher.begin(&stack, None, Timestamp::UNIX_EPOCH);
        (stack, metrics, watcher)
    }

    #[test]
    fn what_users_do_not_get_is_not_healed_while_its_cause_is_there() {
        let (stack, metrics, watcher) = following(include_str!("../../../examples/staging.yaml"));
        let item = |kind: DriftKind, path: &str| DriftItem {
            host: "app-1".to_owned(),
            component: "app".to_owned(),
            service: Some("backend".to_owned()),
            kind,
            path: Some(path.to_owned()),
            wanted: String::new(),
            found: String::new(),
            first_seen: None,
            answer: kind.answer(),
        };
        let (unserved, ill) =
            (item(DriftKind::NotServing, "3500/"), item(DriftKind::Unhealthy, "tt-staging-app-backend-1"));
        let extra = item(DriftKind::FileExtra, "notes");
        let healed = |kind: &str| {
            let (text, kind) = (metrics.text(), format!("kind=\"{kind}\""));
            let mut lines = text.lines().filter(|line| line.starts_with("tasktracker_drift_healed_total{"));
            let line = lines.find(|line| line.contains(&kind)).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let steps: [(&[&DriftItem], [&str; 2]); 4] = [
            (&[&unserved], ["0", "0"]),
            (&[&ill], ["0", "0"]),
            (&[&unserved, &extra], ["0", "1"]),
            (&[&extra], ["1", "1"]),
        ];
        for (index, (drift, expected)) in steps.into_iter().enumerate() {
            let drift = drift.iter().map(|item| (*item).clone()).collect();
            let report = ProjectReport { host: "app-1".to_owned(), drift, ..ProjectReport::default() };
            watcher.publish(&stack, report, Timestamp::UNIX_EPOCH, None);
            assert_eq!(["NotServing", "Unhealthy"].map(healed), expected, "step {index}");
        }
    }

    #[test]
    fn what_a_repair_ended_is_healed_and_what_went_away_by_itself_or_moved_on_is_not() {
        let (stack, metrics, watcher) = following(include_str!("../../../examples/staging.yaml"));
        let total = |name: &str| -> u32 {
            let name = format!("tasktracker_drift_{name}_total{{");
            let text = metrics.text();
            let lines = text.lines().filter(|line| line.starts_with(&name));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
        };
        let check = |settings: &[&str], hold: Option<crate::model::Hold>| {
            let drift = settings.iter().map(|path| DriftItem {
                host: "app-1".to_owned(),
                component: "app".to_owned(),
                service: Some("backend".to_owned()),
                kind: DriftKind::ConfigChanged,
                path: Some((*path).to_owned()),
                wanted: "1".to_owned(),
                found: "2".to_owned(),
                first_seen: None,
                answer: Answer::Heal,
            });
            let drift = drift.collect();
            let report = ProjectReport { host: "app-1".to_owned(), drift, hold, ..ProjectReport::default() };
            watcher.publish(&stack, report, Timestamp::UNIX_EPOCH, None);
            (total("detected"), total("healed"))
        };
        let held = || Some(crate::model::Hold { reason: reasons::SUSPENDED, message: String::new() });
        let steps: [(&[&str], _, _); 6] = [
            (&["one/environment/LEVEL"], None, (1, 0)),
            // Made anew, under another name, with the same difference; and another one.
            (&["two/environment/LEVEL"], None, (1, 0)),
            (&["two/environment/LEVEL", "two/user"], None, (2, 0)),
            // Somebody mended it while nothing was written.
            (&["two/environment/LEVEL"], held(), (2, 0)),
            (&["two/environment/LEVEL"], None, (2, 0)),
            (&[], None, (2, 1)),
        ];
        for (index, (settings, hold, expected)) in steps.into_iter().enumerate() {
            assert_eq!(check(settings, hold), expected, "step {index}");
        }
    }

    #[test]
    fn a_suspended_stack_is_told_so_even_where_its_host_is_away() {
        let suspend = "  suspend: {until: 2026-01-31T18:00:00Z, reason: audit}\n  ssh:";
        let text = include_str!("../../../examples/staging.yaml").replace("  ssh:", suspend);
        let (stack, metrics, watcher) = following(&text);
        let report = away("app-1");
        for (now, told) in [("2026-01-31T17:59:59Z", " 1"), ("2026-01-31T18:00:00Z", " 0")] {
            watcher.publish(&stack, report.clone(), now.parse().unwrap(), None);
            let text = metrics.text();
            let line = text.lines().find(|line| line.starts_with("tasktracker_stack_suspended{")).unwrap();
            assert!(line.ends_with(told), "{now}: {line}");
        }
    }
}
