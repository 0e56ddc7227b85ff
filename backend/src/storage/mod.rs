//! The only place that holds SQL: SQLite in a file, or a PostgreSQL server. Callers see tasks, not rows.

mod migrations;

use std::{
    convert::Infallible,
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    ColumnIndex, Connection, Decode, PgConnection, PgPool, Row, SqlitePool, Type,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::timeout;

use crate::tasks::{IdempotencyKey, ListQuery, NewTask, Task, TaskChange, TaskId, TaskPage};

/// How long a statement waits for another process or connection that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first connection to a server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections to a file: more of them would only wait for each other.
const FILE_CONNECTIONS: u32 = 4;
/// Connections to a server, of each replica.
const SERVER_CONNECTIONS: u32 = 8;
/// How often, and how long apart, a file that another process is making is tried.
const FILE_ATTEMPTS: (u32, Duration) = (20, Duration::from_millis(100));
/// How often, and how long apart, a server that does not take connections yet is tried.
const SERVER_ATTEMPTS: (u32, Duration) = (30, Duration::from_secs(1));
/// What a server's URL begins with.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// Where the tasks are kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// A SQLite file; made if there is none.
    File(PathBuf),
    /// A database on a PostgreSQL server.
    Server(ServerUrl),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => {
                let expected = "(expected: a file in an existing folder this user may write to)";
                write!(formatter, "the database {} {expected}", path.display())
            }
            Self::Server(_) => formatter.write_str(
                "the database of DATABASE_URL (expected: postgres://USER:PASSWORD@HOST:PORT/DATABASE of a server that answers)",
            ),
        }
    }
}

/// Where a server is, who connects, and the password: it is never shown, not even where it is wrong.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl FromStr for ServerUrl {
    type Err = Infallible;

    fn from_str(written: &str) -> Result<Self, Infallible> {
        Ok(Self(written.to_owned()))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ServerUrl")
    }
}

/// What failed in the storage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be opened or made.
    #[error("cannot open {place}")]
    Open {
        /// The database.
        place: Place,
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

impl Error {
    /// Whether the database gave no connection in time.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Statement { source: sqlx::Error::PoolTimedOut, .. })
    }
}

/// How many tasks there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Tasks that are done.
    pub completed: i64,
    /// Tasks that are not.
    pub open: i64,
}

/// Connections of this process to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Those that wait for work.
    pub idle: u32,
    /// Those at work.
    pub used: u32,
    /// The most that there may be.
    pub most: u32,
}

/// The tasks in their database. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct Storage {
    pool: Pool,
}

#[derive(Debug, Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// The same work on whichever database it is.
macro_rules! on {
    ($storage:expr, $pool:ident => $work:expr) => {
        match &$storage.pool {
            Pool::Sqlite($pool) => $work,
            Pool::Postgres($pool) => $work,
        }
    };
}

/// The statement that stores a task.
macro_rules! insert {
    ($task:expr, $now:expr) => {{
        let NewTask { title, description, completed } = $task;
        let statement = "INSERT INTO tasks (title, description, completed, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $4) RETURNING *";
        sqlx::query(statement)
            .bind(title.as_ref())
            .bind(description.as_ref())
            .bind(*completed)
            .bind($now.to_string())
            .try_map(read_task)
    }};
}

impl Storage {
    /// Opens the database, making its file if there is none, and brings its tables up to date. Another process may be
    /// doing the same at the same time.
    ///
    /// A statement waits at most `wait` for a connection, then [`Error::is_unavailable`] is true. With the time limit of a
    /// request, no request fails that the database answers within that limit.
    pub async fn open(place: &Place, wait: Duration) -> Result<Self, Error> {
        let failed = |source| Error::Open { place: place.clone(), source };
        let pool = match place {
            Place::File(path) => {
                let pool = open_file(path, wait).await.map_err(failed)?;
                migrations::run_sqlite(&pool).await.map_err(Error::Migrate)?;
                Pool::Sqlite(pool)
            }
            Place::Server(url) => {
                let pool = connect(url, wait).await.map_err(failed)?;
                migrations::run_postgres(&pool).await.map_err(Error::Migrate)?;
                Pool::Postgres(pool)
            }
        };
        Ok(Self { pool })
    }

