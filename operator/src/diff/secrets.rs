//! Secret files against the applied release, told by keyed hashes; and what their source has now.

use tasktracker_crds::{DriftItem, DriftKind};

use super::{
    change::ChangeItem,
    drift::item,
    files::{folder_drift, is_closed, words},
};
use crate::{
    host::FileFact,
    observe::{KEY_FILE, Observed},
    project::{Project, SECRETS_FOLDER, SecretFile, service_of},
    release::Release,
    secret::Seals,
};

/// Permission bits of the seal key.
pub(crate) const KEY_MODE: u32 = 0o600;
/// Permission bits of the folder above all secrets: no other user of the host gets past it.
const OUTER_MODE: u32 = 0o700;
/// Permission bits of a service's folder of secrets, which its containers see.
const INNER_MODE: u32 = 0o755;

/// Folder with the values of the release in force while a rollout brings others: what does not serve is taken back with
/// them, though their source has them no longer.
const KEPT: &str = "secrets/.before";
/// Permission bits of those.
pub(crate) const KEPT_MODE: u32 = 0o400;

/// Where the value of a secret file is kept while a rollout brings another.
pub(crate) fn kept_path(path: &str) -> String {
    format!("{KEPT}/{}", path.strip_prefix(SECRETS_FOLDER).unwrap_or(path).trim_start_matches('/'))
}

