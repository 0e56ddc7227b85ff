//! Walks a document and its schema side by side.

use std::{collections::HashMap, sync::LazyLock};

use regex::Regex;
use serde_json::{Map, Value};

use crate::scalars::FORMS;

use super::{
    Mistake, SCHEMA,
    node::{Node, NodeValue, Position},
};

/// Every pattern of the schema, compiled once; without one that does not compile, which nothing matches.
static PATTERNS: LazyLock<HashMap<&'static str, Regex>> = LazyLock::new(|| {
    let mut patterns = HashMap::new();
    compile_patterns(&SCHEMA, &mut patterns);
    patterns
});

fn compile_patterns(schema: &'static Value, patterns: &mut HashMap<&'static str, Regex>) {
    if let Some(pattern) = schema["pattern"].as_str()
        && let Ok(form) = Regex::new(pattern)
    {
        patterns.insert(pattern, form);
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|inner| compile_patterns(inner, patterns)),
        Value::Array(items) => items.iter().for_each(|inner| compile_patterns(inner, patterns)),
        _ => {}
    }
}

/// Adds every mistake of `node` against `schema`.
pub(super) fn check(node: &Node, schema: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
    if matches!(node.value, NodeValue::Scalar(Value::Null)) && schema["nullable"] == true {
        return;
    }
    match schema["type"].as_str() {
        Some("object") => check_object(node, schema, path, mistakes),
        Some("array") => check_array(node, schema, path, mistakes),
        Some(kind) => check_scalar(node, kind, schema, path, mistakes),
        None => {}
    }
}

fn check_object(node: &Node, schema: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
    let NodeValue::Mapping(entries) = &node.value else {
        mistakes.push(node.mistake(path, format!("expected a mapping, found {}", node.describe())));
        return;
    };
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        check_size(
            node,
            entries.len(),
            (&schema["minProperties"], &schema["maxProperties"]),
            "entries",
            path,
            mistakes,
        );
        for (key, _, value) in entries {
            check(value, values, &joined(path, key), mistakes);
        }
        return;
    }
    let none = Map::new();
    let Some(properties) = schema["properties"].as_object().or_else(|| path.is_empty().then_some(&none))
    else {
        return;
    };
    check_required(node, schema, path, mistakes);
    for (key, position, value) in entries {
        match properties.get(key) {
            Some(property) => check(value, property, &joined(path, key), mistakes),
            None if is_head(path, key) => {}
            None => mistakes.push(unknown(key, *position, properties, path)),
        }
    }
}

/// What the API server knows of every object, and what it adds to one.
fn is_head(path: &str, key: &str) -> bool {
    path.is_empty() && ["apiVersion", "kind", "metadata", "status"].contains(&key)
}

fn check_required(node: &Node, schema: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if node.get(key).is_none() {
            let purpose = schema["properties"][key]["description"].as_str().unwrap_or_default();
            let purpose = purpose.split(['.', '\n']).next().unwrap_or_default();
            mistakes.push(node.mistake(&joined(path, key), format!("missing; expected: {purpose}")));
        }
    }
}

fn unknown(key: &str, position: Position, properties: &Map<String, Value>, path: &str) -> Mistake {
    let known: Vec<&str> = properties.keys().map(String::as_str).collect();
    let remedy = match nearest(key, &known) {
        Some(name) => format!("did you mean '{name}'?"),
        None => format!("expected one of {}", known.join(", ")),
    };
    Mistake {
        line: position.line,
        column: position.column,
        path: joined(path, key),
        message: format!("unknown field; {remedy}"),
    }
}

fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(&word.to_lowercase(), &name.to_lowercase()), *name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

fn check_array(node: &Node, schema: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
    let NodeValue::Sequence(items) = &node.value else {
        mistakes.push(node.mistake(path, format!("expected a list, found {}", node.describe())));
        return;
    };
    check_size(node, items.len(), (&schema["minItems"], &schema["maxItems"]), "items", path, mistakes);
    for (index, item) in items.iter().enumerate() {
        check(item, &schema["items"], &format!("{path}[{index}]"), mistakes);
    }
    for key in schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str)
    {
        check_unique(items, key, path, mistakes);
    }
}

