//! The routes of the page's server, and the headers that keep browsers safe.

use std::time::Instant;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tasktracker_service::{log::request_id, server::Draining};

use crate::{
    assets::{self, NOT_FOUND_PAGE},
    backend_url::BackendUrl,
};

/// Headers of every response.
type Headers = Vec<(HeaderName, HeaderValue)>;

/// The whole service.
pub fn build(backend_url: &BackendUrl, draining: Draining) -> Router {
    let mut router = Router::new().route("/health", get(async || Json(json!({"status": "ok"}))));
    for (path, asset) in assets::all(backend_url) {
        router = router.route(path, get(async move |headers: HeaderMap| asset.respond(&headers)));
    }
    router
        .fallback(not_found)
        .layer(from_fn_with_state(headers(backend_url), set_headers))
        .layer(from_fn_with_state(draining, part))
        .layer(from_fn(log))
}

async fn not_found() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::NOT_FOUND, headers, NOT_FOUND_PAGE)
}

/// The page loads only its own files, and calls only its own origin and the API's.
fn headers(backend_url: &BackendUrl) -> Headers {
    let api = backend_url.origin().map(|origin| format!(" {origin}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{api}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // The address was checked, so that it cannot be refused here; if it were, nothing could be loaded.
    let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    vec![
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
        ),
    ]
}

async fn set_headers(State(headers): State<Headers>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().extend(headers);
    response
}

/// While draining, asks callers to connect elsewhere.
async fn part(State(draining): State<Draining>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if draining.has_begun() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Logs the request.
async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let request_id = request_id(request.headers()).map(str::to_owned);
    let response = next.run(request).await;
    let (status, latency_ms) = (response.status().as_u16(), started.elapsed().as_secs_f64() * 1e3);
    if path == "/health" {
        tracing::debug!(%method, path, request_id, status, latency_ms, "request");
    } else {
        tracing::info!(%method, path, request_id, status, latency_ms, "request");
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn send(backend_url: &str, request: Request) -> (StatusCode, HeaderMap, String) {
        let router = build(&backend_url.parse().unwrap(), Draining::default());
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn request(path: &str) -> Request {
        Request::get(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn files_have_their_media_types() {
        let table = [
            ("/", "text/html; charset=utf-8"),
            ("/style.css", "text/css; charset=utf-8"),
            ("/app.js", "text/javascript; charset=utf-8"),
            ("/api.js", "text/javascript; charset=utf-8"),
            ("/view.js", "text/javascript; charset=utf-8"),
            ("/config.js", "text/javascript; charset=utf-8"),
            ("/favicon.svg", "image/svg+xml"),
            ("/health", "application/json"),
        ];
        for (path, media_type) in table {
            let (status, headers, _) = send("", request(path)).await;
            assert_eq!(
                (status, &headers["content-type"]),
                (StatusCode::OK, &media_type.parse().unwrap()),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn every_answer_has_the_headers_that_keep_browsers_safe() {
        for path in ["/", "/app.js", "/health", "/nothing"] {
            let (_, headers, _) = send("https://api.example/v1", request(path)).await;
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(headers["referrer-policy"], "no-referrer");
            assert_eq!(
                headers["content-security-policy"],
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                 connect-src 'self' https://api.example; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'"
            );
        }
        let (_, headers, _) = send("", request("/")).await;
        assert!(headers["content-security-policy"].to_str().unwrap().contains("connect-src 'self';"));
    }

    #[tokio::test]
    async fn what_the_browser_has_is_not_sent_again() {
        let (_, headers, first) = send("", request("/app.js")).await;
        assert_eq!(headers["cache-control"], "no-cache");
        let etag = headers["etag"].to_str().unwrap();
        assert!(etag.starts_with('"'), "a strong validator");
        let again = Request::get("/app.js").header("if-none-match", etag).body(Body::empty()).unwrap();
        let (status, headers, body) = send("", again).await;
        assert_eq!(
            (status, body.as_str(), &headers["etag"]),
            (StatusCode::NOT_MODIFIED, "", &etag.parse().unwrap())
        );
        let old = Request::get("/app.js").header("if-none-match", "\"old\"").body(Body::empty()).unwrap();
        assert_eq!(send("", old).await.2, first);
    }

    #[tokio::test]
    async fn another_backend_is_another_validator() {
        let (_, here, _) = send("", request("/config.js")).await;
        let (_, there, script) = send("https://api.example", request("/config.js")).await;
        assert_eq!(script, "export const backendUrl = \"https://api.example\";\n");
        assert_ne!(here["etag"], there["etag"]);
    }

    #[tokio::test]
    async fn other_addresses_get_a_page_that_says_so() {
        let (status, headers, body) = send("", request("/nothing")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        assert!(body.contains("<h1>"));
        let post = Request::post("/").body(Body::empty()).unwrap();
        assert_eq!(send("", post).await.0, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn draining_asks_callers_to_connect_elsewhere() {
        let draining = Draining::default();
        let router = build(&BackendUrl::default(), draining.clone());
        assert!(!router.clone().oneshot(request("/")).await.unwrap().headers().contains_key("connection"));
        draining.begin();
        assert_eq!(router.oneshot(request("/")).await.unwrap().headers()["connection"], "close");
    }

    #[test]
    fn the_page_keeps_to_its_policy() {
        for (path, text) in [
            ("index.html", include_str!("../static/index.html")),
            ("404.html", NOT_FOUND_PAGE),
            ("app.js", include_str!("../static/app.js")),
            ("api.js", include_str!("../static/api.js")),
            ("view.js", include_str!("../static/view.js")),
            ("style.css", include_str!("../static/style.css")),
        ] {
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", " style=", "<script>", "://"]
            {
                assert!(!text.contains(forbidden), "{path} contains {forbidden}");
            }
        }
    }
}
