// Ties what a person does to the API and to the screen.

import { changeTask, createTask, deleteTask, listTasks, Refused, Unreachable } from "/api.js";
import * as view from "/view.js";

/** Which tasks are listed: "" for all, else the value of `completed`. */
let filter = "";
/** Where the next page begins; null on the last one. */
let next = null;
/** What to do again once the service can be reached. */
let again = load;
/** Counts the loads, so that the answer to an old one is dropped. */
let loads = 0;

view.connect({ add, more, retry, filter: choose, toggle, remove });
window.addEventListener("online", retry);
load();

/**
 * Runs what talks to the API. When that cannot be reached, the page says so and keeps `action` for another
 * attempt; what the API refuses goes to `refused`. Says whether it went well.
 */
async function attempt(action, refused) {
  try {
    await action();
    view.showOffline(false);
    return true;
  } catch (error) {
    if (error instanceof Unreachable) view.showOffline(true);
    else if (error instanceof Refused) refused(error);
    else throw error;
    return false;
  }
}

async function load() {
  again = load;
  const mine = ++loads;
  view.setBusy(true);
  await attempt(async () => {
    const page = await listTasks({ completed: filter });
    if (mine !== loads) return;
    next = page.next;
    view.showTasks(page.items);
    view.showMore(next !== null);
  }, showOnForm);
  if (mine === loads) view.setBusy(false);
}

async function more() {
  again = more;
  const mine = ++loads;
  view.setBusy(true);
  await attempt(async () => {
    const page = await listTasks({ completed: filter, after: next });
    if (mine !== loads) return;
    next = page.next;
    view.setBusy(false);
    view.appendTasks(page.items);
    view.showMore(next !== null);
    view.announce(`${page.items.length} more tasks`);
  }, showOnForm);
  if (mine === loads) view.setBusy(false);
}

async function add(task) {
  again = () => add(task);
  view.setSubmitting(true);
  await attempt(async () => {
    const made = await createTask(task);
    view.showFormErrors([]);
    view.clearForm();
    view.announce(`Added: ${made.title}`);
    if (filter === "true") choose("");
    else view.prependTask(made);
  }, showOnForm);
  view.setSubmitting(false);
}

async function toggle(id, completed) {
  again = load;
  view.showTaskError(id, "");
  const went = await attempt(async () => {
    const task = await changeTask(id, { completed });
    view.updateTask(task);
    view.announce(`${completed ? "Done" : "Open again"}: ${task.title}`);
  }, (error) => view.showTaskError(id, error.message));
  if (!went) view.setTick(id, !completed);
}

async function remove(id) {
  again = load;
  await attempt(async () => {
    await deleteTask(id);
    view.removeTask(id);
    view.announce("Deleted");
  }, (error) => view.showTaskError(id, error.message));
}

function choose(chosen) {
  filter = chosen;
  view.showFilter(filter);
  load();
}

function retry() {
  again();
}

function showOnForm(error) {
  view.showFormErrors(error.errors.length ? error.errors : [{ field: "", message: error.message }]);
}