/// Whether a path is among those that are kept.
pub(crate) fn is_kept(path: &str) -> bool {
    path.strip_prefix(KEPT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Those that are.
pub(crate) fn kept(observed: &Observed) -> impl Iterator<Item = &String> {
    observed
        .files
        .iter()
        .filter(|(path, fact)| is_kept(path) && fact.sha256().is_some())
        .map(|(path, _)| path)
}

/// Whether a secret file does not have the value that it should have.
pub(crate) fn is_of_value(item: &DriftItem) -> bool {
    let kinds = [DriftKind::FileChanged, DriftKind::FileMissing, DriftKind::NotAFile, DriftKind::SecretMoved];
    kinds.contains(&item.kind) && item.path.as_deref().is_some_and(|path| path.starts_with(SECRETS_FOLDER))
}

/// SHA-256 of the file at a path, where that has the value that a release was applied with.
fn applied_hash(applied: &Release, path: &str, at: &str, observed: &Observed) -> Option<String> {
    let sha256 = observed.files.get(at)?.sha256()?;
    let seal = observed.seal_key.as_ref()?.seal(path, sha256);
    (applied.seals.get(path) == Some(&seal)).then(|| sha256.to_owned())
}

/// SHA-256 of the value that a release was applied with, where the host keeps that.
pub(crate) fn kept_hash(applied: &Release, path: &str, observed: &Observed) -> Option<String> {
    applied_hash(applied, path, &kept_path(path), observed)
}

/// SHA-256 of a secret file, where that has the value that a release was applied with.
pub(crate) fn live_hash(applied: &Release, path: &str, observed: &Observed) -> Option<String> {
    applied_hash(applied, path, path, observed)
}

/// The folders of secret files and their permission bits, from the top.
pub(crate) fn folders<'a>(paths: impl IntoIterator<Item = &'a String>) -> Vec<(String, u32)> {
    let mut inner: Vec<String> =
        paths.into_iter().filter_map(|path| Some(path.rsplit_once('/')?.0.to_owned())).collect();
    inner.sort();
    inner.dedup();
    let outer = (!inner.is_empty()).then(|| (SECRETS_FOLDER.to_owned(), OUTER_MODE));
    outer.into_iter().chain(inner.into_iter().map(|path| (path, INNER_MODE))).collect()
}

/// Whether the source still has the value that a release was applied with.
pub(crate) fn has_applied_value(applied: &Release, path: &str, observed: &Observed) -> bool {
    let secrets = applied.project.references();
    let now =
        observed.seal_key.as_ref().map(|key| observed.secrets.sealed(&secrets, key)).unwrap_or_default();
    now.get(path).is_some_and(|now| applied.seals.get(path) == Some(now))
}

/// Files that are not as the release left them. Where the source has the applied value no longer, nothing can be put
/// back: that is told as a secret that moved on.
pub(super) fn secret_drift(applied: &Release, observed: &Observed) -> Vec<DriftItem> {
    if applied.seals.is_empty() {
        return Vec::new();
    }
    let Some(key) = &observed.seal_key else {
        // Of the files nothing can be told: a rollout writes them under a new key.
        let found = observed.files.get(KEY_FILE);
        let kind = if found.is_some() { DriftKind::FileChanged } else { DriftKind::FileMissing };
        let found = if found.is_some() { "something that is no key" } else { "nothing" };
        return vec![item(kind, None, Some(KEY_FILE), "the key of the applied release's secrets", found)];
    };
    let mut items = Vec::new();
    let octal = |mode: u32| format!("mode {mode:04o}");
    if let Some(FileFact::File { mode, .. }) = observed.files.get(KEY_FILE)
        && *mode != KEY_MODE
    {
        items.push(item(DriftKind::FileMode, None, Some(KEY_FILE), octal(KEY_MODE), octal(*mode)));
    }
    let folders = folders(applied.seals.keys());
    items.extend(folders.iter().filter_map(|(path, mode)| folder_drift(path, *mode, observed)));
    for (path, secret) in files(applied) {
        items.extend(other_access(path, secret, observed));
    }
    let is_no_folder = |path: &&String| observed.files.get(*path).is_some_and(|fact| !fact.is_folder());
    let mut broken: Vec<&String> = folders.iter().map(|(path, _)| path).filter(is_no_folder).collect();
    broken.truncate(1);
    for path in &broken {
        let found = observed.files.get(*path).map_or_else(String::new, words);
        items.push(item(DriftKind::NotAFile, service_of(path), Some(path), "a folder", found));
    }
    for (path, seal) in applied
        .seals
        .iter()
        .filter(|(path, _)| !broken.iter().any(|folder| path.starts_with(&format!("{folder}/"))))
        .filter(|(path, _)| !is_closed(path, observed))
    {
        let (kind, found) = match observed.files.get(path) {
            Some(FileFact::File { sha256: Some(sha256), .. }) if key.seal(path, sha256) == *seal => continue,
            Some(FileFact::File { .. }) => (DriftKind::FileChanged, "another value".to_owned()),
            None => (DriftKind::FileMissing, "nothing".to_owned()),
            Some(other) => (DriftKind::NotAFile, words(other)),
        };
        let moved = kind != DriftKind::NotAFile
            && !has_applied_value(applied, path, observed)
            && kept_hash(applied, path, observed).is_none();
        let (kind, wanted) = if moved {
            (
                DriftKind::SecretMoved,
                "the value of the applied release, which its source has no longer: a rollout brings the new one",
            )
        } else {
            (kind, "the value of the applied release")
        };
        items.push(item(kind, service_of(path), Some(path), wanted, found));
    }
    items
}

/// The secret files that a release was applied with.
fn files(applied: &Release) -> impl Iterator<Item = (&String, &SecretFile)> {
    applied.project.secrets.iter().filter(|(path, _)| applied.seals.contains_key(*path))
}

/// A secret file with other permission bits, or of another owner where its service insists on one.
fn other_access(path: &str, secret: &SecretFile, observed: &Observed) -> Option<DriftItem> {
    let Some(FileFact::File { mode, uid, gid, .. }) = observed.files.get(path) else { return None };
    let wanted = secret.owner.map_or((*uid, *gid), |owner| (owner.uid, owner.gid));
    if (*mode, (*uid, *gid)) == (secret.mode, wanted) {
        return None;
    }
    let words = |mode: u32, (uid, gid): (u32, u32)| match secret.owner {
        Some(_) => format!("mode {mode:04o}, owner {uid}:{gid}"),
        None => format!("mode {mode:04o}"),
    };
    let (wanted, found) = (words(secret.mode, wanted), words(*mode, (*uid, *gid)));
    Some(item(DriftKind::FileMode, service_of(path), Some(path), wanted, found))
}

/// Secrets that are asked for and cannot be had.
pub(super) fn missing(desired: &Project, observed: &Observed) -> Vec<DriftItem> {
    let references = desired.references();
    let missing = observed.secrets.missing_of(&references);
    missing
        .map(|(path, found)| {
            item(DriftKind::SecretMissing, service_of(path), Some(path), "a secret that can be read", found)
        })
        .collect()
}

/// The keyed hashes that the desired state would have; none before there is a key. What cannot be had now counts as
/// what it was.
pub(super) fn wanted_seals(desired: &Project, observed: &Observed) -> Seals {
    let Some(key) = &observed.seal_key else { return Seals::new() };
    let now = observed.secrets.sealed(&desired.references(), key);
    let before = |path: &String| {
        let applied = observed.applied.as_ref()?;
        let reference = |project: &Project| project.secrets.get(path).map(|file| file.reference.clone());
        let same = reference(&applied.project) == reference(desired);
        applied.seals.get(path).filter(|_| same)
    };
    let seal = |path: &String| Some((path.clone(), now.get(path).or_else(|| before(path))?.clone()));
    desired.secrets.keys().filter_map(seal).collect()
}

/// What a rollout changes in secrets; nothing of a value is told.
pub(super) fn compare(desired: &Project, observed: &Observed, items: &mut Vec<ChangeItem>) {
    let none = Seals::new();
    let before = observed.applied.as_ref().map_or(&none, |applied| &applied.seals);
    let after = wanted_seals(desired, observed);
    let mut push = |path: &String, from: &str, to: &str| {
        let service = service_of(path).map(str::to_owned);
        items.push(ChangeItem { service, path: path.clone(), from: from.to_owned(), to: to.to_owned() });
    };
    for path in desired.secrets.keys() {
        match (before.get(path), after.get(path)) {
            (None, _) => push(path, "nothing", "a value"),
            (Some(_), None) => {
                push(path, "a value whose key is gone from the host", "a value under a new key");
            }
            (Some(one), Some(other)) if one != other => push(path, "a value", "another value"),
            _ => {}
        }
    }
    for path in before.keys().filter(|path| !desired.secrets.contains_key(*path)) {
        push(path, "a value", "nothing");
    }
}
