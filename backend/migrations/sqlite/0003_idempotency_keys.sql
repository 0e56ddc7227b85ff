-- Keys under which tasks were made, so that a repeated request makes none again.
CREATE TABLE idempotency_keys (
    key         TEXT    PRIMARY KEY,
    fingerprint TEXT    NOT NULL,
    task_id     INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE
) STRICT;
-- Serves the deletion of a task.
CREATE INDEX idempotency_keys_by_task ON idempotency_keys (task_id);
