//! The operator's own series in the form in which Prometheus takes them from others: the remote write protocol, version 1.

use jiff::Timestamp;
use prometheus::proto::{MetricFamily, MetricType};
use prost::Message;

use crate::source::Stack;

/// Label of the series with what made them, as a scrape would have it.
const JOB: &str = "tasktracker-operator";

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// The series of a stack, and those of the process, as the body of a request: compressed, at one moment. Those of other stacks
/// are left out. `writer` tells operators apart.
pub(crate) fn remote_write(
    families: &[MetricFamily],
    stack: &Stack,
    writer: &str,
    now: Timestamp,
) -> Vec<u8> {
    let own = [
        ("namespace", stack.key.namespace.as_str()),
        ("stack", stack.key.name.as_str()),
        ("environment", stack.spec.environment.as_str()),
        ("job", JOB),
        ("instance", writer),
    ];
    let timestamp = now.as_millisecond();
    let mut timeseries = Vec::new();
    for family in families {
        for metric in family.get_metric() {
            let labels: Vec<(&str, &str)> =
                metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
            let is_other = |(name, value): &(&str, &str)| {
                own[..2].iter().any(|(key, ours)| key == name && ours != value)
            };
            if labels.iter().any(is_other) {
                continue;
            }
            let mut add = |suffix: &str, more: Option<(&str, String)>, value: f64| {
                let name = format!("{}{suffix}", family.name());
                let missing = own.iter().filter(|(key, _)| labels.iter().all(|(name, _)| name != key));
                let all = labels.iter().chain(missing).map(|(name, value)| (*name, (*value).to_owned()));
                let all = all.chain(more).chain([("__name__", name)]);
                let mut labels: Vec<Label> =
                    all.map(|(name, value)| Label { name: name.to_owned(), value }).collect();
                labels.sort();
                timeseries.push(TimeSeries { labels, samples: vec![Sample { value, timestamp }] });
            };
            match family.get_field_type() {
                MetricType::COUNTER => add("", None, metric.get_counter().get_value()),
                MetricType::GAUGE => add("", None, metric.get_gauge().get_value()),
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
                    let float = |count: u64| count as f64;
                    for bucket in histogram.get_bucket() {
                        let bound = bucket.upper_bound();
                        if bound.is_finite() {
                            add("_bucket", Some(("le", bound.to_string())), float(bucket.cumulative_count()));
                        }
                    }
                    let count = float(histogram.get_sample_count());
                    add("_bucket", Some(("le", "+Inf".to_owned())), count);
                    add("_sum", None, histogram.get_sample_sum());
                    add("_count", None, count);
                }
                MetricType::SUMMARY | MetricType::UNTYPED => {}
            }
        }
    }
    let request = WriteRequest { timeseries }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&request).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn stack(name: &str) -> Stack {
        let text =
            include_str!("../../../examples/staging.yaml").replace("name: staging", &format!("name: {name}"));
        Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "staging.yaml".into())
    }

    #[test]
    fn a_store_gets_the_series_of_its_stack_and_of_the_process_sorted_and_at_one_moment() {
        let metrics = Metrics::new().unwrap();
        let (ours, other) = (stack("staging"), stack("other"));
        metrics.begin(&ours);
        metrics.begin(&other);
        let now = Timestamp::from_millisecond(1_000).unwrap();
        let body = remote_write(&metrics.families(), &ours, "writer-1", now);
        let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let series = WriteRequest::decode(&*plain).unwrap().timeseries;
        let label = |series: &TimeSeries, name: &str| {
            series.labels.iter().find(|label| label.name == name).map(|label| label.value.clone())
        };
        assert!(series.len() > 20);
        for one in &series {
            assert!(one.labels.is_sorted_by(|a, b| a.name < b.name), "{one:?}");
            assert_eq!((one.samples.len(), one.samples[0].timestamp), (1, 1_000));
            let of = ["stack", "environment", "job", "instance"].map(|name| label(one, name).unwrap());
            assert_eq!(of, ["staging", "staging", "tasktracker-operator", "writer-1"], "{one:?}");
        }
        let names: Vec<String> = series.iter().filter_map(|one| label(one, "__name__")).collect();
        for wanted in
            ["tasktracker_stack_ready", "tasktracker_build_info", "tasktracker_drift_detected_total"]
        {
            assert!(names.iter().any(|name| name == wanted), "{wanted}");
        }
    }
}
