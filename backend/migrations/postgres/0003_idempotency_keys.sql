-- Keys under which tasks were made, so that a repeated request makes none again. In a table of its own: another column
-- in `tasks` would break the prepared statements of the release before, which still runs during a rollout.
CREATE TABLE idempotency_keys (
    key         TEXT   PRIMARY KEY,
    fingerprint TEXT   NOT NULL,
    task_id     BIGINT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE
);
-- Serves the deletion of a task.
CREATE INDEX idempotency_keys_by_task ON idempotency_keys (task_id);
