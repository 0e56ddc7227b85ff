// Ties what a person does to the API and to the screen.

import { changeTask, createTask, deleteTask, listTasks, newKey, Refused, Unreachable } from "/api.js";
import * as view from "/view.js";

/** Which tasks are listed: "" for all, else the value of `completed`. */
let filter = "";
/** Where the next page begins; null on the last one. */
let next = null;
/** What to do once the service can be reached again. */
let again = load;
/** The task that was sent last, with its key, until the API confirms that it is stored. */
let unconfirmed = null;
/** Counts the loads, so that the answer to an old one is dropped. */
let loads = 0;

view.connect({ add, more, retry, filter: choose, toggle, remove });
window.addEventListener("online", retry);
load();

/**
 * Runs what talks to the API. When that cannot be reached, the page says so and keeps `retried` for the next
 * attempt; what the API refuses goes to `refused`. Says whether it went well.
 */
async function attempt(action, refused, retried = load) {
  // An action that got its answer must not run again at the next `online` event.
  again = load;
  try {
    await action();
    view.showOffline(false);
    return true;
  } catch (error) {
    if (error instanceof Unreachable) {
      again = retried;
      view.showOffline(true);
    } else if (error instanceof Refused) refused(error);
    else throw error;
    return false;
  }
}

async function load() {
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
  }, showOnForm, more);
  if (mine === loads) view.setBusy(false);
}

async function add(task) {
  // Perhaps only the answer to the last attempt was lost: the same task is sent with the same key.
  const isRepeated = unconfirmed?.title === task.title && unconfirmed?.description === task.description;
  if (!isRepeated) unconfirmed = { ...task, key: newKey() };
  const { key } = unconfirmed;
  view.setSubmitting(true);
  await attempt(async () => {
    const made = await createTask(task, key);
    unconfirmed = null;
    view.showFormErrors([]);
    view.clearForm();
    view.announce(`Added: ${made.title}`);
    if (filter === "true") choose("");
    else view.prependTask(made);
  }, showOnForm, () => add(task));
  view.setSubmitting(false);
}

async function toggle(id, completed) {
  view.showTaskError(id, "");
  const went = await attempt(async () => {
    const task = await changeTask(id, { completed });
    view.updateTask(task);
    view.announce(`${completed ? "Done" : "Open again"}: ${task.title}`);
  }, (error) => view.showTaskError(id, error.message));
  if (!went) view.setTick(id, !completed);
}

async function remove(id) {
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
