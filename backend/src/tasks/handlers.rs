//! One function for each operation on tasks.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};

use crate::{
    extract::{JsonBody, OptionalKey, QueryPairs, TaskPath},
    problem::{Error, FieldError, Problem},
    state::AppState,
};

use super::{ListQuery, NewTask, NewTaskBody, Task, TaskChange, TaskChangeBody, TaskId, TaskPage};

/// Lists tasks, newest first, a page at a time.
#[utoipa::path(
    get,
    path = "/tasks",
    tag = "tasks",
    operation_id = "listTasks",
    params(
        ("completed" = Option<bool>, Query, description = "Only tasks that are done, or only those that are not"),
        ("limit" = Option<u16>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
        ("after" = Option<i64>, Query, description = "Only tasks after this one: the `next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of tasks", body = TaskPage),
        (status = 422, description = "A parameter was not accepted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(state): State<AppState>,
    QueryPairs(pairs): QueryPairs,
) -> Result<Json<TaskPage>, Error> {
    let query = ListQuery::try_from(pairs.as_slice()).map_err(Error::Invalid)?;
    Ok(Json(state.storage.list(&query).await?))
}

/// Makes a task.
///
/// A request that is repeated with the same `Idempotency-Key` makes no second task, and gets the first one's answer.
#[utoipa::path(
    post,
    path = "/tasks",
    tag = "tasks",
    operation_id = "createTask",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Another one for each task that is to be made; a repeated request has the same", min_length = 16, max_length = 128),
    ),
    request_body = NewTaskBody,
    responses(
        (status = 201, description = "The task as stored", body = Task, headers(
            ("Location" = String, description = "Where the task is, relative to this address")
        )),
        (status = 400, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body does not say that it is JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field was not accepted, or the key is that of another task", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    OptionalKey(key): OptionalKey,
    JsonBody(body): JsonBody<NewTaskBody>,
) -> Result<impl IntoResponse, Error> {
    let task = NewTask::try_from(body).map_err(Error::Invalid)?;
    let now = state.clock.now();
    let task = match key {
        None => state.storage.insert(&task, now).await?,
        Some(key) => state.storage.insert_once(&task, &key, now).await?.ok_or_else(used_before)?,
    };
    // Relative, so that it also holds behind a proxy that serves the API below a prefix.
    let location = [(header::LOCATION, format!("tasks/{}", task.id))];
    Ok((StatusCode::CREATED, location, Json(task)))
}

/// Reads a task.
#[utoipa::path(
    get,
    path = "/tasks/{id}",
    tag = "tasks",
    operation_id = "readTask",
    params(("id" = i64, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The task", body = Task),
        (status = 404, description = "There is no such task", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(State(state): State<AppState>, TaskPath(id): TaskPath) -> Result<Json<Task>, Error> {
    found(id, state.storage.find(id).await?).map(Json)
}

/// Changes some fields of a task; what is absent stays as it is.
#[utoipa::path(
    patch,
    path = "/tasks/{id}",
    tag = "tasks",
    operation_id = "changeTask",
    params(("id" = i64, Path, description = "The task's id")),
    request_body = TaskChangeBody,
    responses(
        (status = 200, description = "The task as it is now", body = Task),
        (status = 400, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such task", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body does not say that it is JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field was not accepted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn change(
    State(state): State<AppState>,
    TaskPath(id): TaskPath,
    JsonBody(body): JsonBody<TaskChangeBody>,
) -> Result<Json<Task>, Error> {
    let change = TaskChange::try_from(body).map_err(Error::Invalid)?;
    found(id, state.storage.update(id, &change, state.clock.now()).await?).map(Json)
}

/// Deletes a task.
#[utoipa::path(
    delete,
    path = "/tasks/{id}",
    tag = "tasks",
    operation_id = "deleteTask",
    params(("id" = i64, Path, description = "The task's id")),
    responses(
        (status = 204, description = "The task is gone"),
        (status = 404, description = "There is no such task", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(state): State<AppState>,
    TaskPath(id): TaskPath,
) -> Result<StatusCode, Error> {
    let deleted = state.storage.delete(id).await?;
    found(id, deleted.then_some(StatusCode::NO_CONTENT))
}

fn used_before() -> Error {
    let message = "was used for a task with other fields; expected another key for another task";
    Error::Invalid(vec![FieldError::new("Idempotency-Key", message)])
}

fn found<T>(id: TaskId, task: Option<T>) -> Result<T, Error> {
    task.ok_or_else(|| Error::NotFound(format!("task {id}")))
}
