//! What the operator keeps in a project's folder and knows still, put back where it is lost.

use super::{
    Context, Error,
    actions::{place_secret, set_aside},
};
use crate::{
    diff::secrets::KEY_MODE,
    host::{FileFact, Host, Placement, Source, Step},
    observe::{KEY_FILE, Observed},
    release::inline,
};

/// Writes a lost manifest, with the copies of its files, and a lost key; the ledger is written by the caller, after them.
pub(super) async fn put_back(host: &Host, observed: &Observed, context: &Context<'_>) -> Result<(), Error> {
    let mut steps = Vec::new();
    for path in observed.lost.iter().map(|lost| &lost.path) {
        let in_place = observed.files.get(path);
        if in_place.is_some_and(|fact| !matches!(fact, FileFact::File { .. })) {
            steps.push(set_aside(path, context));
        }
        let key = observed.seal_key.as_ref().filter(|_| path == KEY_FILE);
        steps.extend(key.map(|key| place_secret(KEY_FILE, KEY_MODE, &key.text())));
        let Some(applied) = observed.applied.as_ref().filter(|applied| applied.manifest_path() == *path)
        else {
            continue;
        };
        // The manifest comes last: with it, nothing is lost.
        let live = applied.files.iter().filter(|(file, record)| {
            observed.files.get(*file).and_then(FileFact::sha256) == Some(&record.sha256)
        });
        steps.extend(live.map(|(file, record)| {
            let (sha256, source) = (record.sha256.clone(), Source::Copy(file.clone()));
            Step::Place(Placement { path: applied.stored(file), mode: record.mode, sha256, source })
        }));
        steps.push(Step::Place(inline(path, &applied.manifest())));
    }
    if !steps.is_empty() {
        host.carry_out(context.lock, &context.project.folder, &steps).await?;
    }
    Ok(())
}
