//! The task API as its callers see it.

use crate::support::Service;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

/// Tests of what is the same on every database: each on a file, and all of them on a server.
macro_rules! on_each_database {
    ($($name:ident),* $(,)?) => {
        mod on_a_file {
            use crate::support::Service;
            $(#[tokio::test]
            async fn $name() {
                super::$name(&Service::start().await).await;
            })*
        }

        /// Each on a database of its own.
        #[cfg(feature = "postgres")]
        pub(crate) async fn on_a_server(server: &tasktracker_testbed::PostgresServer) {
            use crate::support::options;
            use tasktracker_backend::storage::Place;
            $({
                let place = Place::Server(server.database().unwrap().parse().unwrap());
                $name(&Service::on(&place, options()).await).await;
            })*
        }
    };
}

on_each_database! {
    a_task_is_made_read_changed_and_deleted,
    an_empty_change_leaves_everything_but_the_time,
    pages_hold_every_task_once_newest_first,
    fifty_tasks_are_a_page_unless_told,
    hostile_text_is_kept_byte_for_byte,
    changes_of_different_fields_at_the_same_time_all_hold,
    many_writers_do_not_disturb_each_other,
    head_answers_like_get_without_a_body,
    a_repeated_request_makes_no_second_task,
    requests_with_one_key_at_the_same_time_make_one_task,
    a_key_goes_with_its_task,
}

async fn a_task_is_made_read_changed_and_deleted(service: &Service) {
    let made = service.post(json!({"title": "  Water the plants ", "description": "The fern too."})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.header("location"), "tasks/1");
    let expected = json!({ "completed": false, "createdAt": "2025-03-04T05:06:07.5Z", "description": "The fern too.", "id": 1, "title": "Water the plants", "updatedAt": "2025-03-04T05:06:07.5Z" });
    assert_eq!(made.json(), expected);
    assert_eq!(service.get("/tasks/1").await.json(), made.json());

    let changed = service.patch(1, json!({"completed": true})).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(changed.json()["completed"], true);
    assert_eq!(changed.json()["description"], "The fern too.");
    let changed = service.patch(1, json!({"title": "New", "description": "", "completed": false})).await;
    assert_eq!((&changed.json()["title"], &changed.json()["description"]), (&json!("New"), &json!("")));
    assert_eq!(service.get("/tasks/1").await.json(), changed.json());

    assert_eq!(service.delete("/tasks/1").await.status, StatusCode::NO_CONTENT);
    assert_eq!(service.get("/tasks/1").await.status, StatusCode::NOT_FOUND);
    assert_eq!(service.delete("/tasks/1").await.status, StatusCode::NOT_FOUND);
    assert_eq!(service.patch(1, json!({})).await.status, StatusCode::NOT_FOUND);
    let next = service.post(json!({"title": "another", "completed": true})).await.json();
    assert_eq!((&next["id"], &next["completed"]), (&json!(2), &json!(true)), "ids are not used twice");
}

async fn an_empty_change_leaves_everything_but_the_time(service: &Service) {
    let made = service.post(json!({"title": "as it is", "description": "d"})).await.json();
    assert_eq!(service.patch(1, json!({})).await.json(), made);
}

async fn pages_hold_every_task_once_newest_first(service: &Service) {
    for number in 1..=7 {
        service.post(json!({"title": format!("task {number}"), "completed": number % 2 == 0})).await;
    }
    assert_eq!(pages(service, "limit=3").await, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
    assert_eq!(pages(service, "limit=7").await, [vec![7, 6, 5, 4, 3, 2, 1]]);
    assert_eq!(pages(service, "limit=2&completed=true").await, [vec![6, 4], vec![2]]);
    assert_eq!(pages(service, "completed=false").await, [vec![7, 5, 3, 1]]);
    let beyond = service.get("/tasks?after=1").await.json();
    assert_eq!(beyond, json!({"items": [], "next": null}));
}

/// Follows `next` to the end.
async fn pages(service: &Service, query: &str) -> Vec<Vec<i64>> {
    let mut pages = Vec::new();
    let mut address = format!("/tasks?{query}");
    loop {
        let page = service.get(&address).await.json();
        let items = page["items"].as_array().unwrap();
        pages.push(items.iter().map(|task| task["id"].as_i64().unwrap()).collect());
        match &page["next"] {
            Value::Null => return pages,
            next => address = format!("/tasks?{query}&after={next}"),
        }
    }
}

async fn fifty_tasks_are_a_page_unless_told(service: &Service) {
    for number in 0..51 {
        service.post(json!({"title": number.to_string()})).await;
    }
    let page = service.get("/tasks").await.json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (50, &json!(2)));
}

