//! What is there. Reads the host, writes nothing, knows no policy.

use std::collections::BTreeMap;

use crate::{
    desired::Project,
    host::{Container, Error, FileFact, Host, HostLock, Listing},
    release::{Ledger, Release},
};

/// One project on a host, as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Whether another writer is at work: then what is there is neither drift nor change.
    pub busy: bool,
    /// What the operator keeps there and cannot read any more.
    pub damaged: Option<Error>,
    /// What happened to it, where the operator was here before.
    pub ledger: Option<Ledger>,
    /// The release that was last rolled out.
    pub applied: Option<Release>,
    /// Live files, by path from the project's folder.
    pub files: BTreeMap<String, FileFact>,
    /// Containers of the project.
    pub containers: Vec<Container>,
}

/// Looks at one project on a host; with the lock, nobody else is at work there.
///
/// # Errors
/// When the host cannot be read, or what the operator keeps there is damaged.
pub async fn observe(host: &Host, project: &Project, lock: Option<&HostLock>) -> Result<Observed, Error> {
    let folder = format!("{}/{}", host.target().directory, project.folder);
    host.connect().await?;
    let (listing, containers) =
        futures::future::try_join(host.list(&folder), host.containers(&project.name)).await?;
    let damaged =
        |path: &str, found: String| Error::ReleaseDamaged { path: format!("{folder}/{path}"), found };
    let kept = kept(&listing, damaged);
    let (ledger, applied, damaged) = match kept {
        Ok((ledger, applied)) => (ledger, applied, None),
        Err(error) => (None, None, Some(error)),
    };
    if let Some(other) = ledger.as_ref().filter(|ledger| ledger.owner != project.owner) {
        return Err(Error::NameConflict { project: project.name.clone(), found: other.stack.clone() });
    }
    let busy = listing.locked && lock.is_none();
    Ok(Observed { busy, damaged, ledger, applied, files: listing.files, containers })
}

/// The ledger and the release that it names.
fn kept(
    listing: &Listing,
    damaged: impl Fn(&str, String) -> Error,
) -> Result<(Option<Ledger>, Option<Release>), Error> {
    let Some(text) = &listing.ledger else { return Ok((None, None)) };
    let ledger = Ledger::read(text).map_err(|found| damaged("ledger.json", found))?;
    let Some(id) = &ledger.current else { return Ok((Some(ledger), None)) };
    let path = format!("releases/{id}/manifest.json");
    let text = listing.manifests.get(id).ok_or_else(|| damaged(&path, "nothing".to_owned()))?;
    let release = Release::read(text).map_err(|found| damaged(&path, found))?;
    Ok((Some(ledger), Some(release)))
}
