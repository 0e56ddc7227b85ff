//! The audit log: a JSON line before everything that is written to a host, and one with its result. Writes files.
//!
//! `audit.jsonl` in the state folder, and four older ones, `audit.jsonl.1` to `.4`; `run` and a person's commands append
//! to the same. Every entry is logged, too.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::StateError;
use crate::release::Release;

/// Name of the newest file.
const FILE: &str = "audit.jsonl";
/// Size in bytes from which a new file is begun.
const LARGEST: u64 = 10 << 20;
/// Older files that are kept.
const KEPT: usize = 4;

/// Result of an entry before anything is written: an operator that is killed leaves no other one.
pub(crate) const BEGAN: &str = "Began";

/// One thing that is written to a host: an entry before it, and one when it is over.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry<'a> {
    /// When it began.
    pub(crate) when: jiff::Timestamp,
    /// The operator, or a person.
    pub(crate) who: &'a str,
    /// Why: a revision, or the differences that were repaired.
    pub(crate) why: &'a str,
    /// Namespace and name of the stack.
    pub(crate) stack: &'a str,
    /// Name of the host.
    pub(crate) host: &'a str,
    /// Component.
    pub(crate) component: &'a str,
    /// What was done, or tried, in words.
    pub(crate) what: Vec<String>,
    /// Hash of the plan; none where a stack is taken away, or only the ledger is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<String>,
    /// What was in force before.
    pub(crate) before: State<'a>,
    /// What is in force after; nothing is said of it before the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<State<'a>>,
    /// [`BEGAN`], `Succeeded`, or the reason of the failure.
    pub(crate) result: &'a str,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// A release in force.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct State<'a> {
    /// Its ID; none where there is none.
    pub(crate) release: Option<&'a str>,
    /// Its revision.
    pub(crate) revision: Option<&'a str>,
}

impl<'a> State<'a> {
    /// The release in force, if there is one.
    pub(crate) fn of(release: Option<&'a Release>) -> Self {
        let revision = release.map(|release| release.project.version());
        Self { release: release.map(|release| release.id.as_str()), revision }
    }
}

/// Appends a line, under a lock that every writer takes; a file that is full becomes an older one first.
///
/// # Errors
/// Where the folder cannot be written.
pub(super) fn append(folder: &Path, line: &str) -> Result<(), StateError> {
    append_up_to(folder, line, LARGEST)
        .map_err(|source| StateError::Unwritable { path: folder.join(FILE), source })
}

fn append_up_to(folder: &Path, line: &str, largest: u64) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("audit.lock"))?;
    lock.lock()?;
    let numbered = |number: usize| -> PathBuf {
        folder.join(if number == 0 { FILE.to_owned() } else { format!("{FILE}.{number}") })
    };
    if fs::metadata(numbered(0)).is_ok_and(|metadata| metadata.len() >= largest) {
        for number in (0..KEPT).rev().filter(|number| numbered(*number).exists()) {
            fs::rename(numbered(number), numbered(number + 1))?;
        }
    }
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(numbered(0))?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_becomes_an_older_one_and_five_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..14 {
            append_up_to(folder.path(), &format!("entry {number}"), 15).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("audit.jsonl"), "entry 12\nentry 13\n");
        assert_eq!(read("audit.jsonl.4"), "entry 4\nentry 5\n");
        assert!(!folder.path().join("audit.jsonl.5").exists(), "more are kept than said");
    }
}
