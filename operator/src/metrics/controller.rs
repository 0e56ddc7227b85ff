//! Metrics of the controller under the names that dashboards for controllers read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};
use tokio::time::Instant;

use crate::source::StackKey;

/// The controller's name, and its queue's.
const NAME: &str = "tasktrackerstack";

fn made<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Makes metrics with a prefix, and a label that names the controller.
struct Maker<'a> {
    registry: &'a Registry,
    prefix: &'static str,
    label: &'static str,
}

impl Maker<'_> {
    fn options(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("{}_{name}", self.prefix), help).const_label(self.label, NAME)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        made(self.registry, IntCounter::with_opts(self.options(name, help)))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        made(self.registry, IntGauge::with_opts(self.options(name, help)))
    }

    fn seconds(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        made(self.registry, Gauge::with_opts(self.options(name, help)))
    }

    fn histogram(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::from(self.options(name, help)).buckets(super::BUCKETS.to_vec());
        made(self.registry, Histogram::with_opts(options))
    }
}

/// Requests to an API server, by what came of them.
pub struct ApiRequests(IntCounterVec);

impl ApiRequests {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let options = Opts::new(
            "rest_client_requests_total",
            "Requests to the API server, by status, method and host.",
        );
        Ok(Self(made(registry, IntCounterVec::new(options, &["code", "method", "host"]))?))
    }

    /// A request was answered, or was not.
    pub fn count(&self, code: &str, method: &str, host: &str) {
        self.0.with_label_values(&[code, method, host]).inc();
    }
}

/// What waits in the queue since when, and what is worked on.
#[derive(Default)]
struct Queue {
    waiting: BTreeMap<StackKey, Instant>,
    running: BTreeMap<StackKey, Instant>,
}

/// The controller's own metrics.
pub struct Controller {
    queue: Mutex<Queue>,
    results: IntCounterVec,
    errors: IntCounter,
    panics: IntCounter,
    timeouts: IntCounter,
    seconds: Histogram,
    active: IntGauge,
    depth: IntGauge,
    adds: IntCounter,
    retries: IntCounter,
    queue_seconds: Histogram,
    work_seconds: Histogram,
    unfinished: Gauge,
    longest: Gauge,
    status_writes: IntCounter,
}

/// A reconciliation that runs.
pub struct Running<'a> {
    controller: &'a Controller,
    key: StackKey,
    began: Instant,
}

