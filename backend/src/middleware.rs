//! What happens around every request: one log line and its metrics, a time limit, a net for panics, and the
//! headers that keep browsers safe.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use tasktracker_service::{log, server::Draining};

use crate::{
    metrics::{InFlight, Metrics},
    problem::{Error, Failure},
    state::AppState,
};

/// What the log and the metrics say of requests no route matches.
const UNMATCHED: &str = "unmatched";

/// Set on every response that does not say otherwise.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
];

/// Logs the request and counts it, also when the caller goes away before the answer.
pub async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let mut observation = Observation::start(&state.metrics, &request);
    let response = next.run(request).await;
    observation.status = response.status();
    observation.failure = response.extensions().get::<Failure>().cloned();
    response
}

/// Answers with a problem when the handler takes longer than `limit`.
pub async fn limit_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(limit, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        Error::Unavailable(format!("the request took longer than {} s", limit.as_secs_f64())).into_response()
    })
}

/// Answers with a problem when the handler panics.
pub async fn catch_panic(request: Request, next: Next) -> Response {
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answered.unwrap_or_else(|panic| Error::Panicked(message(panic.as_ref())).into_response())
}

/// Sets the headers that keep browsers safe, and while draining asks callers to connect elsewhere.
pub async fn set_headers(State(draining): State<Draining>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(value);
    }
    if draining.has_begun() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// One request, told of when it is over.
struct Observation {
    metrics: Metrics,
    method: &'static str,
    route: String,
    /// As the proxy named it.
    id: Option<String>,
    started: Instant,
    status: StatusCode,
    failure: Option<Failure>,
    _in_flight: InFlight,
}

impl Observation {
    fn start(metrics: &Metrics, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str);
        Self {
            metrics: metrics.clone(),
            method: known_method(request.method()),
            route: route.to_owned(),
            id: log::request_id(request.headers()).map(str::to_owned),
            started: Instant::now(),
            status: gone(),
            failure: None,
            _in_flight: metrics.enter(),
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let Self { metrics, method, route, id, started, status, failure, _in_flight } = self;
        let latency = started.elapsed();
        metrics.record(method, route, *status, latency);
        metrics.record_outcome(method, route, *status, failure.as_ref());
        let latency_ms = (latency.as_secs_f64() * 1e6).round() / 1e3;
        let status = status.as_u16();
        if route == "/metrics" || route.starts_with("/health") {
            tracing::debug!(%method, %route, request_id = id, status, latency_ms, "request");
        } else {
            tracing::info!(%method, %route, request_id = id, status, latency_ms, "request");
        }
    }
}

/// The status of a request whose caller went away: no standard one exists, 499 is what proxies log.
fn gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
}

/// Callers may invent methods; the metrics' labels stay bounded.
fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware::from_fn, routing::get};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_problem_that_hides_it() {
        let fails = get(async || -> StatusCode { panic!("index 7 of 3 in the cellar") });
        let router = Router::new().route("/", fails).layer(from_fn(catch_panic));
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("cellar"));
    }
}
