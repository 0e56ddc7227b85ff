//! The project's folder: ledger, applied release, hold, key, files.

use std::collections::{BTreeMap, BTreeSet};

use super::{Hold, KEY_FILE, Observed, stack_folder};
use crate::{
    host::{Error, FileFact, Host, Listing},
    ledger::{LEDGER_FILE, Ledger},
    project::Project,
    release::Release,
    secret::SealKey,
    text::printable,
};

/// What the listing says of one project.
///
/// # Errors
/// When what the operator keeps there is there and cannot be read.
pub(super) fn read_folder(host: &Host, project: &Project, listing: &Listing) -> Result<Observed, Error> {
    let directory = host.target().directory.clone();
    let below = format!("{}/", project.folder);
    let mut files: BTreeMap<String, FileFact> = listing
        .files
        .iter()
        .filter_map(|(path, fact)| Some((path.strip_prefix(&below)?.to_owned(), fact.clone())))
        .collect();
    for part in [stack_folder(project), project.folder.as_str()] {
        if let Some(fact) = listing.files.get(part).filter(|fact| !fact.is_folder()) {
            files = BTreeMap::from([(".".to_owned(), fact.clone())]);
            break;
        }
    }
    let own_folders = [stack_folder(project), project.folder.as_str()].into_iter().filter_map(|part| {
        let fact = listing.files.get(part)?;
        Some((format!("{directory}/{part}"), fact.clone()))
    });
    let own_folders = own_folders.collect();
    let text = |path: &str| listing.texts.get(&format!("{below}{path}"));
    let key = format!("{}/.key", stack_folder(project));
    let seal_key = listing.texts.get(&key).and_then(|text| SealKey::read(text));
    files.extend(listing.files.get(&key).map(|fact| (KEY_FILE.to_owned(), fact.clone())));
    let hold = text("HOLD").map(|text| Hold::read(text));
    let (user, at) = (host.target().user.clone(), files.get(LEDGER_FILE));
    if let Some(FileFact::File { size: 1.., sha256: None, .. }) = at
        && text(LEDGER_FILE).is_none_or(Vec::is_empty)
    {
        let path = format!("{directory}/{below}{LEDGER_FILE}");
        return Err(Error::FileUnreadable { path, user });
    }
    let in_place = at.filter(|fact| !matches!(fact, FileFact::File { .. }));
    let (ledger, applied, damaged) = match kept_ledger(project, in_place, text, &directory) {
        Ok(ledger) => match kept_release(project, ledger.as_ref(), text, &directory) {
            Ok(applied) => {
                let applied = applied.map(|applied| match &ledger {
                    Some(ledger) => ledger.with_raised_memory(applied),
                    None => applied,
                });
                (ledger, applied, None)
            }
            Err(error) => (ledger, None, Some(error)),
        },
        Err(error) => (None, None, Some(error)),
    };
    let former_owners = former_owners(project, listing);
    Ok(Observed {
        damaged,
        hold,
        ledger,
        former_owners,
        applied,
        directory,
        own_folders,
        files,
        seal_key,
        ..Observed::default()
    })
}

/// Owners from whom projects of the stack were taken over, by the ledgers of all its components: networks are shared.
fn former_owners(project: &Project, listing: &Listing) -> BTreeSet<String> {
    let below = format!("{}/", stack_folder(project));
    let is_ledger = |path: &str| {
        path.strip_prefix(&below)
            .and_then(|path| path.split_once('/'))
            .is_some_and(|(_, file)| file == LEDGER_FILE)
    };
    let ledgers = listing.texts.iter().filter(|(path, _)| is_ledger(path));
    let ledgers = ledgers.filter_map(|(_, text)| Ledger::read(text).ok());
    ledgers.filter(|ledger| ledger.owner == project.owner).flat_map(|ledger| ledger.former_owners).collect()
}

/// What of ours in a project's folder is not as it was written.
pub(crate) fn damaged(directory: &str, project: &Project, path: &str, found: &str) -> Error {
    let path = printable(&format!("{directory}/{}/{path}", project.folder));
    Error::ReleaseDamaged { path, found: printable(found) }
}

fn kept_ledger<'a>(
    project: &Project,
    in_place: Option<&FileFact>,
    text: impl Fn(&str) -> Option<&'a Vec<u8>>,
    directory: &str,
) -> Result<Option<Ledger>, Error> {
    if in_place.is_some() {
        return Err(damaged(directory, project, LEDGER_FILE, "something that is no file"));
    }
    let ledger = text(LEDGER_FILE).map(|text| Ledger::read(text)).transpose();
    ledger.map_err(|found| damaged(directory, project, LEDGER_FILE, &found))
}

/// The release that a ledger names.
fn kept_release<'a>(
    project: &Project,
    ledger: Option<&Ledger>,
    text: impl Fn(&str) -> Option<&'a Vec<u8>>,
    directory: &str,
) -> Result<Option<Release>, Error> {
    let Some(id) = ledger.and_then(|ledger| ledger.current.as_ref()) else { return Ok(None) };
    let path = format!("releases/{id}/manifest.json");
    let text = text(&path).ok_or_else(|| damaged(directory, project, &path, "nothing"))?;
    Release::read(text).map(Some).map_err(|found| damaged(directory, project, &path, &found))
}
