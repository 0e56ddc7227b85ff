//! The tables' history, built into the binary.
//!
//! Migrations only add: during a rollout, and after going back to an older release, the binary before this
//! one works on the same tables. So it must not mind migrations it does not know.

use futures::future::BoxFuture;
use sqlx::{
    PgPool, SqlSafeStr, SqlitePool,
    error::BoxDynError,
    migrate::{MigrateError, Migration, MigrationSource, MigrationType, Migrator},
};

/// Version, name and statements of each migration.
type Migrations = [(i64, &'static str, &'static str); 3];

const SQLITE: Migrations = [
    (1, "tasks", include_str!("../../migrations/sqlite/0001_tasks.sql")),
    (2, "tasks by completed", include_str!("../../migrations/sqlite/0002_tasks_by_completed.sql")),
    (3, "idempotency keys", include_str!("../../migrations/sqlite/0003_idempotency_keys.sql")),
];

const POSTGRES: Migrations = [
    (1, "tasks", include_str!("../../migrations/postgres/0001_tasks.sql")),
    (2, "tasks by completed", include_str!("../../migrations/postgres/0002_tasks_by_completed.sql")),
    (3, "idempotency keys", include_str!("../../migrations/postgres/0003_idempotency_keys.sql")),
];

/// The advisory lock of whoever migrates: "tasks" in ASCII.
const LOCK: i64 = 0x74_61_73_6b_73;

/// Brings the tables of a file up to date, in one transaction that takes the write lock first: of two processes
/// starting on the same file, one migrates and the other waits and then finds nothing to do.
pub(super) async fn run_sqlite(pool: &SqlitePool) -> Result<(), MigrateError> {
    let migrator = migrator(SQLITE).await?;
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    migrator.run(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// The same on a server. The lock ends with the transaction, so that it also holds behind a pooler that gives each
/// transaction another connection.
pub(super) async fn run_postgres(pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = migrator(POSTGRES).await?;
    migrator.set_locking(false);
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    migrator.run(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

async fn migrator(migrations: Migrations) -> Result<Migrator, MigrateError> {
    let mut migrator = Migrator::new(Embedded(migrations)).await?;
    migrator.set_ignore_missing(true);
    Ok(migrator)
}

#[derive(Debug)]
struct Embedded(Migrations);

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migrations = self.0.map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        Box::pin(std::future::ready(Ok(migrations.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, thread, time::Duration};

    use super::super::{Error, Place, Pool, Storage};

    async fn open(path: &Path) -> Result<Storage, Error> {
        Storage::open(&Place::File(path.to_owned()), Duration::from_secs(10)).await
    }

    fn file(storage: &Storage) -> &sqlx::SqlitePool {
        match &storage.pool {
            Pool::Sqlite(pool) => pool,
            Pool::Postgres(_) => unreachable!("a file was opened"),
        }
    }

    /// Opens the file in as many threads, each with a runtime of its own: as processes would that start at
    /// the same time.
    fn open_together(path: &Path) -> Result<(), Error> {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                open(path).await?.close().await;
                Ok(())
            })
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(run)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap())
        })
    }

    /// Takes the newest migration back, as if an older release had made the file.
    async fn take_back_the_newest(path: &Path) {
        let storage = open(path).await.unwrap();
        for statement in ["DROP TABLE idempotency_keys", "DELETE FROM _sqlx_migrations WHERE version = 3"] {
            sqlx::query(statement).execute(file(&storage)).await.unwrap();
        }
        storage.close().await;
    }

    async fn applied(path: &Path) -> Vec<(i64,)> {
        let storage = open(path).await.unwrap();
        let statement = sqlx::query_as("SELECT version FROM _sqlx_migrations ORDER BY version");
        let applied = statement.fetch_all(file(&storage)).await.unwrap();
        storage.close().await;
        applied
    }

    #[tokio::test]
    async fn processes_that_start_together_migrate_once() {
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tasks.db");
            open_together(&path).unwrap();
            take_back_the_newest(&path).await;
            open_together(&path).unwrap();
            assert_eq!(applied(&path).await, [(1,), (2,), (3,)]);
        }
    }

    #[tokio::test]
    async fn a_file_from_a_newer_release_is_still_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.db");
        let newer = open(&path).await.unwrap();
        let statement =
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                         VALUES (9999, 'from the future', TRUE, x'00', 0)";
        sqlx::query(statement).execute(file(&newer)).await.unwrap();
        open(&path).await.unwrap().ping().await.unwrap();
    }
}
