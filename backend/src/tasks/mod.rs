//! The one resource: tasks.

mod handlers;
mod idempotency;
mod model;
mod query;

pub use idempotency::{IDEMPOTENCY_KEY, IdempotencyKey};
pub use model::{Description, NewTask, NewTaskBody, Task, TaskChange, TaskChangeBody, TaskId, Title};
pub use query::{ListQuery, PageLimit};

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::AppState;

/// A page of tasks, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskPage {
    /// The tasks of this page.
    pub items: Vec<Task>,
    /// What to pass as `after` for the next page; null on the last one.
    #[schema(required = true)]
    pub next: Option<TaskId>,
}

/// The routes of this resource, with their documentation.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(handlers::list, handlers::create)).routes(routes!(
        handlers::read,
        handlers::change,
        handlers::delete
    ))
}
