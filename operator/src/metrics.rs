//! Metrics of the operator. A stack's series exist at 0 from the first, and go when the stack goes.

mod containers;
mod controller;
mod kinds;
mod labelled;
mod remote_write;

use std::{collections::BTreeSet, sync::Arc};

use prometheus::{
    Encoder, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry, TextEncoder, proto::MetricFamily,
};
use tasktracker_crds::{Answer, DriftKind, Layer, TaskTrackerStackStatus, conditions};

pub use containers::ContainerSample;
use containers::Containers;
pub use controller::{ApiRequests, Controller};
use kinds::KindCounters;
use labelled::{forget, registered};
pub(crate) use remote_write::remote_write;

use crate::{
    component,
    report::ProjectReport,
    source::{ProjectKey, Stack, StackKey},
};

/// Labels that every series of a stack begins with.
const STACK: [&str; 3] = ["namespace", "stack", "environment"];

/// Upper bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// What a check came to: its end, what kept it from that, or a defect of ours.
pub const SUCCESS: &str = "success";
/// See [`SUCCESS`].
pub const ERROR: &str = "error";
/// See [`SUCCESS`].
pub const PANIC: &str = "panic";

macro_rules! metrics {
    ($($field:ident: $kind:ident = $name:literal $labels:tt $help:literal;)*) => {
        /// Every metric.
        pub struct Metrics {
            /// Of the process and its controller.
            registry: Registry,
            /// Of stacks, one per metric: a registry copies all its series when it is gathered.
            registries: Vec<Registry>,
            requests: controller::SharedRequests,
            leader: IntGaugeVec,
            source: IntGaugeVec,
            containers: Containers,
            $($field: $kind,)*
        }

        impl Metrics {
            /// Registers everything, with the process's own metrics beside it.
            ///
            /// # Errors
            /// When a metric cannot be registered, which a test rules out.
            pub fn new() -> prometheus::Result<Self> {
                let (registry, names, mut registries) = (Registry::new(), Registry::new(), Vec::new());
                registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
                controller::build_info(&registry)?;
                let (containers, of_containers) = (Containers::new()?, Registry::new());
                of_containers.register(Box::new(containers.clone()))?;
                registries.push(of_containers);
                Ok(Self {
                    $($field: registered(&names, &mut registries, $name, $help, &$labels)?,)*
                    requests: Arc::new(ApiRequests::new(&registry)?),
                    leader: controller::leader(&registry)?,
                    source: controller::source(&registry)?,
                    containers,
                    registry,
                    registries,
                })
            }

            /// Takes every series of a stack away.
            pub fn end(&self, key: &StackKey) {
                $(forget(&self.$field, key, &[]);)*
                self.containers.forget(key, None);
            }
        }
    };
}

metrics! {
    stack_ready: IntGaugeVec = "stack_ready" [] "Whether everything is as asked for and healthy.";
    stack_in_sync: IntGaugeVec = "stack_in_sync" [] "Whether nothing drifts and no change waits.";
    stack_suspended: IntGaugeVec = "stack_suspended" [] "Whether the stack is suspended.";
    stack_stalled: IntGaugeVec = "stack_stalled" [] "Whether a person must mend something before the stack can be as asked for.";
    stack_info: IntGaugeVec = "stack_info" ["revision"] "The revision asked for.";
    drift_items: IntGaugeVec = "drift_items" ["host", "component", "layer"] "Differences from the applied release.";
    drift_oldest_seconds: GaugeVec = "drift_oldest_seconds" [] "Age of the oldest difference.";
    drift_unhealed_seconds: GaugeVec = "drift_unhealed_oldest_seconds" [] "Age of the oldest difference that is to be repaired.";
    interval: GaugeVec = "stack_interval_seconds" [] "How often everything is checked.";
    drift_detected: KindCounters = "drift_detected_total" ["kind"] "Differences seen for the first time.";
    drift_healed: KindCounters = "drift_healed_total" ["kind"] "Differences that went away after a repair.";
    drift_detect_seconds: HistogramVec = "drift_detect_seconds" [] "From the wake-up to a difference reported, where an event or a changed file woke the operator.";
    drift_heal_seconds: HistogramVec = "drift_heal_seconds" [] "From a difference first seen to its end.";
    host_reachable: IntGaugeVec = "host_reachable" ["host"] "Whether the host answered.";
    host_failure: IntGaugeVec = "host_failure" ["host", "component", "reason"] "1 for what keeps the host from being checked or repaired.";
    change_waiting: IntGaugeVec = "change_waiting" ["host", "component", "reason"] "1 for what a change waits for.";
    component_healthy: IntGaugeVec = "component_healthy" ["host", "component"] "Whether every service of the component serves.";
    certificate_expiry: GaugeVec = "certificate_expiry_timestamp_seconds" ["host", "component"] "Until when the certificate holds that users are shown.";
    reconcile_total: IntCounterVec = "reconcile_total" ["result"] "Checks, by result.";
    reconcile_duration: HistogramVec = "reconcile_duration_seconds" ["phase"] "Duration of a check, by phase.";
    last_check: GaugeVec = "last_reconcile_timestamp_seconds" ["host", "component"] "When a check last ended, whatever it came to.";
    last_success: GaugeVec = "last_successful_reconcile_timestamp_seconds" ["host", "component"] "When a check last succeeded.";
    rollout_total: IntCounterVec = "rollout_total" ["result"] "Rollouts, by result.";
    notifications: IntCounterVec = "notifications_total" ["result"] "Messages to webhooks, by result: sent, failed, or dropped because there were too many.";
    rollout_duration: HistogramVec = "rollout_duration_seconds" [] "Duration of a rollout.";
    ssh_reconnects: IntCounterVec = "ssh_reconnects_total" ["host"] "SSH connections opened.";
}