    /// The tasks a list request asks for, newest first.
    pub async fn list(&self, query: &ListQuery) -> Result<TaskPage, Error> {
        let limit = usize::from(query.limit.get());
        let before = query.after.map_or(i64::MAX, |TaskId(id)| id);
        // One more than asked tells whether there is a next page.
        let one_more = i64::from(query.limit.get()) + 1;
        let rows = match query.completed {
            None => {
                let statement = "SELECT * FROM tasks WHERE id < $1 ORDER BY id DESC LIMIT $2";
                on!(self, pool => {
                    sqlx::query(statement).bind(before).bind(one_more).try_map(read_task).fetch_all(pool).await
                })
            }
            Some(completed) => {
                let statement =
                    "SELECT * FROM tasks WHERE id < $1 AND completed = $3 ORDER BY id DESC LIMIT $2";
                on!(self, pool => {
                    let statement = sqlx::query(statement).bind(before).bind(one_more).bind(completed);
                    statement.try_map(read_task).fetch_all(pool).await
                })
            }
        };
        Ok(page(rows.map_err(failed("list tasks"))?, limit))
    }

    /// Stores a new task.
    pub async fn insert(&self, task: &NewTask, now: Timestamp) -> Result<Task, Error> {
        let made = on!(self, pool => insert!(task, now).fetch_one(pool).await);
        made.map_err(failed("store a task"))
    }

    /// Stores a new task, unless one was stored with this key before, which is what comes back then; none where that
    /// one was made of other fields. A key is known for as long as its task is there.
    pub async fn insert_once(
        &self,
        task: &NewTask,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<Task>, Error> {
        let fingerprint = task.fingerprint();
        let made = on!(self, pool => async {
            let mut transaction = pool.begin().await?;
            let made = insert!(task, now).fetch_one(&mut *transaction).await?;
            // Whoever inserts the same key at the same time waits here until the first one has committed.
            let kept = sqlx::query(
                "INSERT INTO idempotency_keys (key, fingerprint, task_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            );
            let kept = kept.bind(key.as_ref()).bind(&fingerprint).bind(made.id.0).execute(&mut *transaction).await?;
            if kept.rows_affected() == 1 {
                transaction.commit().await?;
                return Ok(Some(made));
            }
            transaction.rollback().await?;
            let before = sqlx::query(
                "SELECT tasks.* FROM tasks JOIN idempotency_keys ON task_id = id WHERE key = $1 AND fingerprint = $2",
            );
            before.bind(key.as_ref()).bind(&fingerprint).try_map(read_task).fetch_optional(pool).await
        }
        .await);
        made.map_err(failed("store a task"))
    }

    /// The task with this id, if there is one.
    pub async fn find(&self, id: TaskId) -> Result<Option<Task>, Error> {
        let statement = "SELECT * FROM tasks WHERE id = $1";
        let found = on!(self, pool => {
            sqlx::query(statement).bind(id.0).try_map(read_task).fetch_optional(pool).await
        });
        found.map_err(failed("read a task"))
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
        let statement =
            "UPDATE tasks SET title = COALESCE($1, title), description = COALESCE($2, description),
                 completed = COALESCE($3, completed), updated_at = $4
             WHERE id = $5 RETURNING *";
        let changed = on!(self, pool => {
            sqlx::query(statement)
                .bind(title.as_ref().map(AsRef::as_ref))
                .bind(description.as_ref().map(AsRef::as_ref))
                .bind(*completed)
                .bind(now.to_string())
                .bind(id.0)
                .try_map(read_task)
                .fetch_optional(pool)
                .await
        });
        changed.map_err(failed("change a task"))
    }

    /// Deletes the task with this id; says whether there was one.
    pub async fn delete(&self, id: TaskId) -> Result<bool, Error> {
        let statement = "DELETE FROM tasks WHERE id = $1";
        let deleted = on!(self, pool => {
            sqlx::query(statement).bind(id.0).execute(pool).await.map(|done| done.rows_affected())
        });
        Ok(deleted.map_err(failed("delete a task"))? > 0)
    }

    /// Counts the tasks.
    pub async fn counts(&self) -> Result<TaskCounts, Error> {
        let statement = "SELECT completed, COUNT(*) FROM tasks GROUP BY completed";
        let rows = on!(self, pool => sqlx::query_as::<_, (bool, i64)>(statement).fetch_all(pool).await);
        let rows = rows.map_err(failed("count the tasks"))?;
        let count =
            |state| rows.iter().filter(|(completed, _)| *completed == state).map(|(_, count)| count).sum();
        Ok(TaskCounts { completed: count(true), open: count(false) })
    }

    /// Fails unless the database answers a query on its tables.
    pub async fn ping(&self) -> Result<(), Error> {
        let statement = "SELECT id FROM tasks LIMIT 1";
        let answered = on!(self, pool => sqlx::query(statement).fetch_optional(pool).await.map(drop));
        answered.map_err(failed("query the database"))
    }

    /// The connections as they are now.
    pub fn connections(&self) -> Connections {
        let (all, idle) = on!(self, pool => (pool.size(), pool.num_idle()));
        let most = on!(self, pool => pool.options().get_max_connections());
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(all);
        Connections { idle, used: all - idle, most }
    }

    /// Closes the connections once their statements are finished. Later calls fail.
    pub async fn close(&self) {
        on!(self, pool => pool.close().await);
    }
}

/// Opens a file, patiently: while another process switches the same new file to its journal, SQLite answers
/// "locked" at once instead of waiting.
async fn open_file(path: &Path, wait: Duration) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // With a write-ahead log, NORMAL may lose commits that were acknowledged when the power fails.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = SqlitePoolOptions::new().max_connections(FILE_CONNECTIONS).acquire_timeout(wait);
    patiently(FILE_ATTEMPTS, is_locked, || pool.clone().connect_with(options.clone())).await
}

/// Connects to a server, patiently: it may be starting, or have no connection left while a rollout needs twice as many.
async fn connect(url: &ServerUrl, wait: Duration) -> Result<PgPool, sqlx::Error> {
    if !SCHEMES.iter().any(|scheme| url.0.starts_with(scheme)) {
        return Err(sqlx::Error::Configuration("it begins otherwise".into()));
    }
    let options: PgConnectOptions = url.0.parse()?;
    let options = options.application_name("tasktracker-backend");
    let answers = async || {
        let connection = timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await;
        connection.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))?.close().await
    };
    patiently(SERVER_ATTEMPTS, is_not_there_yet, answers).await?;
    let pool = PgPoolOptions::new().max_connections(SERVER_CONNECTIONS).acquire_timeout(wait);
    Ok(pool.connect_lazy_with(options))
}

