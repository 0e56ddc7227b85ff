-- Identifiers are never used twice, so that a page cursor stays valid when a task is deleted.
-- Times are RFC 3339 in UTC, to the last digit as they were given: a timestamp would be rounded to microseconds.
CREATE TABLE tasks (
    id          BIGINT  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    title       TEXT    NOT NULL,
    description TEXT    NOT NULL DEFAULT '',
    completed   BOOLEAN NOT NULL DEFAULT FALSE,
    created_at  TEXT    NOT NULL,
    updated_at  TEXT    NOT NULL
);
