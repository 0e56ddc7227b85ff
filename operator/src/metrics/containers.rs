//! What containers use: series by host, component, service and replica, as the host told them last.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{STACK, StackLabels, kinds::label};
use crate::{
    host::{Container, Health, State, Usage},
    model::ComponentName,
    project::compose::{COMPOSE_NUMBER, COMPOSE_SERVICE},
    source::StackKey,
};

/// Labels of each series, beside those of the stack.
const LABELS: [&str; 4] = ["host", "component", "service", "replica"];

/// One reading of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSample {
    /// Its ID.
    pub id: String,
    /// Its service.
    pub service: String,
    /// Its number among those of its service.
    pub replica: String,
    /// What it uses; nothing while it does not run, or where nobody may look.
    pub usage: Option<Usage>,
    /// How often Docker started it again by itself.
    pub restarts: u64,
    /// How often the kernel ended a process of that service and number for its memory, since the operator began.
    pub oom_kills: u64,
    /// Whether it runs, and its health check, where it has one, finds it well.
    pub is_healthy: bool,
}

impl ContainerSample {
    /// Of a container that was just observed; what it uses is asked apart, and ends for want of memory are counted elsewhere.
    pub fn new(container: &Container) -> Self {
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        Self {
            id: container.id.clone(),
            service: label(COMPOSE_SERVICE),
            replica: label(COMPOSE_NUMBER),
            usage: None,
            restarts: container.details.as_ref().map_or(0, |details| details.restarts),
            oom_kills: 0,
            is_healthy: container.state == State::Running
                && matches!(container.health, Health::None | Health::Healthy),
        }
    }
}

/// One metric: its name, its type, what it says, and its value of a container.
type Series = (&'static str, MetricType, &'static str, fn(&ContainerSample) -> Option<f64>);

const GAUGE: MetricType = MetricType::GAUGE;
const COUNTER: MetricType = MetricType::COUNTER;

#[expect(clippy::cast_precision_loss, reason = "samples are of this type")]
fn number(count: u64) -> f64 {
    count as f64
}

fn of_usage(sample: &ContainerSample, value: fn(&Usage) -> f64) -> Option<f64> {
    sample.usage.as_ref().map(value)
}

/// Every metric; each name begins with `tasktracker_container_`.
const SERIES: [Series; 13] = [
    ("memory_bytes", GAUGE, "Memory in use, without files that can be dropped at once.", |sample| {
        of_usage(sample, |usage| number(usage.memory))
    }),
    (
        "memory_limit_bytes",
        GAUGE,
        "The most memory that it gets; there only where it is limited.",
        |sample| sample.usage.as_ref()?.memory_limit.map(number),
    ),
    ("cpu_seconds_total", COUNTER, "Processor time.", |sample| of_usage(sample, |usage| usage.cpu)),
    ("cpu_periods_total", COUNTER, "Periods in which a limit of processor time counted.", |sample| {
        of_usage(sample, |usage| number(usage.periods))
    }),
    ("cpu_throttled_periods_total", COUNTER, "Those in which it was made to wait.", |sample| {
        of_usage(sample, |usage| number(usage.throttled_periods))
    }),
    ("cpu_throttled_seconds_total", COUNTER, "How long it was made to wait.", |sample| {
        of_usage(sample, |usage| usage.throttled)
    }),
    ("processes", GAUGE, "Processes and threads.", |sample| {
        of_usage(sample, |usage| number(usage.processes))
    }),
    ("processes_limit", GAUGE, "The most of them; there only where they are limited.", |sample| {
        sample.usage.as_ref()?.processes_limit.map(number)
    }),
    ("block_read_bytes_total", COUNTER, "Bytes read from block devices.", |sample| {
        of_usage(sample, |usage| number(usage.read))
    }),
    ("block_written_bytes_total", COUNTER, "Bytes written to block devices.", |sample| {
        of_usage(sample, |usage| number(usage.written))
    }),
    ("restarts_total", COUNTER, "Times that Docker started it again by itself.", |sample| {
        Some(number(sample.restarts))
    }),
    ("oom_kills_total", COUNTER, "Times that the kernel ended a process of it for its memory.", |sample| {
        Some(number(sample.oom_kills))
    }),
    ("healthy", GAUGE, "Whether it runs, and its health check finds it well.", |sample| {
        Some(f64::from(u8::from(sample.is_healthy)))
    }),
];

/// A project: the label values of its stack, its host and its component.
type Place = ([String; 3], String, ComponentName);

/// Every series of containers.
#[derive(Clone)]
pub(super) struct Containers {
    descriptions: Vec<Desc>,
    samples: Arc<Mutex<BTreeMap<Place, Vec<ContainerSample>>>>,
}

impl Containers {
    /// No series yet.
    pub(super) fn new() -> prometheus::Result<Self> {
        let names: Vec<String> = STACK.iter().chain(&LABELS).map(|name| (*name).to_owned()).collect();
        let describe = |(name, _, help, _): &Series| {
            let name = format!("tasktracker_container_{name}");
            Desc::new(name, (*help).to_owned(), names.clone(), std::collections::HashMap::new())
        };
        let descriptions = SERIES.iter().map(describe).collect::<prometheus::Result<_>>()?;
        Ok(Self { descriptions, samples: Arc::default() })
    }

    fn samples(&self) -> MutexGuard<'_, BTreeMap<Place, Vec<ContainerSample>>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a project's containers from now on.
    pub(super) fn set(
        &self,
        labels: &StackLabels,
        (host, component): (&str, ComponentName),
        samples: Vec<ContainerSample>,
    ) {
        self.samples().insert((labels.0.clone(), host.to_owned(), component), samples);
    }