/// Tries again as long as what goes wrong may pass.
async fn patiently<T>(
    (attempts, pause): (u32, Duration),
    may_pass: impl Fn(&sqlx::Error) -> bool,
    attempt: impl AsyncFn() -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    for _ in 1..attempts {
        match attempt().await {
            Err(error) if may_pass(&error) => tokio::time::sleep(pause).await,
            settled => return settled,
        }
    }
    attempt().await
}

/// Whether a server does not answer, is starting, or has no connection left.
fn is_not_there_yet(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(error, sqlx::Error::Io(_)) || code.is_some_and(|code| matches!(code.as_ref(), "57P03" | "53300"))
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
fn read_task<R: Row>(row: R) -> Result<Task, sqlx::Error>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'a> i64: Decode<'a, R::Database> + Type<R::Database>,
    for<'a> bool: Decode<'a, R::Database> + Type<R::Database>,
    for<'a> String: Decode<'a, R::Database> + Type<R::Database>,
{
    Ok(Task {
        id: TaskId(row.try_get("id")?),
        title: row.try_get("title")?,
        description: row.try_get("description")?,
        completed: row.try_get("completed")?,
        created_at: read_time(&row.try_get::<String, _>("created_at")?, "created_at")?,
        updated_at: read_time(&row.try_get::<String, _>("updated_at")?, "updated_at")?,
    })
}

fn read_time(written: &str, column: &str) -> Result<Timestamp, sqlx::Error> {
    written.parse().map_err(|source: jiff::Error| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use sqlx::{ConnectOptions, Connection};

    use super::*;

    #[tokio::test]
    async fn commits_are_synced_by_every_connection() {
        let folder = tempfile::tempdir().unwrap();
        let storage =
            Storage::open(&Place::File(folder.path().join("tasks.db")), BUSY_TIMEOUT).await.unwrap();
        let Pool::Sqlite(pool) = &storage.pool else { unreachable!("a file was opened") };
        let connections = join_all((0..FILE_CONNECTIONS).map(|_| pool.acquire())).await;
        assert_eq!(connections.len(), 4);
        for connection in connections {
            let mut connection = connection.unwrap();
            let journal = sqlx::query_scalar::<_, String>("PRAGMA journal_mode");
            assert_eq!(journal.fetch_one(&mut *connection).await.unwrap(), "wal");
            // 2 is FULL: https://www.sqlite.org/pragma.html#pragma_synchronous
            let synchronous = sqlx::query_scalar::<_, i64>("PRAGMA synchronous");
            assert_eq!(synchronous.fetch_one(&mut *connection).await.unwrap(), 2);
        }
    }

    #[tokio::test]
    async fn opening_is_patient_while_another_process_writes_to_a_file_without_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.db");
        let other = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut other = other.connect().await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        let release = async {
            tokio::time::sleep(3 * FILE_ATTEMPTS.1).await;
            sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
            other.close().await.unwrap();
        };
        let place = Place::File(path);
        let (opened, ()) = tokio::join!(Storage::open(&place, BUSY_TIMEOUT), release);
        opened.unwrap().ping().await.unwrap();
    }
}
