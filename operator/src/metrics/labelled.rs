//! Metrics whose series have the labels of a stack.

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector,
};

use super::{BUCKETS, STACK, kinds::KindCounters};
use crate::source::StackKey;

/// A metric with labels that can be made from its options.
pub(super) trait LabelledMetric: Collector + Clone + Sized + 'static {
    fn with_labels(options: Opts, labels: &[&str]) -> prometheus::Result<Self>;

    /// Removes the series of these values, where it is there; [`KindCounters`] all of the same stack.
    fn remove(&self, values: &[&str]);
}

impl LabelledMetric for IntGaugeVec {
    fn with_labels(options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options, labels)
    }

    fn remove(&self, values: &[&str]) {
        let _: prometheus::Result<()> = self.remove_label_values(values);
    }
}

impl LabelledMetric for GaugeVec {
    fn with_labels(options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options, labels)
    }

    fn remove(&self, values: &[&str]) {
        let _: prometheus::Result<()> = self.remove_label_values(values);
    }
}

impl LabelledMetric for IntCounterVec {
    fn with_labels(options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options, labels)
    }

    fn remove(&self, values: &[&str]) {
        let _: prometheus::Result<()> = self.remove_label_values(values);
    }
}

impl LabelledMetric for KindCounters {
    fn with_labels(options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options, labels)
    }

    fn remove(&self, values: &[&str]) {
        Self::remove(self, values);
    }
}

impl LabelledMetric for HistogramVec {
    fn with_labels(options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::from(options).buckets(BUCKETS.to_vec()), labels)
    }

    fn remove(&self, values: &[&str]) {
        let _: prometheus::Result<()> = self.remove_label_values(values);
    }
}

/// Makes a metric of ours, in a registry of its own; `names` has all of them and is not gathered.
///
/// # Errors
/// When another one has its name.
pub(super) fn registered<M: LabelledMetric>(
    names: &Registry,
    registries: &mut Vec<Registry>,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<M> {
    let labels: Vec<&str> = STACK.iter().copied().chain(labels.iter().copied()).collect();
    let metric = M::with_labels(Opts::new(format!("tasktracker_{name}"), help), &labels)?;
    names.register(Box::new(metric.clone()))?;
    let registry = Registry::new();
    registry.register(Box::new(metric.clone()))?;
    registries.push(registry);
    Ok(metric)
}

/// Removes the series of one metric that belong to a stack, and have these labels.
pub(super) fn forget<M: LabelledMetric>(metric: &M, key: &StackKey, labels: &[(&str, &str)]) {
    let Some(names) = metric.desc().first().map(|description| description.variable_labels.clone()) else {
        return;
    };
    let all = [("namespace", key.namespace.as_str()), ("stack", key.name.as_str())];
    for family in metric.collect() {
        for series in family.get_metric() {
            let value = |name: &str| {
                let label = series.get_label().iter().find(|label| label.name() == name);
                label.map(|label| label.value().to_owned()).unwrap_or_default()
            };
            if all.iter().chain(labels).all(|(name, wanted)| value(name) == *wanted) {
                let values: Vec<String> = names.iter().map(|name| value(name)).collect();
                metric.remove(&values.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }
}
