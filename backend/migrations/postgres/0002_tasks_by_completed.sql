-- Serves the list filtered by completion and the gauge that counts tasks by state.
CREATE INDEX tasks_by_completed ON tasks (completed, id);
