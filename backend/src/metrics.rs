//! What is counted, and the page Prometheus reads.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, process_collector::ProcessCollector,
};
use tokio::time::timeout;
use utoipa::openapi::{OpenApi, PathItem};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    problem::{self, FIELDS, Failure, REASONS},
    state::AppState,
    storage::{Connections, TaskCounts},
};

/// Bounds of the latency histogram, in seconds.
const LATENCY_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How long counting the tasks may take: whoever scrapes does not wait for a database that is away.
const COUNT_TIMEOUT: Duration = Duration::from_secs(1);
/// The route at which tasks are made.
const CREATION: &str = "/tasks";
/// The result of a creation that made a task, or found the one that it made before.
const CREATED: &str = "created";

/// The service's metrics in a registry of their own. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Collectors>);

#[derive(Debug)]
struct Collectors {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGauge,
    tasks: IntGaugeVec,
    creations: IntCounterVec,
    refused_fields: IntCounterVec,
    database_failures: IntCounter,
    connections: IntGaugeVec,
    connections_limit: IntGauge,
}

impl Metrics {
    /// Registers the metrics. What `document` describes stands at 0 from the start, so that a rate over the
    /// first request is no gap.
    pub fn new(document: &OpenApi) -> prometheus::Result<Self> {
        let collectors = Collectors::register(Registry::new())?;
        for (route, item) in &document.paths.paths {
            for (method, statuses) in operations(item) {
                collectors.seconds.with_label_values(&[method, route.as_str()]);
                for status in statuses {
                    collectors.requests.with_label_values(&[method, route.as_str(), status]);
                }
            }
        }
        for result in [CREATED].iter().chain(&REASONS) {
            collectors.creations.with_label_values(&[*result]);
        }
        for field in FIELDS {
            collectors.refused_fields.with_label_values(&[field]);
        }
        Ok(Self(Arc::new(collectors)))
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn enter(&self) -> InFlight {
        self.0.in_flight.inc();
        InFlight(self.0.in_flight.clone())
    }

    /// Counts a request that was answered with `status` after `latency`.
    pub fn record(&self, method: &str, route: &str, status: StatusCode, latency: Duration) {
        self.0.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.0.seconds.with_label_values(&[method, route]).observe(latency.as_secs_f64());
    }

    /// Counts what came of a request beyond its status: creations of tasks, refused fields, failures of the database.
    pub fn record_outcome(&self, method: &str, route: &str, status: StatusCode, failure: Option<&Failure>) {
        let collectors = &self.0;
        if (method, route) == ("POST", CREATION) {
            let result = failure.map(|failure| failure.reason);
            let result = result.or((status == StatusCode::CREATED).then_some(CREATED));
            if let Some(result) = result {
                collectors.creations.with_label_values(&[result]).inc();
            }
        }
        for field in failure.iter().flat_map(|failure| &failure.fields) {
            collectors.refused_fields.with_label_values(&[*field]).inc();
        }
        if failure.is_some_and(|failure| failure.reason == "database") {
            self.database_failed();
        }
    }

    /// Counts a time that the database did not do what it was asked.
    pub fn database_failed(&self) {
        self.0.database_failures.inc();
    }

    /// The metrics as Prometheus reads them.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }

    fn set_tasks(&self, counts: TaskCounts) {
        let TaskCounts { completed, open } = counts;
        self.0.tasks.with_label_values(&["completed"]).set(completed);
        self.0.tasks.with_label_values(&["open"]).set(open);
    }

    fn set_connections(&self, Connections { idle, used, most }: Connections) {
        self.0.connections.with_label_values(&["idle"]).set(idle.into());
        self.0.connections.with_label_values(&["used"]).set(used.into());
        self.0.connections_limit.set(most.into());
    }
}

impl Collectors {
    fn register(registry: Registry) -> prometheus::Result<Self> {
        let requests = Opts::new("http_requests_total", "Requests answered.");
        let seconds = HistogramOpts::new("http_request_duration_seconds", "Time from request to answer.");
        let tasks = Opts::new("tasktracker_tasks", "Tasks stored, by state.");
        let creations =
            Opts::new("tasktracker_task_creations_total", "Creations of tasks, by what came of them.");
        let refused = Opts::new("tasktracker_refused_fields_total", "Values not accepted, by their field.");
        let failures = Opts::new(
            "tasktracker_database_failures_total",
            "Times the database did not do what it was asked.",
        );
        let connections =
            Opts::new("tasktracker_database_connections", "Connections to the database, by state.");
        let collectors = Self {
            requests: IntCounterVec::new(requests, &["method", "route", "status"])?,
            seconds: HistogramVec::new(seconds.buckets(LATENCY_BUCKETS.to_vec()), &["method", "route"])?,
            in_flight: IntGauge::new("http_requests_in_flight", "Requests being answered now.")?,
            tasks: IntGaugeVec::new(tasks, &["state"])?,
            creations: IntCounterVec::new(creations, &["result"])?,
            refused_fields: IntCounterVec::new(refused, &["field"])?,
            database_failures: IntCounter::with_opts(failures)?,
            connections: IntGaugeVec::new(connections, &["state"])?,
            connections_limit: IntGauge::new(
                "tasktracker_database_connections_limit",
                "The most connections to the database.",
            )?,
            registry,
        };
        let registry = &collectors.registry;
        registry.register(Box::new(collectors.requests.clone()))?;
        registry.register(Box::new(collectors.seconds.clone()))?;
        registry.register(Box::new(collectors.in_flight.clone()))?;
        registry.register(Box::new(collectors.tasks.clone()))?;
        registry.register(Box::new(collectors.creations.clone()))?;
        registry.register(Box::new(collectors.refused_fields.clone()))?;
        registry.register(Box::new(collectors.database_failures.clone()))?;
        registry.register(Box::new(collectors.connections.clone()))?;
        registry.register(Box::new(collectors.connections_limit.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(collectors)
    }
}

/// A request in flight; the gauge goes down when this is dropped.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The route Prometheus reads.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(metrics))
}

/// Shows the metrics in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    operation_id = "readMetrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain"))
)]
async fn metrics(State(state): State<AppState>) -> Result<impl IntoResponse, problem::Error> {
    let uncounted = match timeout(COUNT_TIMEOUT, state.storage.counts()).await {
        Ok(Ok(counts)) => {
            state.metrics.set_tasks(counts);
            None
        }
        Ok(Err(error)) => Some(problem::chain(&error)),
        Err(_) => Some(format!("no answer within {} s", COUNT_TIMEOUT.as_secs())),
    };
    if let Some(error) = uncounted {
        state.metrics.database_failed();
        tracing::warn!(%error, "the tasks could not be counted");
    }
    state.metrics.set_connections(state.storage.connections());
    let page = state.metrics.render();
    let page = page.map_err(|error| problem::Error::Unavailable(format!("no metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], page))
}

/// The documented methods of a path, with the statuses they answer with.
fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, Vec<&str>)> {
    let methods =
        [("GET", &item.get), ("POST", &item.post), ("PATCH", &item.patch), ("DELETE", &item.delete)];
    methods.into_iter().filter_map(|(method, operation)| {
        let responses = &operation.as_ref()?.responses.responses;
        Some((method, responses.keys().map(String::as_str).collect()))
    })
}
