//! Files of the applied release against what its folder holds.

use std::collections::BTreeSet;

use tasktracker_crds::{Answer, DriftItem, DriftKind};

use super::{drift::item, secrets};
use crate::{
    host::FileFact,
    observe::{KEY_FILE, Observed},
    project::{SECRETS_FOLDER, is_below, service_of},
    release::Release,
};

/// What the operator keeps in a project's folder beside the files of the release, and what a person may put there.
const OWN: [&str; 6] = ["HOLD", "files", "ledger.json", "releases", SECRETS_FOLDER, KEY_FILE];

/// Permission bits of a folder: services see it as users of their own.
pub(crate) const FOLDER_MODE: u32 = 0o755;

/// The folders above the files of a release.
pub(crate) fn folders(applied: &Release) -> BTreeSet<&str> {
    let of_addresses = applied.project.blue_green().map(|(_, one)| one.addresses.as_str());
    let of_addresses = of_addresses.filter(|folder| !folder.is_empty());
    let of_addresses = of_addresses.flat_map(|folder| parents(folder).chain([folder]));
    applied.files.keys().flat_map(|path| parents(path)).chain(of_addresses).collect()
}

/// A folder with other permission bits, or of another user than the operator's. What a folder takes over from the one
/// above, such as its group, is left as it is.
pub(super) fn folder_drift(path: &str, wanted: u32, observed: &Observed) -> Option<DriftItem> {
    let Some(FileFact::Folder { mode, uid, .. }) = observed.files.get(path) else { return None };
    let (mode, ours) = (mode & 0o777, foreign_to(*uid, observed));
    let words = |mode: u32, uid: u32| match ours {
        Some(_) => format!("mode {mode:04o}, owner {uid}"),
        None => format!("mode {mode:04o}"),
    };
    let found = words(mode, *uid);
    let wanted_words = words(wanted, ours.unwrap_or(*uid));
    (mode != wanted || ours.is_some())
        .then(|| item(DriftKind::FileMode, service_of(path), Some(path), wanted_words, found))
}

/// The operator's user, where a folder is not its own.
pub(crate) fn foreign_to(uid: u32, observed: &Observed) -> Option<u32> {
    observed.facts.as_ref().and_then(|facts| facts.uid).filter(|ours| *ours != uid)
}

/// Whether what is in a folder cannot be seen: it belongs to somebody else, who lets nobody in.
pub(super) fn is_closed(path: &str, observed: &Observed) -> bool {
    parents(path).any(|parent| match observed.files.get(parent) {
        Some(FileFact::Folder { mode, uid, .. }) => {
            foreign_to(*uid, observed).is_some() && mode & 0o005 != 0o005
        }
        _ => false,
    })
}

pub(super) fn file_drift(applied: &Release, observed: &Observed) -> Vec<DriftItem> {
    if let Some(fact) = observed.files.get(".") {
        return vec![item(DriftKind::NotAFile, None, Some("."), "a folder", words(fact))];
    }
    let mut items = Vec::new();
    let mut blocked = BTreeSet::new();
    items.extend(folders(applied).into_iter().filter_map(|path| folder_drift(path, FOLDER_MODE, observed)));
    for (path, record) in applied.files.iter().filter(|(path, _)| !is_closed(path, observed)) {
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
    let addresses: Vec<&str> = applied.project.blue_green().map(|(_, one)| one.addresses.as_str()).collect();
    // Of a folder of secrets that no service has any more, only the folder is there.
    let is_left = |path: &str| {
        let below = format!("{path}/");
        path.starts_with(&format!("{SECRETS_FOLDER}/"))
            && observed.files.get(path).is_some_and(FileFact::is_folder)
            && !observed.files.keys().any(|other| other.starts_with(&below))
    };
    let is_address = |path: &str| {
        let is_of = |folder: &&str| path == *folder || is_below(path, folder) || is_below(folder, path);
        addresses.iter().filter(|folder| !folder.is_empty()).any(is_of)
    };
    let is_known = |path: &str| {
        known.contains(path)
            || path.starts_with("releases/")
            || secrets::is_kept(path)
            || is_address(path)
            || is_left(path)
    };
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
