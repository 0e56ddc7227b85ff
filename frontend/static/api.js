// Talks to the task API. Every failure is one of the two errors below.

import { backendUrl } from "/config.js";

const BASE = backendUrl || "/api";
const TIME_LIMIT_MS = 15_000;
const PAGE_SIZE = 50;

/** The API answered that it will not do what was asked. */
export class Refused extends Error {
  constructor({ status, detail, errors }) {
    super(detail || "The request was not accepted.");
    this.status = status;
    this.errors = Array.isArray(errors) ? errors : [];
  }
}

/** The API could not be reached, or is not able to answer. */
export class Unreachable extends Error {}

/** A page of tasks: `{items, next}`. `completed` is "", "true" or "false". */
export function listTasks({ completed, after }) {
  const query = new URLSearchParams({ limit: PAGE_SIZE });
  if (completed) query.set("completed", completed);
  if (after) query.set("after", after);
  return call("GET", `/tasks?${query}`);
}

/** A key for one task to be made: 128 random bits. */
export function newKey() {
  // Not randomUUID: browsers have that on pages from https only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Makes a task and returns it as stored; sent again with the same key, it is made once. */
export function createTask(task, key) {
  return call("POST", "/tasks", task, { "idempotency-key": key });
}

/** Changes some fields of a task and returns it as stored. */
export function changeTask(id, change) {
  return call("PATCH", `/tasks/${encodeURIComponent(id)}`, change);
}

/** Deletes a task. That it is gone already is fine. */
export async function deleteTask(id) {
  try {
    await call("DELETE", `/tasks/${encodeURIComponent(id)}`);
  } catch (error) {
    if (!(error instanceof Refused && error.status === 404)) throw error;
  }
}

async function call(method, path, body, headers = {}) {
  const response = await reach(method, path, body, headers);
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  // A proxy that finds no service behind it answers 502 to 504; so does a service on its way out.
  if (answer === null || response.status >= 502) throw new Unreachable(`status ${response.status}`);
  throw new Refused({ ...answer, status: response.status });
}

async function reach(method, path, body, headers) {
  const request = { method, headers, signal: AbortSignal.timeout(TIME_LIMIT_MS), credentials: "same-origin" };
  if (body !== undefined) {
    request.headers = { ...headers, "content-type": "application/json" };
    request.body = JSON.stringify(body);
  }
  try {
    return await fetch(BASE + path, request);
  } catch (error) {
    throw new Unreachable(error.message);
  }
}