impl Controller {
    /// Registers everything; what has a label exists at 0.
    ///
    /// # Errors
    /// When a name is registered twice, which a test rules out.
    pub(super) fn new(registry: &Registry, concurrency: u16) -> prometheus::Result<Self> {
        let own = Maker { registry, prefix: "controller_runtime", label: "controller" };
        let queue = Maker { registry, prefix: "workqueue", label: "name" };
        let most = own.gauge("max_concurrent_reconciles", "Objects that are worked on at a time.")?;
        most.set(i64::from(concurrency));
        let total = own.options("reconcile_total", "Reconciliations, by result.");
        let results = made(registry, IntCounterVec::new(total, &["result"]))?;
        for result in ["success", "error", "requeue", "requeue_after"] {
            results.with_label_values(&[result]);
        }
        // What a person must mend is told by conditions; here nothing is given up.
        own.counter("terminal_reconcile_errors_total", "Reconciliations that are not tried again.")?;
        let writes = Opts::new("tasktracker_status_writes_total", "Statuses written to the API server.");
        Ok(Self {
            queue: Mutex::default(),
            results,
            errors: own.counter("reconcile_errors_total", "Reconciliations that failed.")?,
            panics: own.counter("reconcile_panics_total", "Reconciliations that ended in a defect.")?,
            timeouts: own.counter("reconcile_timeouts_total", "Reconciliations that took too long.")?,
            seconds: own.histogram("reconcile_time_seconds", "Duration of a reconciliation.")?,
            active: own.gauge("active_workers", "Reconciliations that run.")?,
            depth: queue.gauge("depth", "Objects that wait.")?,
            adds: queue.counter("adds_total", "Objects that were put into the queue.")?,
            retries: queue.counter("retries_total", "Objects that failed and were put into it again.")?,
            queue_seconds: queue.histogram("queue_duration_seconds", "How long objects wait.")?,
            work_seconds: queue.histogram("work_duration_seconds", "How long objects are worked on.")?,
            unfinished: queue.seconds("unfinished_work_seconds", "Seconds of work that is not done yet.")?,
            longest: queue.seconds("longest_running_processor_seconds", "How long the longest one runs.")?,
            status_writes: made(registry, IntCounter::with_opts(writes))?,
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object is to be checked; one that waits already does not wait twice.
    pub fn added(&self, key: &StackKey) {
        let mut queue = self.queue();
        if !queue.waiting.contains_key(key) {
            queue.waiting.insert(key.clone(), Instant::now());
            self.adds.inc();
        }
        self.depth.set(i64::try_from(queue.waiting.len()).unwrap_or(i64::MAX));
    }

    /// Forgets stacks that are gone: what waits for them is never worked on.
    pub fn retain(&self, there: &BTreeSet<StackKey>) {
        let mut queue = self.queue();
        queue.waiting.retain(|key, _| there.contains(key));
        self.depth.set(i64::try_from(queue.waiting.len()).unwrap_or(i64::MAX));
    }

    /// A reconciliation begins.
    pub fn begin(&self, key: &StackKey) -> Running<'_> {
        let began = Instant::now();
        let mut queue = self.queue();
        if let Some(since) = queue.waiting.remove(key) {
            self.queue_seconds.observe(began.duration_since(since).as_secs_f64());
        }
        self.depth.set(i64::try_from(queue.waiting.len()).unwrap_or(i64::MAX));
        queue.running.insert(key.clone(), began);
        self.active.inc();
        Running { controller: self, key: key.clone(), began }
    }

    /// One ended in a defect.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// One took too long.
    pub fn timed_out(&self) {
        self.timeouts.inc();
    }

    /// One is tried again.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// A status was written, or was not.
    pub fn wrote_status(&self, written: Option<bool>) {
        if written == Some(true) {
            self.status_writes.inc();
        }
    }

    /// How long the longest running reconciliation takes; what is told of running ones is told anew.
    pub fn longest_running(&self) -> Option<Duration> {
        let running: Vec<Duration> = self.queue().running.values().map(Instant::elapsed).collect();
        self.unfinished.set(running.iter().map(Duration::as_secs_f64).sum());
        let longest = running.into_iter().max();
        self.longest.set(longest.unwrap_or_default().as_secs_f64());
        longest
    }
}

impl Running<'_> {
    /// It ended.
    pub fn end(self, succeeded: bool) {
        self.controller.results.with_label_values(&[if succeeded { "success" } else { "error" }]).inc();
        if !succeeded {
            self.controller.errors.inc();
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Self { controller, key, began } = self;
        controller.queue().running.remove(key);
        controller.active.dec();
        let seconds = began.elapsed().as_secs_f64();
        controller.seconds.observe(seconds);
        controller.work_seconds.observe(seconds);
    }
}

/// Which operator acts.
pub(super) fn leader(registry: &Registry) -> prometheus::Result<IntGaugeVec> {
    let options =
        Opts::new("leader_election_master_status", "Whether this operator is the one that acts, by lease.");
    made(registry, IntGaugeVec::new(options, &["name"]))
}

/// Whether the stacks can be read. It has a series only once they are asked for: a standby does not.
pub(super) fn source(registry: &Registry) -> prometheus::Result<IntGaugeVec> {
    let options = Opts::new(
        "tasktracker_source_synced",
        "Whether the stacks could be read when they were last asked for.",
    );
    made(registry, IntGaugeVec::new(options, &[]))
}

/// Shared by whoever counts.
pub(super) type SharedRequests = Arc<ApiRequests>;

/// Which version of the operator this is.
pub(super) fn build_info(registry: &Registry) -> prometheus::Result<()> {
    let options = Opts::new("tasktracker_build_info", "The version of the operator.");
    let info = made(registry, GaugeVec::new(options, &["version"]))?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> StackKey {
        StackKey { namespace: "default".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn deleted_stacks_do_not_wait() {
        let controller = Controller::new(&Registry::new(), 1).unwrap();
        controller.added(&key("kept"));
        controller.added(&key("deleted"));
        assert_eq!(controller.depth.get(), 2);
        controller.retain(&[key("kept")].into());
        assert_eq!(controller.depth.get(), 1);
        controller.begin(&key("kept")).end(true);
        assert_eq!(controller.depth.get(), 0);
    }
}
