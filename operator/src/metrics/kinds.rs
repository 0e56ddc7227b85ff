//! Counters per stack and drift kind. A stack has about fifty, nearly all 0: each is stored as one number, while the
//! library's counter stores its labels and description, too.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    Opts,
    core::{Collector, Desc},
    proto::{Counter, LabelPair, Metric, MetricFamily, MetricType},
};
use tasktracker_crds::DriftKind;

use super::StackLabels;

/// One metric with the labels of a stack and `kind`.
#[derive(Clone)]
pub(super) struct KindCounters {
    description: Desc,
    counts: Arc<Mutex<Counts>>,
}

/// By the label values of a stack, and by kind.
type Counts = BTreeMap<[String; 3], BTreeMap<DriftKind, u32>>;

impl KindCounters {
    /// A metric without series; `labels` are the names of its labels, in the order of their values.
    pub(super) fn new(options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let description = Desc::new(options.fq_name(), options.help, labels, options.const_labels)?;
        Ok(Self { description, counts: Arc::default() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a series exist at 0, where it does not yet.
    pub(super) fn begin(&self, labels: &StackLabels, kind: DriftKind) {
        self.counts().entry(labels.0.clone()).or_default().entry(kind).or_default();
    }

    /// Counts one.
    pub(super) fn increment(&self, labels: &StackLabels, kind: DriftKind) {
        let mut counts = self.counts();
        let count = counts.entry(labels.0.clone()).or_default().entry(kind).or_default();
        *count = count.saturating_add(1);
    }

    /// Removes the series of a stack.
    pub(super) fn remove(&self, labels: &[&str]) {
        self.counts().retain(|stack, _| !stack.iter().zip(labels).all(|(one, other)| one == other));
    }
}

impl Collector for KindCounters {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let names = &self.description.variable_labels;
        let mut series = Vec::new();
        for (stack, kinds) in self.counts().iter() {
            for (kind, count) in kinds {
                let values = stack.iter().map(String::as_str).chain([kind.as_str()]);
                let mut labels: Vec<LabelPair> =
                    names.iter().zip(values).map(|(name, value)| label(name, value)).collect();
                labels.sort_by(|one, other| one.name().cmp(other.name()));
                let mut counter = Counter::default();
                counter.set_value(f64::from(*count));
                let mut metric = Metric::from_label(labels);
                metric.set_counter(counter);
                series.push(metric);
            }
        }
        let mut family = MetricFamily::default();
        family.set_name(self.description.fq_name.clone());
        family.set_help(self.description.help.clone());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(series);
        vec![family]
    }
}

/// A label of a series.
pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn series_of_a_stack_exist_from_their_begin_count_and_go_together() {
        let options = Opts::new("drift_total", "Differences.");
        let counters = KindCounters::new(options, &["namespace", "stack", "environment", "kind"]).unwrap();
        let registry = Registry::new();
        registry.register(Box::new(counters.clone())).unwrap();
        let labels = |stack: &str| StackLabels(["default", stack, "test"].map(str::to_owned));
        let (one, other) = (labels("one"), labels("other"));
        counters.begin(&one, DriftKind::Missing);
        counters.begin(&other, DriftKind::FileMode);
        counters.increment(&one, DriftKind::Missing);
        counters.increment(&one, DriftKind::Missing);
        counters.begin(&one, DriftKind::Missing);
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let line = |stack: &str, kind: &str, count: u32| {
            format!(
                "drift_total{{environment=\"test\",kind=\"{kind}\",namespace=\"default\",stack=\"{stack}\"}} {count}\n"
            )
        };
        let head = "# HELP drift_total Differences.\n# TYPE drift_total counter\n";
        let both = [head, &line("other", "FileMode", 0), &line("one", "Missing", 2)].concat();
        assert_eq!(text(), both);
        counters.remove(&["default", "one", "test", "Missing"]);
        assert_eq!(text(), [head, &line("other", "FileMode", 0)].concat());
    }
}
