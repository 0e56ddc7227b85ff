//! A service on a temporary database whose clock stands still.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use http_body_util::BodyExt;
use serde_json::Value;
use std::time::Duration;
use tasktracker_backend::{
    clock::Clock,
    docs,
    metrics::Metrics,
    router::{self, Options},
    state::AppState,
    storage::{Place, Storage},
};
use tasktracker_service::server::Draining;
use tempfile::TempDir;
use tower::ServiceExt;

/// A service that is not connected to a network.
/// How long work waits for a connection to the database.
pub(crate) const WAIT: Duration = Duration::from_secs(10);

pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) state: AppState,
    /// Holds the database's file, where it is one; it goes when this goes.
    pub(crate) folder: Option<TempDir>,
}

/// An answer read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The problem in the body, once it is sure that it is one.
    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        problem
    }
}

/// What most tests want.
pub(crate) fn options() -> Options {
    Options { allowed_origins: Vec::new(), request_timeout: Duration::from_secs(10) }
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::with(options()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::File(folder.path().join("tasks.db"));
        Self { folder: Some(folder), ..Self::on(&place, options).await }
    }

    pub(crate) async fn on(place: &Place, options: Options) -> Self {
        let state = AppState {
            storage: Storage::open(place, WAIT).await.unwrap(),
            clock: Clock::fixed("2025-03-04T05:06:07.5Z".parse().unwrap()),
            metrics: Metrics::new(&docs::document()).unwrap(),
            draining: Draining::default(),
            revision: "abc123".into(),
        };
        Self { router: router::build(state.clone(), options).unwrap(), state, folder: None }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Request::delete(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn json(&self, method: Method, path: &str, body: impl ToString) -> Answer {
        let request =
            Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    pub(crate) async fn post(&self, body: impl ToString) -> Answer {
        self.json(Method::POST, "/tasks", body).await
    }

    /// Makes a task with the key of a request that may be repeated.
    pub(crate) async fn post_with(&self, key: &str, body: impl ToString) -> Answer {
        let request = Request::post("/tasks").header(header::CONTENT_TYPE, "application/json");
        let request = request.header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    pub(crate) async fn patch(&self, id: i64, body: impl ToString) -> Answer {
        self.json(Method::PATCH, &format!("/tasks/{id}"), body).await
    }
}
