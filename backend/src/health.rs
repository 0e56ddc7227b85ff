//! What tells an operator whether the service lives and can work.

use std::time::Duration;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    problem::{self, Error, Problem},
    state::AppState,
};

/// How long the database may take to answer before the service counts as not ready.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// How the service is and what it was built from.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `draining` on the way out.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// The version of the binary.
    #[schema(example = "0.1.0")]
    pub version: &'static str,
    /// The revision the image was built from.
    #[schema(example = "unknown")]
    pub revision: String,
}

/// One word on the service's state.
#[derive(Debug, Serialize, ToSchema)]
pub struct Probe {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// The health routes, with their documentation.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(health)).routes(routes!(live)).routes(routes!(ready))
}

/// Says how the service is and what it was built from.
#[utoipa::path(
    get,
    path = "/health",
    tag = "operations",
    operation_id = "readHealth",
    responses((status = 200, description = "The process answers", body = Health))
)]
async fn health(State(state): State<AppState>) -> Json<Health> {
    let status = if state.draining.has_begun() { "draining" } else { "ok" };
    Json(Health { status, version: env!("CARGO_PKG_VERSION"), revision: state.revision.as_ref().to_owned() })
}

/// Says that the process lives; asks nothing else.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "operations",
    operation_id = "readLiveness",
    responses((status = 200, description = "The process answers", body = Probe))
)]
async fn live() -> Json<Probe> {
    Json(Probe { status: "ok" })
}

/// Says whether requests may be sent here: the database answers and the service is not on its way out.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "operations",
    operation_id = "readReadiness",
    responses(
        (status = 200, description = "Requests may be sent here", body = Probe),
        (status = 503, description = "Requests should go elsewhere", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn ready(State(state): State<AppState>) -> Result<Json<Probe>, Error> {
    if state.draining.has_begun() {
        return Err(Error::Unavailable("the service is draining".to_owned()));
    }
    let unready = match tokio::time::timeout(READY_TIMEOUT, state.storage.ping()).await {
        Ok(Ok(())) => return Ok(Json(Probe { status: "ok" })),
        Ok(Err(error)) => problem::chain(&error),
        Err(_) => format!("no answer within {} s", READY_TIMEOUT.as_secs()),
    };
    state.metrics.database_failed();
    tracing::warn!(error = %unready, "not ready: the database does not answer");
    Err(Error::Unavailable("the database does not answer".to_owned()))
}
