//! What those see who run the service: health, metrics, documentation, headers, draining.

use std::{net::SocketAddr, time::Duration};

use crate::support::{Service, WAIT};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::json;
use tasktracker_backend::{
    router::Options,
    storage::{Place, Storage},
    tasks::{ListQuery, TaskId},
};
use tasktracker_service::server::{self, Drained};
use tasktracker_testbed::wait::{LIMIT, wait_until_async};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

#[tokio::test]
async fn health() {
    let service = Service::start().await;
    let health = json!({"status": "ok", "version": env!("CARGO_PKG_VERSION"), "revision": "abc123"});
    assert_eq!(service.get("/health").await.json(), health);
    assert_eq!(service.get("/health/live").await.json(), json!({"status": "ok"}));
    assert_eq!(service.get("/health/ready").await.json(), json!({"status": "ok"}));

    service.state.draining.begin();
    assert_eq!(service.get("/health").await.json()["status"], "draining");
    assert_eq!(service.get("/health/live").await.status, StatusCode::OK);
    let ready = service.get("/health/ready").await;
    assert_eq!(ready.header("connection"), "close");
    insta::assert_json_snapshot!(ready.problem(), @r#"
    {
      "detail": "the service is draining",
      "errors": [],
      "status": 503,
      "title": "Service Unavailable",
      "type": "about:blank"
    }
    "#);
}

#[tokio::test]
async fn documented_series_exist_at_zero() {
    let service = Service::start().await;
    let page = service.get("/metrics").await.text;
    for series in [
        r#"http_requests_total{method="POST",route="/tasks",status="201"} 0"#,
        r#"http_requests_total{method="DELETE",route="/tasks/{id}",status="404"} 0"#,
        r#"http_request_duration_seconds_count{method="GET",route="/tasks"} 0"#,
        r#"tasktracker_tasks{state="open"} 0"#,
        r#"tasktracker_task_creations_total{result="created"} 0"#,
        r#"tasktracker_task_creations_total{result="database"} 0"#,
        r#"tasktracker_refused_fields_total{field="title"} 0"#,
        "tasktracker_database_failures_total 0",
        r#"tasktracker_database_connections{state="used"}"#,
        "tasktracker_database_connections_limit 4",
        "http_requests_in_flight 1",
        "process_resident_memory_bytes ",
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_not_by_address() {
    let service = Service::start().await;
    service.post(json!({"title": "x"})).await;
    service.post(json!({"title": ""})).await;
    for path in ["/tasks/1", "/tasks/2", "/tasks/3", "/a", "/b"] {
        service.get(path).await;
    }
    service.send(Request::builder().method("BREW").uri("/c").body(Body::empty()).unwrap()).await;
    let page = service.get("/metrics").await;
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4");
    for series in [
        r#"http_requests_total{method="POST",route="/tasks",status="201"} 1"#,
        r#"http_requests_total{method="POST",route="/tasks",status="422"} 1"#,
        r#"http_requests_total{method="GET",route="/tasks/{id}",status="200"} 1"#,
        r#"http_requests_total{method="GET",route="/tasks/{id}",status="404"} 2"#,
        r#"http_requests_total{method="GET",route="unmatched",status="404"} 2"#,
        r#"http_requests_total{method="other",route="unmatched",status="404"} 1"#,
        r#"http_request_duration_seconds_count{method="POST",route="/tasks"} 2"#,
        r#"tasktracker_tasks{state="open"} 1"#,
    ] {
        assert!(page.text.contains(series), "{series} is not in\n{}", page.text);
    }
}

#[tokio::test]
async fn creations_refused_fields_and_failures_of_the_database_are_counted() {
    let service = Service::start().await;
    service.post(json!({"title": "x"})).await;
    service.post(json!({"title": "", "colour": "red"})).await;
    service.post(json!({"title": ""})).await;
    service.get("/tasks?limit=0").await;
    service.get("/tasks/7").await;
    let page = service.get("/metrics").await.text;
    for series in [
        r#"tasktracker_task_creations_total{result="created"} 1"#,
        r#"tasktracker_task_creations_total{result="invalid"} 2"#,
        r#"tasktracker_refused_fields_total{field="title"} 1"#,
        r#"tasktracker_refused_fields_total{field="other"} 1"#,
        r#"tasktracker_refused_fields_total{field="limit"} 1"#,
        r#"tasktracker_refused_fields_total{field="body"} 0"#,
        "tasktracker_database_failures_total 0",
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
    service.state.storage.close().await;
    service.post(json!({"title": "lost"})).await;
    assert_eq!(service.get("/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let page = service.get("/metrics").await.text;
    for series in [
        r#"tasktracker_task_creations_total{result="database"} 1"#,
        r#"tasktracker_task_creations_total{result="created"} 1"#,
        // The request, the readiness, and this page itself.
        "tasktracker_database_failures_total 3",
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
}

#[tokio::test]
async fn the_documentation_is_served_from_here() {
    let service = Service::start().await;
    assert_eq!(service.get("/openapi.json").await.json()["openapi"], "3.1.0");
    let page = service.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; script-src 'self'"));
    for (path, media_type) in [("/docs.js", "text/javascript"), ("/docs.css", "text/css")] {
        assert!(service.get(path).await.header("content-type").starts_with(media_type));
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_that_keep_browsers_safe() {
    let service = Service::start().await;
    for path in ["/tasks", "/nothing", "/tasks?limit=0", "/metrics", "/docs", "/docs.js", "/health"] {
        let answer = service.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
    }
}

#[tokio::test]
async fn only_listed_origins_may_call() {
    let allowed_origins = vec!["https://tasks.example".parse().unwrap()];
    let service = Service::with(Options { allowed_origins, request_timeout: Duration::from_secs(10) }).await;
    let preflight = |origin: &str| {
        let request = Request::builder().method("OPTIONS").uri("/tasks/1").header("origin", origin);
        let request = request.header("access-control-request-method", "PATCH");
        request.header("access-control-request-headers", "content-type").body(Body::empty()).unwrap()
    };

    let listed = service.send(preflight("https://tasks.example")).await;
    assert_eq!(listed.header("access-control-allow-origin"), "https://tasks.example");
    assert_eq!(listed.header("access-control-allow-methods"), "GET,POST,PATCH,DELETE");
    assert_eq!(listed.header("access-control-allow-headers"), "content-type,idempotency-key");
    assert_eq!(listed.header("access-control-allow-credentials"), "");
    let other = service.send(preflight("https://evil.example")).await;
    assert_eq!(other.header("access-control-allow-origin"), "");

    let missing =
        Request::get("/tasks/7").header("origin", "https://tasks.example").body(Body::empty()).unwrap();
    let answer = service.send(missing).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://tasks.example",
        "problems are readable too"
    );
}

#[tokio::test]
async fn no_listed_origins_means_no_sharing() {
    let service = Service::start().await;
    let request =
        Request::get("/tasks").header("origin", "https://evil.example").body(Body::empty()).unwrap();
    assert_eq!(service.send(request).await.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn a_second_start_finds_the_tasks_and_nothing_to_migrate() {
    let service = Service::start().await;
    service.post(json!({"title": "kept"})).await;
    service.state.storage.close().await;
    let file = Place::File(service.folder.as_ref().unwrap().path().join("tasks.db"));
    let again = Storage::open(&file, WAIT).await.unwrap();
    assert_eq!(again.list(&ListQuery::default()).await.unwrap().items[0].title, "kept");
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_told() {
    let error = Storage::open(&Place::File("/nowhere/tasks.db".into()), WAIT).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot open the database /nowhere/tasks.db"), "{error}");
}

/// A service on a real socket.
struct Listening {
    service: Service,
    address: SocketAddr,
    served: JoinHandle<std::io::Result<Drained>>,
}

async fn listen(drain_timeout: Duration) -> Listening {
    let service = Service::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (router, draining) = (service.router.clone(), service.state.draining.clone());
    let served = tokio::spawn(server::serve(listener, router, draining, drain_timeout));
    Listening { service, address, served }
}

/// Reads one answer from a connection that may stay open.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk).await.unwrap();
        text.extend_from_slice(&chunk[..count]);
        if count == 0 || text.ends_with(b"}") {
            return String::from_utf8(text).unwrap();
        }
    }
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_takes_nothing_new() {
    let Listening { service, address, served } = listen(LIMIT).await;
    let body = r#"{"title": "in flight"}"#;
    let mut in_flight = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    in_flight.write_all(format!("{head}{}", &body[..5]).as_bytes()).await.unwrap();
    let mut kept_alive = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let ready = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n";
    for connection in [&mut kept_alive, &mut idle] {
        connection.write_all(ready).await.unwrap();
        assert!(answer(connection).await.starts_with("HTTP/1.1 200"));
    }

    service.state.draining.begin();
    kept_alive.write_all(ready).await.unwrap();
    let unready = answer(&mut kept_alive).await;
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("connection: close"), "{unready}");
    wait_until_async("no new connections are taken", async || TcpStream::connect(address).await.is_err())
        .await;
    assert_eq!(
        idle.read(&mut [0]).await.unwrap(),
        0,
        "an idle connection is closed, and only then the others count"
    );
    assert!(!served.is_finished(), "the request in flight is waited for");

    in_flight.write_all(&body.as_bytes()[5..]).await.unwrap();
    let made = answer(&mut in_flight).await;
    assert!(made.starts_with("HTTP/1.1 201") && made.contains("connection: close"), "{made}");
    assert_eq!(served.await.unwrap().unwrap(), Drained::Completely);
    assert!(service.state.storage.find(TaskId(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn draining_ends_at_its_limit() {
    let Listening { service, address, served } = listen(Duration::from_millis(300)).await;
    let mut stuck = TcpStream::connect(address).await.unwrap();
    stuck.write_all(b"POST /tasks HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    service.get("/health").await;
    service.state.draining.begin();
    assert_eq!(served.await.unwrap().unwrap(), Drained::TimedOut);
}