    /// Whether the last samples of a project are of these containers and differ in nothing but what they use.
    pub(super) fn has_samples_of(
        &self,
        labels: &StackLabels,
        (host, component): (&str, ComponentName),
        samples: &[ContainerSample],
    ) -> bool {
        let known = self.samples();
        let known = known.get(&(labels.0.clone(), host.to_owned(), component));
        let without_usage = |sample: &ContainerSample| ContainerSample { usage: None, ..sample.clone() };
        known.is_some_and(|known| known.iter().map(without_usage).eq(samples.iter().map(without_usage)))
    }

    /// Removes the series of a project on a host of which nothing is known now.
    pub(super) fn forget_host(&self, labels: &StackLabels, host: &str, component: ComponentName) {
        self.samples().remove(&(labels.0.clone(), host.to_owned(), component));
    }

    /// Removes the series of a stack, or those of one project of it.
    pub(super) fn forget(&self, key: &StackKey, project: Option<(&str, ComponentName)>) {
        let is_it = |([namespace, stack, _], host, component): &Place| {
            *namespace == key.namespace
                && *stack == key.name
                && project.is_none_or(|project| project == (host.as_str(), *component))
        };
        self.samples().retain(|place, _| !is_it(place));
    }
}

impl Collector for Containers {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let samples = self.samples();
        let family = |((_, kind, _, value), description): (&Series, &Desc)| {
            let mut family = MetricFamily::default();
            family.set_name(description.fq_name.clone());
            family.set_help(description.help.clone());
            family.set_field_type(*kind);
            let of_all = samples.iter().flat_map(|(place, of_project)| {
                of_project.iter().filter_map(move |sample| Some(metric(place, sample, *kind, value(sample)?)))
            });
            family.set_metric(of_all.collect());
            family
        };
        SERIES.iter().zip(&self.descriptions).map(family).collect()
    }
}

fn metric(place: &Place, sample: &ContainerSample, kind: MetricType, value: f64) -> Metric {
    let (stack, host, component) = place;
    let values = stack.iter().map(String::as_str);
    let values = values.chain([host, component.as_str(), &sample.service, &sample.replica]);
    let names = STACK.iter().chain(&LABELS);
    let mut labels: Vec<LabelPair> = names.zip(values).map(|(name, value)| label(name, value)).collect();
    labels.sort_by(|one, other| one.name().cmp(other.name()));
    let mut metric = Metric::from_label(labels);
    if kind == COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    fn sample(id: &str, replica: &str, usage: Option<Usage>) -> ContainerSample {
        let labels = [(COMPOSE_SERVICE, "backend"), (COMPOSE_NUMBER, replica)];
        let container = Container {
            id: id.to_owned(),
            state: State::Running,
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..Container::default()
        };
        ContainerSample { usage, oom_kills: 2, ..ContainerSample::new(&container) }
    }

    #[test]
    fn series_are_of_the_containers_that_are_there_and_go_with_them() {
        let containers = Containers::new().unwrap();
        let registry = Registry::new();
        registry.register(Box::new(containers.clone())).unwrap();
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let labels = |stack: &str| StackLabels(["default", stack, "test"].map(str::to_owned));
        let place = ("app-1", ComponentName::App);
        let usage = Usage { memory: 5, memory_limit: Some(10), cpu: 1.5, ..Usage::default() };
        containers.set(&labels("one"), place, vec![sample("a", "1", Some(usage)), sample("b", "2", None)]);
        containers.set(&labels("other"), place, vec![sample("c", "1", None)]);
        let line = |name: &str, stack: &str, replica: &str, value: &str| {
            format!(
                "tasktracker_container_{name}{{component=\"app\",environment=\"test\",host=\"app-1\",namespace=\"default\",replica=\"{replica}\",service=\"backend\",stack=\"{stack}\"}} {value}\n"
            )
        };
        let shown = text();
        for expected in [
            line("memory_bytes", "one", "1", "5"),
            line("memory_limit_bytes", "one", "1", "10"),
            line("cpu_seconds_total", "one", "1", "1.5"),
            line("oom_kills_total", "one", "2", "2"),
            line("healthy", "other", "1", "1"),
        ] {
            assert!(shown.contains(&expected), "{expected}{shown}");
        }
        // What it uses is not known of the second, and nobody made up a limit of processes.
        assert!(!shown.contains(line("memory_bytes", "one", "2", "").trim_end()), "{shown}");
        assert!(!shown.contains("processes_limit{"), "{shown}");
        let both = [sample("a", "1", None), sample("b", "2", None)];
        assert!(containers.has_samples_of(&labels("one"), place, &both));
        assert!(!containers.has_samples_of(&labels("one"), place, &both[..1]));
        assert!(!containers.has_samples_of(&labels("one"), ("app-2", ComponentName::App), &both));
        let killed = ContainerSample { oom_kills: 3, ..both[1].clone() };
        assert!(!containers.has_samples_of(&labels("one"), place, &[both[0].clone(), killed]));
        let key = |name: &str| StackKey { namespace: "default".to_owned(), name: name.to_owned() };
        containers.forget(&key("one"), Some(("app-2", ComponentName::App)));
        assert_eq!(text(), shown);
        containers.forget(&key("one"), Some(place));
        assert!(!text().contains("stack=\"one\"") && text().contains("stack=\"other\""));
        containers.forget(&key("other"), None);
        assert!(!text().contains("stack="));
    }
}
