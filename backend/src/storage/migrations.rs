//! The tables' history, built into the binary.
//!
//! Migrations only add: during a rollout, and after going back to an older release, the binary before this
//! one works on the same file. So it must not mind migrations it does not know.

use futures::future::BoxFuture;
use sqlx::{
    SqlSafeStr, SqlitePool,
    error::BoxDynError,
    migrate::{MigrateError, Migration, MigrationSource, MigrationType, Migrator},
};

const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "tasks", include_str!("../../migrations/0001_tasks.sql")),
    (2, "tasks by completed", include_str!("../../migrations/0002_tasks_by_completed.sql")),
];

/// Brings the tables up to date, in one transaction that takes the write lock first: of two processes
/// starting on the same file, one migrates and the other waits and then finds nothing to do.
pub(super) async fn run(pool: &SqlitePool) -> Result<(), MigrateError> {
    let mut migrator = Migrator::new(Embedded).await?;
    migrator.set_ignore_missing(true);
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    migrator.run(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

#[derive(Debug)]
struct Embedded;

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migrations = MIGRATIONS.map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        Box::pin(std::future::ready(Ok(migrations.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, thread};

    use super::super::{Error, Storage};

    /// Opens the file in as many threads, each with a runtime of its own: as processes would that start at
    /// the same time.
    fn open_together(path: &Path) -> Result<(), Error> {
        let open = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                Storage::open(path).await?.close().await;
                Ok(())
            })
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap())
        })
    }

    /// Takes the newest migration back, as if an older release had made the file.
    async fn take_back_the_newest(path: &Path) {
        let storage = Storage::open(path).await.unwrap();
        for statement in ["DROP INDEX tasks_by_completed", "DELETE FROM _sqlx_migrations WHERE version = 2"] {
            sqlx::query(statement).execute(&storage.pool).await.unwrap();
        }
        storage.close().await;
    }

    async fn applied(path: &Path) -> Vec<(i64,)> {
        let storage = Storage::open(path).await.unwrap();
        let statement = sqlx::query_as("SELECT version FROM _sqlx_migrations ORDER BY version");
        let applied = statement.fetch_all(&storage.pool).await.unwrap();
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
            assert_eq!(applied(&path).await, [(1,), (2,)]);
        }
    }

    #[tokio::test]
    async fn a_file_from_a_newer_release_is_still_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.db");
        let newer = Storage::open(&path).await.unwrap();
        let statement =
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                         VALUES (9999, 'from the future', TRUE, x'00', 0)";
        sqlx::query(statement).execute(&newer.pool).await.unwrap();
        Storage::open(&path).await.unwrap().ping().await.unwrap();
    }
}
