//! Tests wait for conditions: none sleeps.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders of tests, from the root of the workspace.
const FOLDERS: [&str; 5] =
    ["backend/tests", "frontend/tests", "operator/tests", "testbed/echo/tests", "testbed/tests"];
/// What a test that sleeps has in it. Programs of a host, in a text, may sleep.
const REFUSED: [&str; 4] = ["sleep(", "sleep_until(", "::sleep", "park_timeout("];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn tests_wait_for_conditions_and_never_sleep() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files: Vec<PathBuf> = FOLDERS.iter().flat_map(|folder| sources(&root.join(folder))).collect();
    assert!(files.len() > 50, "only {} sources were found", files.len());
    let this = Path::new(file!()).file_name().unwrap();
    let mut found = Vec::new();
    for path in files.iter().filter(|path| path.file_name() != Some(this)) {
        for (index, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            if REFUSED.iter().any(|refused| line.contains(refused)) {
                found.push(format!("{}:{}", path.strip_prefix(&root).unwrap().display(), index + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "expected no sleep in tests, found {}: wait for a condition with tasktracker_testbed::wait",
        found.join(", ")
    );
}