/// The label values of a stack, in the order of [`STACK`].
#[derive(Clone, Debug)]
pub struct StackLabels([String; 3]);

impl StackLabels {
    /// The labels of a stack.
    pub fn of(stack: &Stack) -> Self {
        Self([stack.key.namespace.clone(), stack.key.name.clone(), stack.spec.environment.to_string()])
    }

    fn with<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.0.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }
}

impl Metrics {
    /// Requests to an API server.
    pub fn api_requests(&self) -> Arc<ApiRequests> {
        self.requests.clone()
    }

    /// Metrics of a controller that works on so many objects at a time.
    ///
    /// # Errors
    /// When there is one already.
    pub fn controller(&self, concurrency: u16) -> prometheus::Result<Arc<Controller>> {
        Controller::new(&self.registry, concurrency).map(Arc::new)
    }

    /// Whether this operator is the one that acts.
    pub fn leads(&self, lease: &str, leads: bool) {
        self.leader.with_label_values(&[lease]).set(i64::from(leads));
    }

    /// Whether the stacks could be read when they were last asked for.
    pub fn source_synced(&self, synced: bool) {
        self.source.with_label_values::<&str>(&[]).set(i64::from(synced));
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        for registry in [&self.registry].into_iter().chain(&self.registries) {
            if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut text) {
                tracing::error!(%error, "metrics cannot be written");
            }
        }
        String::from_utf8(text).unwrap_or_default()
    }

    /// Every series.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        [&self.registry].into_iter().chain(&self.registries).flat_map(Registry::gather).collect()
    }

    /// Makes a stack's series exist at 0.
    pub fn begin(&self, stack: &Stack) {
        let labels = StackLabels::of(stack);
        for gauge in [&self.stack_ready, &self.stack_in_sync, &self.stack_suspended, &self.stack_stalled] {
            gauge.with_label_values(&labels.with(&[])).set(0);
        }
        self.drift_oldest_seconds.with_label_values(&labels.with(&[])).set(0.0);
        self.drift_unhealed_seconds.with_label_values(&labels.with(&[])).set(0.0);
        self.set_interval(stack);
        for kind in DriftKind::ALL {
            self.drift_detected.begin(&labels, *kind);
            // What is only reported is never counted as healed.
            if kind.answer() != Answer::Report {
                self.drift_healed.begin(&labels, *kind);
            }
        }
        for result in [SUCCESS, ERROR] {
            self.reconcile_total.with_label_values(&labels.with(&[result]));
            self.rollout_total.with_label_values(&labels.with(&[result]));
        }
        self.reconcile_total.with_label_values(&labels.with(&[PANIC]));
        for result in ["sent", "failed", "dropped"] {
            self.notifications.with_label_values(&labels.with(&[result]));
        }
        self.stack_info.with_label_values(&labels.with(&[stack.spec.revision.as_str()])).set(1);
        for key in component::projects(stack) {
            self.begin_project(&labels, &key);
        }
    }

    /// Makes the series of a project exist at 0, where they do not yet.
    fn begin_project(&self, labels: &StackLabels, key: &ProjectKey) {
        let ProjectKey { host, component, .. } = key;
        self.host_reachable.with_label_values(&labels.with(&[host]));
        self.component_healthy.with_label_values(&labels.with(&[host, component.as_str()]));
        self.ssh_reconnects.with_label_values(&labels.with(&[host]));
        for layer in Layer::ALL {
            let values = labels.with(&[host, component.as_str(), layer.as_str()]);
            self.drift_items.with_label_values(&values);
        }
    }

    /// Takes away the series of one project; those of its host, where that is the last one there.
    fn end_project(&self, key: &ProjectKey, is_last: bool) {
        let ProjectKey { stack, host, component: component_name } = key;
        let component = component_name.as_str();
        let of_project = [("host", host.as_str()), ("component", component)];
        forget(&self.host_failure, stack, &of_project);
        forget(&self.change_waiting, stack, &of_project);
        forget(&self.certificate_expiry, stack, &of_project);
        forget(&self.last_check, stack, &of_project);
        forget(&self.last_success, stack, &of_project);
        forget(&self.component_healthy, stack, &of_project);
        forget(&self.drift_items, stack, &of_project);
        self.containers.forget(stack, Some((host, *component_name)));
        if is_last {
            let of_host = [("host", host.as_str())];
            forget(&self.host_reachable, stack, &of_host);
            forget(&self.ssh_reconnects, stack, &of_host);
        }
    }

    fn set_interval(&self, stack: &Stack) {
        let seconds = stack.spec.interval.duration().as_secs_f64();
        self.interval.with_label_values(&StackLabels::of(stack).with(&[])).set(seconds);
    }

    /// What holds of a host now: of a reason that was told `before` and does not hold any more, nothing.
    fn set_reason(
        gauge: &IntGaugeVec,
        labels: &StackLabels,
        (host, component): (&str, &str),
        before: Option<&str>,
        now: Option<&str>,
    ) {
        if let Some(before) = before.filter(|before| now != Some(*before)) {
            let _: prometheus::Result<()> =
                gauge.remove_label_values(&labels.with(&[host, component, before]));
        }
        if let Some(reason) = now {
            gauge.with_label_values(&labels.with(&[host, component, reason])).set(1);
        }
    }

    fn set_drift(&self, labels: &StackLabels, report: &ProjectReport) {
        for layer in Layer::ALL {
            let count = report.drift.iter().filter(|item| item.kind.layer() == layer).count();
            let values = labels.with(&[&report.host, report.component.as_str(), layer.as_str()]);
            self.drift_items.with_label_values(&values).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A stack has another spec: what was counted of projects that it still asks for stays.
    pub fn change(&self, before: &Stack, after: &Stack) {
        let old = StackLabels::of(before);
        let _: prometheus::Result<()> =
            self.stack_info.remove_label_values(&old.with(&[before.spec.revision.as_str()]));
        self.set_interval(after);
        let new = StackLabels::of(after);
        let wanted: BTreeSet<ProjectKey> = component::projects(after).into_iter().collect();
        for key in component::projects(before).iter().filter(|key| !wanted.contains(key)) {
            self.end_project(key, wanted.iter().all(|other| other.host != key.host));
        }
        for key in &wanted {
            self.begin_project(&new, key);
        }
        self.stack_info.with_label_values(&new.with(&[after.spec.revision.as_str()])).set(1);
    }

    /// A check of one project that ended, with its repairs.
    pub fn reconciled(&self, labels: &StackLabels, result: &'static str) {
        self.reconcile_total.with_label_values(&labels.with(&[result])).inc();
    }

    /// A project is worked on.
    pub fn alive(&self, labels: &StackLabels, key: &ProjectKey, now: jiff::Timestamp) {
        let seconds = now.duration_since(jiff::Timestamp::UNIX_EPOCH).as_secs_f64();
        let values = labels.with(&[&key.host, key.component.as_str()]);
        self.last_check.with_label_values(&values).set(seconds);
    }

    /// A stack whose spec is refused, and of which no older one is in force: it is not as asked for.
    pub fn refused(&self, key: &StackKey, environment: &str) {
        let labels = [key.namespace.as_str(), &key.name, environment];
        for gauge in [&self.stack_ready, &self.stack_in_sync, &self.stack_suspended] {
            gauge.with_label_values(&labels).set(0);
        }
        self.stack_stalled.with_label_values(&labels).set(1);
    }

    /// What one check of one project came to, after what was known of it `before`.
    pub fn checked(
        &self,
        labels: &StackLabels,
        before: &ProjectReport,
        report: &ProjectReport,
        now_seconds: f64,
    ) {
        let host = labels.with(&[&report.host]);
        let failure = |report: &ProjectReport| report.failure.as_ref().map(|failure| failure.reason);
        let place = (report.host.as_str(), report.component.as_str());
        Self::set_reason(&self.host_failure, labels, place, failure(before), failure(report));
        let (waited, waits) = (before.waits_for(), report.waits_for());
        Self::set_reason(&self.change_waiting, labels, place, waited, waits);
        self.host_reachable.with_label_values(&host).set(i64::from(report.reachable()));
        if !report.reachable() {
            // What was seen last says nothing of now.
            self.containers.forget_host(labels, &report.host, report.component);
        }
        let component = labels.with(&[place.0, place.1]);
        self.component_healthy.with_label_values(&component).set(i64::from(report.healthy));
        self.set_drift(labels, report);
        match &report.certificate {
            Some(certificate) => {
                #[expect(clippy::cast_precision_loss, reason = "seconds of a date")]
                self.certificate_expiry
                    .with_label_values(&component)
                    .set(certificate.not_after.as_second() as f64);
            }
            None => drop(self.certificate_expiry.remove_label_values(&component)),
        }
        self.last_check.with_label_values(&component).set(now_seconds);
        if report.failure.is_none() {
            self.last_success.with_label_values(&component).set(now_seconds);
        }
    }

    /// What the stack as a whole came to; a `refused` newer spec means that it is not as asked for.
    pub fn stack(
        &self,
        labels: &StackLabels,
        status: &TaskTrackerStackStatus,
        (oldest_drift_seconds, unhealed_seconds): (f64, f64),
        refused: bool,
        suspended: bool,
    ) {
        let is_true = |kind: &str| {
            status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
        };
        for (gauge, value) in [
            (&self.stack_ready, !refused && is_true(conditions::READY)),
            (&self.stack_in_sync, !refused && is_true(conditions::IN_SYNC)),
            (&self.stack_stalled, refused || is_true(conditions::STALLED)),
            (&self.stack_suspended, suspended),
        ] {
            gauge.with_label_values(&labels.with(&[])).set(i64::from(value));
        }
        self.drift_oldest_seconds.with_label_values(&labels.with(&[])).set(oldest_drift_seconds);
        self.drift_unhealed_seconds.with_label_values(&labels.with(&[])).set(unhealed_seconds);
    }

    /// A difference seen for the first time, so many seconds after the operator was woken.
    pub fn detected(&self, labels: &StackLabels, kind: DriftKind, seconds: Option<f64>) {
        self.drift_detected.increment(labels, kind);
        if let Some(seconds) = seconds {
            self.drift_detect_seconds.with_label_values(&labels.with(&[])).observe(seconds);
        }
    }

    /// A difference that went away, this long after it was first seen.
    pub fn healed(&self, labels: &StackLabels, kind: DriftKind, seconds: f64) {
        self.drift_healed.increment(labels, kind);
        self.drift_heal_seconds.with_label_values(&labels.with(&[])).observe(seconds);
    }

    /// Time that one phase of a check took.
    pub fn phase(&self, labels: &StackLabels, phase: &str, seconds: f64) {
        self.reconcile_duration.with_label_values(&labels.with(&[phase])).observe(seconds);
    }

    /// A rollout that ended.
    pub fn rollout(&self, labels: &StackLabels, succeeded: bool, seconds: f64) {
        let result = if succeeded { SUCCESS } else { ERROR };
        self.rollout_total.with_label_values(&labels.with(&[result])).inc();
        self.rollout_duration.with_label_values(&labels.with(&[])).observe(seconds);
    }

    /// A message to a webhook: `sent`, `failed` or `dropped`.
    pub fn notified(&self, labels: &StackLabels, result: &str) {
        self.notifications.with_label_values(&labels.with(&[result])).inc();
    }

    /// Whether the last samples of a project are of these containers, with the same restarts, OOM kills and health.
    pub fn has_samples_of(
        &self,
        labels: &StackLabels,
        key: &ProjectKey,
        samples: &[ContainerSample],
    ) -> bool {
        self.containers.has_samples_of(labels, (&key.host, key.component), samples)
    }

    /// The last samples of a project's containers.
    pub fn record_containers(&self, labels: &StackLabels, key: &ProjectKey, samples: Vec<ContainerSample>) {
        self.containers.set(labels, (&key.host, key.component), samples);
    }

    /// An SSH connection that was opened.
    pub fn connected(&self, labels: &StackLabels, host: &str) {
        self.ssh_reconnects.with_label_values(&labels.with(&[host])).inc();
    }
}

#[cfg(test)]
mod tests;
