//! The API's description as OpenAPI, and a small page that shows it.
//!
//! The page and what it loads come from this binary and are addressed relatively, so that they also work
//! behind a proxy that serves the API below a prefix.

use axum::{
    Router,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};
use utoipa::{
    OpenApi as _,
    openapi::{OpenApi, Server},
};

use crate::{router, state::AppState};

const PAGE: &str = include_str!("../static/docs.html");
const STYLE: &str = include_str!("../static/docs.css");
const SCRIPT: &str = include_str!("../static/docs.js");

/// What the documentation page may load and talk to: this service.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "TaskTracker",
        description = "Tasks: list, make, change, delete. Errors are sent as application/problem+json (RFC 9457)."
    ),
    tags(
        (name = "tasks", description = "The tasks"),
        (name = "operations", description = "For those who run the service"),
    )
)]
struct Description;

/// What stands in the description besides the operations.
pub(crate) fn base() -> OpenApi {
    let mut base = Description::openapi();
    // Relative to the description's own address.
    base.servers = Some(vec![Server::new("./")]);
    base
}

/// The description of the whole API.
pub fn document() -> OpenApi {
    router::api().into_openapi()
}

/// The description as JSON, ending in a line break: what `backend openapi` prints.
pub fn json() -> Result<String, serde_json::Error> {
    document().to_pretty_json().map(|json| json + "\n")
}

/// The routes that show the description, given as JSON.
pub fn routes(json: String) -> Router<AppState> {
    Router::new()
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json")], json)))
        .route("/docs", get(page))
        .route("/docs.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route("/docs.js", get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], asset("text/html; charset=utf-8", PAGE))
}

fn asset(media_type: &'static str, text: &'static str) -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, media_type)], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_in_the_repository_is_current() {
        let copy = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")).unwrap();
        assert!(copy == json().unwrap(), "stale: `backend openapi > backend/openapi.json` writes it anew");
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for text in [PAGE, STYLE, SCRIPT] {
            assert!(!text.contains("://"), "an absolute address");
            assert!(!text.contains("=\"/"), "an address that does not survive a prefix");
        }
        assert!(!SCRIPT.contains("innerHTML"));
    }
}
