//! The endpoints.
//!
//! | endpoint | answer |
//! | --- | --- |
//! | `GET /` | `{"revision": …}` |
//! | `GET /ready` | 200 once the configuration is loaded, 503 before, while draining and where it is to fail |
//! | `GET /health` | `{"status": "green"}` or `red`, as the last `PUT /health` said |
//! | `PUT /health` | the body is `green` or `red`; it is kept in the data volume |
//! | `GET /config` | `{"text": …}` as it was last loaded |
//! | `POST /-/reload` | loads the configuration anew: 200, or 500 and why it was not |
//! | `GET`, `PUT /objects/{name}` | a JSON object in the data volume; Basic auth where there is a password |
//! | `GET /secret` | owner, mode and hash of the password's file |

use std::{io, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tasktracker_service::server::Draining;
use tokio::fs;

use crate::{
    config::Config,
    objects::{Name, Objects, Written},
    secret::Secret,
    settings::{Failure, Settings},
};

/// What the endpoints share.
#[derive(Debug)]
pub struct Service {
    /// The configuration in force.
    pub config: Config,
    objects: Objects,
    secret: Secret,
    health_path: PathBuf,
    revision: String,
    fail: Option<Failure>,
    draining: Draining,
}

impl Service {
    /// A service whose configuration is not loaded yet.
    pub fn new(settings: &Settings, draining: Draining) -> Self {
        Self {
            config: Config::new(settings.config_path.clone()),
            objects: Objects::new(&settings.data_path),
            secret: Secret::new(settings.password_path.clone()),
            health_path: settings.data_path.join("health"),
            revision: settings.revision.clone(),
            fail: settings.fail,
            draining,
        }
    }

    fn is_ready(&self) -> bool {
        self.fail != Some(Failure::NeverReady) && self.config.text().is_some() && !self.draining.has_begun()
    }
}

type Shared = State<Arc<Service>>;

/// Every endpoint; anything else is answered with 404.
pub fn build(service: Arc<Service>) -> Router {
    let objects = Router::new()
        .route("/objects/{name}", get(read_object).put(write_object))
        .layer(middleware::from_fn_with_state(service.clone(), authorize));
    Router::new()
        .route("/", get(revision))
        .route("/ready", get(readiness))
        .route("/health", get(health).put(set_health))
        .route("/config", get(config))
        .route("/-/reload", post(reload))
        .route("/secret", get(secret))
        .merge(objects)
        .with_state(service)
}

/// An input or output error of the service's own files.
struct Broken(io::Error);

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Broken {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "a file cannot be read or written");
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}

async fn revision(State(service): Shared) -> Json<Value> {
    Json(json!({"revision": service.revision}))
}

async fn readiness(State(service): Shared) -> StatusCode {
    if service.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn health(State(service): Shared) -> Result<Json<Value>, Broken> {
    let status = match fs::read_to_string(&service.health_path).await {
        Ok(status) => status,
        Err(error) if error.kind() == io::ErrorKind::NotFound => "green".to_owned(),
        Err(error) => return Err(error.into()),
    };
    Ok(Json(json!({"status": status})))
}

async fn set_health(State(service): Shared, status: String) -> Result<StatusCode, Broken> {
    if !["green", "red"].contains(&status.as_str()) {
        return Ok(StatusCode::BAD_REQUEST);
    }
    fs::write(&service.health_path, status).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn config(State(service): Shared) -> Json<Value> {
    Json(json!({"text": service.config.text()}))
}

async fn reload(State(service): Shared) -> Result<StatusCode, (StatusCode, String)> {
    match service.config.reload() {
        Ok(()) => Ok(StatusCode::OK),
        Err(error) => {
            tracing::error!(%error, "the configuration is not reloaded");
            Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        }
    }
}

async fn secret(State(service): Shared) -> Result<Response, Broken> {
    let facts = service.secret.facts()?;
    Ok(facts.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |facts| Json(facts).into_response()))
}

async fn authorize(State(service): Shared, request: Request, next: Next) -> Result<Response, Broken> {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if service.secret.permits(given)? {
        return Ok(next.run(request).await);
    }
    Ok((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"echo\"")]).into_response())
}

async fn read_object(State(service): Shared, Path(name): Path<String>) -> Result<Response, Broken> {
    let Ok(name) = Name::try_from(name) else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let object = service.objects.get(&name).await?;
    Ok(object.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |object| Json(object).into_response()))
}

async fn write_object(
    State(service): Shared,
    Path(name): Path<String>,
    body: String,
) -> Result<StatusCode, Broken> {
    let Ok(name) = Name::try_from(name) else { return Ok(StatusCode::NOT_FOUND) };
    match serde_json::from_str(&body) {
        Ok(object @ Value::Object(_)) => Ok(match service.objects.put(&name, &object).await? {
            Written::Created => StatusCode::CREATED,
            Written::Replaced => StatusCode::OK,
        }),
        _ => Ok(StatusCode::BAD_REQUEST),
    }
}
