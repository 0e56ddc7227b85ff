//! JSON of the operator's own types. Pure.
//!
//! Hashes, ledgers and manifests are made of it: a default in place of a failure would be the hash of nothing, or an
//! empty ledger.

use serde::Serialize;
use serde_json::Value;

/// JSON as bytes, on one line.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serialized(serde_json::to_vec(value))
}

/// JSON as text, on one line.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    serialized(serde_json::to_string(value))
}

/// JSON as text for people, indented.
pub fn to_string_pretty<T: Serialize + ?Sized>(value: &T) -> String {
    serialized(serde_json::to_string_pretty(value))
}

/// A JSON value.
pub fn to_value<T: Serialize>(value: T) -> Value {
    serialized(serde_json::to_value(value))
}

/// What a serializer of an own type returned. It fails only for a map whose keys are no text, or where a type's own
/// `Serialize` says so, and none of ours does: a failure is a defect, which must not pass as an empty document.
///
/// # Panics
/// On that defect.
pub fn serialized<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("the operator's own types serialize")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;

    #[test]
    #[should_panic(expected = "the operator's own types serialize")]
    fn a_map_whose_keys_are_no_text_is_a_defect_and_not_an_empty_document() {
        to_vec(&BTreeMap::from([(vec![1], 2)]));
    }

    /// Calls of a serializer whose failure becomes a default, in source text.
    fn defaulted(text: &str) -> Vec<String> {
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let mut found = Vec::new();
        for (start, _) in text.match_indices("serde_").filter(|(start, _)| {
            let call = text[*start..].split('(').next().unwrap_or_default();
            call.contains("::to_") && !call.contains([';', '{', ')'])
        }) {
            let mut depth = 0;
            let is_end = |letter: char| {
                depth += i32::from(letter == '(') - i32::from(letter == ')');
                letter == ')' && depth == 0
            };
            let Some(end) = text[start..].find(is_end) else { continue };
            let rest = &text[start + end + 1..];
            if ["unwrap_or_default()", "unwrap_or(", "unwrap_or_else("]
                .iter()
                .any(|way| rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(way)))
            {
                found.push(text[start..=start + end].to_owned());
            }
        }
        found
    }

    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.extend(defaulted(&text).into_iter().map(|call| format!("{}: {call}", path.display())));
            }
        }
    }

    #[test]
    fn no_failure_to_serialize_becomes_a_default() {
        let call = |rest: &str| format!("let a = serde_json::to_vec(&(b(), \n c)){rest};");
        assert_eq!(defaulted(&call(".unwrap_or_default()")), ["serde_json::to_vec(&(b(),c))"]);
        assert_eq!(defaulted(&call("\n    .unwrap_or_default()")).len(), 1);
        assert!(defaulted(&call("?")).is_empty());
        let mut found = Vec::new();
        for member in ["operator", "crds"] {
            sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(member).join("src"), &mut found);
        }
        assert_eq!(found, Vec::<String>::new(), "use the functions of json.rs");
    }
}
