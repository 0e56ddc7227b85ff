// Shows openapi.json. All addresses are relative to this page, and all text is set as text.

const METHODS = ["get", "post", "put", "patch", "delete"];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The schema a reference names, or the schema itself. */
function resolve(api, schema) {
  const name = schema?.$ref?.split("/").pop();
  return name ? resolve(api, api.components.schemas[name]) : schema;
}

/** A schema's type in a few words. */
function typeOf(api, schema) {
  if (!schema) return "";
  const name = schema.$ref?.split("/").pop();
  if (name && resolve(api, schema).type === "object") return name;
  if (schema.oneOf) return schema.oneOf.map((one) => typeOf(api, one)).join(" or ");
  const full = resolve(api, schema);
  if (full.type === "array") return `list of ${typeOf(api, full.items)}`;
  return [full.type].flat().join(" or ");
}

/** The bounds a schema sets, in words. */
function boundsOf(schema) {
  const length = range(schema.minLength, schema.maxLength);
  return [schema.format, length && `${length} characters`, range(schema.minimum, schema.maximum)].filter(Boolean).join(", ");
}

function range(least, most) {
  if (least !== undefined && most !== undefined) return `${least} to ${most}`;
  if (most !== undefined) return `up to ${most}`;
  return least === undefined ? "" : `at least ${least}`;
}

function table(headings, rows) {
  const head = element("tr", {}, ...headings.map((text) => element("th", { textContent: text, scope: "col" })));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((text) => element("td", { textContent: text }))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

/** An object's fields as a table, followed by the tables of the objects inside it. */
function describe(api, schema, seen = new Set()) {
  const name = schema?.$ref?.split("/").pop() ?? "";
  const full = resolve(api, schema);
  if (!full?.properties || seen.has(name)) return [];
  seen.add(name);
  const required = new Set(full.required ?? []);
  const fields = Object.entries(full.properties);
  const rows = fields.map(([field, inner]) => {
    const kind = [typeOf(api, inner), boundsOf(inner), required.has(field) ? "required" : ""];
    return [field, kind.filter(Boolean).join(", "), inner.description ?? resolve(api, inner)?.description ?? ""];
  });
  const nested = fields.flatMap(([, inner]) => describe(api, inner.items ?? inner, seen));
  return [element("h3", { textContent: name || "Fields" }), table(["Field", "Type", "Meaning"], rows), ...nested];
}

/** A body to start from, made of the schema's examples. */
function example(api, schema) {
  const entries = Object.entries(resolve(api, schema)?.properties ?? {});
  const value = ([field, inner]) => [field, inner.example ?? (inner.type === "boolean" ? false : "")];
  return JSON.stringify(Object.fromEntries(entries.map(value)), null, 2);
}

/** Fields for the parameters and the body, and a button that sends the request. */
function trial(api, method, path, operation) {
  const parameters = (operation.parameters ?? []).map((parameter) => [parameter, element("input")]);
  const schema = operation.requestBody?.content["application/json"]?.schema;
  const body = schema && element("textarea", { value: example(api, schema), spellcheck: false });
  const answer = element("pre", { hidden: true, tabIndex: 0 });
  const form = element("form", {}, element("h3", { textContent: "Try it" }));
  for (const [parameter, input] of parameters) {
    input.required = parameter.required;
    form.append(element("label", {}, parameter.name, input));
  }
  if (body) form.append(element("label", {}, "Body", body));
  form.append(element("button", { textContent: "Send" }), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.hidden = false;
    answer.textContent = "…";
    answer.textContent = await send(method, address(path, parameters), headers(parameters), body?.value);
  });
  return form;
}

function address(path, parameters) {
  const query = new URLSearchParams();
  let filled = path.replace(/^\//, "");
  for (const [{ name, in: place }, { value }] of parameters) {
    if (place === "path") filled = filled.replace(`{${name}}`, encodeURIComponent(value));
    else if (place === "query" && value !== "") query.set(name, value);
  }
  return query.size ? `${filled}?${query}` : filled;
}

function headers(parameters) {
  const filled = parameters.filter(([{ in: place }, { value }]) => place === "header" && value !== "");
  return Object.fromEntries(filled.map(([{ name }, { value }]) => [name, value]));
}

async function send(method, url, headers, body) {
  try {
    if (body !== undefined) headers["content-type"] = "application/json";
    const response = await fetch(url, { method: method.toUpperCase(), headers, body });
    return `${response.status} ${response.statusText}\n\n${pretty(await response.text())}`;
  } catch (error) {
    return `no answer: ${error.message}`;
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function show(api, method, path, operation) {
  const summary = element(
    "summary",
    {},
    element("code", { className: `method ${method}`, textContent: method.toUpperCase() }),
    element("code", { textContent: path }),
    element("span", { className: "about", textContent: operation.summary ?? "" }),
  );
  const body = element("div", { className: "body" });
  if (operation.parameters?.length) {
    const rows = operation.parameters.map((parameter) => {
      const kind = [typeOf(api, parameter.schema), boundsOf(parameter.schema), parameter.required ? "required" : ""];
      return [parameter.name, parameter.in, kind.filter(Boolean).join(", "), parameter.description ?? ""];
    });
    body.append(element("h3", { textContent: "Parameters" }), table(["Name", "In", "Type", "Meaning"], rows));
  }
  const request = operation.requestBody?.content["application/json"]?.schema;
  if (request) body.append(element("h3", { textContent: "Request body" }), ...describe(api, request));
  const responses = Object.entries(operation.responses);
  const rows = responses.map(([status, { description, content }]) => {
    const [media, { schema } = {}] = Object.entries(content ?? {})[0] ?? ["", {}];
    return [status, description, typeOf(api, schema), media];
  });
  body.append(element("h3", { textContent: "Responses" }), table(["Status", "Meaning", "Body", "Media type"], rows));
  const success = responses.find(([status]) => status.startsWith("2"))?.[1].content;
  body.append(...describe(api, Object.values(success ?? {})[0]?.schema), trial(api, method, path, operation));
  return element("details", {}, summary, body);
}

function render(api) {
  document.title = `${api.info.title} API`;
  document.getElementById("title").textContent = `${api.info.title} API ${api.info.version}`;
  document.getElementById("summary").textContent = api.info.description ?? "";
  const operations = document.getElementById("operations");
  operations.replaceChildren();
  for (const { name, description } of api.tags ?? []) {
    const section = element("section", {}, element("h2", { textContent: name }), element("p", { textContent: description ?? "" }));
    for (const [path, item] of Object.entries(api.paths)) {
      const own = METHODS.filter((method) => item[method]?.tags?.includes(name));
      section.append(...own.map((method) => show(api, method, path, item[method])));
    }
    operations.append(section);
  }
}

try {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(`status ${response.status}`);
  render(await response.json());
} catch (error) {
  document.getElementById("operations").textContent = `The description could not be read: ${error.message}`;
}
