//! The only place that holds SQL. Today it is SQLite; callers see tasks, not rows.

mod migrations;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use crate::tasks::{ListQuery, NewTask, Task, TaskChange, TaskId, TaskPage};

/// How long a statement waits for another process or connection that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: u32 = 4;
const OPEN_ATTEMPTS: u32 = 20;
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// What failed in the storage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database file could not be opened or made.
    #[error("cannot open the database {} (expected: a file in an existing folder this user may write to)", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The tables could not be brought up to date.
    #[error("cannot migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("cannot {doing}")]
    Statement {
        /// What was being tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
}

/// How many tasks there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Tasks that are done.
    pub completed: i64,
    /// Tasks that are not.
    pub open: i64,
}

/// The tasks in their database. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct Storage {
    pool: SqlitePool,
}

impl Storage {
    /// Opens the database file, making it if there is none, and brings its tables up to date. Another
    /// process may be doing the same at the same time.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let pool = connect(path).await.map_err(|source| Error::Open { path: path.to_owned(), source })?;
        migrations::run(&pool).await.map_err(Error::Migrate)?;
        Ok(Self { pool })
    }

    /// The tasks a list request asks for, newest first.
    pub async fn list(&self, query: &ListQuery) -> Result<TaskPage, Error> {
        let limit = usize::from(query.limit.get());
        let before = query.after.map_or(i64::MAX, |TaskId(id)| id);
        // One more than asked tells whether there is a next page.
        let one_more = i64::from(query.limit.get()) + 1;
        let statement = match query.completed {
            None => sqlx::query("SELECT * FROM tasks WHERE id < ?1 ORDER BY id DESC LIMIT ?2"),
            Some(_) => {
                sqlx::query("SELECT * FROM tasks WHERE id < ?1 AND completed = ?3 ORDER BY id DESC LIMIT ?2")
            }
        };
        let statement = statement.bind(before).bind(one_more);
        let statement = match query.completed {
            None => statement,
            Some(completed) => statement.bind(completed),
        };
        let rows = statement.try_map(read_task).fetch_all(&self.pool).await;
        Ok(page(rows.map_err(failed("list tasks"))?, limit))
    }

    /// Stores a new task.
    pub async fn insert(&self, task: &NewTask, now: Timestamp) -> Result<Task, Error> {
        let NewTask { title, description, completed } = task;
        sqlx::query(
            "INSERT INTO tasks (title, description, completed, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?4) RETURNING *",
        )
        .bind(title.as_ref())
        .bind(description.as_ref())
        .bind(*completed)
        .bind(now.to_string())
        .try_map(read_task)
        .fetch_one(&self.pool)
        .await
        .map_err(failed("store a task"))
    }

    /// The task with this id, if there is one.
    pub async fn find(&self, id: TaskId) -> Result<Option<Task>, Error> {
        let statement = sqlx::query("SELECT * FROM tasks WHERE id = ?1").bind(id.0);
        statement.try_map(read_task).fetch_optional(&self.pool).await.map_err(failed("read a task"))
    }

    /// Changes the task with this id, if there is one, in one statement, so that two changes of different
    /// fields at the same time both hold.
    pub async fn update(
        &self,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, Error> {
        let TaskChange { title, description, completed } = change;
        sqlx::query(
            "UPDATE tasks SET title = COALESCE(?1, title), description = COALESCE(?2, description),
                 completed = COALESCE(?3, completed), updated_at = ?4
             WHERE id = ?5 RETURNING *",
        )
        .bind(title.as_ref().map(AsRef::as_ref))
        .bind(description.as_ref().map(AsRef::as_ref))
        .bind(*completed)
        .bind(now.to_string())
        .bind(id.0)
        .try_map(read_task)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed("change a task"))
    }

    /// Deletes the task with this id; says whether there was one.
    pub async fn delete(&self, id: TaskId) -> Result<bool, Error> {
        let statement = sqlx::query("DELETE FROM tasks WHERE id = ?1").bind(id.0);
        let done = statement.execute(&self.pool).await.map_err(failed("delete a task"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Counts the tasks.
    pub async fn counts(&self) -> Result<TaskCounts, Error> {
        let statement = sqlx::query_as("SELECT completed, COUNT(*) FROM tasks GROUP BY completed");
        let rows: Vec<(bool, i64)> =
            statement.fetch_all(&self.pool).await.map_err(failed("count the tasks"))?;
        let count =
            |state| rows.iter().filter(|(completed, _)| *completed == state).map(|(_, count)| count).sum();
        Ok(TaskCounts { completed: count(true), open: count(false) })
    }

    /// Fails unless the database answers a query on its tables.
    pub async fn ping(&self) -> Result<(), Error> {
        let statement = sqlx::query("SELECT id FROM tasks LIMIT 1");
        statement.fetch_optional(&self.pool).await.map(drop).map_err(failed("query the database"))
    }

    /// Closes the connections once their statements are finished. Later calls fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Connects, patiently: while another process switches the same new file to its journal, SQLite answers
/// "locked" at once instead of waiting.
async fn connect(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = SqlitePoolOptions::new().max_connections(MAX_CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT);
    for _ in 1..OPEN_ATTEMPTS {
        match pool.clone().connect_with(options.clone()).await {
            Err(error) if is_locked(&error) => tokio::time::sleep(OPEN_PAUSE).await,
            settled => return settled,
        }
    }
    pool.connect_with(options).await
}

/// Whether SQLite said `SQLITE_BUSY` or `SQLITE_LOCKED`, in their plain or extended form.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Statement { doing, source }
}

fn page(mut items: Vec<Task>, limit: usize) -> TaskPage {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|task| task.id);
    TaskPage { items, next }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape `try_map` asks for")]
fn read_task(row: SqliteRow) -> Result<Task, sqlx::Error> {
    Ok(Task {
        id: TaskId(row.try_get("id")?),
        title: row.try_get("title")?,
        description: row.try_get("description")?,
        completed: row.try_get("completed")?,
        created_at: read_time(&row, "created_at")?,
        updated_at: read_time(&row, "updated_at")?,
    })
}

fn read_time(row: &SqliteRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    let written: String = row.try_get(column)?;
    written.parse().map_err(|source: jiff::Error| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use sqlx::{ConnectOptions, Connection};

    use super::*;

    #[tokio::test]
    async fn opening_is_patient_while_another_process_writes_to_a_file_without_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.db");
        let other = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut other = other.connect().await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        let release = async {
            tokio::time::sleep(3 * OPEN_PAUSE).await;
            sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
            other.close().await.unwrap();
        };
        let (opened, ()) = tokio::join!(Storage::open(&path), release);
        opened.unwrap().ping().await.unwrap();
    }
}