async fn hostile_text_is_kept_byte_for_byte(service: &Service) {
    let hostile = [
        "'; DROP TABLE tasks; --",
        "\"quoted\" `ticks` \\back\\slashes\\ %s {} $1 ?1",
        "<img src=x onerror=alert(1)>",
        "e\u{301} ≠ é, \u{202e}backwards, \u{200b}, 👩‍👩‍👧‍👦, 𝄞, \u{ffff}",
        "../../etc/passwd",
        "NULL",
    ];
    for text in hostile {
        let description = format!("{text}\r\n\t\u{1}{text}\n");
        let made = service.post(json!({"title": text, "description": description})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{text}");
        let stored = service.get(&format!("/tasks/{}", made.json()["id"])).await.json();
        assert_eq!(stored["title"].as_str().unwrap().as_bytes(), text.as_bytes());
        assert_eq!(stored["description"].as_str().unwrap().as_bytes(), description.as_bytes());
    }
    assert_eq!(service.get("/tasks").await.json()["items"].as_array().unwrap().len(), hostile.len());
}

async fn changes_of_different_fields_at_the_same_time_all_hold(service: &Service) {
    service.post(json!({"title": "before"})).await;
    let (title, description, completed) = tokio::join!(
        service.patch(1, json!({"title": "after"})),
        service.patch(1, json!({"description": "after"})),
        service.patch(1, json!({"completed": true})),
    );
    assert!([title, description, completed].iter().all(|answer| answer.status == StatusCode::OK));
    let task = service.get("/tasks/1").await.json();
    assert_eq!(
        (&task["title"], &task["description"], &task["completed"]),
        (&json!("after"), &json!("after"), &json!(true))
    );
}

async fn many_writers_do_not_disturb_each_other(service: &Service) {
    let writes = (0..40).map(|number| service.post(json!({"title": number.to_string()})));
    // Boxed, since so many request futures on one stack would be large.
    let answers = futures::future::join_all(writes.map(Box::pin)).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::CREATED));
    assert_eq!(service.get("/tasks?limit=200").await.json()["items"].as_array().unwrap().len(), 40);
}

async fn head_answers_like_get_without_a_body(service: &Service) {
    let answer = service.json(Method::HEAD, "/tasks", "").await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, ""));
}

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

async fn listed(service: &Service) -> usize {
    service.get("/tasks?limit=200").await.json()["items"].as_array().unwrap().len()
}

async fn a_repeated_request_makes_no_second_task(service: &Service) {
    let body = json!({"title": "once", "description": "d"});
    let first = service.post_with(KEY, &body).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let again = service.post_with(KEY, &body).await;
    assert_eq!((again.status, again.header("location")), (StatusCode::CREATED, first.header("location")));
    assert_eq!(again.json(), first.json());
    assert_eq!(listed(service).await, 1);

    // Also once the task was changed: the request is compared with what it asked for, not with what became of it.
    let id = first.json()["id"].as_i64().unwrap();
    service.patch(id, json!({"title": "changed"})).await;
    let again = service.post_with(KEY, &body).await;
    assert_eq!((again.status, &again.json()["title"]), (StatusCode::CREATED, &json!("changed")));

    let other = service.post_with(KEY, json!({"title": "another"})).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.problem()["errors"][0]["field"], "Idempotency-Key");
    assert_eq!(listed(service).await, 1);

    for (key, made) in [("another-key-of-a-task", 2), ("one-more-key-of-a-task", 3)] {
        assert_eq!(service.post_with(key, &body).await.status, StatusCode::CREATED);
        assert_eq!(listed(service).await, made);
    }
    assert_eq!(service.post(&body).await.status, StatusCode::CREATED);
    assert_eq!(listed(service).await, 4, "without a key, each request is one of its own");
}

async fn requests_with_one_key_at_the_same_time_make_one_task(service: &Service) {
    let requests = (0..20).map(|_| Box::pin(service.post_with(KEY, json!({"title": "once"}))));
    let answers = futures::future::join_all(requests).await;
    for answer in &answers {
        assert_eq!((answer.status, answer.json()), (StatusCode::CREATED, answers[0].json()));
    }
    assert_eq!(listed(service).await, 1);
}

async fn a_key_goes_with_its_task(service: &Service) {
    let body = json!({"title": "once"});
    let first = service.post_with(KEY, &body).await.json();
    let path = format!("/tasks/{}", first["id"]);
    assert_eq!(service.delete(&path).await.status, StatusCode::NO_CONTENT);
    let second = service.post_with(KEY, &body).await;
    assert_eq!(second.status, StatusCode::CREATED);
    assert_ne!(second.json()["id"], first["id"]);
}