fn check_unique(items: &[Node], key: &str, path: &str, mistakes: &mut Vec<Mistake>) {
    for (index, item) in items.iter().enumerate() {
        let Some(value) = item.get(key) else { continue };
        let earlier = items[..index]
            .iter()
            .position(|other| other.get(key).is_some_and(|other| other.to_json() == value.to_json()));
        if let Some(earlier) = earlier {
            let message = format!(
                "expected a unique {key}, found {} again (as in {path}[{earlier}])",
                value.describe()
            );
            mistakes.push(value.mistake(&format!("{path}[{index}].{key}"), message));
        }
    }
}

fn check_size(
    node: &Node,
    size: usize,
    (least, most): (&Value, &Value),
    unit: &str,
    path: &str,
    mistakes: &mut Vec<Mistake>,
) {
    let size = size as u64;
    if let Some(least) = least.as_u64().filter(|least| size < *least) {
        mistakes.push(node.mistake(path, format!("expected at least {least} {unit}, found {size}")));
    }
    if let Some(most) = most.as_u64().filter(|most| size > *most) {
        mistakes.push(node.mistake(path, format!("expected at most {most} {unit}, found {size}")));
    }
}

fn check_scalar(node: &Node, kind: &str, schema: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
    let NodeValue::Scalar(value) = &node.value else {
        mistakes.push(node.mistake(path, format!("expected {}, found {}", article(kind), node.describe())));
        return;
    };
    let fits = match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => value.is_number(),
    };
    if !fits {
        let remedy = if kind == "string" && !value.is_null() { "; write it in quotes" } else { "" };
        mistakes.push(
            node.mistake(path, format!("expected {}, found {}{remedy}", article(kind), node.describe())),
        );
        return;
    }
    check_enum(node, value, schema, path, mistakes);
    match value {
        Value::String(text) => check_text(node, text, schema, path, mistakes),
        Value::Number(number) => {
            check_range(node, number.as_f64().unwrap_or_default(), schema, path, mistakes);
        }
        _ => {}
    }
}

fn article(kind: &str) -> &'static str {
    match kind {
        "string" => "a text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a number",
    }
}

fn check_enum(node: &Node, value: &Value, schema: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
    let Some(known) = schema["enum"].as_array() else {
        return;
    };
    if known.contains(value) {
        return;
    }
    let known: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
    let hint =
        value.as_str().and_then(|text| nearest(text, &known)).map(|name| format!("; did you mean '{name}'?"));
    let message = format!(
        "expected one of {}, found {}{}",
        known.join(", "),
        node.describe(),
        hint.unwrap_or_default()
    );
    mistakes.push(node.mistake(path, message));
}

fn check_text(node: &Node, text: &str, schema: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
    let length = text.chars().count();
    check_size(node, length, (&schema["minLength"], &schema["maxLength"]), "characters", path, mistakes);
    let Some(pattern) = schema["pattern"].as_str() else {
        return;
    };
    if !PATTERNS.get(pattern).is_some_and(|form| form.is_match(text)) {
        let words = FORMS.iter().find(|(form, _)| *form == pattern).map(|(_, words)| (*words).to_owned());
        let expected = words.unwrap_or_else(|| format!("a text that matches {pattern}"));
        mistakes.push(node.mistake(path, format!("expected {expected}, found {}", node.describe())));
    }
}

fn check_range(node: &Node, number: f64, schema: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
    let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
        let bound = |bound: Option<f64>| bound.map_or_else(|| "any".to_owned(), |bound| bound.to_string());
        let message = format!("expected {} to {}, found {}", bound(least), bound(most), node.describe());
        mistakes.push(node.mistake(path, message));
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn patterns(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(fields) => {
                found.extend(fields.get("pattern").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|inner| patterns(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|inner| patterns(inner, found)),
            _ => {}
        }
    }

    #[test]
    fn patterns_of_the_schema_are_compiled_once() {
        let mut expected = BTreeSet::new();
        patterns(&SCHEMA, &mut expected);
        assert!(expected.len() > 5, "{expected:?}");
        let compiled: BTreeSet<String> = PATTERNS.keys().map(|pattern| (*pattern).to_owned()).collect();
        assert_eq!(compiled, expected);
        assert!(PATTERNS.iter().all(|(pattern, form)| form.as_str() == *pattern));
    }
}
