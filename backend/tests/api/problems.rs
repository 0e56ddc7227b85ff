//! Every way a request can go wrong, and the one shape of the answer.

use std::{convert::Infallible, time::Duration};

use crate::support::Service;
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::json;
use tasktracker_backend::router::Options;

#[tokio::test]
async fn no_such_task() {
    let service = Service::start().await;
    let answer = service.get("/tasks/7").await;
    insta::assert_json_snapshot!(answer.problem(), @r#"
    {
      "detail": "there is no task 7",
      "errors": [],
      "status": 404,
      "title": "Not Found",
      "type": "about:blank"
    }
    "#);
    for path in ["/tasks/seven", "/tasks/99999999999999999999", "/tasks/%ff", "/tasks/1.5"] {
        let answer = service.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        answer.problem();
    }
}

#[tokio::test]
async fn no_such_route() {
    let service = Service::start().await;
    insta::assert_json_snapshot!(service.get("/nothing/here").await.problem(), @r#"
    {
      "detail": "there is no resource at /nothing/here",
      "errors": [],
      "status": 404,
      "title": "Not Found",
      "type": "about:blank"
    }
    "#);
    assert_eq!(service.get("/tasks/").await.status, StatusCode::NOT_FOUND);
    assert_eq!(service.get("/").await.problem()["status"], 404);
}

#[tokio::test]
async fn method_not_allowed() {
    let service = Service::start().await;
    let answer = service.json(Method::PUT, "/tasks/1", "{}").await;
    assert_eq!(answer.header("allow"), "GET,HEAD,PATCH,DELETE");
    insta::assert_json_snapshot!(answer.problem(), @r#"
    {
      "detail": "this resource does not support the method PUT",
      "errors": [],
      "status": 405,
      "title": "Method Not Allowed",
      "type": "about:blank"
    }
    "#);
    assert_eq!(service.delete("/tasks").await.problem()["status"], 405);
}

#[tokio::test]
async fn not_json() {
    let service = Service::start().await;
    insta::assert_json_snapshot!(service.post("{\"title\": ").await.problem(), @r#"
    {
      "detail": "the body is not valid JSON: EOF while parsing a value at line 1 column 10",
      "errors": [],
      "status": 400,
      "title": "Bad Request",
      "type": "about:blank"
    }
    "#);
    for body in ["", "title=x", "{\"title\": \"x\"} {}", "{\"title\": \"\\ud800\"}", &"[".repeat(1000)] {
        let answer = service.post(body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body:.40}");
        answer.problem();
    }
}

#[tokio::test]
async fn not_declared_as_json() {
    let service = Service::start().await;
    let request =
        Request::post("/tasks").header("content-type", "text/plain").body(Body::from("{}")).unwrap();
    insta::assert_json_snapshot!(service.send(request).await.problem(), @r#"
    {
      "detail": "the body must be sent with the content type application/json",
      "errors": [],
      "status": 415,
      "title": "Unsupported Media Type",
      "type": "about:blank"
    }
    "#);
    let request = Request::post("/tasks").body(Body::from("{}")).unwrap();
    assert_eq!(service.send(request).await.problem()["status"], 415);
}

#[tokio::test]
async fn too_large() {
    let service = Service::start().await;
    let answer = service.post(json!({"title": "x", "description": "x".repeat(64 * 1024)})).await;
    insta::assert_json_snapshot!(answer.problem(), @r#"
    {
      "detail": "the body is larger than 65536 bytes",
      "errors": [],
      "status": 413,
      "title": "Payload Too Large",
      "type": "about:blank"
    }
    "#);
    let padded = format!("{{\"title\": \"fits\"{}}}", " ".repeat(64 * 1024 - 17));
    assert_eq!(padded.len(), 64 * 1024);
    assert_eq!(service.post(padded).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn values_that_are_not_accepted() {
    let service = Service::start().await;
    let answer = service.post(json!({"title": " ", "description": "\u{0}"})).await;
    insta::assert_json_snapshot!(answer.problem(), @r#"
    {
      "detail": "2 values were not accepted",
      "errors": [
        {
          "field": "title",
          "message": "must not be empty"
        },
        {
          "field": "description",
          "message": "must not contain the character NUL"
        }
      ],
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "about:blank"
    }
    "#);
    service.post(json!({"title": "x"})).await;
    let answer = service.patch(1, json!({"title": "one\ntwo"})).await;
    assert_eq!(answer.problem()["errors"][0]["field"], "title");
}

#[tokio::test]
async fn wrong_types_and_unknown_fields() {
    let service = Service::start().await;
    let bodies = [
        json!({}),
        json!({"title": 5}),
        json!({"title": null}),
        json!({"title": "x", "completed": "yes"}),
        json!({"title": "x", "id": 7}),
        json!(["x"]),
        json!("x"),
    ];
    let mut told = Vec::new();
    for body in bodies {
        let answer = service.post(&body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        told.push(format!("{body}: {}", answer.problem()["errors"]));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    {}: [{"field":"title","message":"is required"}]
    {"title":5}: [{"field":"title","message":"invalid type: integer `5`, expected a string"}]
    {"title":null}: [{"field":"title","message":"invalid type: null, expected a string"}]
    {"completed":"yes","title":"x"}: [{"field":"completed","message":"invalid type: string \"yes\", expected a boolean"}]
    {"id":7,"title":"x"}: [{"field":"id","message":"unknown field `id`, expected one of `title`, `description`, `completed`"}]
    ["x"]: [{"field":"","message":"must be a JSON object"}]
    "x": [{"field":"","message":"must be a JSON object"}]
    "#);
}

#[tokio::test]
async fn parameters_that_are_not_accepted() {
    let service = Service::start().await;
    let answer = service.get("/tasks?limit=0&completed=maybe&sort=title").await;
    insta::assert_json_snapshot!(answer.problem(), @r#"
    {
      "detail": "3 values were not accepted",
      "errors": [
        {
          "field": "limit",
          "message": "must be a number from 1 to 200"
        },
        {
          "field": "completed",
          "message": "must be true or false"
        },
        {
          "field": "sort",
          "message": "is no parameter of this list"
        }
      ],
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "about:blank"
    }
    "#);
}

#[tokio::test]
async fn keys_that_are_not_accepted() {
    let service = Service::start().await;
    let answer = service.post_with("short", json!({"title": "x"})).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    insta::assert_json_snapshot!(answer.problem()["errors"], @r#"
    [
      {
        "field": "Idempotency-Key",
        "message": "must have 16 to 128 visible ASCII characters"
      }
    ]
    "#);
    let request = Request::post("/tasks").header("content-type", "application/json");
    let twice = request.header("idempotency-key", "x".repeat(16)).header("idempotency-key", "y".repeat(16));
    let answer = service.send(twice.body(Body::from("{\"title\": \"x\"}")).unwrap()).await;
    assert_eq!(answer.problem()["errors"][0]["message"], "is given more than once");
    assert_eq!(service.get("/tasks").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_request_that_takes_too_long() {
    let options = Options { allowed_origins: Vec::new(), request_timeout: Duration::from_millis(50) };
    let service = Service::with(options).await;
    let endless = Body::from_stream(futures::stream::pending::<Result<&'static str, Infallible>>());
    let request = Request::post("/tasks").header("content-type", "application/json").body(endless).unwrap();
    insta::assert_json_snapshot!(service.send(request).await.problem(), @r#"
    {
      "detail": "the request took longer than 0.05 s",
      "errors": [],
      "status": 503,
      "title": "Service Unavailable",
      "type": "about:blank"
    }
    "#);
}

#[tokio::test]
async fn a_failing_storage_is_hidden() {
    let service = Service::start().await;
    service.state.storage.close().await;
    insta::assert_json_snapshot!(service.get("/tasks").await.problem(), @r#"
    {
      "detail": "the service failed; the cause is in its log",
      "errors": [],
      "status": 500,
      "title": "Internal Server Error",
      "type": "about:blank"
    }
    "#);
    insta::assert_json_snapshot!(service.get("/health/ready").await.problem(), @r#"
    {
      "detail": "the database does not answer",
      "errors": [],
      "status": 503,
      "title": "Service Unavailable",
      "type": "about:blank"
    }
    "#);
    assert_eq!(service.get("/health/live").await.status, StatusCode::OK);
    assert_eq!(service.get("/metrics").await.status, StatusCode::OK);
}
