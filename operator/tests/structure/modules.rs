//! The import graph of the operator's top-level modules, and what the engine may not know.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Whether a file is tests alone.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// The code of a file without its comments and its test module, which ends it.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    text[..end].lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

/// The top-level module of a file.
fn module(path: &Path) -> String {
    let first = path.strip_prefix(source()).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The top-level modules that a text names: `crate::NAME`, and each NAME in `use crate::{NAME, …}`.
fn named(text: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (start, _) in text.match_indices("crate::") {
        let rest = &text[start + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(
                rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect(),
            );
            continue;
        };
        let (mut depth, mut word) = (0, String::new());
        for letter in group.chars() {
            match letter {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                _ if depth > 0 => {}
                ',' => names.extend([std::mem::take(&mut word)]),
                letter if letter.is_alphanumeric() || letter == '_' => word.push(letter),
                // What follows the name of a module is a path within it.
                ':' => word.push(':'),
                _ => {}
            }
        }
        names.insert(word);
    }
    let first = |name: String| name.split(':').next().unwrap_or_default().to_owned();
    names.into_iter().map(first).filter(|name| known.contains(name)).collect()
}

/// Who imports whom, among top-level modules.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let all: Vec<PathBuf> = files(&source()).into_iter().filter(|path| !is_test(path)).collect();
    let known: BTreeSet<String> = all.iter().map(|path| module(path)).collect();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in &all {
        let (from, to) = (module(path), named(&code(path), &known));
        graph.entry(from.clone()).or_default().extend(to.into_iter().filter(|other| *other != from));
    }
    graph
}

/// A way from a module back to itself.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        graph: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        let here = way.last()?.clone();
        for next in graph.get(&here).into_iter().flatten() {
            if let Some(start) = way.iter().position(|name| name == next) {
                return Some(way[start..].iter().chain([next]).cloned().collect());
            }
            if done.contains(next) {
                continue;
            }
            way.push(next.clone());
            if let Some(found) = visit(graph, way, done) {
                return Some(found);
            }
            way.pop();
        }
        done.insert(here);
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|name| visit(graph, &mut vec![name.clone()], &mut done))
}

#[test]
fn imports_of_top_level_modules_have_no_cycle() {
    let graph = imports();
    assert!(graph["engine"].contains("plan"), "the graph is not read: {graph:?}");
    assert_eq!(cycle(&graph), None, "{graph:#?}");
}

#[test]
fn a_cycle_is_found() {
    let known = ["a", "b", "c"].map(str::to_owned).into();
    let text = "use crate::{\n    a,\n    b::{X, c},\n};\nlet d = crate::c::D;";
    assert_eq!(named(text, &known).into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    let edge = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|&name| name.to_owned()).collect());
    let graph = BTreeMap::from([edge("a", &["b"]), edge("b", &["c"]), edge("c", &["b"])]);
    assert_eq!(cycle(&graph), Some(["b", "c", "b"].map(str::to_owned).to_vec()));
    assert_eq!(cycle(&BTreeMap::from([edge("a", &["b", "c"]), edge("b", &["c"])])), None);
}

/// Modules that interpret what components render.
const GENERIC: [&str; 6] = ["engine", "plan", "diff", "apply", "observe", "report"];
/// Names of components and of their services.
const NAMES: [&str; 8] = ["app", "agents", "monitoring", "logging", "echo", "edge", "backend", "frontend"];

#[test]
fn the_engine_names_no_component_and_no_service() {
    let mut found = Vec::new();
    for path in files(&source()).into_iter().filter(|path| !is_test(path)) {
        if !GENERIC.contains(&module(&path).as_str()) {
            continue;
        }
        for name in NAMES {
            let constant = name.to_uppercase();
            for (number, line) in code(&path).lines().enumerate() {
                let is_named = line.contains(&format!("\"{name}\""))
                    || line.contains(&format!("\"{name}."))
                    || line.contains(&format!("/{name}/"))
                    || line.contains(&format!("component::{name}"))
                    || line.contains(&format!("spec.{name}"))
                    || line
                        .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                        .any(|word| word == constant);
                if is_named {
                    found.push(format!(
                        "{}: line {number} of its code names {name}: {}",
                        path.display(),
                        line.trim()
                    ));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
