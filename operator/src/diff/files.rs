//! Files of the applied release against what its folder holds.

use std::collections::BTreeSet;

use tasktracker_crds::{Answer, DriftItem, DriftKind};

use super::{drift::item, secrets};
use crate::{
    host::FileFact,
    observe::{KEY_FILE, Observed},
    project::{SECRETS_FOLDER, service_of},
    release::Release,
};

/// What the operator keeps in a project's folder beside the files of the release, and what a person may put there.
const OWN: [&str; 6] = ["HOLD", "files", "ledger.json", "releases", SECRETS_FOLDER, KEY_FILE];

pub(super) fn file_drift(applied: &Release, observed: &Observed) -> Vec<DriftItem> {
    if let Some(fact) = observed.files.get(".") {
        return vec![item(DriftKind::NotAFile, None, Some("."), "a folder", words(fact))];
    }
    let mut items = Vec::new();
    let mut blocked = BTreeSet::new();
    for (path, record) in &applied.files {
        let wanted = content(&record.sha256, record.size);
        let owner = service_of(path);
        let mut push =
            |kind, path: &str, wanted, found| items.push(item(kind, owner, Some(path), wanted, found));
        if let Some((parent, fact)) = broken_parent(path, observed) {
            if blocked.insert(parent.to_owned()) {
                push(DriftKind::NotAFile, parent, "a folder".to_owned(), words(fact));
            }
            continue;
        }
        match observed.files.get(path) {
            None => push(DriftKind::FileMissing, path, wanted, "nothing".to_owned()),
            Some(FileFact::File { mode, size, sha256, .. }) => {
                if sha256.as_ref() != Some(&record.sha256) {
                    let found = match sha256 {
                        Some(sha256) => content(sha256, *size),
                        None => format!("content that cannot be read ({size} bytes)"),
                    };
                    push(DriftKind::FileChanged, path, wanted, found);
                }
                if *mode != record.mode {
                    let octal = |mode: u32| format!("mode {mode:04o}");
                    push(DriftKind::FileMode, path, octal(record.mode), octal(*mode));
                }
            }
            Some(other) => push(DriftKind::NotAFile, path, "a file".to_owned(), words(other)),
        }
    }
    items.extend(extra(applied, observed));
    items
}

/// The first folder above a file that is none.
fn broken_parent<'a>(path: &'a str, observed: &'a Observed) -> Option<(&'a str, &'a FileFact)> {
    parents(path).find_map(|parent| {
        observed.files.get(parent).filter(|fact| !fact.is_folder()).map(|fact| (parent, fact))
    })
}

/// The folders above a path, from the top.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

/// What is there and belongs to nothing; of a folder, only the folder itself.
fn extra(applied: &Release, observed: &Observed) -> Vec<DriftItem> {
    let known: BTreeSet<&str> = applied
        .files
        .keys()
        .chain(applied.seals.keys())
        .flat_map(|path| parents(path).chain([path.as_str()]))
        .chain(OWN)
        .chain(applied.project.drain_file.as_deref())
        .collect();
    let is_known =
        |path: &str| known.contains(path) || path.starts_with("releases/") || secrets::is_kept(path);
    let known_owner = |path: &str| {
        service_of(path).filter(|owner| applied.project.services.contains_key(*owner)).map(str::to_owned)
    };
    // What lies below something known that is no folder is told with that.
    let is_top = |path: &str| {
        parents(path)
            .all(|parent| is_known(parent) && observed.files.get(parent).is_none_or(FileFact::is_folder))
    };
    observed
        .files
        .iter()
        .filter(|(path, _)| !is_known(path) && is_top(path))
        .map(|(path, fact)| {
            let found =
                item(DriftKind::FileExtra, known_owner(path).as_deref(), Some(path), "nothing", words(fact));
            // A name in that folder leads users to whoever has it.
            let answer = if applied.project.is_upstream(path) { Answer::Heal } else { found.answer };
            DriftItem { answer, ..found }
        })
        .collect()
}

pub(super) fn words(fact: &FileFact) -> String {
    match fact {
        FileFact::File { size, .. } => format!("a file of {size} bytes"),
        FileFact::Folder { .. } => "a folder".to_owned(),
        FileFact::Link => "a symbolic link".to_owned(),
        FileFact::Other => "something that is neither a file nor a folder".to_owned(),
    }
}

/// A content in words that fit into a line.
pub(super) fn content(sha256: &str, size: u64) -> String {
    format!("sha256:{} ({size} bytes)", sha256.get(..12).unwrap_or(sha256))
}
