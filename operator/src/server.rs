//! `/metrics`, `/livez`, `/readyz`, and `/healthz`, which is `/livez` by its older name.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::BoxFuture;
use tokio::{net::TcpListener, time::Instant};

use crate::metrics::Metrics;

/// What the server tells about.
#[derive(Clone)]
pub struct ServerState {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the stacks were read once.
    pub ready: Arc<AtomicBool>,
    /// What must go on.
    pub health: Arc<Health>,
    /// Who may read metrics; everybody where nothing is said.
    pub access: Option<Arc<dyn Access>>,
}

/// Who may read a path.
pub trait Access: Send + Sync {
    /// Whether whoever has a token may read a path.
    fn may_read<'a>(&'a self, token: &'a str, path: &'a str) -> BoxFuture<'a, Answer>;
}

/// What is known of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// They may.
    Allowed,
    /// They are known, and may not.
    Denied,
    /// They are not known.
    Unknown,
    /// It cannot be found out.
    Unavailable,
}

/// What must go on for the operator to be of use, and when it last did. That a host or an API server is away is no part of
/// it: starting anew would not bring them back.
#[derive(Debug)]
pub struct Health {
    limit: Duration,
    beats: Mutex<BTreeMap<&'static str, Instant>>,
}

impl Health {
    /// Whatever stands still for longer than `limit` is stuck.
    pub fn new(limit: Duration) -> Self {
        Self { limit, beats: Mutex::default() }
    }

    fn beats(&self) -> MutexGuard<'_, BTreeMap<&'static str, Instant>> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches something that goes on for as long as this is kept.
    pub fn watch(&self, name: &'static str) -> Beat<'_> {
        self.beats().insert(name, Instant::now());
        Beat { health: self, name }
    }

    /// What stands still, and for how long.
    pub fn stuck(&self) -> Option<(&'static str, Duration)> {
        let beats = self.beats();
        let ages = beats.iter().map(|(name, last)| (*name, last.elapsed()));
        ages.filter(|(_, age)| *age > self.limit).max_by_key(|(_, age)| *age)
    }
}

/// Something that goes on.
#[derive(Debug)]
pub struct Beat<'a> {
    health: &'a Health,
    name: &'static str,
}

impl Beat<'_> {
    /// It goes on.
    pub fn now(&self) {
        self.health.beats().insert(self.name, Instant::now());
    }
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        self.health.beats().remove(self.name);
    }
}

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(address: SocketAddr, state: ServerState) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .with_state(state);
    axum::serve(listener, router).await
}

async fn metrics(State(state): State<ServerState>, headers: HeaderMap) -> Response {
    if let Some(access) = &state.access {
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let answer = match token {
            Some(token) => access.may_read(token, "/metrics").await,
            None => Answer::Unknown,
        };
        let (status, found) = match answer {
            Answer::Allowed => (StatusCode::OK, ""),
            Answer::Denied => (StatusCode::FORBIDDEN, "may not get the path /metrics"),
            Answer::Unknown => {
                (StatusCode::UNAUTHORIZED, "expected a bearer token that the API server knows")
            }
            Answer::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "the API server cannot be asked who this is")
            }
        };
        if status != StatusCode::OK {
            return (status, [(WWW_AUTHENTICATE, "Bearer")], found).into_response();
        }
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.text()).into_response()
}

async fn livez(State(state): State<ServerState>) -> (StatusCode, String) {
    match state.health.stuck() {
        None => (StatusCode::OK, "ok".to_owned()),
        Some((name, age)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{name} stands still for {} s", age.as_secs()))
        }
    }
}

async fn readyz(State(state): State<ServerState>) -> impl IntoResponse {
    if state.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no stacks were read yet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_stands_still_is_stuck_and_what_ended_is_not() {
        let health = Health::new(Duration::ZERO);
        assert_eq!(health.stuck(), None);
        let beat = health.watch("lease");
        assert_eq!(health.stuck().map(|(name, _)| name), Some("lease"));
        drop(beat);
        assert_eq!(health.stuck(), None);
        let health = Health::new(Duration::from_hours(1));
        let beat = health.watch("lease");
        beat.now();
        assert_eq!(health.stuck(), None);
    }
}
