//! All mistakes of a stack file at once, each with line, column, path, what was expected and what was found.
//!
//! Three passes over the same tree: the schema (types, enums, patterns, ranges, unknown and missing fields),
//! the CEL rules of the schema, and the parts that no release of the operator carries out yet.

mod node;
mod schema;
mod support;

use std::{fmt, sync::LazyLock};

use kube::{
    CustomResourceExt,
    core::cel::{CompiledSchema, Validator, compile_schema},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    API_VERSION, KIND, TaskTrackerStack,
    scalars::{Name, Namespace},
};
pub use node::{Node, NodeValue, Position};
pub use support::unsupported;

/// The API group of stacks.
const GROUP: &str = "tasktracker.dev/";
/// Largest stack file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// One mistake in a stack file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mistake {
    /// Line, from 1; 0 when the place is not known.
    pub line: u64,
    /// Column, from 1; 0 when the place is not known.
    pub column: u64,
    /// Path such as `spec.hosts[0].name`; empty for the document.
    pub path: String,
    /// What is wrong: expected, found, and the remedy where there is one.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(formatter, "{}:{}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.message)
    }
}

/// The schema of the whole resource, as JSON.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let definition = serde_json::to_value(TaskTrackerStack::crd()).expect("a resource definition serializes");
    definition.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default()
});

/// The CEL rules of the schema, compiled: that takes far longer than to evaluate them.
static RULES: LazyLock<CompiledSchema> = LazyLock::new(|| compile_schema(&SCHEMA));

/// Reads a stack from the text of a YAML file.
///
/// # Errors
/// Every mistake found, in the order of the text.
pub fn read_stack(text: &str) -> Result<TaskTrackerStack, Vec<Mistake>> {
    checked(&node::parse(text).map_err(|mistake| vec![mistake])?)
}

/// What one document of a YAML file is.
#[derive(Clone, Debug)]
pub enum Document {
    /// A stack, or every mistake in what is meant to be one.
    Stack(Result<Box<TaskTrackerStack>, Vec<Mistake>>),
    /// Something else that belongs to somebody else: its kind, or what is there instead of one.
    Other(String),
}

/// Reads every document of a YAML file; one without any content is left out.
///
/// # Errors
/// Where the text is no YAML: the mistake.
pub fn read_documents(text: &str) -> Result<Vec<Document>, Mistake> {
    let documents = node::parse_all(text)?;
    Ok(documents
        .iter()
        .map(|document| other(document).map_or_else(|| stack(document), Document::Other))
        .collect())
}

fn stack(document: &Node) -> Document {
    Document::Stack(checked(document).map(Box::new))
}

/// The kind of a document that is certainly no stack, also where it is only half of one, as when a file is read while it
/// is written: another kind of resource, or a mapping that no resource begins with.
fn other(document: &Node) -> Option<String> {
    let text = |key: &str| document.get(key).and_then(Node::as_str).filter(|text| !text.is_empty());
    let is_ours = |text: &str| text == KIND || text.starts_with(GROUP);
    if let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) {
        return (!is_ours(version) && !is_ours(kind)).then(|| printable(kind));
    }
    let NodeValue::Mapping(entries) = &document.value else { return None };
    let of_resource = ["apiVersion", "kind", "metadata", "spec", "status"];
    let is_part = entries.iter().any(|(key, _, _)| of_resource.contains(&key.as_str()));
    (!is_part && !entries.is_empty()).then(|| "no kind".to_owned())
}

/// A kind as it may stand in a line.
fn printable(kind: &str) -> String {
    kind.chars().filter(|character| !character.is_control()).take(63).collect()
}

/// Checks one document.
fn checked(document: &Node) -> Result<TaskTrackerStack, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    check_head(document, &mut mistakes);
    schema::check(document, &SCHEMA, "", &mut mistakes);
    if mistakes.is_empty() {
        check_rules(document, &mut mistakes);
    }
    if !mistakes.is_empty() {
        return Err(sorted(mistakes));
    }
    let stack: TaskTrackerStack = serde_json::from_value(document.to_json()).map_err(|error| {
        vec![Mistake { line: 1, column: 1, path: String::new(), message: error.to_string() }]
    })?;
    let mistakes: Vec<Mistake> = unsupported(&stack.spec)
        .into_iter()
        .map(|(path, message)| document.mistake_at(&path, message))
        .collect();
    if mistakes.is_empty() { Ok(stack) } else { Err(sorted(mistakes)) }
}

/// Reads a stack from an object of an API server, which may have been stored before a rule existed.
///
/// # Errors
/// Every mistake found; places have no line and no column.
pub fn read_object(object: &Value) -> Result<TaskTrackerStack, Vec<Mistake>> {
    read_stack(&object.to_string()).map_err(|mistakes| {
        mistakes.into_iter().map(|mistake| Mistake { line: 0, column: 0, ..mistake }).collect()
    })
}

/// `apiVersion`, `kind` and `metadata`, which the schema leaves to the API server.
fn check_head(document: &Node, mistakes: &mut Vec<Mistake>) {
    for (key, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match document.get(key) {
            None => mistakes.push(document.mistake(key, format!("missing; expected '{expected}'"))),
            Some(node) if node.as_str() != Some(expected) => {
                mistakes.push(node.mistake(key, format!("expected '{expected}', found {}", node.describe())));
            }
            Some(_) => {}
        }
    }
    let Some(metadata) = document.get("metadata") else {
        mistakes.push(document.mistake("metadata", "missing; expected at least 'name'".to_owned()));
        return;
    };
    for key in ["name", "namespace"] {
        check_name(metadata, key, mistakes);
    }
}

fn check_name(metadata: &Node, key: &str, mistakes: &mut Vec<Mistake>) {
    let path = format!("metadata.{key}");
    let Some(node) = metadata.get(key) else {
        if key == "name" {
            mistakes.push(metadata.mistake(&path, "missing; expected the name of the stack".to_owned()));
        }
        return;
    };
    let text = node.as_str().unwrap_or_default();
    let form = match key {
        "namespace" => text.parse::<Namespace>().err(),
        _ => text.parse::<Name>().err(),
    };
    if let Some(error) = form {
        mistakes.push(node.mistake(&path, format!("expected {}, found {}", error.expected, node.describe())));
    }
}

/// The CEL rules of the schema, evaluated here as the API server would.
fn check_rules(document: &Node, mistakes: &mut Vec<Mistake>) {
    let object = document.to_json();
    if let Err(errors) = Validator::new().validate_compiled(&RULES, &object, None) {
        for error in errors.into_vec() {
            mistakes.push(document.mistake_at(error.field_path.trim_start_matches('.'), error.message));
        }
    }
}

/// The rules that compare a stack with what it was before, such as `environment` being unchangeable.
///
/// # Errors
/// The messages of the rules that the change breaks.
pub fn check_update(old: &TaskTrackerStack, new: &TaskTrackerStack) -> Result<(), Vec<String>> {
    let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) else {
        return Err(vec!["the stack cannot be written as JSON".to_owned()]);
    };
    Validator::new()
        .validate_compiled(&RULES, &new, Some(&old))
        .map_err(|errors| errors.into_vec().into_iter().map(|error| error.message).collect())
}

fn sorted(mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    mistakes.sort();
    mistakes.dedup();
    mistakes
}

#[cfg(test)]
mod tests;
