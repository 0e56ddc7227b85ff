//! A YAML document as a tree whose every node knows its line and column.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_saphyr::{Location, Spanned};

use super::{MAX_FILE_BYTES, Mistake};

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub position: Position,
    /// What it is.
    pub value: NodeValue,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeValue {
    /// Null, a boolean, a number or a text.
    Scalar(Value),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys with their own position, in the order of the text.
    Mapping(Vec<(String, Position, Node)>),
}

/// Parses exactly one YAML document.
pub(super) fn parse(text: &str) -> Result<Node, Mistake> {
    check_size(text)?;
    let spanned: Spanned<NodeValue> =
        serde_saphyr::from_str_with_options(text, options()).map_err(|error| syntax(&error))?;
    Ok(Node::from(spanned))
}

/// Parses every YAML document; those without content are left out.
pub(super) fn parse_all(text: &str) -> Result<Vec<Node>, Mistake> {
    check_size(text)?;
    let spanned: Vec<Spanned<NodeValue>> =
        serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| syntax(&error))?;
    let nodes = spanned.into_iter().map(Node::from);
    Ok(nodes.filter(|node| !matches!(node.value, NodeValue::Scalar(Value::Null))).collect())
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true, emit_comments: false }
}

fn check_size(text: &str) -> Result<(), Mistake> {
    if text.len() <= MAX_FILE_BYTES {
        return Ok(());
    }
    let message = format!("expected at most {MAX_FILE_BYTES} bytes, found {}", text.len());
    Err(Mistake { line: 1, column: 1, path: String::new(), message })
}

fn syntax(error: &serde_saphyr::Error) -> Mistake {
    let position = error.location().map(Position::from).unwrap_or_default();
    let text = error.without_snippet().to_string();
    let message = text.lines().next().unwrap_or("not YAML").to_owned();
    Mistake { line: position.line, column: position.column, path: String::new(), message }
}

impl From<Spanned<NodeValue>> for Node {
    fn from(spanned: Spanned<NodeValue>) -> Self {
        Self { position: spanned.referenced.into(), value: spanned.value }
    }
}

impl Node {
    /// The value of a key, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let NodeValue::Mapping(entries) = &self.value else {
            return None;
        };
        entries.iter().find(|(name, _, _)| name == key).map(|(_, _, node)| node)
    }

    /// The text, where this is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The tree without positions.
    pub fn to_json(&self) -> Value {
        match &self.value {
            NodeValue::Scalar(value) => value.clone(),
            NodeValue::Sequence(items) => items.iter().map(Node::to_json).collect(),
            NodeValue::Mapping(entries) => {
                let map: Map<_, _> =
                    entries.iter().map(|(key, _, node)| (key.clone(), node.to_json())).collect();
                Value::Object(map)
            }
        }
    }

    /// What stands here, in the words of a message.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            NodeValue::Scalar(Value::Null) => "nothing".to_owned(),
            NodeValue::Scalar(Value::String(text)) => format!("'{}'", shortened(text)),
            NodeValue::Scalar(Value::Bool(value)) => format!("the boolean {value}"),
            NodeValue::Scalar(value) => format!("the number {value}"),
            NodeValue::Sequence(_) => "a list".to_owned(),
            NodeValue::Mapping(_) => "a mapping".to_owned(),
        }
    }

    /// A mistake at this node.
    pub(super) fn mistake(&self, path: &str, message: String) -> Mistake {
        Mistake { line: self.position.line, column: self.position.column, path: path.to_owned(), message }
    }

    /// A mistake at the deepest node on a path such as `spec.hosts[0].name`.
    pub(super) fn mistake_at(&self, path: &str, message: String) -> Mistake {
        let mut node = self;
        for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')) {
            let next = match &node.value {
                NodeValue::Sequence(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
                _ => node.get(step),
            };
            let Some(next) = next else { break };
            node = next;
        }
        node.mistake(path, message)
    }
}

/// A text as a message shows it: control characters escaped, at most 60 characters.
fn shortened(text: &str) -> String {
    let escaped: String = text.escape_debug().take(60).collect();
    if text.chars().count() > 60 { format!("{escaped}…") } else { escaped }
}

impl<'de> Deserialize<'de> for NodeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = NodeValue;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<NodeValue, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<NodeValue, E> {
        Ok(NodeValue::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<NodeValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<NodeValue>>()? {
            items.push(item.into());
        }
        Ok(NodeValue::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<NodeValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let value: Spanned<NodeValue> = access.next_value()?;
            entries.push((key.value, key.referenced.into(), value.into()));
        }
        Ok(NodeValue::Mapping(entries))
    }
}
