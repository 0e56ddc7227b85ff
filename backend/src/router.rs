//! All routes and what is around them.

use std::time::Duration;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, Uri, header},
    middleware::{from_fn, from_fn_with_state},
};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    docs, extract::BODY_LIMIT_BYTES, health, metrics, middleware, problem::Error, state::AppState, tasks,
};

/// How long a browser may remember the answer to a preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// What of the settings shapes the routes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The origins whose pages may call the API; none when empty.
    pub allowed_origins: Vec<HeaderValue>,
    /// How long a request may take.
    pub request_timeout: Duration,
}

/// The documented routes: one list for the router and for the description.
pub fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(docs::base())
        .merge(tasks::routes())
        .merge(health::routes())
        .merge(metrics::routes())
}

/// The whole service.
pub fn build(state: AppState, options: Options) -> Result<Router, serde_json::Error> {
    let (routes, _) = api().split_for_parts();
    let routes = routes.merge(docs::routes(docs::json()?));
    Ok(wrap(routes, &state, options).with_state(state))
}

/// Puts the layers around the routes; what is added last sees a request first.
fn wrap(routes: Router<AppState>, state: &AppState, options: Options) -> Router<AppState> {
    let Options { allowed_origins, request_timeout } = options;
    let routes = routes
        .fallback(async |uri: Uri| Error::NotFound(format!("resource at {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method| Error::MethodNotAllowed(method.to_string()))
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(from_fn_with_state(request_timeout, middleware::limit_time))
        .layer(from_fn(middleware::catch_panic));
    share(routes, allowed_origins)
        .layer(from_fn_with_state(state.draining.clone(), middleware::set_headers))
        .layer(from_fn_with_state(state.clone(), middleware::observe))
}

/// Lets pages of these origins call the API.
fn share(routes: Router<AppState>, allowed_origins: Vec<HeaderValue>) -> Router<AppState> {
    if allowed_origins.is_empty() {
        return routes;
    }
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(allowed_origins))
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([header::CONTENT_TYPE, HeaderName::from_static(tasks::IDEMPOTENCY_KEY)])
        .expose_headers([header::LOCATION])
        .max_age(PREFLIGHT_AGE);
    routes.layer(cors)
}
