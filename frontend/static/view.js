// What is on the screen. All text from outside is set as text, never as markup.

const byId = (id) => document.getElementById(id);

const list = byId("list");
const form = byId("add");
const dates = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const EMPTY = {
  "": ["Nothing to do", "Write down the first task above."],
  false: ["All done", "There is no open task."],
  true: ["Nothing done yet", "Tasks you complete show up here."],
};

/** The handlers for what a person does with a task: `{toggle(id, completed), remove(id)}`. */
let handlers = {};

/** Connects the page's controls. */
export function connect({ add, more, retry, filter, ...taskHandlers }) {
  handlers = taskHandlers;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    add({ title: form.elements.title.value, description: form.elements.description.value });
  });
  form.elements.description.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  byId("more").addEventListener("click", more);
  byId("retry").addEventListener("click", retry);
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.addEventListener("click", () => filter(button.dataset.filter));
  }
}

/** Shows which tasks are listed. */
export function showFilter(filter) {
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
  }
  [byId("empty-lead").textContent, byId("empty-hint").textContent] = EMPTY[filter];
}

/** Replaces the list. */
export function showTasks(tasks) {
  list.replaceChildren(...tasks.map(item));
  settle();
}

/** Adds tasks at the end, and takes the keyboard to the first of them. */
export function appendTasks(tasks) {
  const items = tasks.filter(({ id }) => !find(id)).map(item);
  list.append(...items);
  settle();
  items[0]?.querySelector(".check").focus();
}

/** Adds a task at the top, once. */
export function prependTask(task) {
  find(task.id)?.remove();
  const added = item(task);
  added.classList.add("new");
  list.prepend(added);
  settle();
}

/** Shows a task as it is now. */
export function updateTask(task) {
  const shown = find(task.id);
  if (shown) fill(shown, task);
}

/** Puts a task's tick back to what it was. */
export function setTick(id, completed) {
  const check = find(id)?.querySelector(".check");
  if (check) check.checked = completed;
}

/** Takes a task off the list; the keyboard goes on to its neighbour. */
export function removeTask(id) {
  const shown = find(id);
  if (!shown) return;
  const neighbour = shown.nextElementSibling ?? shown.previousElementSibling;
  const hadFocus = shown.contains(document.activeElement);
  shown.remove();
  settle();
  if (hadFocus) (neighbour?.querySelector(".delete") ?? byId("list-title")).focus();
}

/** Whether there is a next page to load. */
export function showMore(isThere) {
  byId("more").hidden = !isThere;
}

/** Whether the list is being loaded. */
export function setBusy(isBusy) {
  list.setAttribute("aria-busy", String(isBusy));
  byId("more").disabled = isBusy;
  settle();
}

/** Whether a task is being stored. */
export function setSubmitting(isSubmitting) {
  form.querySelector("button").disabled = isSubmitting;
}

/** Makes the form ready for the next task. */
export function clearForm() {
  form.reset();
  form.elements.title.focus();
}

/** Shows what is wrong with the form, next to each field; what names no field goes below them. */
export function showFormErrors(errors) {
  for (const slot of form.querySelectorAll("[data-error-for]")) {
    const name = slot.dataset.errorFor;
    const field = name && form.elements[name];
    const own = errors.filter((error) => error.field === name || (!name && !form.elements[error.field]));
    const told = own.map(({ field, message }) => (field ? `${capital(field)} ${message}` : message)).join(". ");
    tell(slot, told);
    if (field) mark(field, slot, told);
  }
  form.querySelector("[aria-invalid=true]")?.focus();
}

/** Shows what went wrong with one task; nothing when it went well. */
export function showTaskError(id, message) {
  const slot = find(id)?.querySelector(".slot");
  if (slot) tell(slot, message);
}

/** Whether the service cannot be reached. */
export function showOffline(isOffline) {
  byId("offline").hidden = !isOffline;
  settle();
}

/** Says something to those who cannot see the page. */
export function announce(message) {
  byId("status").textContent = message;
}

function item(task) {
  const made = byId("task").content.firstElementChild.cloneNode(true);
  made.dataset.id = task.id;
  const check = made.querySelector(".check");
  check.addEventListener("change", () => handlers.toggle(task.id, check.checked));
  made.querySelector(".delete").addEventListener("click", () => handlers.remove(task.id));
  fill(made, task);
  return made;
}

function fill(shown, { title, description, completed, createdAt }) {
  shown.classList.toggle("completed", completed);
  shown.querySelector(".title").textContent = title;
  shown.querySelector(".description").textContent = description;
  const check = shown.querySelector(".check");
  check.checked = completed;
  check.setAttribute("aria-label", `Done: ${title}`);
  shown.querySelector(".delete").setAttribute("aria-label", `Delete: ${title}`);
  shown.querySelector(".delete").title = "Delete";
  const time = shown.querySelector("time");
  time.dateTime = createdAt;
  time.textContent = dates.format(new Date(createdAt));
}

function find(id) {
  return list.querySelector(`[data-id="${CSS.escape(id)}"]`);
}

/** An empty list shows its hint only when it is known to be empty. */
function settle() {
  const isBusy = list.getAttribute("aria-busy") === "true";
  list.hidden = list.childElementCount === 0;
  byId("empty").hidden = !list.hidden || isBusy || !byId("offline").hidden;
}

function tell(slot, message) {
  slot.replaceChildren();
  if (!message) return;
  const told = document.createElement("p");
  told.className = "error";
  told.dataset.testid = "error";
  told.textContent = message;
  slot.append(told);
}

function mark(field, slot, message) {
  slot.id ||= `${field.name}-error`;
  field.setAttribute("aria-invalid", String(Boolean(message)));
  if (message) field.setAttribute("aria-describedby", slot.id);
  else field.removeAttribute("aria-describedby");
}

function capital(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
}
